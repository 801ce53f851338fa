//! Fields that no route takes, sent to every route: what a client may not set stays as if it had not been sent.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    api::Api,
    every_route::{UNKNOWN, calls},
    invariants,
    matrix::{Cast, good_body},
    servers,
};

/// What would be found in the table if it was taken from the body.
const TEXT: &str = "taken-from-the-body";
const NUMBER: u64 = 987_654_321;
const HEX: &str = "fedcba9876543210fedcba98";
const KEY: &str = "takenfromabody0";

/// What the rows hold, and what has made objects of other servers something else.
fn unasked() -> Map<String, Value> {
    let texts = [
        "owner_username",
        "trial_plan",
        "stripe_customer",
        "username",
        "pk",
        "sk",
        "type",
        "",
        "#role",
        "name",
        "comment",
        "feedback",
        "server_name",
        "stripe_token",
        "coupon_id",
        "client_id",
    ];
    let numbers = [
        "seats_used",
        "servers_used",
        "version",
        "created_at",
        "updated_at",
        "deleted_at",
        "plan_ends_at",
        "trial_ends_at",
        "buckets_owned",
        "email_from",
        "expires_at",
        "last_seen",
        "ttl",
        "mail_lease",
    ];
    let ids =
        ["owner_id", "Owner_Id", "OWNER_ID", "invited_by", "user_id", "bucket_id", "actor_id", "_id", "id"];
    let others = json!({
        "secret_id": KEY, "public_id": KEY, "private_id": KEY, "unfinished": true, "trial_used": true,
        "is_admin": true, "connections": [TEXT], "subscription": { "id": TEXT },
        "credits": { "payer": { "_id": HEX } }, "__proto__": { "role": TEXT },
        "constructor": { "prototype": { "role": TEXT } }, "$set": { "role": TEXT }, "role": "owner", "plan": "pro",
        "app_url": "https://example.com/taken-from-the-body", "configuration": { "a": TEXT },
        "email": "taken-from-the-body@example.com", "new_owner": "taken-from-the-body@example.com",
        "state": "none", "options": { "a": TEXT },
    });
    let mut fields = others.as_object().unwrap().clone();
    fields.extend(texts.map(|name| (name.to_owned(), json!(TEXT))));
    fields.extend(numbers.map(|name| (name.to_owned(), json!(NUMBER))));
    fields.extend(ids.map(|name| (name.to_owned(), json!(HEX))));
    fields
}

/// The fields that `function` takes, though its good body has not all of them: they are its own to test.
fn optional(function: &str) -> &'static [&'static str] {
    match function {
        "create" => &["comment", "app_url"],
        "update" => &["comment", "app_url", "configuration"],
        "invite_user" => &["role"],
        "upgrade" => &["stripe_token", "coupon_id"],
        _ => &[],
    }
}

/// What of a row does not change from one run to the next: the names of its attributes, and what they hold
/// where that is neither an id nor a time.
fn lasting(row: &Value) -> (Vec<String>, Vec<Value>) {
    let row = row.as_object().unwrap();
    let values = [
        "type",
        "plan",
        "role",
        "email",
        "seats_used",
        "servers_used",
        "version",
        "buckets_owned",
        "trial_used",
        "trial_plan",
        "name",
        "comment",
        "app_url",
        "configuration",
        "state",
        "notifications",
        "options",
        "action",
        "hostname",
        "cpus",
    ];
    (row.keys().cloned().collect(), values.map(|name| row.get(name).cloned().unwrap_or_default()).to_vec())
}

/// Calls every route that changes something, each for a bucket of its own and with `more` in the body, and gives
/// the rows that are there in the end.
async fn rows_after(more: &Map<String, Value>) -> Vec<Value> {
    let api = Api::with_parameters(&[("BucketsPerOwner", "1000")]).await;
    let cast = Cast::of(&api).await;
    let mut changed = BTreeSet::new();
    for call in calls(&api, UNKNOWN).iter().filter(|call| call.method != "GET") {
        let bucket = cast.bucket_for(&call.function).await;
        let mut body = match call.function.as_str() {
            "node_verify" => servers::message(&bucket, "web-2"),
            function => good_body(function),
        };
        let own = body.as_object_mut().unwrap();
        for (name, value) in more {
            if !optional(&call.function).contains(&name.as_str()) {
                own.entry(name).or_insert_with(|| value.clone());
            }
        }
        if let Some(data) = own.get_mut("data").and_then(Value::as_object_mut) {
            for (name, value) in more {
                data.entry(name).or_insert_with(|| value.clone());
            }
        }
        let id = bucket["_id"].as_str().unwrap();
        // The address of an invitation may stand in three places, and the query counts first.
        let path = call.path.replace(UNKNOWN, id).replace("{email}", "invited@example.com");
        let token = Some(cast.by_kind["owner"].token.as_str());

        let answer = api.send(&call.method, &path, token, Some(&body.to_string())).await;

        let expected =
            if matches!(call.function.as_str(), "not_found" | "stripe_webhook") { 404 } else { 200 };
        assert_eq!(answer.status, expected, "{}: {}", call.function, answer.body);
        changed.insert(call.function.clone());
    }
    assert!(changed.len() >= 17, "{changed:?}");
    // What was deleted is cleared behind.
    assert!(api.stack.settled(Duration::from_secs(20)).await);
    invariants::hold(&api).await;
    api.rows().await
}

#[tokio::test]
async fn fields_that_a_route_does_not_take_are_as_if_they_were_not_there() {
    let (more, none) = (unasked(), Map::new());
    let (rows, plain) = tokio::join!(rows_after(&more), rows_after(&none));

    let text = Value::from(rows.clone()).to_string();
    for taken in [TEXT, HEX, KEY, &NUMBER.to_string()] {
        assert!(!text.contains(taken), "{taken} in {text}");
    }
    let sorted = |rows: &[Value]| {
        let mut rows: Vec<_> = rows.iter().map(|row| format!("{:?}", lasting(row))).collect();
        rows.sort();
        rows
    };
    assert_eq!(sorted(&rows), sorted(&plain));
}
