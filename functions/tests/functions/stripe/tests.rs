//! The rig itself, asked as the functions ask it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use axum::http::Request;
use local::client::ClientError;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{CHARGE_FAILS_CARD, DECLINED_CARD, Fault, GOOD_CARD, StripeRig, sign};
use crate::api::Answer;

/// Long enough for a test to have waited in vain.
const IN_VAIN: Duration = Duration::from_millis(300);

async fn send(
    rig: &StripeRig,
    method: &str,
    path: &str,
    form: &str,
    key: Option<&str>,
) -> Result<Answer, ClientError> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", rig.url()))
        .header("authorization", format!("Bearer {}", rig.secret_key()))
        .header("stripe-version", "2026-09-30.endive");
    if !form.is_empty() {
        request = request.header("content-type", "application/x-www-form-urlencoded");
    }
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    local::client::send(request.body(form.to_owned()).unwrap()).await.map(Answer::from)
}

async fn get(rig: &StripeRig, path: &str) -> Answer {
    send(rig, "GET", path, "", None).await.unwrap()
}

async fn post(rig: &StripeRig, path: &str, form: &str) -> Answer {
    send(rig, "POST", path, form, None).await.unwrap()
}

async fn delete(rig: &StripeRig, path: &str) -> Answer {
    send(rig, "DELETE", path, "", None).await.unwrap()
}

fn id(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}

/// A new customer with a card.
async fn customer(rig: &StripeRig, card: &str) -> String {
    let form = format!("email=owner@example.com&metadata[user]=u1&source={}", rig.card(card).await);
    id(&post(rig, "/v1/customers", &form).await.ok())
}

/// The form of a subscription to `plan`, with what follows.
fn form(customer: &str, plan: &str, rest: &str) -> String {
    format!("customer={customer}&items[0][price]=price_{plan}{rest}")
}

/// A new subscription to `bucket_plus`.
async fn subscription(rig: &StripeRig, customer: &str, rest: &str) -> Value {
    post(rig, "/v1/subscriptions", &form(customer, "bucket_plus", rest)).await.ok()
}

/// Asserts a refusal of Stripe's.
#[track_caller]
fn is_refused(answer: &Answer, status: u16, kind: &str, code: &str, param: &Value) {
    let error = &answer.body["error"];
    assert_eq!((answer.status, &error["type"]), (status, &json!(kind)), "{}", answer.body);
    assert_eq!((&error["code"], &error["param"]), (&json!(code), param), "{}", answer.body);
    assert!(error["message"].is_string());
}

#[tokio::test]
async fn a_key_gives_its_first_answer_again_and_nothing_else() {
    let Some(rig) = StripeRig::start().await else { return };
    let ask =
        async |path: &str, form: &str, key: &str| send(&rig, "POST", path, form, Some(key)).await.unwrap();

    let first = ask("/v1/customers", "email=a@example.com", "one").await;
    let again = ask("/v1/customers", "email=a@example.com", "one").await;
    assert!(!first.headers.contains_key("idempotent-replayed"));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(first.ok(), again.ok());

    // Another form or another path is another request.
    let own = rig.requests()[0].clone();
    assert_eq!((own.idempotency_key.as_deref(), own.status), (Some("one"), Some(200)));
    for (path, form) in
        [("/v1/customers", "email=b@example.com"), ("/v1/subscriptions", "email=a@example.com")]
    {
        let refused = ask(path, form, "one").await;
        assert_eq!((refused.status, &refused.body["error"]["type"]), (400, &json!("idempotency_error")));
    }

    // A refusal is kept as well, even when the cause is gone.
    let declined = format!("source={}", rig.card(DECLINED_CARD).await);
    assert_eq!(ask("/v1/customers", &declined, "two").await.status, 402);
    let again = ask("/v1/customers", &declined, "two").await;
    assert_eq!((again.status, &again.headers["idempotent-replayed"]), (402, &"true".parse().unwrap()));

    // And so is a failure of Stripe's own.
    rig.fails("POST", "/v1/customers", Fault::Status(500), 1);
    assert_eq!(ask("/v1/customers", "email=c@example.com", "three").await.status, 500);
    let again = ask("/v1/customers", "email=c@example.com", "three").await;
    assert_eq!((again.status, &again.headers["idempotent-replayed"]), (500, &"true".parse().unwrap()));

    // Nor is what Stripe refused to begin.
    if rig.front.is_judged() {
        assert_eq!(ask("/v1/customers", "mail=d@example.com", "four").await.status, 400);
        ask("/v1/customers", "email=d@example.com", "four").await.ok();
        assert_eq!(rig.verdicts().len(), 1);
    }
}

