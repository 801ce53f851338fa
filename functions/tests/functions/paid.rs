//! Plans that cost money: the functions against `stripe`'s real parts, through the whole life of a
//! subscription, and through everything that can go wrong on the way.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    api::{Answer, Api, Person, path},
    invariants,
    stripe::{CHARGE_FAILS_CARD, DECLINED_CARD, Fault, GOOD_CARD, StripeRig, sign},
};

/// The API with an account at Stripe.
struct Paid {
    rig: StripeRig,
    api: Api,
}

impl Paid {
    /// `None` where the parts that play Stripe cannot be had; why is on standard error then.
    async fn start() -> Option<Self> {
        let rig = StripeRig::start().await?;
        let keys = json!({ "secret_key": rig.secret_key(), "webhook_secret": rig.webhook_secret() });
        let secrets = BTreeMap::from([("stripe".to_owned(), keys.to_string())]);
        let api = Api::deployed(&[("StripeSecretName", "stripe"), ("StripeUrl", rig.url())], secrets).await;
        Some(Self { rig, api })
    }

    /// An owner whose bucket is on `plan`, and both.
    async fn owner_on(&self, plan: &str) -> (Person<'_>, Value) {
        let (owner, bucket, card) = self.owner_with_card().await;
        upgrades(&owner, &bucket, &json!({ "plan": plan, "stripe_token": card })).await.ok();
        (owner, bucket)
    }

    /// An owner, their bucket on `free`, and the token of a card that pays.
    async fn owner_with_card(&self) -> (Person<'_>, Value, String) {
        let owner = self.api.user("owner@example.com").await;
        let bucket = owner.creates_bucket("Servers").await;
        (owner, bucket, self.rig.card(GOOD_CARD).await)
    }

    /// An owner and their bucket, whose subscription to `plus` was given up, since each attempt ended with
    /// `fault`.
    async fn owner_given_up(&self, fault: Fault) -> (Person<'_>, Value) {
        let (owner, bucket, card) = self.owner_with_card().await;
        self.rig.fails("POST", "/v1/subscriptions", fault, 3);
        let body = json!({ "plan": "plus", "stripe_token": card });
        upgrades(&owner, &bucket, &body).await.is_problem(500, "stripe_error");
        (owner, bucket)
    }

    /// Delivers an event of Stripe's about `object`.
    async fn delivers(&self, kind: &str, object: &Value) -> Answer {
        self.delivers_payload(&self.rig.event(kind, object)).await
    }

    async fn delivers_payload(&self, payload: &str) -> Answer {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        self.delivers_signed(payload, &sign(payload, self.rig.webhook_secret(), now)).await
    }

    async fn delivers_signed(&self, payload: &str, signature: &str) -> Answer {
        let headers = [("content-type", "application/json"), ("stripe-signature", signature)];
        self.api.send_with("POST", "/api/webhooks/stripe", &headers, payload).await
    }

    /// The one live subscription at Stripe.
    async fn subscription(&self) -> Value {
        let mut live = self.rig.live_subscriptions().await;
        assert_eq!(live.len(), 1, "{live:?}");
        live.remove(0)
    }

    /// Everything in the table that is about plans and money.
    async fn money_rows(&self) -> Vec<Value> {
        let mut rows = self.api.rows().await;
        rows.retain(|row| matches!(row["type"].as_str(), Some("subscription" | "billing_change" | "bucket")));
        rows
    }

    /// Asserts that the table and Stripe agree: each live bucket's subscription is as Stripe has it, no
    /// other one is alive, nothing is half done, and nobody has paid twice.
    async fn agree(&self) {
        invariants::hold(&self.api).await;
        let rows = self.api.rows().await;
        let of = |kind: &'static str| rows.iter().filter(move |row| row["type"] == kind);
        assert_eq!(of("billing_change").count(), 0, "a change is unfinished");
        let mut alive: Vec<String> = Vec::new();
        for row in of("subscription") {
            let kept = &row["subscription"];
            let told = self.rig.subscription(kept["id"].as_str().unwrap()).await;
            let seconds = |field: &str| kept[field].as_i64().map(|millis| millis / 1000);
            assert_eq!(kept["status"], told["status"]);
            assert_eq!(seconds("cancel_at"), told["cancel_at"].as_i64());
            assert_eq!(told["metadata"]["bucket_id"], row["bucket_id"]);
            let lookup_key = &told["items"]["data"][0]["price"]["lookup_key"];
            assert_eq!(format!("bucket_{}", kept["plan"].as_str().unwrap()), lookup_key.as_str().unwrap());
            let bucket = of("bucket").find(|bucket| bucket["id"] == row["bucket_id"]).unwrap();
            assert_eq!(bucket["plan"], kept["plan"]);
            if told["status"] != "canceled" {
                alive.push(kept["id"].as_str().unwrap().to_owned());
            }
        }
        for live in self.rig.live_subscriptions().await {
            let id = live["id"].as_str().unwrap();
            assert!(alive.iter().any(|kept| kept == id), "{id} is alive and nobody's");
        }
    }
}

async fn upgrades(person: &Person<'_>, bucket: &Value, body: &Value) -> Answer {
    person.post(&path(bucket, "/upgrade"), body).await
}

