//! `GET /api/bucket/{id}/current_role`

use serde_json::json;

use super::api::{Api, path};

#[tokio::test]
async fn each_member_reads_their_own_role() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;

    assert_eq!(owner.get(&path(&bucket, "/current_role")).await.ok(), json!({ "role": "owner" }));
    for role in ["user", "developer", "admin"] {
        let member = api.user(&format!("{role}@example.com")).await;
        owner.adds(&bucket, &member, role).await;

        assert_eq!(member.get(&path(&bucket, "/current_role")).await.ok(), json!({ "role": role }));
    }
}
