//! `POST /api/bucket/{id}/transfer_ownership`

use serde_json::json;

use super::{
    api::{Api, path},
    invariants,
};

#[tokio::test]
async fn the_new_owner_owns_and_the_old_one_is_admin() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let heir = api.user("heir@example.com").await;
    owner.adds(&bucket, &heir, "user").await;

    let seen = owner.transfers(&bucket, "Heir@example.com").await.ok();

    assert_eq!((&seen["role"], &seen["_id"]), (&json!("admin"), &bucket["_id"]));
    let payer = json!({ "_id": heir.self_view().await["_id"], "username": "heir" });
    assert_eq!(seen["credits"]["payer"], payer);
    assert_eq!(owner.get(&path(&bucket, "")).await.ok(), seen);
    assert_eq!(heir.get(&path(&bucket, "/current_role")).await.ok(), json!({ "role": "owner" }));
    owner.delete(&path(&bucket, "")).await.is_problem(403, "role_too_low");
    invariants::hold(&api).await;
    heir.delete(&path(&bucket, "")).await.ok();
}

#[tokio::test]
async fn the_new_owner_must_be_a_member_with_room_for_a_bucket() {
    let api = Api::with_parameters(&[("BucketsPerOwner", "1")]).await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let (full, outsider) = (api.user("full@example.com").await, api.user("outsider@example.com").await);
    full.creates_bucket("Theirs").await;
    outsider.get("/api/bucket").await.ok();
    owner.adds(&bucket, &full, "admin").await;
    owner.invites(&bucket, "pending@example.com", "admin").await.ok();
    let rows = api.rows().await;

    let detail = owner.transfers(&bucket, "full@example.com").await.is_problem(403, "bucket_limit");
    assert_eq!(detail, "one person may own 1 buckets, and the new owner does");
    for nobody in ["outsider@example.com", "pending@example.com", "nobody@example.com"] {
        owner.transfers(&bucket, nobody).await.is_problem(404, "user_not_found");
    }
    owner.transfers(&bucket, "owner@example.com").await.blames(&["new_owner"]);
    owner.post(&path(&bucket, "/transfer_ownership"), &json!({})).await.blames(&["new_owner"]);
    full.transfers(&bucket, "full@example.com").await.is_problem(403, "role_too_low");

    assert_eq!(api.rows().await, rows);
}