async fn plan_of(person: &Person<'_>, bucket: &Value) -> String {
    person.get(&path(bucket, "")).await.ok()["credits"]["offer_type"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_plan_is_subscribed_to_changed_ended_and_taken_up_again() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket, card) = paid.owner_with_card().await;

    let answer = upgrades(&owner, &bucket, &json!({ "plan": "plus", "stripe_token": card })).await.ok();
    assert_eq!(answer["bucket"]["credits"]["offer_type"], "plus");
    assert_eq!(
        (&answer["subscription"]["plan"], &answer["subscription"]["status"]),
        (&json!("plus"), &json!("active"))
    );
    let first = paid.subscription().await;
    assert_eq!(answer["subscription"]["id"], first["id"]);
    assert_eq!(owner.get(&path(&bucket, "/subscription")).await.ok(), answer["subscription"]);
    paid.agree().await;

    // The card is known now.
    let answer = upgrades(&owner, &bucket, &json!({ "plan": "pro" })).await.ok();
    assert_eq!(answer["bucket"]["credits"]["offer_type"], "pro");
    assert_eq!(paid.subscription().await["id"], first["id"]);
    paid.agree().await;

    let answer = upgrades(&owner, &bucket, &json!({ "plan": "free" })).await.ok();
    assert_eq!(answer["bucket"]["credits"]["offer_type"], "pro", "it is paid for until the period's end");
    assert_eq!(answer["subscription"]["cancel_at_period_end"], true);
    assert!(answer["bucket"]["plan_ends_at"].is_string());
    assert_eq!(paid.subscription().await["cancel_at_period_end"], true);
    paid.agree().await;
    let rows = paid.money_rows().await;
    upgrades(&owner, &bucket, &json!({ "plan": "free" })).await.ok();
    assert_eq!(paid.money_rows().await, rows, "it ends already");

    let answer = upgrades(&owner, &bucket, &json!({ "plan": "plus" })).await.ok();
    assert_eq!(answer["subscription"]["cancel_at_period_end"], false);
    assert_eq!(answer["bucket"]["plan_ends_at"], Value::Null);
    assert_eq!(paid.subscription().await["id"], first["id"]);
    paid.agree().await;

    let charges = owner.get(&path(&bucket, "/payment/charges")).await.ok();
    let invoices = paid.rig.invoices(first["id"].as_str().unwrap()).await;
    assert_eq!(charges.as_array().unwrap().len(), invoices.len());
    assert_eq!(charges[0]["id"], invoices[0]["id"]);
    assert!(charges.as_array().unwrap().iter().all(|invoice| invoice["status"] == "paid"), "{charges}");
}

#[tokio::test]
async fn a_paid_plan_needs_a_card_that_pays() {
    let Some(paid) = Paid::start().await else { return };
    let owner = paid.api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let before = paid.money_rows().await;

    upgrades(&owner, &bucket, &json!({ "plan": "plus" })).await.is_problem(403, "card_required");
    for number in [DECLINED_CARD, CHARGE_FAILS_CARD] {
        let card = paid.rig.card(number).await;
        let answer = upgrades(&owner, &bucket, &json!({ "plan": "plus", "stripe_token": card })).await;
        let detail = answer.is_problem(403, "card_declined");
        assert!(detail.contains("declined"), "{detail}");
    }
    let unknown = json!({ "plan": "plus", "stripe_token": "tok_of_nobody" });
    upgrades(&owner, &bucket, &unknown).await.blames(&["stripe_token"]);
    assert!(paid.rig.live_subscriptions().await.is_empty());
    assert_eq!(paid.money_rows().await, before);

    let card = paid.rig.card(GOOD_CARD).await;
    upgrades(&owner, &bucket, &json!({ "plan": "plus", "stripe_token": card })).await.ok();
    paid.agree().await;
}

#[tokio::test]
async fn a_coupon_is_taken_off_and_an_unknown_one_is_said_to_be() {
    let Some(paid) = Paid::start().await else { return };
    paid.rig.coupon("HALF", 50).await;
    let (owner, bucket, card) = paid.owner_with_card().await;

    let unknown = json!({ "plan": "plus", "stripe_token": card, "coupon_id": "NOTHING" });
    upgrades(&owner, &bucket, &unknown).await.blames(&["coupon_id"]);
    assert!(paid.rig.live_subscriptions().await.is_empty());

    // The token was used up by that, and its card is known.
    let known = json!({ "plan": "plus", "stripe_token": card, "coupon_id": "HALF" });
    upgrades(&owner, &bucket, &known).await.blames(&["stripe_token"]);
    upgrades(&owner, &bucket, &json!({ "plan": "plus", "coupon_id": "HALF" })).await.ok();
    let charges = owner.get(&path(&bucket, "/payment/charges")).await.ok();
    assert_eq!((&charges[0]["amount_paid"], &charges[0]["currency"]), (&json!(450), &json!("eur")));
    paid.agree().await;
}

#[tokio::test]
async fn who_subscribes_to_the_plan_they_try_pays_from_the_trials_end_on() {
    let Some(paid) = Paid::start().await else { return };
    let owner = paid.api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.put(&path(&bucket, "/start_trial"), &json!({})).await.ok();
    let end = paid.api.rows_of("bucket").await.remove(0)["trial_ends_at"].as_i64().unwrap() / 1000;
    let card = paid.rig.card(GOOD_CARD).await;

    let answer = upgrades(&owner, &bucket, &json!({ "plan": "plus", "stripe_token": card })).await.ok();

    assert_eq!(
        (&answer["subscription"]["status"], &answer["subscription"]["trial_end"]),
        (&json!("trialing"), &json!(end))
    );
    paid.agree().await;

    // Another plan is not what is tried.
    let answer = upgrades(&owner, &bucket, &json!({ "plan": "pro" })).await.ok();
    assert_eq!(answer["subscription"]["status"], "active");
    assert_eq!(answer["bucket"]["credits"]["offer_type"], "pro");
    paid.agree().await;
}

