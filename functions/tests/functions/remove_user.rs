//! `POST /api/bucket/{id}/remove_user`

use serde_json::json;

use super::{
    api::{Api, members_in, path},
    invariants,
};

#[tokio::test]
async fn a_removed_person_is_out_with_the_very_next_request() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let member = api.user("member@example.com").await;
    owner.adds(&bucket, &member, "admin").await;
    member.get(&path(&bucket, "")).await.ok();

    let answer = owner.removes(&bucket, "member@example.com").await.ok();

    assert_eq!(members_in(&answer), [("owner@example.com".to_owned(), "owner".to_owned())]);
    member.get(&path(&bucket, "")).await.is_problem(404, "bucket_not_found");
    member.invites(&bucket, "friend@example.com", "user").await.is_problem(404, "bucket_not_found");
    assert_eq!(member.get("/api/bucket").await.ok(), json!([]));
    assert_eq!(api.rows_of("bucket").await[0]["seats_used"], 1);
    invariants::hold(&api).await;
}

#[tokio::test]
async fn any_member_but_the_owner_may_leave() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    for role in ["user", "developer", "admin"] {
        let member = api.user(&format!("{role}@example.com")).await;
        owner.adds(&bucket, &member, role).await;

        let answer = member.removes(&bucket, &format!(" {}@EXAMPLE.com", role.to_uppercase())).await.ok();

        assert_eq!(members_in(&answer).len(), 1);
        member.get(&path(&bucket, "")).await.is_problem(404, "bucket_not_found");
    }
    let detail = owner.removes(&bucket, "owner@example.com").await.is_problem(403, "owner_stays");
    assert_eq!(detail, "the owner cannot be removed or leave; hand the bucket over first");
    invariants::hold(&api).await;
}

#[tokio::test]
async fn nobody_else_removes_anybody() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let (admin, user) = (api.user("admin@example.com").await, api.user("user@example.com").await);
    owner.adds(&bucket, &admin, "admin").await;
    owner.adds(&bucket, &user, "user").await;
    let rows = api.rows().await;

    for target in ["user@example.com", "owner@example.com", "nobody@example.com"] {
        admin.removes(&bucket, target).await.is_problem(403, "role_too_low");
    }
    owner.removes(&bucket, "nobody@example.com").await.is_problem(404, "user_not_found");
    api.user("outsider@example.com").await.get("/api/bucket").await.ok();
    owner.removes(&bucket, "outsider@example.com").await.is_problem(404, "user_not_found");
    owner.post(&path(&bucket, "/remove_user"), &json!({})).await.blames(&["email"]);
    owner.post(&path(&bucket, "/remove_user"), &json!({ "email": "x" })).await.blames(&["email"]);

    let same = |rows: Vec<serde_json::Value>| -> Vec<_> {
        rows.into_iter().filter(|row| !row.to_string().contains("outsider")).collect()
    };
    assert_eq!(same(api.rows().await), rows);
}
