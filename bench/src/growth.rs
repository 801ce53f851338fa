//! What becomes of a function as there is more: members of a bucket, buckets of a person.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::functions::milliseconds;
use crate::proxy::Proxy;
use crate::stage::ENDPOINT;
use crate::table::{Rows, delete, item, put};
use crate::{Failure, Instance, Samples, Stage};

/// Functions whose work may depend on how many members there are.
const OF_A_BUCKET: [&str; 3] = ["retrieve", "retrieve_users", "invite_user"];

/// How many there are of what there is more of.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Members that a bucket has.
    pub members: Vec<u32>,
    /// Buckets that a person has.
    pub buckets: Vec<u32>,
}

/// What a function costs with so many.
#[derive(Clone, Debug)]
pub struct Growth {
    /// The function.
    pub function: &'static str,
    /// What there is more of: `members` or `buckets`.
    pub what: &'static str,
    /// How many there are.
    pub count: u32,
    /// From an event to its answer, in milliseconds.
    pub took: Samples,
    /// Processor time of an event, in milliseconds.
    pub cpu: Option<f64>,
    /// Calls of one event to the table.
    pub calls: usize,
    /// Read units of one event.
    pub read_units: f64,
    /// Write units of one event.
    pub write_units: f64,
    /// Bytes of the answer.
    pub bytes: usize,
    /// The most memory that was resident, in MiB.
    pub memory: Option<f64>,
}

/// Measures each function and size with `events` events, each size on a stack of its own, started as
/// [`Stage::set`] says.
pub async fn grow(
    workspace: &Path,
    binaries: &Path,
    latency: Duration,
    sizes: &Sizes,
    events: u32,
    told: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Growth>, Failure> {
    let mut all = Vec::new();
    for count in sizes.members.iter().copied() {
        told(&format!("growth: {count} members"));
        let stage = Stage::set(workspace, binaries, latency).await?;
        let bucket = format!("{count:024x}");
        let rows = bucket_of(&stage, &bucket, count)?;
        stage.table.write(rows.values().map(put).collect()).await?;
        for function in OF_A_BUCKET {
            let case = stage.ordinary(function);
            let case = case.ok_or_else(|| Failure::function(function, "has no event"))?;
            let mut event = case.event.clone();
            set(&mut event, "/pathParameters/id", &bucket);
            all.push(one(&stage, (function, "members", count), event, Some(&bucket), events).await?);
        }
        stage.stop().await;
    }
    for count in sizes.buckets.iter().copied() {
        told(&format!("growth: {count} buckets of a person"));
        let stage = Stage::set(workspace, binaries, latency).await?;
        // Nothing but these, so that there are so many and no more.
        stage.table.restore(&buckets_of(&stage, count)?).await?;
        let event = stage.case("retrieve_all", "listed")?.event.clone();
        all.push(one(&stage, ("retrieve_all", "buckets", count), event, None, events).await?);
        stage.stop().await;
    }
    Ok(all)
}

async fn one(
    stage: &Stage,
    (function, what, count): (&'static str, &'static str, u32),
    mut event: Value,
    bucket: Option<&str>,
    events: u32,
) -> Result<Growth, Failure> {
    set(&mut event, "/headers/authorization", &token(stage, "as_owner")?);
    let invited = |number: u32| format!("guest{number}@example.com");
    let numbered = |number: u32| {
        let mut event = event.clone();
        if function == "invite_user" {
            set(&mut event, "/body", &json!({ "email": invited(number), "role": "user" }).to_string());
        }
        Bytes::from(event.to_string())
    };
    // Whoever was invited is forgotten again, or the answer would grow with the number of events.
    let forget = async |number: u32| match bucket.filter(|_| function == "invite_user") {
        None => Ok(()),
        Some(bucket) => {
            let email = invited(number);
            let invitation = delete(&format!("BUCKET#{bucket}"), &format!("INVITATION#{email}"));
            let pointer = delete(&format!("EMAIL#{email}"), &format!("INVITATION#{bucket}"));
            stage.table.write(vec![invitation, pointer]).await
        }
    };
    let mut bootstrap = stage.bootstrap(function)?;

    let mut instance = Instance::start(&bootstrap).await?;
    let mut took = Samples::default();
    let mut bytes = 0;
    // The first is not like the others.
    checked(function, &instance.invoke(&numbered(0)).await?.answer)?;
    forget(0).await?;
    let before = instance.cpu();
    for number in 1..=events {
        let invocation = instance.invoke(&numbered(number)).await?;
        checked(function, &invocation.answer)?;
        took.push(milliseconds(invocation.took));
        bytes = invocation.answer.len();
        forget(number).await?;
    }
    let cpu = before.zip(instance.cpu());
    let cpu =
        cpu.map(|(before, after)| milliseconds(after.saturating_sub(before)) / f64::from(events.max(1)));
    let memory = instance.peak_memory().map(|memory| f64::from(memory) / 1024.0);
    instance.end().await?;

    let proxy = Proxy::before(stage.stack.dynamodb_endpoint(), Duration::ZERO).await?;
    bootstrap.environment.insert(ENDPOINT.to_owned(), proxy.endpoint.clone());
    let mut instance = Instance::start(&bootstrap).await?;
    proxy.take();
    instance.invoke(&numbered(0)).await?;
    let calls = proxy.take().len();
    forget(0).await?;
    let line = instance.line().await?;
    let number = |name| line.get(name).and_then(Value::as_f64).unwrap_or_default();
    let (read_units, write_units) = (number("read_units"), number("write_units"));
    instance.end().await?;
    Ok(Growth { function, what, count, took, cpu, calls, read_units, write_units, bytes, memory })
}

fn checked(function: &str, answer: &[u8]) -> Result<(), Failure> {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    if answer.get("statusCode").and_then(Value::as_u64) == Some(200) {
        return Ok(());
    }
    Err(Failure::function(function, format!("answers {answer}")))
}

/// Who the events' owner is, and their token.
fn token(stage: &Stage, name: &str) -> Result<String, Failure> {
    let token = stage.case("retrieve", name)?.event.pointer("/headers/authorization").and_then(Value::as_str);
    token.map(str::to_owned).ok_or_else(|| Failure::function("retrieve", "has an event without a token"))
}

fn set(event: &mut Value, pointer: &str, text: &str) {
    if let Some(place) = event.pointer_mut(pointer) {
        *place = text.into();
    }
}

/// The rows that new ones are like: a bucket of one alone, its owner's membership and pointer, and the owner.
struct Models<'a> {
    bucket: &'a Value,
    member: &'a Value,
    pointer: &'a Value,
    owner: String,
    id: String,
}

