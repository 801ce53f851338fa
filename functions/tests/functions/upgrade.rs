//! `POST /api/bucket/{id}/upgrade` where no money is taken; where it is: `paid`.

use serde_json::{Value, json};
use shared::{
    domain::{BucketId, Timestamp, UserId},
    store::PlanError,
};

use super::{
    api::{Answer, Api, Person, path},
    get_subscription::{change, subscription},
};

async fn upgrades(person: &Person<'_>, bucket: &Value, plan: &str) -> Answer {
    person.post(&path(bucket, "/upgrade"), &json!({ "plan": plan })).await
}

#[tokio::test]
async fn without_stripe_plans_are_switched_freely() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;

    for plan in ["plus", "pro", "free", "pro"] {
        let answer = upgrades(&owner, &bucket, plan).await.ok();

        assert_eq!(answer["subscription"], Value::Null);
        assert_eq!(answer["bucket"]["credits"]["offer_type"], plan);
        assert_eq!(answer["bucket"], owner.get(&path(&bucket, "")).await.ok());
    }
    let rows = api.rows().await;
    upgrades(&owner, &bucket, "pro").await.ok();
    assert_eq!(api.rows().await, rows, "what is so already changes nothing");
    let trail: Vec<_> = api.rows_of("audit").await.into_iter().map(|row| row["action"].clone()).collect();
    assert_eq!(trail, ["create", "upgrade", "upgrade", "upgrade", "upgrade"]);
}

#[tokio::test]
async fn a_smaller_plan_keeps_everybody_and_blocks_growth() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    upgrades(&owner, &bucket, "plus").await.ok();
    for number in 0..7 {
        owner.invites(&bucket, &format!("{number}@example.com"), "user").await.ok();
    }

    upgrades(&owner, &bucket, "free").await.ok();

    let invitations = owner.get(&path(&bucket, "/invitations")).await.ok();
    assert_eq!(invitations["invitations"].as_array().unwrap().len(), 7);
    owner.invites(&bucket, "another@example.com", "user").await.is_problem(403, "seat_limit");
    owner.invites(&bucket, "0@example.com", "admin").await.ok();
    let invited = api.user("1@example.com").await;
    assert_eq!(invited.bucket_names().await, ["Servers"], "an invitation has its seat");
}

#[tokio::test]
async fn a_plan_that_there_is_not_or_that_is_not_for_oneself_is_refused() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let rows = api.rows().await;

    let unknown = upgrades(&owner, &bucket, "gold").await;
    unknown.blames(&["plan"]);
    assert!(unknown.body["detail"].as_str().unwrap().contains("there are enterprise, free, plus, pro"));
    owner.post(&path(&bucket, "/upgrade"), &json!({})).await.blames(&["plan"]);
    owner.post(&path(&bucket, "/upgrade"), &json!({ "plan": 1 })).await.blames(&["plan"]);
    owner
        .post(&path(&bucket, "/upgrade"), &json!({ "plan": "plus", "stripe_token": 1 }))
        .await
        .blames(&["stripe_token"]);
    upgrades(&owner, &bucket, "enterprise").await.is_problem(403, "plan_not_allowed");
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn a_bigger_plan_ends_the_trial_of_a_smaller_one_and_no_other() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.put(&path(&bucket, "/start_trial"), &json!({})).await.ok();
    let ends_at = api.rows_of("bucket").await.remove(0)["trial_ends_at"].clone();

    for plan in ["plus", "free"] {
        let answer = upgrades(&owner, &bucket, plan).await.ok();
        assert_eq!(answer["bucket"]["credits"]["offer_type"], "plus");
        assert_eq!(api.rows_of("bucket").await.remove(0)["trial_ends_at"], ends_at);
    }

    let answer = upgrades(&owner, &bucket, "pro").await.ok();
    assert_eq!(answer["bucket"]["credits"]["offer_type"], "pro");
    assert!(
        api.rows_of("bucket").await.remove(0)["trial_ends_at"].as_i64().unwrap()
            <= Timestamp::now().as_millis()
    );
    let answer = upgrades(&owner, &bucket, "free").await.ok();
    assert_eq!(answer["bucket"]["credits"]["offer_type"], "free", "it does not come back");
}

