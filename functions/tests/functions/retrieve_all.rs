//! `GET /api/bucket` and `GET /api/bucket/`

use serde_json::{Value, json};

use super::api::{Api, path};

#[tokio::test]
async fn both_spellings_answer_the_callers_buckets_oldest_first() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    api.user("other@example.com").await.creates_bucket("Not mine").await;
    let first = owner.creates_bucket("First").await;
    let second = owner.creates_bucket("Second").await;

    for spelling in ["/api/bucket", "/api/bucket/"] {
        let answer = owner.get(spelling).await;

        assert!(!answer.headers.contains_key("location"));
        assert_eq!(answer.ok(), json!([first, second]), "{spelling}");
    }
}

#[tokio::test]
async fn what_follows_the_slash_is_not_found() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;

    for remainder in ["a/b", "a/b/c", "0123456789abcdef01234567/nothing"] {
        owner.get(&format!("/api/bucket/{remainder}")).await.is_problem(404, "route_not_found");
    }
}

#[tokio::test]
async fn whoever_has_no_buckets_gets_an_empty_list() {
    let api = Api::start().await;
    api.user("owner@example.com").await.creates_bucket("Servers").await;

    for person in [
        api.user("newcomer@example.com").await,
        api.user("unverified@example.com#unverified").await,
        api.user_with_claims(
            &json!({ "sub": "other", "email": "owner@example.com", "email_verified": true }),
        ),
        api.user_with_claims(&json!({ "sub": "another", "email": "not an address", "email_verified": true })),
    ] {
        assert_eq!(person.get("/api/bucket").await.ok(), json!([]));
    }
}

#[tokio::test]
async fn a_list_of_more_than_one_batch_is_complete() {
    let api = Api::with_parameters(&[("BucketsPerOwner", "200")]).await;
    let owner = api.user("owner@example.com").await;
    for number in 0..60 {
        owner.creates_bucket(&format!("Bucket {number}")).await;
    }

    let names: Vec<Value> = owner.bucket_names().await.into_iter().map(Value::from).collect();

    assert_eq!(names, (0..60).map(|number| json!(format!("Bucket {number}"))).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_deleted_bucket_is_in_nobodys_list() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let member = api.user("member@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.adds(&bucket, &member, "admin").await;
    assert_eq!(member.bucket_names().await, ["Servers"]);

    owner.delete(&path(&bucket, "")).await.ok();

    assert_eq!(owner.get("/api/bucket").await.ok(), json!([]));
    assert_eq!(member.get("/api/bucket").await.ok(), json!([]));
}
