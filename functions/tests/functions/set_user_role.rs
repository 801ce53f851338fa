//! `POST /api/bucket/{id}/promote_user`

use serde_json::json;

use super::{
    api::{Api, members_in, path},
    invariants,
};

#[tokio::test]
async fn a_role_holds_from_the_very_next_request() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let member = api.user("member@example.com").await;
    owner.adds(&bucket, &member, "user").await;
    member.get(&path(&bucket, "/invitations")).await.is_problem(403, "role_too_low");

    let answer = owner.sets_role(&bucket, "Member@example.com", "admin").await.ok();

    assert_eq!(members_in(&answer)[1], ("member@example.com".to_owned(), "admin".to_owned()));
    member.get(&path(&bucket, "/invitations")).await.ok();
    owner.sets_role(&bucket, "member@example.com", "developer").await.ok();
    member.get(&path(&bucket, "/invitations")).await.is_problem(403, "role_too_low");
    assert_eq!(member.get(&path(&bucket, "/current_role")).await.ok(), json!({ "role": "developer" }));
    invariants::hold(&api).await;
}

#[tokio::test]
async fn the_owners_role_is_fixed_and_owner_is_nobodys_to_give() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let member = api.user("member@example.com").await;
    owner.adds(&bucket, &member, "admin").await;
    let rows = api.rows().await;

    owner.sets_role(&bucket, "owner@example.com", "user").await.is_problem(403, "owner_role_fixed");
    owner.sets_role(&bucket, "member@example.com", "owner").await.blames(&["role"]);
    owner.sets_role(&bucket, "member@example.com", "root").await.blames(&["role"]);
    owner
        .post(&path(&bucket, "/promote_user"), &json!({ "email": "member@example.com" }))
        .await
        .blames(&["role"]);
    owner.sets_role(&bucket, "nobody@example.com", "user").await.is_problem(404, "user_not_found");
    member.sets_role(&bucket, "member@example.com", "user").await.is_problem(403, "role_too_low");

    assert_eq!(api.rows().await, rows);
}
