//! What must hold of the table whatever has happened: recounted from its rows.

use std::collections::BTreeSet;

use serde_json::Value;

use super::api::Api;

/// The seats of the plan that every bucket here is on.
const SEATS: u64 = 5;

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_else(|| panic!("no {name} in {row}")).to_owned()
}

/// Asserts every invariant on the table as it is now.
pub(crate) async fn hold(api: &Api) {
    hold_in(&api.rows().await);
}

/// Asserts every invariant on rows that hang together: buckets, with all of their people.
pub(crate) fn hold_in(rows: &[Value]) {
    proof::invariants::hold(rows).unwrap();
    let of = |kind: &'static str| rows.iter().filter(move |row| row["type"] == kind);
    for bucket in of("bucket").filter(|row| row["deleted_at"].is_null()) {
        let id = text(bucket, "id");
        let seats = bucket["seats_used"].as_u64().unwrap();
        assert!(seats <= SEATS, "{id} has {seats} seats");

        let in_bucket = |kind| of(kind).filter(|row| row["bucket_id"] == *id).map(|row| text(row, "email"));
        let addresses: BTreeSet<_> = in_bucket("member").collect();
        assert_eq!(addresses.len(), in_bucket("member").count(), "an address of {id} is twice a member");
        assert!(
            in_bucket("invitation").all(|email| !addresses.contains(&email)),
            "a member of {id} is invited"
        );
    }
    for user in of("user") {
        assert!(user["unfinished"].is_null(), "{} is unfinished", text(user, "id"));
    }
}
