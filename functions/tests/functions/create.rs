//! `POST /api/bucket/create_classic`

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::api::Api;

const PATH: &str = "/api/bucket/create_classic";

fn is_hex24(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|id| id.len() == 24 && id.bytes().all(|byte| b"0123456789abcdef".contains(&byte)))
}

fn is_key15(value: &Value) -> bool {
    value.as_str().is_some_and(|id| {
        id.len() == 15 && id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
    })
}

#[tokio::test]
async fn a_new_bucket_has_every_field_that_clients_read() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;

    let body =
        json!({ "name": "Servers", "comment": "Ours", "app_url": "https://example.com", "plan": "pro" });
    let mut answer = owner.post(PATH, &body).await.ok();

    let bucket = answer["bucket"].take();
    assert!(is_hex24(&bucket["_id"]) && is_hex24(&bucket["credits"]["payer"]["_id"]), "{bucket}");
    assert!(is_key15(&bucket["public_id"]) && is_key15(&bucket["secret_id"]), "{bucket}");
    assert_ne!(bucket["public_id"], bucket["secret_id"]);
    assert_eq!(bucket["created_at"], bucket["updated_at"]);
    let endpoints = json!({ "endpoints": { "web": api.origin } });
    let shown = |name: &str| bucket[name].clone();
    assert_eq!(
        bucket,
        json!({
            "_id": shown("_id"), "name": "Servers", "comment": "Ours", "app_url": "https://example.com",
            "configuration": null, "public_id": shown("public_id"), "secret_id": shown("secret_id"),
            "node": endpoints, "node_cache": endpoints,
            "credits": {
                "offer_type": "free",
                "payer": { "_id": bucket["credits"]["payer"]["_id"], "username": "owner" },
            },
            "payment": { "offer_type": "free" },
            "role": "owner", "user_options": {},
            "created_at": shown("created_at"), "updated_at": shown("updated_at"),
        })
    );
}

#[tokio::test]
async fn a_new_bucket_is_one_consistent_set_of_rows() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;

    let bucket = owner.creates_bucket("Servers").await;

    let rows = api.rows().await;
    let of = |kind: &str| -> &Value {
        let mut of_kind = rows.iter().filter(|row| row["type"] == kind);
        let row = of_kind.next().unwrap_or_else(|| panic!("no {kind} row"));
        assert!(of_kind.next().is_none(), "two {kind} rows");
        row
    };
    assert_eq!(rows.len(), 7);
    let user_id = &bucket["credits"]["payer"]["_id"];
    assert_eq!(of("bucket")["owner_id"], *user_id);
    assert_eq!(of("bucket")["seats_used"], 1);
    assert_eq!((&of("member")["user_id"], &of("member")["role"]), (user_id, &json!("owner")));
    assert_eq!(of("bucket_pointer")["bucket_id"], bucket["_id"]);
    assert_eq!(of("agent_key")["pk"], format!("KEY#{}", bucket["public_id"].as_str().unwrap()));
    assert_eq!(of("user")["buckets_owned"], 1);
    assert_eq!(of("email_claim")["pk"], "EMAIL#owner@example.com");
    assert_eq!((&of("audit")["action"], &of("audit")["actor_id"]), (&json!("create"), user_id));
}

#[tokio::test]
async fn bad_input_names_the_field_and_changes_nothing() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;

    for (body, fields) in [
        (json!({}), vec!["name"]),
        (json!({ "name": null }), vec!["name"]),
        (json!({ "name": "" }), vec!["name"]),
        (json!({ "name": "   " }), vec!["name"]),
        (json!({ "name": ["a"] }), vec!["name"]),
        (json!({ "name": "a".repeat(101) }), vec!["name"]),
        (json!({ "name": "a", "comment": 1 }), vec!["comment"]),
        (json!({ "name": "a", "comment": "a".repeat(1_001) }), vec!["comment"]),
        (json!({ "name": "a", "app_url": "example.com" }), vec!["app_url"]),
        (json!({ "name": "a", "app_url": { "href": "https://example.com" } }), vec!["app_url"]),
        (json!([]), vec![]),
        (json!("name"), vec![]),
    ] {
        let answer = owner.post(PATH, &body).await;
        if fields.is_empty() {
            answer.is_problem(400, "invalid_input");
        } else {
            answer.blames(&fields);
        }
    }
    assert_eq!(api.rows_of("bucket").await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_person_owns_as_many_buckets_as_the_parameter_says() {
    let api = Api::with_parameters(&[("BucketsPerOwner", "2")]).await;
    let owner = api.user("owner@example.com").await;
    owner.creates_bucket("One").await;
    let second = owner.creates_bucket("Two").await;

    let detail = owner.post(PATH, &json!({ "name": "Three" })).await.is_problem(403, "bucket_limit");

    assert_eq!(detail, "one person may own 2 buckets, and you do; delete or hand over one first");
    assert_eq!(owner.bucket_names().await, ["One", "Two"]);
    assert_eq!(api.rows_of("user").await[0]["buckets_owned"], 2);

    owner.delete(&super::api::path(&second, "")).await.ok();
    owner.creates_bucket("Three").await;
    assert_eq!(owner.bucket_names().await, ["One", "Three"]);
}

#[tokio::test]
async fn racing_creations_stop_at_the_limit() {
    let api = Api::with_parameters(&[("BucketsPerOwner", "3")]).await;
    let owner = api.user("owner@example.com").await;
    owner.creates_bucket("First").await;

    let racers = (0..8).map(|racer| {
        let owner = &owner;
        async move { owner.post(PATH, &json!({ "name": format!("Racer {racer}") })).await.status }
    });
    let mut statuses = join_all(racers).await;

    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 403, 403, 403, 403, 403, 403]);
    assert_eq!(api.rows_of("bucket").await.len(), 3);
    assert_eq!(api.rows_of("member").await.len(), 3);
    assert_eq!(api.rows_of("user").await[0]["buckets_owned"], 3);
}

#[tokio::test]
async fn an_unverified_address_creates_nothing() {
    let api = Api::start().await;
    let unverified = api.user("owner@example.com#unverified").await;

    unverified.post(PATH, &json!({ "name": "Servers" })).await.is_problem(403, "email_unverified");
    assert_eq!(api.rows().await, [] as [Value; 0]);

    // Verification may come later for the same person.
    let verified = api.user("owner@example.com").await;
    verified.creates_bucket("Servers").await;
    // And what was verified once stays claimed.
    unverified.creates_bucket("More servers").await;
}

#[tokio::test]
async fn an_address_that_another_subject_has_claimed_creates_nothing() {
    let api = Api::start().await;
    api.user("owner@example.com").await.creates_bucket("Servers").await;
    let rows = api.rows().await;

    let other = api
        .user_with_claims(&json!({ "sub": "other", "email": "Owner@Example.com", "email_verified": true }));

    other.post(PATH, &json!({ "name": "Mine" })).await.is_problem(403, "email_taken");
    assert_eq!(api.rows().await, rows);
}
