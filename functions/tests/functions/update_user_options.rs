//! `PUT /api/bucket/{id}/user_options`

use serde_json::json;

use super::api::{Api, path};

#[tokio::test]
async fn options_are_ones_own_and_kept_as_they_came() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let member = api.user("member@example.com").await;
    owner.adds(&bucket, &member, "user").await;
    let options = json!({ "theme": "dark", "columns": ["cpu", { "width": 1.5 }] });

    let answer = member.put(&path(&bucket, "/user_options"), &json!({ "options": options })).await.ok();

    assert_eq!(answer["bucket"]["user_options"], options);
    assert_eq!(answer["bucket"], member.get(&path(&bucket, "")).await.ok());
    assert_eq!(owner.get(&path(&bucket, "")).await.ok()["user_options"], json!({}));
}

#[tokio::test]
async fn options_that_are_no_object_or_too_large_are_refused() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let deep = (0..16).fold(json!(1), |inner, _| json!({ "a": inner }));
    owner.put(&path(&bucket, "/user_options"), &json!({ "options": deep })).await.ok();
    let rows = api.rows().await;

    for options in
        [json!(null), json!("text"), json!([1]), json!({ "a": "x".repeat(8 * 1024) }), json!({ "a": deep })]
    {
        owner.put(&path(&bucket, "/user_options"), &json!({ "options": options })).await.blames(&["options"]);
    }
    owner.put(&path(&bucket, "/user_options"), &json!({})).await.blames(&["options"]);
    assert_eq!(api.rows().await, rows);
}
