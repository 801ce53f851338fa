//! `PUT /api/bucket/{id}/start_trial`.

use serde_json::{Value, json};
use shared::{
    domain::{BucketId, Timestamp, UserId},
    store::TrialError,
};

use super::api::{Answer, Api, Person, path};

async fn claims(person: &Person<'_>, bucket: &Value) -> Answer {
    person.put(&path(bucket, "/start_trial"), &json!({})).await
}

#[tokio::test]
async fn a_trial_gives_the_plan_at_once_and_takes_it_back_by_the_clock() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    for number in 1..5 {
        owner.invites(&bucket, &format!("{number}@example.com"), "user").await.ok();
    }
    owner.invites(&bucket, "sixth@example.com", "user").await.is_problem(403, "seat_limit");
    let before = api.rows_of("bucket").await.remove(0);

    assert_eq!(claims(&owner, &bucket).await.ok(), json!({ "duration": "14 days", "plan": "plus" }));

    let shown = owner.get(&path(&bucket, "")).await.ok();
    assert_eq!(
        (&shown["credits"]["offer_type"], &shown["payment"]["offer_type"]),
        (&json!("plus"), &json!("plus"))
    );
    assert_eq!(shown["trial"]["plan"], "plus");
    let mut row = api.rows_of("bucket").await.remove(0);
    let days = (row["trial_ends_at"].as_i64().unwrap() - row["updated_at"].as_i64().unwrap()) / 86_400_000;
    assert_eq!((&row["plan"], days), (&json!("free"), 14));
    assert_eq!(row["version"], before["version"].as_u64().unwrap() + 1);
    owner.invites(&bucket, "sixth@example.com", "user").await.ok();

    // Nothing happens at its end; it is only no longer so.
    row["trial_ends_at"] = json!(Timestamp::now().as_millis());
    row["seats_used"] = json!(6);
    api.put_row(&row).await;
    let shown = owner.get(&path(&bucket, "")).await.ok();
    assert_eq!(shown["credits"]["offer_type"], "free");
    let refusal = owner.invites(&bucket, "seventh@example.com", "user").await.is_problem(403, "seat_limit");
    assert!(refusal.contains("all 5 seats"), "{refusal}");
    let invitations = owner.get(&path(&bucket, "/invitations")).await.ok();
    assert_eq!(invitations["invitations"].as_array().unwrap().len(), 5, "nobody is thrown out");
}

#[tokio::test]
async fn a_bucket_and_a_person_have_one_trial_each_whoever_owns_it_later() {
    let api = Api::start().await;
    let (owner, other) = (api.user("owner@example.com").await, api.user("other@example.com").await);
    let (first, second) = (owner.creates_bucket("First").await, owner.creates_bucket("Second").await);
    owner.adds(&first, &other, "user").await;
    claims(&owner, &first).await.ok();
    let rows = api.rows().await;

    let again = claims(&owner, &first).await.is_problem(400, "trial_unavailable");
    assert!(again.contains("this bucket has had its trial"), "{again}");
    let elsewhere = claims(&owner, &second).await.is_problem(400, "trial_unavailable");
    assert!(elsewhere.contains("you have had your trial"), "{elsewhere}");
    assert_eq!(api.rows().await, rows);

    owner.transfers(&first, "other@example.com").await.ok();
    claims(&other, &first).await.is_problem(400, "trial_unavailable");
    let own = other.creates_bucket("Own").await;
    claims(&other, &own).await.ok();
}

#[tokio::test]
async fn a_bucket_on_a_plan_has_nothing_to_try() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.post(&path(&bucket, "/upgrade"), &json!({ "plan": "pro" })).await.ok();

    claims(&owner, &bucket).await.is_problem(400, "trial_unavailable");

    // What has ended is no plan.
    let mut row = api.rows_of("bucket").await.remove(0);
    row["plan_ends_at"] = json!(1_000);
    api.put_row(&row).await;
    claims(&owner, &bucket).await.ok();
    assert_eq!(owner.get(&path(&bucket, "")).await.ok()["credits"]["offer_type"], "plus");
}

#[tokio::test]
async fn where_no_plan_can_be_tried_it_says_so() {
    let plans = r#"{"free":{"seats":2,"servers":1,"self_service":true}}"#;
    let api = Api::with_parameters(&[("Plans", plans)]).await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;

    claims(&owner, &bucket).await.is_problem(400, "trial_unavailable");

    // The plans of the deployment hold everywhere.
    owner.invites(&bucket, "one@example.com", "user").await.ok();
    owner.invites(&bucket, "two@example.com", "user").await.is_problem(403, "seat_limit");
    assert_eq!(api.send("GET", "/api/misc/plans", None, None).await.ok()["free"]["seats"], 2);
}

#[tokio::test]
async fn of_racing_claims_one_wins() {
    for _ in 0..10 {
        let api = Api::start().await;
        let owner = api.user("owner@example.com").await;
        let (first, second) = (owner.creates_bucket("First").await, owner.creates_bucket("Second").await);

        let (a, b, c) = tokio::join!(claims(&owner, &first), claims(&owner, &first), claims(&owner, &second));

        let won = [&a, &b, &c].iter().filter(|answer| answer.status == 200).count();
        assert_eq!(won, 1);
        for lost in [a, b, c].iter().filter(|answer| answer.status != 200) {
            lost.is_problem(400, "trial_unavailable");
        }
        assert_eq!(api.rows_of("audit").await.iter().filter(|row| row["action"] == "claim_trial").count(), 1);
    }
}

#[tokio::test]
async fn who_was_the_owner_claims_nothing() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let shown = owner.creates_bucket("Servers").await;
    let id = UserId::try_from(owner.self_view().await["_id"].as_str().unwrap().to_owned()).unwrap();
    let bucket = BucketId::try_from(shown["_id"].as_str().unwrap().to_owned()).unwrap();
    let bucket = api.store().bucket(&bucket).await.unwrap().unwrap();
    let row = api.rows_of("bucket").await.remove(0);
    let plan = bucket.plan.clone();

    for (change, expected) in [
        (json!({ "owner_id": "0123456789abcdef01234567" }), "NotOwner"),
        (json!({ "deleted_at": 1 }), "BucketNotFound"),
    ] {
        let mut row = row.clone();
        row.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        api.put_row(&row).await;
        let rows = api.rows().await;

        let outcome = api.store().claim_trial(&bucket, &id, &plan, 14, Timestamp::now()).await;

        let refused: TrialError = outcome.unwrap_err();
        assert_eq!(format!("{refused:?}"), expected);
        assert_eq!(api.rows().await, rows);
    }
}
