//! `GET /api/bucket/{id}/subscription`.

use serde_json::{Value, json};

use super::api::{Api, path};

/// The row of a subscription that pays for `bucket`.
pub(crate) fn subscription(bucket: &Value) -> Value {
    let id = bucket["_id"].as_str().unwrap();
    json!({
        "pk": format!("BUCKET#{id}"), "sk": "SUBSCRIPTION", "type": "subscription", "bucket_id": id,
        "former": [], "version": 1,
        "subscription": {
            "id": "sub_1", "item": "si_1", "customer": "cus_1", "plan": "plus", "status": "active",
            "period_start": 1_795_507_200_000_u64, "period_end": 1_798_099_200_000_u64, "payment_failed": false,
        },
    })
}

/// The row of a change of what pays for `bucket`, which is under way.
pub(crate) fn change(bucket: &Value) -> Value {
    let id = bucket["_id"].as_str().unwrap();
    json!({
        "pk": format!("BUCKET#{id}"), "sk": "BILLING_CHANGE", "type": "billing_change", "bucket_id": id,
        "id": "01KASMFZ5V0000000000000900", "actor_id": "0123456789abcdef01234567", "begun_at": 1,
        "lease_until": 4_102_444_800_000_u64,
    })
}

#[tokio::test]
async fn a_subscription_is_shown_in_stripes_words_and_without_what_is_only_for_here() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    api.put_row(&subscription(&bucket)).await;

    assert_eq!(
        owner.get(&path(&bucket, "/subscription")).await.ok(),
        json!({
            "id": "sub_1", "status": "active", "plan": "plus", "current_period_start": 1_795_507_200,
            "current_period_end": 1_798_099_200, "cancel_at": null, "cancel_at_period_end": false,
            "canceled_at": null, "trial_end": null,
        })
    );
}

#[tokio::test]
async fn a_trial_is_shown_as_a_subscription_until_it_ends() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.put(&path(&bucket, "/start_trial"), &json!({})).await.ok();

    let shown = owner.get(&path(&bucket, "/subscription")).await.ok();

    let row = api.rows_of("bucket").await.remove(0);
    let end = row["trial_ends_at"].as_i64().unwrap() / 1000;
    assert_eq!(
        shown,
        json!({
            "id": null, "status": "trialing", "plan": "plus", "current_period_start": null,
            "current_period_end": end, "cancel_at": end, "cancel_at_period_end": true, "canceled_at": null,
            "trial_end": end,
        })
    );
    let mut over = row;
    over["trial_ends_at"] = json!(1_000);
    api.put_row(&over).await;
    owner.get(&path(&bucket, "/subscription")).await.is_problem(404, "subscription_not_found");
}

#[tokio::test]
async fn what_has_ended_is_no_subscription() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let mut row = subscription(&bucket);
    row["subscription"]["status"] = json!("canceled");
    api.put_row(&row).await;

    owner.get(&path(&bucket, "/subscription")).await.is_problem(404, "subscription_not_found");
}
