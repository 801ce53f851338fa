//! `GET /api/bucket/{id}`

use serde_json::{Value, json};

use super::api::{Api, path};

#[tokio::test]
async fn the_owner_retrieves_what_was_created() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;

    assert_eq!(owner.get(&path(&bucket, "")).await.ok(), bucket);
}

#[tokio::test]
async fn the_secret_is_for_admins_and_the_owner() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;

    for (role, sees_secret) in [("user", false), ("developer", false), ("admin", true)] {
        let member = api.user(&format!("{role}@example.com")).await;
        owner.adds(&bucket, &member, role).await;

        let seen = member.get(&path(&bucket, "")).await.ok();

        assert_eq!(seen["role"], role);
        assert_eq!(seen.get("secret_id").is_some(), sees_secret, "{role}");
        assert_eq!(seen["credits"], bucket["credits"]);
    }
}

#[tokio::test]
async fn a_bucket_of_others_and_one_that_never_was_are_the_same_404() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let outsider = api.user("outsider@example.com").await;

    let mut bodies = vec![];
    for id in [bucket["_id"].as_str().unwrap(), "0123456789abcdef01234567", "x", "0123456789ABCDEF01234567"] {
        let answer = outsider.get(&format!("/api/bucket/{id}")).await;
        answer.is_problem(404, "bucket_not_found");
        let mut body = answer.body;
        body["request_id"] = Value::Null;
        bodies.push(body);
    }
    assert!(bodies.iter().all(|body| body == &bodies[0]), "{bodies:?}");
}

#[tokio::test]
async fn a_role_is_read_anew_with_each_request() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let member = api.user("member@example.com").await;

    owner.adds(&bucket, &member, "developer").await;
    for (role, sees_secret) in [("admin", true), ("user", false)] {
        owner.sets_role(&bucket, "member@example.com", role).await.ok();
        assert_eq!(member.get(&path(&bucket, "")).await.ok().get("secret_id").is_some(), sees_secret);
    }
}

#[tokio::test]
async fn the_origin_comes_from_the_request_where_none_is_configured() {
    let api = Api::with_parameters(&[("PublicOrigin", "")]).await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;

    assert_eq!(bucket["node"], json!({ "endpoints": { "web": "https://127.0.0.1" } }));
}
