//! `DELETE /api/bucket/{id}/invitation`

use serde_json::json;

use super::{
    api::{Api, path},
    invariants,
};

#[tokio::test]
async fn an_invitation_is_removed_in_every_form_that_clients_have_had() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    for (rest, body) in [
        ("/invitation?email=a%2Bb%40example.com", "{}"),
        ("/invitation?email=a%2Bb@example.com", "{}"),
        ("/invitation?email=%20A%2BB@EXAMPLE.com+", ""),
        ("/invitation/a+b@example.com", "{}"),
        ("/invitation/a%2Bb%40example.com", "{}"),
        ("/invitation", r#"{"params":{"email":"a+b@example.com"}}"#),
    ] {
        owner.invites(&bucket, "a+b@example.com", "user").await.ok();
        owner.invites(&bucket, "other@example.com", "user").await.ok();

        let answer = api.send("DELETE", &path(&bucket, rest), Some(&owner.token), Some(body)).await.ok();

        let left = answer["invitations"].as_array().unwrap();
        assert_eq!((left.len(), &left[0]["email"]), (1, &json!("other@example.com")), "{rest}");
        invariants::hold(&api).await;
    }
    assert_eq!(api.rows_of("bucket").await[0]["seats_used"], 2);
}

#[tokio::test]
async fn without_a_good_address_nothing_is_removed() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "a@example.com", "user").await.ok();
    let rows = api.rows().await;

    for rest in ["", "?email=", "?email=nobody", "?mail=a@example.com", "/nobody"] {
        owner.delete(&path(&bucket, &format!("/invitation{rest}"))).await.blames(&["email"]);
    }
    owner
        .delete(&path(&bucket, "/invitation?email=b@example.com"))
        .await
        .is_problem(404, "invitation_not_found");
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn a_removed_invitation_makes_nobody_a_member() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "a@example.com", "user").await.ok();
    owner.delete(&path(&bucket, "/invitation?email=a@example.com")).await.ok();

    assert_eq!(api.user("a@example.com").await.get("/api/bucket").await.ok(), json!([]));
    invariants::hold(&api).await;
}