#[tokio::test]
async fn a_payment_that_fails_later_ends_the_plan_when_stripe_gives_up() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("plus").await;
    let id = paid.subscription().await["id"].as_str().unwrap().to_owned();

    paid.rig.charge_fails_next_period(&id).await;
    let told = paid.subscription().await;
    assert_eq!(told["status"], "past_due");
    paid.delivers("customer.subscription.updated", &told).await.ok();
    assert_eq!(owner.get(&path(&bucket, "/subscription")).await.ok()["status"], "past_due");
    assert_eq!(plan_of(&owner, &bucket).await, "plus", "Stripe still tries");
    paid.agree().await;

    // The period that nobody has paid for has begun.
    let mut items = told["items"].clone();
    items["data"][0]["current_period_start"] = json!(OffsetDateTime::now_utc().unix_timestamp() - 1);
    paid.rig.show(&id, json!({ "status": "unpaid", "items": items }));
    paid.delivers(
        "invoice.payment_failed",
        &json!({ "id": "in_1", "parent": { "subscription_details": { "subscription": id } } }),
    )
    .await
    .ok();
    assert_eq!(plan_of(&owner, &bucket).await, "free");

    // The card is replaced, and Stripe collects.
    paid.rig.shows_truth(&id);
    let card = paid.rig.card(GOOD_CARD).await;
    upgrades(&owner, &bucket, &json!({ "plan": "plus", "stripe_token": card })).await.ok();
    paid.delivers("invoice.paid", &json!({ "id": "in_1", "subscription": id })).await.ok();
    assert_eq!(plan_of(&owner, &bucket).await, "plus");
    paid.agree().await;
}

#[tokio::test]
async fn what_ends_at_stripe_ends_here_with_what_was_paid_for() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("plus").await;
    let id = paid.subscription().await["id"].as_str().unwrap().to_owned();

    // Ended by hand, at once: what was paid for is not taken away.
    paid.rig.show(&id, json!({ "status": "canceled" }));
    paid.delivers("customer.subscription.deleted", &json!({ "id": id })).await.ok();
    assert_eq!(plan_of(&owner, &bucket).await, "plus");
    let answer = upgrades(&owner, &bucket, &json!({ "plan": "free" })).await.ok();
    assert_eq!(answer["bucket"]["credits"]["offer_type"], "plus");
    owner.get(&path(&bucket, "/subscription")).await.is_problem(404, "subscription_not_found");
}

#[tokio::test]
async fn what_ends_because_nothing_could_be_collected_was_not_paid_for() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("plus").await;
    let id = paid.subscription().await["id"].as_str().unwrap().to_owned();
    paid.rig
        .show(&id, json!({ "status": "canceled", "cancellation_details": { "reason": "payment_failed" } }));

    paid.delivers("customer.subscription.deleted", &json!({ "id": id })).await.ok();

    assert_eq!(plan_of(&owner, &bucket).await, "free");
}

#[tokio::test]
async fn events_may_come_twice_late_and_in_any_order() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("plus").await;
    let made = paid.subscription().await;
    let created = paid.rig.event("customer.subscription.created", &made);
    upgrades(&owner, &bucket, &json!({ "plan": "pro" })).await.ok();
    let changed = paid.rig.event("customer.subscription.updated", &paid.subscription().await);
    upgrades(&owner, &bucket, &json!({ "plan": "free" })).await.ok();
    let ending = paid.rig.event("customer.subscription.updated", &paid.subscription().await);
    let shown = owner.get(&path(&bucket, "")).await.ok();

    for payload in [&ending, &created, &changed, &created, &ending] {
        assert_eq!(paid.delivers_payload(payload).await.ok(), json!({ "received": true }));
        let mut now = owner.get(&path(&bucket, "")).await.ok();
        now["updated_at"] = shown["updated_at"].clone();
        assert_eq!(now, shown);
        paid.agree().await;
    }

    // Each was counted once.
    let events = paid.api.rows_of("stripe_event").await;
    assert_eq!(events.len(), 3);
    let synced =
        paid.api.rows_of("audit").await.iter().filter(|row| row["action"] == "sync_subscription").count();
    assert_eq!(synced, 3);
    let rows = paid.api.rows().await;
    let (one, two) = tokio::join!(paid.delivers_payload(&created), paid.delivers_payload(&created));
    one.ok();
    two.ok();
    assert_eq!(paid.api.rows().await, rows);
}

#[tokio::test]
async fn one_event_at_once_is_counted_once() {
    let Some(paid) = Paid::start().await else { return };
    paid.owner_on("plus").await;
    let payload = paid.rig.event("customer.subscription.updated", &paid.subscription().await);

    let (a, b, c) = tokio::join!(
        paid.delivers_payload(&payload),
        paid.delivers_payload(&payload),
        paid.delivers_payload(&payload)
    );

    for answer in [a, b, c] {
        answer.ok();
    }
    let audit = paid.api.rows_of("audit").await;
    assert_eq!(audit.iter().filter(|row| row["action"] == "sync_subscription").count(), 1);
    paid.agree().await;
}

#[tokio::test]
async fn only_what_stripe_has_signed_just_now_is_taken() {
    let Some(paid) = Paid::start().await else { return };
    paid.owner_on("plus").await;
    let told = paid.subscription().await;
    paid.rig.show(told["id"].as_str().unwrap(), json!({ "status": "unpaid" }));
    let payload = paid.rig.event("customer.subscription.updated", &told);
    let rows = paid.api.rows().await;
    let (now, secret) = (OffsetDateTime::now_utc().unix_timestamp(), paid.rig.webhook_secret());

    for (signature, what) in [
        (sign(&payload, "whsec_of_another", now), "another secret"),
        (sign(&payload, secret, now - 400), "too old"),
        (sign(&payload, secret, now + 400), "from the future"),
        (sign(&format!("{payload} "), secret, now), "another body"),
        (String::new(), "none"),
    ] {
        let answer = paid.delivers_signed(&payload, &signature).await;
        answer.is_problem(400, "invalid_signature");
        assert_eq!(paid.api.rows().await, rows, "{what}");
    }
    paid.delivers_payload("{}").await.is_problem(400, "invalid_input");
    assert_eq!(paid.api.rows().await, rows);
}

