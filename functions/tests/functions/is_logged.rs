//! `GET /api/users/isLogged`

use serde_json::json;

use super::api::Api;

const PATH: &str = "/api/users/isLogged";

#[tokio::test]
async fn a_verified_person_is_shown_with_the_ids_of_their_live_buckets() {
    let api = Api::start().await;
    let owner = api.user("Owner@Example.com").await;
    let gone = owner.creates_bucket("Gone").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.delete(&super::api::path(&gone, "")).await.ok();

    assert_eq!(
        owner.get(PATH).await.ok(),
        json!({
            "_id": bucket["credits"]["payer"]["_id"], "username": "owner", "email": "owner@example.com",
            "email_token": null, "authorized_bucket": [bucket["_id"]],
        })
    );
}

#[tokio::test]
async fn an_unverified_person_is_marked_as_such_and_not_recorded() {
    let api = Api::start().await;

    let seen = api.user("new@example.com#unverified").await.get(PATH).await.ok();

    assert_eq!((&seen["email"], &seen["email_token"]), (&json!("new@example.com"), &json!("unverified")));
    assert_eq!(seen["authorized_bucket"], json!([]));
    assert!(api.rows().await.is_empty());
}