#[tokio::test]
async fn what_is_paid_is_not_forgotten_when_the_account_is() {
    let api = Api::start().await;
    let (owner, other) = (api.user("owner@example.com").await, api.user("other@example.com").await);
    let bucket = owner.creates_bucket("Servers").await;
    owner.adds(&bucket, &other, "user").await;
    api.put_row(&subscription(&bucket)).await;
    let rows = api.rows().await;

    upgrades(&owner, &bucket, "pro").await.is_problem(500, "stripe_error");
    owner.transfers(&bucket, "other@example.com").await.is_problem(500, "stripe_error");
    owner.delete(&path(&bucket, "")).await.is_problem(500, "stripe_error");
    assert_eq!(api.rows().await, rows);

    // What is over is nothing to remember.
    let mut over = subscription(&bucket);
    over["subscription"]["status"] = json!("canceled");
    api.put_row(&over).await;
    upgrades(&owner, &bucket, "pro").await.ok();
    owner.delete(&path(&bucket, "")).await.ok();
}

#[tokio::test]
async fn a_choice_rests_on_owner_bucket_and_what_pays_for_it() {
    for (kind, fields, expected) in [
        ("bucket", json!({ "owner_id": "0123456789abcdef01234567" }), "NotOwner"),
        ("bucket", json!({ "deleted_at": 1, "version": 99 }), "BucketNotFound"),
        ("bucket", json!({ "version": 7 }), "Changed"),
        ("subscription", json!({}), "Changed"),
        ("billing_change", json!({}), "Changed"),
    ] {
        let api = Api::start().await;
        let owner = api.user("owner@example.com").await;
        let shown = owner.creates_bucket("Servers").await;
        let me = UserId::try_from(owner.self_view().await["_id"].as_str().unwrap().to_owned()).unwrap();
        let id = BucketId::try_from(shown["_id"].as_str().unwrap().to_owned()).unwrap();
        let read = api.store().billing(&id).await.unwrap();
        let plan = serde_json::from_value(json!("pro")).unwrap();
        let mut row = match kind {
            "subscription" => subscription(&shown),
            "billing_change" => change(&shown),
            _ => api.rows_of("bucket").await.remove(0),
        };
        row.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        api.put_row(&row).await;
        let rows = api.rows().await;

        let outcome = api.store().switch_plan(&read, &me, &plan, Timestamp::now()).await;

        let refused: PlanError = outcome.unwrap_err();
        assert_eq!(format!("{refused:?}"), expected, "{kind} {fields}");
        assert_eq!(api.rows().await, rows);
    }
}

#[tokio::test]
async fn a_seat_rests_on_the_plan_then_in_force() {
    use super::meanwhile::invited_while;
    // Between the read and the write the plan shrinks, the plan ends, or the trial ends: all five seats of
    // `free` are taken then.
    for change in [json!({ "plan": "free" }), json!({ "plan_ends_at": 1_000 })] {
        let outcome = invited_while(&json!({ "plan": "plus", "seats_used": 5 }), &change).await;
        assert!(outcome.unwrap_err().to_string().contains("all 5 seats"), "{change}");
    }
    let trial = json!({ "trial_plan": "plus", "trial_ends_at": 4_102_444_800_000_u64, "seats_used": 5 });
    let outcome = invited_while(&trial, &json!({ "trial_ends_at": 1_000 })).await;
    assert!(outcome.unwrap_err().to_string().contains("all 5 seats"));
    // And the other way round: the seats that a plan brings are found.
    invited_while(&json!({ "seats_used": 5 }), &json!({ "plan": "plus" })).await.unwrap();
}