#[tokio::test]
async fn a_key_whose_first_request_still_runs_is_a_conflict() {
    let Some(rig) = StripeRig::start().await else { return };
    // Holds up whatever is played.
    let played = rig.front.played.lock().await;
    rig.fails("POST", "/v1/customers", Fault::LostAnswer, 1);
    let form = "email=a@example.com";
    timeout(IN_VAIN, send(&rig, "POST", "/v1/customers", form, Some("one"))).await.unwrap_err();

    let second = send(&rig, "POST", "/v1/customers", form, Some("one")).await.unwrap();

    is_refused(&second, 409, "invalid_request_error", "idempotency_key_in_use", &Value::Null);
    drop(played);
    // The first went on though nobody waited.
    while send(&rig, "POST", "/v1/customers", form, Some("one")).await.unwrap().status == 409 {}
    assert_eq!(get(&rig, "/v1/customers").await.ok()["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_price_is_found_by_its_lookup_key() {
    let Some(rig) = StripeRig::start().await else { return };

    let found = get(&rig, "/v1/prices?lookup_keys[0]=bucket_pro&active=true").await.ok();
    let price = &found["data"][0];
    assert_eq!((&found["object"], found["data"].as_array().unwrap().len()), (&json!("list"), 1));
    assert_eq!((&price["id"], &price["lookup_key"]), (&json!("price_bucket_pro"), &json!("bucket_pro")));
    assert_eq!((&price["unit_amount"], &price["currency"]), (&json!(2900), &json!("eur")));
    assert_eq!((&price["recurring"]["interval"], &price["active"]), (&json!("month"), &json!(true)));
    assert_eq!(get(&rig, "/v1/prices/price_bucket_pro").await.ok(), *price);

    let none = get(&rig, "/v1/prices?lookup_keys[0]=no_such&active=true").await.ok();
    assert_eq!(none["data"], json!([]));
    rig.show("price_bucket_pro", json!({ "active": false }));
    let inactive = get(&rig, "/v1/prices?lookup_keys[0]=bucket_pro&active=true").await.ok();
    assert_eq!(inactive["data"], json!([]));
    rig.shows_truth("price_bucket_pro");
    assert_eq!(get(&rig, "/v1/prices?lookup_keys[0]=bucket_pro&active=true").await.ok(), found);
}

#[tokio::test]
async fn a_subscription_lives_and_ends() {
    let Some(rig) = StripeRig::start().await else { return };
    let customer = customer(&rig, GOOD_CARD).await;
    let made = subscription(
        &rig,
        &customer,
        "&metadata[bucket_id]=b1&metadata[old]=x&payment_behavior=error_if_incomplete&off_session=true",
    )
    .await;
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
    let item = &made["items"]["data"][0];
    assert_eq!((&made["status"], &item["price"]["lookup_key"]), (&json!("active"), &json!("bucket_plus")));
    assert!(item["current_period_end"].as_i64() > item["current_period_start"].as_i64());
    assert!(made.get("current_period_end").is_none());
    let invoices = get(&rig, &format!("/v1/invoices?subscription={}&limit=1", id(&made))).await.ok();
    let invoice = &invoices["data"][0];
    assert_eq!((&invoice["status"], &invoice["amount_paid"]), (&json!("paid"), &json!(900)));
    assert_eq!(invoice["billing_reason"], "subscription_create");
    assert!(invoice["number"].is_string() && invoice["hosted_invoice_url"].is_string());

    // Metadata merge, and an empty value deletes.
    let changed = post(&rig, &path, "metadata[new]=y&metadata[old]=").await.ok();
    assert_eq!(changed["metadata"], json!({ "bucket_id": "b1", "new": "y" }));

    // The difference is charged at once, and the item keeps its id.
    let upgrade = format!(
        "items[0][id]={}&items[0][price]=price_bucket_pro&proration_behavior=always_invoice\
         &payment_behavior=error_if_incomplete&expand[0]=latest_invoice",
        item["id"].as_str().unwrap()
    );
    let upgraded = post(&rig, &path, &upgrade).await.ok();
    assert_eq!(upgraded["items"]["data"][0]["price"]["lookup_key"], "bucket_pro");
    assert_eq!(upgraded["items"]["data"][0]["id"], item["id"]);
    assert_eq!(upgraded["latest_invoice"]["amount_paid"], 2000);
    assert_eq!(rig.invoices(&id(&made)).await.len(), 2);

    let ending = post(&rig, &path, "cancel_at_period_end=true").await.ok();
    assert_eq!(ending["cancel_at"], item["current_period_end"]);
    assert_eq!((&ending["status"], &ending["cancel_at_period_end"]), (&json!("active"), &json!(true)));
    let goes_on = post(&rig, &path, "cancel_at_period_end=false").await.ok();
    assert_eq!((&goes_on["cancel_at"], &goes_on["canceled_at"]), (&Value::Null, &Value::Null));

    let over = delete(&rig, &path).await.ok();
    assert_eq!((&over["status"], &over["ended_at"]), (&json!("canceled"), &over["canceled_at"]));
    assert_eq!(over["cancellation_details"]["reason"], "cancellation_requested");
    is_refused(&delete(&rig, &path).await, 404, "invalid_request_error", "resource_missing", &json!("id"));
    assert_eq!(post(&rig, &path, "cancel_at_period_end=true").await.status, 400);
    assert_eq!(rig.live_subscriptions().await, [] as [Value; 0]);
    assert_eq!(rig.subscriptions_of(&customer).await, [get(&rig, &path).await.ok()]);
    for (status, count) in [("", 0), ("&status=all", 1), ("&status=canceled", 1), ("&status=active", 0)] {
        let list = get(&rig, &format!("/v1/subscriptions?customer={customer}{status}&limit=100")).await.ok();
        assert_eq!(list["data"].as_array().unwrap().len(), count, "{status}");
    }
}

#[tokio::test]
async fn a_charge_that_fails_leaves_no_subscription_if_asked_so() {
    let Some(rig) = StripeRig::start().await else { return };
    let customer = customer(&rig, CHARGE_FAILS_CARD).await;

    let all_or_nothing = form(&customer, "bucket_plus", "&payment_behavior=error_if_incomplete");
    let refused = post(&rig, "/v1/subscriptions", &all_or_nothing).await;
    is_refused(&refused, 402, "card_error", "card_declined", &Value::Null);
    assert_eq!(refused.body["error"]["decline_code"], "generic_decline");
    assert_eq!(rig.subscriptions_of(&customer).await, [] as [Value; 0]);

    assert_eq!(subscription(&rig, &customer, "").await["status"], "incomplete");
}

#[tokio::test]
async fn a_card_belongs_to_a_customer_or_is_refused() {
    let Some(rig) = StripeRig::start().await else { return };
    let (good, declined) = (rig.card(GOOD_CARD).await, rig.card(DECLINED_CARD).await);
    let refused = post(&rig, "/v1/customers", &format!("source={declined}")).await;
    is_refused(&refused, 402, "card_error", "card_declined", &Value::Null);
    let first = format!("source={good}&email=a@example.com&metadata[a]=1");
    let customer = post(&rig, "/v1/customers", &first).await.ok();
    let path = format!("/v1/customers/{}", id(&customer));

    let again = post(&rig, &path, &format!("source={good}")).await;
    is_refused(&again, 400, "invalid_request_error", "token_already_used", &json!("source"));
    let unknown = post(&rig, &path, "source=tok_none").await;
    is_refused(&unknown, 400, "invalid_request_error", "resource_missing", &json!("source"));
    assert_eq!(post(&rig, &path, "source=tok_chargeDeclined&metadata[b]=2").await.status, 402);
    assert_eq!(rig.customer(&id(&customer)).await, customer);
    let changed = post(&rig, &path, "source=tok_visa&metadata[b]=2").await.ok();
    assert_ne!(changed["default_source"], customer["default_source"]);
    assert_eq!(changed["metadata"], json!({ "a": "1", "b": "2" }));

    // Without one nothing can be subscribed to.
    let poor = id(&post(&rig, "/v1/customers", "email=b@example.com").await.ok());
    let refused = post(&rig, "/v1/subscriptions", &form(&poor, "bucket_plus", "")).await;
    is_refused(&refused, 400, "invalid_request_error", "resource_missing", &Value::Null);

    let live = subscription(&rig, &id(&customer), "").await;
    let gone = delete(&rig, &path).await.ok();
    assert_eq!(gone, json!({ "id": customer["id"], "object": "customer", "deleted": true }));
    assert_eq!(get(&rig, &path).await.ok(), gone);
    assert_eq!(rig.subscription(&id(&live)).await["status"], "canceled");
    is_refused(
        &post(&rig, "/v1/subscriptions", &form(&id(&customer), "bucket_plus", "")).await,
        400,
        "invalid_request_error",
        "resource_missing",
        &json!("customer"),
    );
    is_refused(
        &get(&rig, "/v1/customers/cus_none").await,
        404,
        "invalid_request_error",
        "resource_missing",
        &json!("id"),
    );
}

#[tokio::test]
async fn a_coupon_lowers_the_first_invoice() {
    let Some(rig) = StripeRig::start().await else { return };
    let customer = customer(&rig, GOOD_CARD).await;
    rig.coupon("THIRD_OFF", 33).await;

    let form = form(&customer, "bucket_plus", "&discounts[0][coupon]=NO_SUCH");
    let unknown = post(&rig, "/v1/subscriptions", &form).await;
    is_refused(&unknown, 400, "invalid_request_error", "resource_missing", &json!("discounts[0][coupon]"));
    let made = subscription(&rig, &customer, "&discounts[0][coupon]=THIRD_OFF&expand[]=discounts").await;

    assert_eq!(made["discounts"][0]["source"], json!({ "type": "coupon", "coupon": "THIRD_OFF" }));
    assert_eq!(rig.invoices(&id(&made)).await[0]["amount_paid"], 603);
    rig.next_period_begins(&id(&made)).await;
    assert_eq!(rig.invoices(&id(&made)).await[0]["amount_paid"], 900);
}

#[tokio::test]
async fn what_is_past_due_is_tried_again_with_a_new_card() {
    let Some(rig) = StripeRig::start().await else { return };
    let customer = customer(&rig, GOOD_CARD).await;
    let made = subscription(&rig, &customer, "").await;

    rig.charge_fails_next_period(&id(&made)).await;
    let late = rig.subscription(&id(&made)).await;
    assert_eq!(late["status"], "past_due");
    assert_eq!(
        late["items"]["data"][0]["current_period_start"],
        made["items"]["data"][0]["current_period_end"]
    );
    assert_eq!(rig.invoices(&id(&made)).await[0]["status"], "open");

    post(&rig, &format!("/v1/customers/{customer}"), &format!("source={}", rig.card(GOOD_CARD).await))
        .await
        .ok();
    assert_eq!(rig.subscription(&id(&made)).await["status"], "active");
    assert_eq!(rig.invoices(&id(&made)).await[0]["status"], "paid");

    // What it cannot come to by itself.
    rig.show(&id(&made), json!({ "status": "unpaid" }));
    let path = format!("/v1/subscriptions/{}", id(&made));
    assert_eq!(get(&rig, &path).await.ok()["status"], "unpaid");
    assert_eq!(delete(&rig, &path).await.ok()["status"], "canceled");
}

#[tokio::test]
async fn a_trial_is_paid_for_when_it_ends() {
    let Some(rig) = StripeRig::start().await else { return };
    let customer = customer(&rig, GOOD_CARD).await;
    let made = subscription(&rig, &customer, "&trial_end=4102444800").await;
    assert_eq!((&made["status"], &made["trial_end"]), (&json!("trialing"), &json!(4_102_444_800_u32)));
    assert_eq!(made["items"]["data"][0]["current_period_end"], made["trial_end"]);
    assert_eq!(rig.invoices(&id(&made)).await, [] as [Value; 0]);

    let path = format!("/v1/subscriptions/{}", id(&made));
    let active = post(&rig, &path, "trial_end=now&proration_behavior=none").await.ok();
    assert_eq!(active["status"], "active");
    assert_eq!(rig.invoices(&id(&made)).await[0]["status"], "paid");
    assert_eq!(post(&rig, &path, "trial_end=4102444800").await.ok()["status"], "trialing");

    // Or it stays.
    let swap = format!("source={}", rig.card(CHARGE_FAILS_CARD).await);
    post(&rig, &format!("/v1/customers/{customer}"), &swap).await.ok();
    let refused = post(&rig, &path, "trial_end=now&payment_behavior=error_if_incomplete").await;
    is_refused(&refused, 402, "card_error", "card_declined", &Value::Null);
    assert_eq!(rig.subscription(&id(&made)).await["status"], "trialing");
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let Some(rig) = StripeRig::start().await else { return };
    let there = async || get(&rig, "/v1/customers").await.ok()["data"].as_array().unwrap().len();
    let ask = async || timeout(IN_VAIN * 10, send(&rig, "POST", "/v1/customers", "name=A", None)).await;

    for (fault, answered, arrives) in [
        (Fault::Status(503), Some(Some(503)), false),
        (Fault::Silence, None, false),
        (Fault::LostAnswer, None, true),
        (Fault::Closed, Some(None), false),
        (Fault::ClosedAfter, Some(None), true),
    ] {
        let before = there().await;
        rig.fails("POST", "/v1/customers", fault, 1);

        let outcome = ask().await.ok().map(|sent| sent.ok().map(|answer| answer.status));

        assert_eq!(outcome, answered, "{fault:?}");
        assert_eq!(there().await - before, usize::from(arrives), "{fault:?}");
        let sent = rig.requests().into_iter().rfind(|sent| sent.method == "POST").unwrap();
        assert_eq!((sent.path.as_str(), sent.fields["name"].as_str()), ("/v1/customers", "A"));
        assert_eq!(sent.status, answered.flatten(), "{fault:?}");
    }
    // Each was for one request.
    assert_eq!(ask().await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_request_that_stripe_would_refuse_fails_the_test() {
    let Some(rig) = StripeRig::start().await else { return };
    let customer = customer(&rig, GOOD_CARD).await;
    if rig.front.is_judged() {
        let form = form(&customer, "bucket_plus", "&coupon=OLD");
        assert_eq!(post(&rig, "/v1/subscriptions", &form).await.status, 400);
        assert_eq!(get(&rig, "/v1/subscriptions?status=alive").await.status, 400);
        assert_eq!(rig.live_subscriptions().await, [] as [Value; 0]);

        let verdicts = rig.verdicts();
        assert_eq!(verdicts.len(), 2);
        assert!(verdicts[0].starts_with("POST /v1/subscriptions: additional properties"), "{verdicts:?}");
        assert!(verdicts[0].contains("OLD") && verdicts[1].contains("'status'"), "{verdicts:?}");
    }
    // As does what is not played; and another key is nobody's.
    subscription(&rig, &customer, "&billing_cycle_anchor=4102444800").await;
    let stranger =
        Request::get(format!("{}/v1/prices", rig.url())).header("authorization", "Bearer sk_test_x");
    assert_eq!(local::client::send(stranger.body("").unwrap()).await.unwrap().status(), 401);

    let fails = catch_unwind(AssertUnwindSafe(|| drop(rig))).unwrap_err();
    assert!(fails.downcast_ref::<String>().unwrap().contains("billing_cycle_anchor"));
}

#[test]
fn a_signature_is_that_of_a_known_example() {
    // printf '%s' '1492774577.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test_secret
    let signature = sign(r#"{"id":"evt_1"}"#, "whsec_test_secret", 1_492_774_577);

    assert_eq!(signature, "t=1492774577,v1=799c4ba7bb339f3c8601adfd112f0e477c930a268be1243d341abb8286501c2f");
}

#[tokio::test]
async fn events_are_delivered_signed() {
    let Some(rig) = StripeRig::start().await else { return };
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let hook = axum::Router::new().fallback(async move |headers: axum::http::HeaderMap, body: String| {
        sender.send((headers["stripe-signature"].to_str().unwrap().to_owned(), body)).unwrap();
    });
    tokio::spawn(async move { axum::serve(listener, hook).await });
    rig.delivers_webhooks_to(&url).await;
    let customer = customer(&rig, GOOD_CARD).await;

    let made = subscription(&rig, &customer, "").await;
    delete(&rig, &format!("/v1/subscriptions/{}", id(&made))).await.ok();

    loop {
        let delivered = timeout(Duration::from_secs(20), receiver.recv()).await.unwrap();
        let (signature, payload) = delivered.unwrap();
        let sent_at = signature[2..].split(',').next().unwrap().parse().unwrap();
        assert_eq!(signature, sign(&payload, rig.webhook_secret(), sent_at));
        let event: Value = serde_json::from_str(&payload).unwrap();
        if event["type"] == "customer.subscription.deleted" {
            assert_eq!(event["data"]["object"], rig.subscription(&id(&made)).await);
            // In the same form as those that a test makes up.
            let own: Value = serde_json::from_str(&rig.event("x", &made)).unwrap();
            let names = |event: &Value| event.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&event), names(&own));
            break;
        }
    }
}