#[tokio::test]
async fn what_is_of_another_account_or_about_nothing_here_changes_nothing() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("plus").await;
    let told = paid.subscription().await;
    let before = paid.money_rows().await;

    let mut connected: Value =
        serde_json::from_str(&paid.rig.event("customer.subscription.deleted", &told)).unwrap();
    connected["account"] = json!("acct_of_another");
    paid.rig.show(told["id"].as_str().unwrap(), json!({ "status": "unpaid" }));
    paid.delivers_payload(&connected.to_string()).await.ok();
    paid.rig.shows_truth(told["id"].as_str().unwrap());
    for (kind, object) in [
        ("customer.subscription.updated", json!({ "id": "sub_of_another_account" })),
        ("customer.subscription.updated", json!({})),
        ("invoice.paid", json!({ "id": "in_1" })),
        ("customer.updated", json!({ "id": told["customer"] })),
        ("charge.refunded", json!({ "id": "ch_1" })),
    ] {
        paid.delivers(kind, &object).await.ok();
    }

    assert_eq!(paid.money_rows().await, before);
    assert_eq!(plan_of(&owner, &bucket).await, "plus");
    paid.agree().await;
}

/// What goes wrong, where, and how often: one request tries three times.
const FAULTS: [(&str, &str, Fault, usize); 13] = [
    ("POST", "/v1/customers", Fault::Closed, 1),
    ("POST", "/v1/customers", Fault::Closed, 3),
    ("POST", "/v1/customers", Fault::ClosedAfter, 3),
    ("POST", "/v1/customers", Fault::Status(500), 1),
    ("POST", "/v1/customers/", Fault::Closed, 3),
    ("GET", "/v1/prices", Fault::Status(500), 3),
    ("POST", "/v1/subscriptions", Fault::Status(500), 1),
    ("POST", "/v1/subscriptions", Fault::Status(429), 1),
    ("POST", "/v1/subscriptions", Fault::Status(409), 2),
    ("POST", "/v1/subscriptions", Fault::Closed, 1),
    ("POST", "/v1/subscriptions", Fault::Closed, 3),
    ("POST", "/v1/subscriptions", Fault::ClosedAfter, 1),
    ("POST", "/v1/subscriptions", Fault::ClosedAfter, 3),
];

