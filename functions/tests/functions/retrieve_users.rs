//! `GET /api/bucket/{id}/users_authorized`

use serde_json::json;

use super::api::{Api, path};

#[tokio::test]
async fn who_comes_into_the_bucket_with_this_very_request_is_among_its_members() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "user").await.ok();

    let newcomer = api.user("new@example.com").await;
    let members = newcomer.get(&path(&bucket, "/users_authorized")).await.ok();

    let addresses: Vec<_> = members.as_array().unwrap().iter().map(|member| &member["email"]).collect();
    assert_eq!(addresses, ["owner@example.com", "new@example.com"]);
}

#[tokio::test]
async fn every_member_sees_all_members_in_the_order_in_which_they_came() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let member = api.user("a@example.com").await;
    owner.adds(&bucket, &member, "user").await;
    owner.invites(&bucket, "pending@example.com", "user").await.ok();

    let id = |view: &serde_json::Value| view["_id"].clone();
    assert_eq!(
        member.get(&path(&bucket, "/users_authorized")).await.ok(),
        json!([
            { "_id": id(&owner.self_view().await), "email": "owner@example.com", "username": "owner", "role": "owner" },
            { "_id": id(&member.self_view().await), "email": "a@example.com", "username": "a", "role": "user" },
        ])
    );
}