impl<'a> Models<'a> {
    fn of(stage: &'a Stage) -> Result<Self, Failure> {
        let of_type =
            |name: &'static str| stage.rows.values().filter(move |row| text(row, "/type/S") == name);
        let is_live = |row: &&Value| row.get("deleted_at").is_none() && text(row, "/seats_used/N") == "1";
        let bucket = of_type("bucket").find(is_live);
        let bucket = bucket.ok_or_else(|| Failure::Table("has no bucket of one alone".to_owned()))?;
        let (id, owner) = (text(bucket, "/id/S").to_owned(), text(bucket, "/owner_id/S").to_owned());
        let is_theirs = |row: &&Value| text(row, "/bucket_id/S") == id && text(row, "/user_id/S") == owner;
        let (member, pointer) =
            (of_type("member").find(is_theirs), of_type("bucket_pointer").find(is_theirs));
        let both = member.zip(pointer);
        let (member, pointer) = both.ok_or_else(|| Failure::Table("has no such member".to_owned()))?;
        Ok(Self { bucket, member, pointer, owner, id })
    }
}

fn text<'a>(row: &'a Value, pointer: &str) -> &'a str {
    row.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `row` with other texts in the place of some.
fn like(row: &Value, texts: &[(&str, &str)]) -> Value {
    let attributes = row.as_object().into_iter().flatten().map(|(name, attribute)| {
        let Some(text) = attribute.get("S").and_then(Value::as_str) else {
            return (name.clone(), attribute.clone());
        };
        let new = texts.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new));
        (name.clone(), json!({ "S": new }))
    });
    attributes.collect::<Map<_, _>>().into()
}

fn insert(rows: &mut Rows, row: Value) {
    rows.insert((text(&row, "/pk/S").to_owned(), text(&row, "/sk/S").to_owned()), row);
}

/// A bucket of `count` members, the events' owner among them, with those of its rows that are read.
fn bucket_of(stage: &Stage, bucket: &str, count: u32) -> Result<Rows, Failure> {
    let models = Models::of(stage)?;
    let mut rows = Rows::new();
    let mut row = like(models.bucket, &[(&models.id, bucket), ("k3y0fstaging000", "k3y0fgrowth0000")]);
    let numbers = item(&json!({ "plan": "enterprise", "seats_used": count }));
    if let (Some(row), Some(numbers)) = (row.as_object_mut(), numbers.as_object()) {
        row.extend(numbers.clone());
    }
    insert(&mut rows, row);
    insert(&mut rows, like(models.member, &[(&models.id, bucket)]));
    for number in 1..count {
        let (user, name) = (format!("{number:024x}"), format!("member{number}"));
        let mut texts = vec![(&*models.id, bucket), (&*models.owner, &*user)];
        texts.extend([("alice", &*name), ("owner", "user")]);
        insert(&mut rows, like(models.member, &texts));
    }
    Ok(rows)
}

/// The events' owner, with `count` buckets and no more.
fn buckets_of(stage: &Stage, count: u32) -> Result<Rows, Failure> {
    let models = Models::of(stage)?;
    let is_person = |row: &&Value| {
        text(row, "/id/S") == models.owner && text(row, "/type/S") == "user"
            || text(row, "/user_id/S") == models.owner && text(row, "/type/S") == "email_claim"
    };
    let mut rows = Rows::new();
    stage.rows.values().filter(is_person).for_each(|row| insert(&mut rows, row.clone()));
    for number in 1..=count {
        let (bucket, key) = (format!("{number:024x}"), format!("k3y{number:012}"));
        let texts = [(&*models.id, &*bucket), ("k3y0fstaging000", &*key)];
        for row in [models.bucket, models.member, models.pointer] {
            insert(&mut rows, like(row, &texts));
        }
    }
    Ok(rows)
}

/// By function and what there is more of, in the order of their sizes.
pub(crate) fn by_function(growth: &[Growth]) -> BTreeMap<(&str, &str), Vec<&Growth>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for one in growth {
        all.entry((one.function, one.what)).or_default().push(one);
    }
    all
}
