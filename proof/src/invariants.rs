//! What must hold of every table, whatever has happened: recounted from its rows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Asserts that `rows`, all of a table or those that hang together, keep every invariant: no half rows; each
/// row has its pointer and each pointer its row; every address is one person's; a live bucket has one owner,
/// counts its seats and servers right, and shows its members under their addresses; and people count right
/// what they own.
///
/// # Errors
/// One is broken, which is told.
pub fn hold(rows: &[Value]) -> Result<(), String> {
    let mut kinds: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for row in rows {
        kinds.entry(text(row, "type")?).or_default().push(row);
    }
    let of = |kind: &str| kinds.get(kind).into_iter().flatten().copied();
    let live = || of("bucket").filter(|row| row["deleted_at"].is_null());
    let pairs = |kind, one, other| of(kind).map(move |row| pair(row, one, other));

    same_pairs(
        "claims of addresses",
        pairs("email_claim", "email", "user_id"),
        pairs("user", "email", "id"),
    )?;
    same_pairs(
        "pointers of members",
        pairs("bucket_pointer", "bucket_id", "user_id"),
        pairs("member", "bucket_id", "user_id"),
    )?;
    same_pairs(
        "pointers of invitations",
        pairs("invitation_pointer", "bucket_id", "email"),
        pairs("invitation", "bucket_id", "email"),
    )?;
    same_pairs(
        "keys of agents",
        pairs("agent_key", "bucket_id", "public_id"),
        live().map(|row| pair(row, "id", "public_id")),
    )?;

    let mut owned: BTreeMap<String, usize> = BTreeMap::new();
    for bucket in live() {
        let (id, owned_by) = pair(bucket, "id", "owner_id")?;
        let here = |kind| of(kind).filter(|row| row["bucket_id"] == *id);
        counted(bucket, "seats_used", here("member").count() + here("invitation").count())?;
        counted(bucket, "servers_used", here("server").count())?;
        let owners = here("member").filter(|row| row["role"] == "owner").map(|row| text(row, "user_id"));
        let owners = owners.collect::<Result<Vec<_>, _>>()?;
        if owners != [owned_by.clone()] {
            return Err(format!("bucket {id} is {owned_by}'s, and its members with the role are {owners:?}"));
        }
        for member in here("member") {
            let user = of("user").find(|user| user["id"] == member["user_id"]);
            // Until what follows a change of address has followed, the member shows the former one.
            if user.is_none_or(|user| user["unfinished"].is_null() && user["email"] != member["email"]) {
                return Err(format!("a member who has another address, or is nobody: {member}"));
            }
        }
        *owned.entry(owned_by).or_default() += 1;
    }
    for user in of("user") {
        counted(user, "buckets_owned", owned.get(&text(user, "id")?).copied().unwrap_or_default())?;
    }
    Ok(())
}

/// The text `name` of `row`.
pub(crate) fn text(row: &Value, name: &str) -> Result<String, String> {
    row[name].as_str().map(str::to_owned).ok_or_else(|| format!("half a row, without {name}: {row}"))
}

fn counted(row: &Value, name: &str, count: usize) -> Result<(), String> {
    if row[name] == count { Ok(()) } else { Err(format!("{name} should be {count}: {row}")) }
}

type Pair = Result<(String, String), String>;

fn pair(row: &Value, one: &str, other: &str) -> Pair {
    Ok((text(row, one)?, text(row, other)?))
}

fn same_pairs(
    what: &str,
    pairs: impl Iterator<Item = Pair>,
    of: impl Iterator<Item = Pair>,
) -> Result<(), String> {
    let (pairs, of) = (pairs.collect::<Result<BTreeSet<_>, _>>()?, of.collect::<Result<BTreeSet<_>, _>>()?);
    if pairs == of { Ok(()) } else { Err(format!("{what}: {pairs:?}, but there are {of:?}")) }
}
