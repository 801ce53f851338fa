//! `GET /api/misc/plans`

use super::api::{Api, workspace};

#[tokio::test]
async fn anybody_sees_the_plans_of_the_file_and_finds_a_buckets_plan_among_them() {
    let api = Api::start().await;
    let file = std::fs::read_to_string(workspace().join("plans.json")).unwrap();
    let bucket = api.user("owner@example.com").await.creates_bucket("Servers").await;

    let plans = api.send("GET", "/api/misc/plans", None, None).await.ok();

    assert_eq!(plans, serde_json::from_str::<serde_json::Value>(&file).unwrap());
    assert_eq!(plans[bucket["credits"]["offer_type"].as_str().unwrap()]["seats"], 5);
}
