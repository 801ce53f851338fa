//! `PUT /api/bucket/{id}`

use futures_util::future::join_all;
use serde_json::json;

use super::api::{Api, path};

#[tokio::test]
async fn each_field_changes_alone_and_is_kept_as_it_came() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let mut expected = owner.creates_bucket("Servers").await;

    for (field, value) in [
        ("name", json!(" Renamed \u{1f5a5} ")),
        ("comment", json!("A comment")),
        ("comment", json!("")),
        ("app_url", json!("https://example.com/a?b=c")),
        ("app_url", json!("")),
        ("configuration", json!("text")),
        ("configuration", json!({ "b": 1.5, "a": [null, { "c": "d" }] })),
    ] {
        let answer = owner.put(&path(&expected, ""), &json!({ field: value })).await.ok();

        expected[field] = value;
        expected["updated_at"] = answer["updated_at"].clone();
        assert_eq!(answer, expected, "{field}");
        assert_eq!(owner.get(&path(&expected, "")).await.ok(), expected, "{field}");
    }
    assert_ne!(expected["updated_at"], expected["created_at"]);
    assert_eq!(api.rows_of("audit").await.len(), 8);
}

#[tokio::test]
async fn a_configuration_keeps_its_order_and_its_numbers() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let configuration = r#"{"z":1.0,"a":123456789012345678901234567890}"#;
    let body = format!(r#"{{"configuration":{configuration}}}"#);

    api.send("PUT", &path(&bucket, ""), Some(&owner.token), Some(&body)).await.ok();

    assert_eq!(api.rows_of("bucket").await[0]["configuration"], configuration);
}

#[tokio::test]
async fn bad_input_names_the_field_and_changes_nothing() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let rows = api.rows().await;

    for (body, field) in [
        (json!({ "name": " ", "comment": "good" }), "name"),
        (json!({ "name": 1 }), "name"),
        (json!({ "comment": "a".repeat(1_001) }), "comment"),
        (json!({ "app_url": "javascript:alert(1)" }), "app_url"),
        (json!({ "configuration": 1 }), "configuration"),
        (json!({ "configuration": ["a"] }), "configuration"),
        (json!({ "configuration": "a".repeat(16 * 1024) }), "configuration"),
    ] {
        owner.put(&path(&bucket, ""), &body).await.blames(&[field]);
    }
    for nothing in [json!({}), json!({ "name": null }), json!({ "owner_id": "x", "plan": "pro" })] {
        owner.put(&path(&bucket, ""), &nothing).await.blames(&[
            "name",
            "comment",
            "app_url",
            "configuration",
        ]);
    }
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn only_the_owner_updates_and_input_is_judged_before_the_right() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    for role in ["user", "developer", "admin"] {
        let member = api.user(&format!("{role}@example.com")).await;
        owner.adds(&bucket, &member, role).await;
        let rows = api.rows().await;

        member.put(&path(&bucket, ""), &json!({ "name": "Taken" })).await.is_problem(403, "role_too_low");
        member.put(&path(&bucket, ""), &json!({ "name": 1 })).await.blames(&["name"]);

        assert_eq!(api.rows().await, rows);
    }
    let outsider = api.user("outsider@example.com").await;
    outsider.put(&path(&bucket, ""), &json!({ "name": 1 })).await.is_problem(404, "bucket_not_found");
}

#[tokio::test]
async fn racing_updates_of_different_fields_all_stay() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    for round in 0..10 {
        let owner = &owner;
        let bucket = &owner.creates_bucket("Servers").await;
        let change = |field: &'static str, value: &str| {
            let body = json!({ field: value });
            async move { owner.put(&path(bucket, ""), &body).await.ok() }
        };
        let url = "https://example.com";

        let answers =
            join_all([change("name", "New"), change("comment", "New"), change("app_url", url)]).await;

        let seen = owner.get(&path(bucket, "")).await.ok();
        assert_eq!(
            (&seen["name"], &seen["comment"], &seen["app_url"]),
            (&json!("New"), &json!("New"), &json!(url))
        );
        // Each answer was true when it was given: the last one shows all three.
        assert!(answers.contains(&seen), "round {round}: {answers:?} without {seen}");
        owner.delete(&path(bucket, "")).await.ok();
    }
}