#[tokio::test]
async fn whatever_goes_wrong_on_the_way_the_same_request_ends_well_and_charges_once() {
    for (method, prefix, fault, times) in FAULTS {
        let Some(paid) = Paid::start().await else { return };
        let what = format!("{fault:?} x {times} on {method} {prefix}");
        let (owner, bucket, card) = paid.owner_with_card().await;
        let body = json!({ "plan": "plus", "stripe_token": card });
        paid.rig.fails(method, prefix, fault, times);

        let answer = upgrades(&owner, &bucket, &body).await;

        // A failure of Stripe's own stays one for the call that met it.
        let is_kept = matches!(fault, Fault::Status(500)) && method == "POST";
        if times < 3 && !is_kept {
            assert_eq!(answer.status, 200, "{what}: {}", answer.body);
        } else {
            let detail = answer.is_problem(500, "stripe_error");
            let said = if is_kept { "the plan was not changed" } else { "ask again for the same change" };
            assert!(detail.contains(said), "{what}: {detail}");
            assert_eq!(plan_of(&owner, &bucket).await, "free", "{what}");
            let answer = upgrades(&owner, &bucket, &body).await;
            if answer.status == 400 {
                // The token was used up, and its card is known.
                answer.blames(&["stripe_token"]);
                assert!(answer.body["detail"].as_str().unwrap().contains("leave it out"), "{}", answer.body);
                upgrades(&owner, &bucket, &json!({ "plan": "plus" })).await.ok();
            } else {
                answer.ok();
            }
        }
        assert_eq!(plan_of(&owner, &bucket).await, "plus", "{what}");
        let id = paid.subscription().await["id"].as_str().unwrap().to_owned();
        assert_eq!(paid.rig.invoices(&id).await.len(), 1, "{what}");
        paid.agree().await;
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_waited_for_and_not_for_ever() {
    for fault in [Fault::Silence, Fault::LostAnswer] {
        let Some(paid) = Paid::start().await else { return };
        let (owner, bucket, card) = paid.owner_with_card().await;
        let body = json!({ "plan": "plus", "stripe_token": card });
        paid.rig.fails("POST", "/v1/subscriptions", fault, 3);

        upgrades(&owner, &bucket, &body).await.is_problem(500, "stripe_error");

        assert_eq!(plan_of(&owner, &bucket).await, "free");
        // The card is known from then on, and its token used up.
        upgrades(&owner, &bucket, &json!({ "plan": "plus" })).await.ok();
        let id = paid.subscription().await["id"].as_str().unwrap().to_owned();
        assert_eq!(paid.rig.invoices(&id).await.len(), 1);
        paid.agree().await;
    }
}

#[tokio::test]
async fn what_stripe_did_after_we_gave_up_comes_by_its_event() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_given_up(Fault::ClosedAfter).await;

    paid.delivers("customer.subscription.created", &paid.subscription().await).await.ok();

    assert_eq!(plan_of(&owner, &bucket).await, "plus");
    paid.agree().await;
    // And who asks again nevertheless is not charged again.
    upgrades(&owner, &bucket, &json!({ "plan": "plus" })).await.ok();
    let id = paid.subscription().await["id"].as_str().unwrap().to_owned();
    assert_eq!(paid.rig.invoices(&id).await.len(), 1);
    paid.agree().await;
}

#[tokio::test]
async fn what_ended_at_stripe_after_we_gave_up_is_not_taken_up() {
    for is_told in [true, false] {
        let Some(paid) = Paid::start().await else { return };
        let (owner, bucket) = paid.owner_given_up(Fault::ClosedAfter).await;
        let ended = paid.subscription().await;
        paid.rig.show(ended["id"].as_str().unwrap(), json!({ "status": "canceled" }));

        if is_told {
            paid.delivers("customer.subscription.deleted", &ended).await.ok();
            assert_eq!(plan_of(&owner, &bucket).await, "free");
        }
        let answer = upgrades(&owner, &bucket, &json!({ "plan": "plus" })).await.ok();

        assert_ne!(answer["subscription"]["id"], ended["id"]);
        assert_eq!(answer["subscription"]["status"], "active");
        assert_eq!(plan_of(&owner, &bucket).await, "plus");
    }
}

#[tokio::test]
async fn who_wants_something_else_after_a_failure_gets_it_and_what_was_done_is_found() {
    for fault in [Fault::ClosedAfter, Fault::Closed] {
        let Some(paid) = Paid::start().await else { return };
        let (owner, bucket) = paid.owner_given_up(fault).await;

        upgrades(&owner, &bucket, &json!({ "plan": "pro" })).await.ok();

        assert_eq!(plan_of(&owner, &bucket).await, "pro");
        paid.subscription().await;
        paid.agree().await;
    }
}

#[tokio::test]
async fn a_change_of_price_or_an_end_that_fails_is_found_again_too() {
    for fault in [Fault::Closed, Fault::ClosedAfter] {
        for (first, then) in [("pro", "pro"), ("pro", "free"), ("free", "free"), ("free", "pro")] {
            let Some(paid) = Paid::start().await else { return };
            let (owner, bucket) = paid.owner_on("plus").await;
            paid.rig.fails("POST", "/v1/subscriptions/", fault, 3);
            upgrades(&owner, &bucket, &json!({ "plan": first })).await.is_problem(500, "stripe_error");

            let answer = upgrades(&owner, &bucket, &json!({ "plan": then })).await.ok();

            assert_eq!(
                answer["subscription"]["cancel_at_period_end"],
                then == "free",
                "{fault:?} {first} {then}"
            );
            paid.agree().await;
        }
    }
}

#[tokio::test]
async fn of_racing_changes_each_is_done_or_told_to_wait_and_one_subscription_is_left() {
    for _ in 0..5 {
        let Some(paid) = Paid::start().await else { return };
        let owner = paid.api.user("owner@example.com").await;
        let bucket = owner.creates_bucket("Servers").await;
        let cards =
            [paid.rig.card(GOOD_CARD).await, paid.rig.card(GOOD_CARD).await, paid.rig.card(GOOD_CARD).await];
        let body = |plan: &str, card: &str| json!({ "plan": plan, "stripe_token": card });
        let [plus, pro, again] = [body("plus", &cards[0]), body("pro", &cards[1]), body("plus", &cards[2])];

        let (a, b, c) = tokio::join!(
            upgrades(&owner, &bucket, &plus),
            upgrades(&owner, &bucket, &pro),
            upgrades(&owner, &bucket, &again)
        );

        let done = [&a, &b, &c].iter().filter(|answer| answer.status == 200).count();
        assert!(done >= 1);
        for waiting in [a, b, c].iter().filter(|answer| answer.status != 200) {
            waiting.is_problem(503, "plan_changing");
        }
        paid.subscription().await;
        paid.agree().await;
    }
}

#[tokio::test]
async fn deleting_a_bucket_cancels_what_pays_for_it_first() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("plus").await;
    let id = paid.subscription().await["id"].as_str().unwrap().to_owned();
    let rows = paid.api.rows().await;

    for fault in [Fault::Status(500), Fault::Closed] {
        paid.rig.fails("DELETE", "/v1/subscriptions/", fault, 3);
        let detail = owner.delete(&path(&bucket, "")).await.is_problem(500, "stripe_error");
        assert!(detail.contains("the bucket was not deleted"), "{detail}");
        assert_eq!(paid.api.rows().await, rows);
        assert_eq!(paid.subscription().await["id"], *id);
    }

    // Cancelled, but the answer is lost: then it is, and the next try finds it so.
    paid.rig.fails("DELETE", "/v1/subscriptions/", Fault::ClosedAfter, 1);
    owner.delete(&path(&bucket, "")).await.ok();
    assert!(paid.rig.live_subscriptions().await.is_empty());
    owner.get(&path(&bucket, "")).await.is_problem(404, "bucket_not_found");
    let told = paid.rig.subscription(&id).await;
    paid.delivers("customer.subscription.deleted", &told).await.ok();
    paid.agree().await;
}

#[tokio::test]
async fn a_subscription_that_comes_to_be_after_its_bucket_is_gone_is_cancelled() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_given_up(Fault::ClosedAfter).await;
    let told = paid.subscription().await;

    // Found by the change that was left.
    owner.delete(&path(&bucket, "")).await.ok();
    assert!(paid.rig.live_subscriptions().await.is_empty());

    // And by its event, where it comes to be only then.
    let id = told["id"].as_str().unwrap();
    paid.rig.show(id, json!({ "status": "active" }));
    paid.delivers("customer.subscription.created", &told).await.ok();
    let cancelled = paid.rig.requests().iter().filter(|sent| sent.method == "DELETE").count();
    assert_eq!(cancelled, 2);
    paid.agree().await;
}

