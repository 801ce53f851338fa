//! What a table says, in the terms of the model.

use std::collections::BTreeMap;

use serde_json::Value;
use shared::domain::{PlanName, Plans, Role};

use crate::{
    engine::{Item, plain},
    invariants::{self, text},
    model::{
        Address, Audit, Bucket, BucketNo, Change, ChangeNo, ConnectionNo, EventNo, Invitation, Mail, Member,
        Person, SecretNo, Server, ServerNo, State, Subscription, Time, User,
    },
    world::{Names, number, time, user_id},
};

/// How many people and addresses there may be in a story.
const MOST: u8 = 16;

/// The person whose id is `id`.
pub(crate) fn person(id: &str) -> Result<Person, String> {
    (0..MOST)
        .map(Person)
        .find(|person| user_id(*person).as_str() == id)
        .ok_or_else(|| format!("{id} is nobody"))
}

/// The address that is written `text`.
pub(crate) fn address(text: &str) -> Result<Address, String> {
    (0..MOST)
        .map(Address)
        .find(|address| address.to_string() == text)
        .ok_or_else(|| format!("{text} is nobody's address"))
}

/// The id of the first audit entry of a bucket that tells of `action`.
pub(crate) fn audit_id(rows: &[Item], bucket: &str, action: &str) -> Result<String, String> {
    let rows = plain_rows(rows)?;
    rows.iter()
        .find(|row| row["type"] == "audit" && row["bucket_id"] == bucket && row["action"] == action)
        .map_or_else(|| Err(format!("{action} of {bucket} was not noted")), |row| text(row, "id"))
}

fn plain_rows(rows: &[Item]) -> Result<Vec<Value>, String> {
    rows.iter().map(|row| plain(row).map_err(|error| error.to_string())).collect()
}

fn count(row: &Value, name: &str) -> Result<u32, String> {
    row[name]
        .as_u64()
        .and_then(|count| u32::try_from(count).ok())
        .ok_or_else(|| format!("half a row, without {name}: {row}"))
}

fn maybe_time(row: &Value, name: &str) -> Option<Time> {
    row[name].as_i64().and_then(time)
}

fn some_time(row: &Value, name: &str) -> Result<Time, String> {
    maybe_time(row, name).ok_or_else(|| format!("half a row, without {name}: {row}"))
}

fn role(row: &Value) -> Result<Role, String> {
    serde_json::from_value(row["role"].clone()).map_err(|error| format!("{error}: {row}"))
}

fn numbered(row: &Value, name: &str) -> Result<u8, String> {
    number(&text(row, name)?).ok_or_else(|| format!("{name} is no number of the story: {row}"))
}

/// What `rows` say at `now`.
///
/// # Errors
/// They break an invariant, or say what nobody in the story has done.
pub(crate) fn state(rows: &[Item], names: &Names, plans: &Plans, now: Time) -> Result<State, String> {
    let rows = plain_rows(rows)?;
    invariants::hold(&rows)?;
    let mut kinds: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for row in &rows {
        kinds.entry(text(row, "type")?).or_default().push(row);
    }
    let of = |kind: &str| kinds.get(kind).into_iter().flatten().copied();
    let numbers: BTreeMap<&str, BucketNo> = names.buckets.iter().map(|(no, id)| (id.as_str(), *no)).collect();
    let bucket_no = |row: &Value, name: &str| {
        let id = text(row, name)?;
        numbers.get(id.as_str()).copied().ok_or_else(|| format!("nobody was told of the bucket {id}: {row}"))
    };

    let mut state = State { now, ..State::new(plans.clone()) };
    for row in of("user") {
        let user = User {
            address: address(&text(row, "email")?)?,
            since: count(row, "email_from")?,
            trial_used: row["trial_used"] == true,
            customer: row["stripe_customer"].as_str().and_then(number),
            unfinished: row["unfinished"] == true,
        };
        state.users.insert(person(&text(row, "id")?)?, user);
    }
    for row in of("bucket") {
        let no = bucket_no(row, "id")?;
        let secret = text(row, "secret_id")?;
        let secret = names.secrets.iter().find(|(_, known)| **known == secret);
        let (owner, secret) = (person(&text(row, "owner_id")?)?, secret.map(|(no, _)| *no));
        let bucket = Bucket {
            name: numbered(row, "name")?,
            comment: numbered(row, "comment")?,
            plan: PlanName::from(text(row, "plan")?),
            plan_ends: maybe_time(row, "plan_ends_at"),
            trial_ends: maybe_time(row, "trial_ends_at"),
            deleted: !row["deleted_at"].is_null(),
            ..Bucket::new(owner, secret.unwrap_or(SecretNo(u8::MAX)))
        };
        state.buckets.insert(no, bucket);
    }
    for kind in ["member", "invitation", "server", "feedback", "audit", "subscription", "billing_change"] {
        for row in of(kind) {
            let no = bucket_no(row, "bucket_id")?;
            let bucket = state.buckets.get_mut(&no).ok_or_else(|| format!("a {kind} of no bucket: {row}"))?;
            hang(row, kind, no, bucket, names)?;
        }
    }
    for row in of("agent_connection") {
        let connection = ConnectionNo(numbered(row, "id")?);
        let server = ServerNo(numbered(row, "server")?);
        state.connections.insert(connection, (bucket_no(row, "bucket_id")?, server));
    }
    for row in of("agent_attempts") {
        if let Some(machine) = text(row, "subnet")?.strip_prefix("192.0.2.").and_then(number) {
            let tried = row["tried"].as_array().map_or(0, Vec::len);
            let tried = u32::try_from(tried).map_err(|error| error.to_string())?;
            state.guesses.insert(machine, (tried, some_time(row, "until")?));
        }
    }
    for row in of("stripe_event") {
        state.events.insert(EventNo(numbered(row, "id")?));
    }

    Ok(state)
}

