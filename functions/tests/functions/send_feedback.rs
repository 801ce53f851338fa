//! `PUT /api/bucket/{id}/feedback`

use serde_json::json;

use super::api::{Api, path};

#[tokio::test]
async fn feedback_is_kept_and_echoed() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let feedback = json!({ "feedback": " It is \u{1f44d}\n" });

    assert_eq!(owner.put(&path(&bucket, "/feedback"), &feedback).await.ok(), feedback);

    let rows = api.rows_of("feedback").await;
    assert_eq!((rows.len(), &rows[0]["feedback"]), (1, &feedback["feedback"]));
    assert_eq!(rows[0]["user_id"], owner.self_view().await["_id"]);
}

#[tokio::test]
async fn feedback_that_says_nothing_or_too_much_is_refused() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;

    for body in [
        json!({}),
        json!({ "feedback": null }),
        json!({ "feedback": " " }),
        json!({ "feedback": 5 }),
        json!({ "feedback": "x".repeat(10_001) }),
    ] {
        owner.put(&path(&bucket, "/feedback"), &body).await.blames(&["feedback"]);
    }
    assert!(api.rows_of("feedback").await.is_empty());
}