#[tokio::test]
async fn a_paid_bucket_moves_to_who_has_a_card_and_they_pay_from_the_next_period_on() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("plus").await;
    let heir = paid.api.user("heir@example.com").await;
    owner.adds(&bucket, &heir, "user").await;
    let old = paid.subscription().await;
    let rows = paid.money_rows().await;

    let detail = owner.transfers(&bucket, "heir@example.com").await.is_problem(403, "card_required");
    assert!(detail.contains("the new owner has no card"), "{detail}");
    assert_eq!(paid.money_rows().await, rows);
    assert_eq!(paid.subscription().await["cancel_at_period_end"], false);

    let own = heir.creates_bucket("Own").await;
    let card = paid.rig.card(GOOD_CARD).await;
    upgrades(&heir, &own, &json!({ "plan": "plus", "stripe_token": card })).await.ok();
    let handed_over = owner.transfers(&bucket, "heir@example.com").await.ok();

    assert_eq!(
        (&handed_over["role"], &handed_over["credits"]["offer_type"]),
        (&json!("admin"), &json!("plus"))
    );
    let ended = paid.rig.subscription(old["id"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "canceled", "the old owner pays no more");
    let shown = heir.get(&path(&bucket, "/subscription")).await.ok();
    assert_ne!(shown["id"], old["id"]);
    assert_eq!(shown["status"], "trialing");
    assert_eq!(shown["trial_end"], ended["items"]["data"][0]["current_period_end"]);
    let new = paid.rig.subscription(shown["id"].as_str().unwrap()).await;
    assert_ne!(new["customer"], ended["customer"]);
    assert_eq!(
        heir.get(&path(&bucket, "/payment/charges")).await.ok(),
        json!([]),
        "these are not their invoices"
    );
    paid.agree().await;

    // What still comes of the old one changes nothing.
    paid.delivers("customer.subscription.deleted", &ended).await.ok();
    assert_eq!(heir.get(&path(&bucket, "/subscription")).await.ok(), shown);
    paid.agree().await;
}

/// An owner with a paid bucket, and an heir in it who pays for another one.
async fn heritage(paid: &Paid) -> (Person<'_>, Value, Person<'_>) {
    let (owner, bucket) = paid.owner_on("plus").await;
    let heir = paid.api.user("heir@example.com").await;
    owner.adds(&bucket, &heir, "user").await;
    let own = heir.creates_bucket("Own").await;
    let card = paid.rig.card(GOOD_CARD).await;
    upgrades(&heir, &own, &json!({ "plan": "pro", "stripe_token": card })).await.ok();
    (owner, bucket, heir)
}

#[tokio::test]
async fn a_transfer_that_fails_leaves_the_old_owner_paying_and_the_same_again_ends_well() {
    for fault in [Fault::Closed, Fault::ClosedAfter, Fault::Status(500)] {
        let Some(paid) = Paid::start().await else { return };
        let (owner, bucket, heir) = heritage(&paid).await;
        let old = owner.get(&path(&bucket, "/subscription")).await.ok();
        let times = if matches!(fault, Fault::Status(_)) { 1 } else { 3 };
        paid.rig.fails("POST", "/v1/subscriptions", fault, times);

        owner.transfers(&bucket, "heir@example.com").await.is_problem(500, "stripe_error");
        assert_eq!(owner.get(&path(&bucket, "/current_role")).await.ok()["role"], "owner");
        let told = paid.rig.subscription(old["id"].as_str().unwrap()).await;
        assert_eq!((&told["status"], &told["cancel_at_period_end"]), (&json!("active"), &json!(false)));

        owner.transfers(&bucket, "heir@example.com").await.ok();
        assert_eq!(heir.get(&path(&bucket, "/current_role")).await.ok()["role"], "owner");
        assert_eq!(paid.rig.live_subscriptions().await.len(), 2, "the heir's two");
        paid.agree().await;
    }
}

#[tokio::test]
async fn a_transfer_whose_old_subscription_does_not_end_is_done_and_ends_it_later() {
    for later in ["event", "upgrade", "destroy"] {
        let Some(paid) = Paid::start().await else { return };
        let (owner, bucket, heir) = heritage(&paid).await;
        let old = owner.get(&path(&bucket, "/subscription")).await.ok();
        paid.rig.fails("DELETE", "/v1/subscriptions/", Fault::Closed, 3);

        owner.transfers(&bucket, "heir@example.com").await.ok();
        assert_eq!(heir.get(&path(&bucket, "/current_role")).await.ok()["role"], "owner");
        assert_eq!(paid.rig.subscription(old["id"].as_str().unwrap()).await["status"], "active");

        match later {
            "event" => {
                let new = heir.get(&path(&bucket, "/subscription")).await.ok();
                let new = paid.rig.subscription(new["id"].as_str().unwrap()).await;
                paid.delivers("customer.subscription.created", &new).await.ok();
            }
            "upgrade" => drop(upgrades(&heir, &bucket, &json!({ "plan": "pro" })).await.ok()),
            _ => drop(heir.delete(&path(&bucket, "")).await.ok()),
        }

        assert_eq!(paid.rig.subscription(old["id"].as_str().unwrap()).await["status"], "canceled", "{later}");
        paid.agree().await;
    }
}

#[tokio::test]
async fn a_transfer_that_is_left_for_something_else_is_undone() {
    for fault in [Fault::Closed, Fault::ClosedAfter] {
        for then in ["pro", "free", "event", "destroy"] {
            let Some(paid) = Paid::start().await else { return };
            let (owner, bucket, _heir) = heritage(&paid).await;
            let old = owner.get(&path(&bucket, "/subscription")).await.ok();
            paid.rig.fails("POST", "/v1/subscriptions", fault, 3);
            owner.transfers(&bucket, "heir@example.com").await.is_problem(500, "stripe_error");

            match then {
                "event" => {
                    let told = paid.rig.subscription(old["id"].as_str().unwrap()).await;
                    paid.delivers("customer.subscription.updated", &told).await.ok();
                }
                "destroy" => drop(owner.delete(&path(&bucket, "")).await.ok()),
                plan => drop(upgrades(&owner, &bucket, &json!({ "plan": plan })).await.ok()),
            }

            let alive = if then == "destroy" { 1 } else { 2 };
            assert_eq!(paid.rig.live_subscriptions().await.len(), alive, "{fault:?} {then}");
            paid.agree().await;
        }
    }
}