/// Hangs what `row` says under its bucket.
fn hang(row: &Value, kind: &str, no: BucketNo, bucket: &mut Bucket, names: &Names) -> Result<(), String> {
    match kind {
        "member" => {
            let options: Value =
                serde_json::from_str(&text(row, "options")?).map_err(|error| error.to_string())?;
            let member = Member {
                role: role(row)?,
                address: address(&text(row, "email")?)?,
                muted: text(row, "notification")? == "none",
                options: options["n"].as_u64().and_then(|n| u8::try_from(n).ok()).unwrap_or_default(),
            };
            bucket.members.insert(person(&text(row, "user_id")?)?, member);
        }
        "invitation" => {
            let invitation = Invitation {
                role: role(row)?,
                by: person(&text(row, "invited_by")?)?,
                expires: some_time(row, "expires_at")?,
            };
            bucket.invitations.insert(address(&text(row, "email")?)?, invitation);
        }
        "server" => {
            let ids = row["connections"].as_array().into_iter().flatten();
            let connections = ids.filter_map(|id| number(id.as_str()?)).map(ConnectionNo).collect();
            let (last_seen, oversized) = (some_time(row, "last_seen")?, maybe_time(row, "oversized_at"));
            let server = Server { connections, last_seen, oversized };
            bucket.servers.insert(ServerNo(numbered(row, "name")?), server);
        }
        "feedback" => bucket.feedback += 1,
        "audit" => {
            let maybe = |name: &str| row[name].as_str();
            let entry = Audit {
                action: text(row, "action")?,
                actor: maybe("actor_id").map(person).transpose()?,
                target: maybe("target_id").map(person).transpose()?,
                address: maybe("target_email").map(address).transpose()?,
                server: maybe("server").and_then(number).map(ServerNo),
                role: (!row["role"].is_null()).then(|| role(row)).transpose()?,
            };
            *bucket.audit.entry(entry).or_default() += 1;
            if names.mails.get(&no) == Some(&text(row, "id")?) {
                let (lease, sent) = (maybe_time(row, "mail_lease"), !row["mailed_at"].is_null());
                bucket.mail = Mail { lease, sent };
            }
        }
        "subscription" => {
            let told = &row["subscription"];
            let over = told["status"] == "canceled";
            let ends = if over { maybe_time(told, "period_end") } else { maybe_time(told, "cancel_at") };
            let plan = PlanName::from(text(told, "plan")?);
            bucket.subscription = Some(Subscription { plan, ends, over, version: count(row, "version")? });
        }
        _ => {
            let id = text(row, "id")?;
            let known = names.changes.iter().find(|(_, known)| **known == id);
            bucket.change = Some(Change {
                no: known.map_or(ChangeNo(u8::MAX), |(no, _)| *no),
                lease: some_time(row, "lease_until")?,
                call: !row["call_path"].is_null(),
                replaced: !row["replaced"].is_null(),
            });
        }
    }
    Ok(())
}
