//! `GET /api/bucket/{id}/payment/charges`, where nothing is paid; where something is: `paid`.

use serde_json::json;

use super::{
    api::{Api, path},
    get_subscription::subscription,
};

#[tokio::test]
async fn without_an_account_at_stripe_there_are_no_invoices() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    assert_eq!(owner.get(&path(&bucket, "/payment/charges")).await.ok(), json!([]));

    // Left from a time when there was one.
    api.put_row(&subscription(&bucket)).await;
    assert_eq!(owner.get(&path(&bucket, "/payment/charges")).await.ok(), json!([]));
}