#[tokio::test]
async fn a_transfer_that_cannot_be_moves_no_money() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket, heir) = heritage(&paid).await;
    for number in 0..4 {
        heir.creates_bucket(&number.to_string()).await;
    }
    let asked = paid.rig.requests().len();

    owner.transfers(&bucket, "heir@example.com").await.is_problem(403, "bucket_limit");
    owner.transfers(&bucket, "owner@example.com").await.blames(&["new_owner"]);
    owner.transfers(&bucket, "nobody@example.com").await.is_problem(404, "user_not_found");

    assert_eq!(paid.rig.requests().len(), asked);
    paid.agree().await;
}

#[tokio::test]
async fn who_gets_a_bucket_whose_subscription_ends_pays_with_their_own_card() {
    for (plan, status) in [("plus", "trialing"), ("pro", "active")] {
        let Some(paid) = Paid::start().await else { return };
        let (owner, bucket) = paid.owner_on("plus").await;
        let heir = paid.api.user("heir@example.com").await;
        owner.adds(&bucket, &heir, "user").await;
        upgrades(&owner, &bucket, &json!({ "plan": "free" })).await.ok();
        let old = paid.subscription().await;
        let old_id = old["id"].as_str().unwrap();
        // Nothing goes on that would have to move.
        owner.transfers(&bucket, "heir@example.com").await.ok();
        assert_eq!(heir.get(&path(&bucket, "/payment/charges")).await.ok(), json!([]));

        upgrades(&heir, &bucket, &json!({ "plan": plan })).await.is_problem(403, "card_required");
        let card = paid.rig.card(GOOD_CARD).await;
        let answer = upgrades(&heir, &bucket, &json!({ "plan": plan, "stripe_token": card })).await.ok();

        assert_eq!(
            (&answer["subscription"]["plan"], &answer["subscription"]["status"]),
            (&json!(plan), &json!(status))
        );
        let new = paid.subscription().await;
        assert_ne!((&new["id"], &new["customer"]), (&old["id"], &old["customer"]));
        assert_eq!(paid.rig.invoices(old_id).await.len(), 1, "the old owner pays nothing more");
        assert_eq!(paid.rig.subscription(old_id).await["status"], "canceled");
        paid.agree().await;
    }
}

#[tokio::test]
async fn what_nothing_is_collected_for_any_more_is_replaced() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("plus").await;
    let old = paid.subscription().await;
    let id = old["id"].as_str().unwrap();
    let mut items = old["items"].clone();
    items["data"][0]["current_period_start"] = json!(OffsetDateTime::now_utc().unix_timestamp() - 1);
    paid.rig.show(id, json!({ "status": "unpaid", "items": items }));
    paid.delivers("customer.subscription.updated", &json!({ "id": id })).await.ok();
    assert_eq!(plan_of(&owner, &bucket).await, "free");

    let card = paid.rig.card(GOOD_CARD).await;
    let answer = upgrades(&owner, &bucket, &json!({ "plan": "plus", "stripe_token": card })).await.ok();

    assert_eq!(answer["subscription"]["status"], "active");
    assert_eq!(answer["bucket"]["credits"]["offer_type"], "plus");
    assert_ne!(answer["subscription"]["id"], old["id"]);
    paid.agree().await;
    assert_eq!(paid.rig.subscription(id).await["status"], "canceled");
    let charges = owner.get(&path(&bucket, "/payment/charges")).await.ok();
    assert_eq!(charges.as_array().unwrap().len(), 2, "those of the former one too");
}

#[tokio::test]
async fn another_plan_waits_until_the_last_invoice_is_paid() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("plus").await;
    let id = paid.subscription().await["id"].as_str().unwrap().to_owned();
    paid.rig.charge_fails_next_period(&id).await;
    paid.delivers("customer.subscription.updated", &json!({ "id": id })).await.ok();

    let detail = upgrades(&owner, &bucket, &json!({ "plan": "pro" })).await.is_problem(403, "card_declined");
    assert!(detail.contains("the last invoice is still open"), "{detail}");
    let card = paid.rig.card(GOOD_CARD).await;
    upgrades(&owner, &bucket, &json!({ "plan": "pro", "stripe_token": card })).await.ok();
    assert_eq!(paid.subscription().await["status"], "active");
    paid.agree().await;
}

#[tokio::test]
async fn what_comes_to_be_after_another_wish_is_ended_with_a_credit() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("plus").await;
    let kept = paid.subscription().await;
    // A second one that one of our changes made, too late.
    let (other, late_bucket) = {
        let other = paid.api.user("other@example.com").await;
        let own = other.creates_bucket("Own").await;
        let card = paid.rig.card(GOOD_CARD).await;
        upgrades(&other, &own, &json!({ "plan": "plus", "stripe_token": card })).await.ok();
        (other, own)
    };
    let late = other.get(&path(&late_bucket, "/subscription")).await.ok();
    let late = paid.rig.subscription(late["id"].as_str().unwrap()).await;
    let metadata = json!({ "bucket_id": bucket["_id"], "plan": "plus", "change": "of another time" });
    paid.rig.show(late["id"].as_str().unwrap(), json!({ "metadata": metadata }));

    paid.delivers("customer.subscription.created", &late).await.ok();

    let ended = paid.rig.requests().into_iter().rfind(|sent| sent.method == "DELETE").unwrap();
    assert!(ended.path.ends_with(late["id"].as_str().unwrap()));
    assert_eq!((ended.fields["prorate"].as_str(), ended.fields["invoice_now"].as_str()), ("true", "true"));
    assert_eq!(owner.get(&path(&bucket, "/subscription")).await.ok()["id"], kept["id"]);
}

