//! What must hold of the table whatever has happened: recounted from its rows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::api::Api;

/// The seats of the plan that every bucket here is on.
const SEATS: usize = 5;

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_else(|| panic!("no {name} in {row}")).to_owned()
}

/// Pairs of two attributes of the rows of one type, for buckets that `counts`.
fn pairs(
    rows: &[Value],
    kind: &str,
    names: (&str, &str),
    counts: &BTreeSet<String>,
) -> BTreeSet<(String, String)> {
    rows.iter()
        .filter(|row| row["type"] == kind && counts.contains(&text(row, "bucket_id")))
        .map(|row| (text(row, names.0), text(row, names.1)))
        .collect()
}

/// Asserts every invariant on the table as it is now.
pub(crate) async fn hold(api: &Api) {
    hold_in(&api.rows().await);
}

/// Asserts every invariant on rows that hang together: buckets, with all of their people.
pub(crate) fn hold_in(rows: &[Value]) {
    assert!(rows.iter().all(|row| row["type"].is_string()), "half a row: {rows:?}");
    let of = |kind: &'static str| rows.iter().filter(move |row| row["type"] == kind);
    let live: BTreeSet<String> =
        of("bucket").filter(|row| row["deleted_at"].is_null()).map(|row| text(row, "id")).collect();

    let members = pairs(rows, "member", ("bucket_id", "user_id"), &live);
    let invitations = pairs(rows, "invitation", ("bucket_id", "email"), &live);
    assert_eq!(
        members,
        pairs(rows, "bucket_pointer", ("bucket_id", "user_id"), &live),
        "pointers of members"
    );
    assert_eq!(
        invitations,
        pairs(rows, "invitation_pointer", ("bucket_id", "email"), &live),
        "pointers of invitations"
    );

    let mut owned: BTreeMap<String, u64> = BTreeMap::new();
    for bucket in of("bucket").filter(|row| row["deleted_at"].is_null()) {
        let id = text(bucket, "id");
        let owners: Vec<_> = of("member")
            .filter(|row| row["bucket_id"] == *id && row["role"] == "owner")
            .map(|row| text(row, "user_id"))
            .collect();
        assert_eq!(owners, [text(bucket, "owner_id")], "the one owner of {id}");
        *owned.entry(text(bucket, "owner_id")).or_default() += 1;

        let in_bucket = |pairs: &BTreeSet<(String, String)>| pairs.iter().filter(|(of, _)| *of == id).count();
        let seats = in_bucket(&members) + in_bucket(&invitations);
        assert_eq!(bucket["seats_used"], seats, "the seats of {id}");
        assert!(seats <= SEATS, "{id} has {seats} seats");

        let servers = of("server").filter(|row| row["bucket_id"] == *id).count();
        assert_eq!(bucket["servers_used"], servers, "the servers of {id}");

        let addresses: BTreeSet<_> =
            of("member").filter(|row| row["bucket_id"] == *id).map(|row| text(row, "email")).collect();
        assert_eq!(addresses.len(), in_bucket(&members), "an address of {id} is twice a member");
        assert!(
            invitations.iter().all(|(of, email)| *of != id || !addresses.contains(email)),
            "a member of {id} is invited"
        );
    }
    for user in of("user") {
        let id = text(user, "id");
        assert_eq!(user["buckets_owned"], owned.get(&id).copied().unwrap_or_default(), "buckets of {id}");
        assert!(user["unfinished"].is_null(), "{id} is unfinished");
        let claims = of("email_claim").filter(|claim| claim["user_id"] == *id);
        assert_eq!(claims.map(|claim| text(claim, "email")).collect::<Vec<_>>(), [text(user, "email")]);
    }
    assert_eq!(of("user").count(), of("email_claim").count(), "a claim without user");
}
