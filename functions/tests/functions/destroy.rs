//! `DELETE /api/bucket/{id}`

use serde_json::json;

use super::api::{Api, path};

#[tokio::test]
async fn a_deleted_bucket_is_answered_once_and_gone_for_everybody() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let member = api.user("member@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.adds(&bucket, &member, "admin").await;

    assert_eq!(owner.delete(&path(&bucket, "")).await.ok(), bucket);

    for person in [&owner, &member] {
        person.get(&path(&bucket, "")).await.is_problem(404, "bucket_not_found");
        person.get(&path(&bucket, "/current_role")).await.is_problem(404, "bucket_not_found");
        person.put(&path(&bucket, ""), &json!({ "name": "Back" })).await.is_problem(404, "bucket_not_found");
        person.delete(&path(&bucket, "")).await.is_problem(404, "bucket_not_found");
    }
    assert!(api.rows_of("bucket").await[0]["deleted_at"].is_number());
    assert_eq!(api.rows_of("agent_key").await.len(), 0);
    assert_eq!(api.rows_of("audit").await.len(), 3);
    let counts: Vec<_> = api.rows_of("user").await.iter().map(|user| user["buckets_owned"].clone()).collect();
    assert_eq!(counts, [json!(0), json!(0)]);
}

#[tokio::test]
async fn only_the_owner_deletes() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    for role in ["user", "developer", "admin"] {
        let member = api.user(&format!("{role}@example.com")).await;
        owner.adds(&bucket, &member, role).await;
        let rows = api.rows().await;

        member.delete(&path(&bucket, "")).await.is_problem(403, "role_too_low");

        assert_eq!(api.rows().await, rows);
    }
}

#[tokio::test]
async fn of_racing_deletions_and_updates_one_deletion_succeeds_and_nothing_comes_back() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    for _ in 0..10 {
        let bucket = owner.creates_bucket("Servers").await;
        let at = path(&bucket, "");
        let rename = json!({ "name": "Back" });

        let (a, b, c) = tokio::join!(owner.delete(&at), owner.delete(&at), owner.put(&at, &rename));

        let mut deletions = [a.status, b.status];
        deletions.sort_unstable();
        assert_eq!(deletions, [200, 404]);
        assert!(matches!(c.status, 200 | 404), "{c:?}");
        owner.get(&at).await.is_problem(404, "bucket_not_found");
        assert_eq!(api.rows_of("user").await[0]["buckets_owned"], 0);
    }
}