#[tokio::test]
async fn what_another_deployment_on_the_account_pays_for_is_left_alone() {
    let Some(paid) = Paid::start().await else { return };
    paid.owner_on("plus").await;
    let told = paid.subscription().await;
    let keys = json!({ "secret_key": paid.rig.secret_key(), "webhook_secret": paid.rig.webhook_secret() });
    let secrets = BTreeMap::from([("stripe".to_owned(), keys.to_string())]);
    let parameters = [("StripeSecretName", "stripe"), ("StripeUrl", paid.rig.url())];
    let other = Api::deployed(&parameters, secrets).await;
    let payload = paid.rig.event("customer.subscription.updated", &told);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let signature = sign(&payload, paid.rig.webhook_secret(), now);
    let headers = [("content-type", "application/json"), ("stripe-signature", signature.as_str())];

    other.send_with("POST", "/api/webhooks/stripe", &headers, &payload).await.ok();

    assert_eq!(paid.subscription().await["status"], "active");
    paid.agree().await;
}

#[tokio::test]
async fn a_plan_that_the_deployment_has_no_more_stays_what_it_was_paid_for() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("plus").await;
    let told = paid.subscription().await;
    let id = told["id"].as_str().unwrap();
    let mut item = told["items"]["data"][0].clone();
    item["price"] = json!({ "id": "price_old", "lookup_key": null });
    let mut metadata = told["metadata"].clone();
    metadata["plan"] = json!("gold");
    let items = json!({ "object": "list", "data": [item] });
    paid.rig.show(id, json!({ "metadata": metadata, "items": items }));

    paid.delivers("customer.subscription.updated", &told).await.ok();
    assert_eq!(plan_of(&owner, &bucket).await, "gold");
    let answer = upgrades(&owner, &bucket, &json!({ "plan": "free" })).await.ok();
    assert_eq!(answer["subscription"]["cancel_at_period_end"], true);
    owner.delete(&path(&bucket, "")).await.ok();
    assert!(paid.rig.live_subscriptions().await.is_empty());
}

#[tokio::test]
async fn old_news_of_what_is_over_take_nothing() {
    let Some(paid) = Paid::start().await else { return };
    let (owner, bucket) = paid.owner_on("pro").await;
    let id = paid.subscription().await["id"].as_str().unwrap().to_owned();
    paid.rig
        .show(&id, json!({ "status": "canceled", "cancellation_details": { "reason": "payment_failed" } }));
    paid.delivers("customer.subscription.deleted", &json!({ "id": id })).await.ok();
    let mut row = paid.api.rows_of("bucket").await.remove(0);
    row["plan_ends_at"] = json!(1_000);
    paid.api.put_row(&row).await;
    owner.put(&path(&bucket, "/start_trial"), &json!({})).await.ok();
    let before = paid.money_rows().await;

    paid.delivers("invoice.payment_failed", &json!({ "id": "in_1", "subscription": id })).await.ok();

    assert_eq!(paid.money_rows().await, before);
    assert_eq!(plan_of(&owner, &bucket).await, "plus");
}

#[tokio::test]
async fn a_subscription_made_by_hand_for_a_bucket_puts_it_on_its_plan() {
    let Some(paid) = Paid::start().await else { return };
    let owner = paid.api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let other = owner.creates_bucket("Other").await;
    let card = paid.rig.card(GOOD_CARD).await;
    upgrades(&owner, &other, &json!({ "plan": "plus", "stripe_token": card })).await.ok();
    let made = paid.subscription().await;
    // As an operator makes it in Stripe's dashboard: no change of ours led to it.
    let id = made["id"].as_str().unwrap();
    let price = json!({ "id": "price_bucket_enterprise", "lookup_key": "bucket_enterprise" });
    let mut item = made["items"]["data"][0].clone();
    item["price"] = price;
    let metadata = json!({ "bucket_id": bucket["_id"] });
    paid.rig.show(id, json!({ "metadata": metadata, "items": { "object": "list", "data": [item] } }));

    paid.delivers("customer.subscription.created", &made).await.ok();

    assert_eq!(plan_of(&owner, &bucket).await, "enterprise");
    upgrades(&owner, &bucket, &json!({ "plan": "enterprise" })).await.is_problem(403, "plan_not_allowed");
}

#[tokio::test]
async fn stripes_own_deliveries_keep_the_table_in_step() {
    let Some(paid) = Paid::start().await else { return };
    paid.rig.delivers_webhooks_to(&format!("{}/api/webhooks/stripe", paid.api.stack.origin())).await;
    let (owner, bucket) = paid.owner_on("plus").await;
    let id = paid.subscription().await["id"].as_str().unwrap().to_owned();

    paid.rig.charge_fails_next_period(&id).await;

    let mut status = Value::Null;
    for _ in 0..100 {
        status = owner.get(&path(&bucket, "/subscription")).await.ok()["status"].take();
        if status == "past_due" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(status, "past_due");
}

#[tokio::test]
async fn keys_are_never_logged_and_a_wrong_secret_ends_the_function_with_a_reason() {
    let Some(paid) = Paid::start().await else { return };
    let owner = paid.api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let card = paid.rig.card(DECLINED_CARD).await;
    upgrades(&owner, &bucket, &json!({ "plan": "plus", "stripe_token": card })).await;
    paid.rig.fails("POST", "/v1/customers", Fault::Status(500), 3);
    upgrades(&owner, &bucket, &json!({ "plan": "plus", "stripe_token": card })).await;
    for line in paid.api.logs() {
        for secret in [paid.rig.secret_key(), paid.rig.webhook_secret(), &card, "owner@example.com"] {
            assert!(!line.contains(secret), "{line}");
        }
    }

    let secrets = BTreeMap::from([("stripe".to_owned(), "sk_test_alone".to_owned())]);
    let api = Api::deployed(&[("StripeSecretName", "stripe")], secrets).await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let answer = upgrades(&owner, &bucket, &json!({ "plan": "plus" })).await;
    assert!(answer.status >= 500, "{}", answer.body);
    let lines = api.logs();
    assert!(lines.iter().any(|line| line.contains("the secret stripe is not usable")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("sk_test_alone")));
}
