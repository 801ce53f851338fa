//! What the local page reads past the API is what the functions write.

use std::time::Duration;

use serde_json::Value;

use super::api::Api;

#[tokio::test]
async fn the_audit_trail_of_the_local_page_tells_who_did_what_to_whom() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let member = api.user("member@example.com").await;
    let bucket = owner.creates_bucket("Production").await;
    owner.adds(&bucket, &member, "user").await;
    owner.invites(&bucket, "new@example.com", "developer").await.ok();
    assert!(api.stack.settled(Duration::from_secs(20)).await, "the stream is not followed up");

    let path = format!("/_local/audit/{}", bucket["_id"].as_str().unwrap());
    let trail = api.send("GET", &path, None, None).await.ok();

    let person =
        |id: &Value| trail["people"][id.as_str().unwrap_or_default()].as_str().unwrap_or("").to_owned();
    let told: Vec<_> = trail["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let target =
                entry["target_email"].as_str().map_or_else(|| person(&entry["target_id"]), str::to_owned);
            let action = entry["action"].as_str().unwrap();
            assert_eq!(entry["mailed_at"].is_i64(), action != "create", "{entry}");
            format!(
                "{} {action} {target} {}",
                person(&entry["actor_id"]),
                entry["role"].as_str().unwrap_or("")
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "owner@example.com invite new@example.com developer",
            "owner@example.com add_user member@example.com user",
            "owner@example.com create  ",
        ]
    );
    assert_eq!(trail["more"], false);
}

#[tokio::test]
async fn the_local_page_describes_the_api_as_it_is_reached() {
    let api = Api::start().await;

    let described = api.send("GET", "/_local/openapi.json", None, None).await.ok();

    assert_eq!(described["servers"][0]["url"], api.stack.origin());
    assert!(described["paths"]["/api/bucket"]["get"].is_object());
}
