//! A Stripe for tests: the functions are given its URL and send it real requests.
//!
//! Two programs of others do the work. [localstripe](https://pypi.org/project/localstripe/) 1.15.10 holds
//! customers, cards, subscriptions and invoices. [stripe-mock](https://github.com/stripe/stripe-mock), with
//! Stripe's description of its API, judges each request first: what it refuses is answered with a 400, is
//! never played, and fails the test unless the test takes it with [`StripeRig::verdicts`]. Between the two
//! and the functions stands a front, which speaks API version 2026-09-30.endive. Both are installed on
//! first use below the target directory; without Python, Go or the network the tests say so and are
//! skipped, unless `STRIPE_TESTS=required`. `LOCALSTRIPE_PYTHON` (a Python that has localstripe) and
//! `STRIPE_MOCK` (a binary) are taken instead, if set.
//!
//! # What the front plays, because localstripe cannot
//!
//! - Idempotency keys of POST requests. Stripe ignores those of GET and DELETE, and so does the front.
//! - Prices. The price with the lookup key `K`, and the id `price_K`, stands for localstripe's plan `K`.
//! - The present form of objects and of errors, `expand` of `latest_invoice`, `customer` and `discounts`,
//!   and lists with the newest first.
//! - Tokens: used once only, but for `tok_visa`, `tok_chargeDeclined` and `tok_chargeCustomerFail`. A
//!   customer whose card is declined is not created. A new card has what is past due tried again.
//! - Deleted customers, who are still shown, and whose subscriptions end.
//! - `payment_behavior=error_if_incomplete`: localstripe takes the subscription though the charge failed;
//!   the front hides it and answers 402. On an update it looks at the card before it changes anything.
//! - A subscription that is past due: localstripe makes and pays the invoice, the front sees how it went.
//! - Trials: `trialing`, and the invoice at `trial_end=now`.
//! - Coupons, as a negative item on the first invoice; its `subtotal` is lower too.
//! - `cancel_at`, `canceled_at`, `cancellation_details`, metadata of a subscription after its creation.
//! - `proration_behavior=always_invoice`, and `none`, which localstripe's credit is removed for.
//! - `customer.subscription.updated`, which localstripe does not send.
//!
//! # What nobody plays
//!
//! - Time: no period ends and no trial runs out unless a test says so.
//! - Prorations by the day: localstripe gives back all that was ever paid, for a whole period. The amounts
//!   of an update are right only in the first period.
//! - A discount beyond the first invoice; the invoice of nothing at the start of a trial.
//! - More than one item, `payment_behavior=default_incomplete`, invoices that are sent, tax, 3-D Secure:
//!   parameters of that kind are verdicts too.
//! - `invoice_now` and `prorate` at a cancellation, and a few more without effect here, are passed over.
//! - Deliveries are tried once, and show the object as it is a second after the event.

mod forms;
mod front;
mod parts;
mod played;
#[cfg(test)]
mod tests;
mod webhooks;

use std::{env, sync::Arc, thread};

use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use front::Front;
use parts::Process;
use played::Fields;
pub(crate) use webhooks::sign;

/// A card that pays.
pub(crate) const GOOD_CARD: &str = "4242424242424242";
/// A card that cannot be made a customer's.
pub(crate) const DECLINED_CARD: &str = "4000000000000002";
/// A card that can be made a customer's, and whose charges fail.
pub(crate) const CHARGE_FAILS_CARD: &str = "4000000000000341";

const SECRET_KEY: &str = "sk_test_rig";
const WEBHOOK_SECRET: &str = "whsec_rig";

/// The lookup keys there are at the start, and what a month costs, in cents.
const PLANS: [(&str, &str); 3] =
    [("bucket_plus", "900"), ("bucket_pro", "2900"), ("bucket_enterprise", "9900")];

/// What goes wrong on the way to Stripe or back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Stripe answers this, and does nothing.
    Status(u16),
    /// Nothing arrives at Stripe, and no answer ever comes.
    Silence,
    /// Stripe does what is asked, and the answer never comes.
    LostAnswer,
    /// The connection is closed, and nothing arrives at Stripe.
    Closed,
    /// Stripe does what is asked, and then the connection is closed.
    ClosedAfter,
}

/// A request that the functions sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    /// Query and form, by name as sent: `items[0][price]`.
    pub(crate) fields: Fields,
    pub(crate) idempotency_key: Option<String>,
    /// What was answered, if anything was.
    pub(crate) status: Option<u16>,
}

/// Stripe, of one test, with nothing in it but prices. Panics when it goes and requests were refused by
/// the judge that the test has not taken.
#[derive(Debug)]
pub(crate) struct StripeRig {
    front: Arc<Front>,
    url: String,
    server: JoinHandle<std::convert::Infallible>,
    _localstripe: Process,
}

impl StripeRig {
    /// Starts it, or says on standard error why it cannot be had; the test is over then.
    pub(crate) async fn start() -> Option<Self> {
        let required = env::var("STRIPE_TESTS").is_ok_and(|value| value == "required");
        let started = tokio::task::spawn_blocking(|| (parts::localstripe(), parts::stripe_mock()));
        let (localstripe, judge) = started.await.unwrap();
        let localstripe = match localstripe {
            Ok(process) => process,
            Err(reason) if required => panic!("STRIPE_TESTS=required, and {reason}"),
            Err(reason) => {
                let test = thread::current().name().unwrap_or("a test").to_owned();
                parts::say(&format!("SKIPPED {test}: {reason}"));
                return None;
            }
        };
        if let Err(reason) = judge {
            assert!(!required, "STRIPE_TESTS=required, and {reason}");
            parts::say(&format!("WARNING: nobody judges the requests: {reason}"));
        }
        let front = Front::over(&localstripe.origin, judge.ok());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(Arc::clone(&front).serve(listener));
        let rig = Self { front, url, server, _localstripe: localstripe };
        for (id, amount) in PLANS {
            let plan = [("id", id), ("amount", amount), ("currency", "eur"), ("interval", "month")];
            rig.makes("/v1/plans", &[&plan[..], &[("product[name]", id)]].concat()).await;
        }
        Some(rig)
    }

    /// Has localstripe do something that the functions do not ask for.
    async fn makes(&self, path: &str, fields: &[(&str, &str)]) -> Value {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.front.played.lock().await.call("POST", path, &fields).await.unwrap()
    }

    /// What the functions take for `https://api.stripe.com`; paths under it begin with `/v1/`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The one API key that is taken.
    #[expect(clippy::unused_self, reason = "a rig's key, whichever rig")]
    pub(crate) fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// What deliveries are signed with.
    #[expect(clippy::unused_self, reason = "a rig's secret, whichever rig")]
    pub(crate) fn webhook_secret(&self) -> &'static str {
        WEBHOOK_SECRET
    }

    /// A token of a card, as Stripe's form in the browser makes it. It can be used once.
    pub(crate) async fn card(&self, number: &str) -> String {
        self.front.played.lock().await.token(number).await.unwrap()
    }

    /// Makes a coupon that is taken off the first invoice.
    pub(crate) async fn coupon(&self, id: &str, percent_off: u8) {
        let coupon = [("id", id), ("percent_off", &percent_off.to_string()), ("duration", "once")];
        self.makes("/v1/coupons", &coupon).await;
    }

    /// A customer, as Stripe shows it.
    pub(crate) async fn customer(&self, id: &str) -> Value {
        self.front.played.lock().await.customer(id).await.unwrap()
    }

    /// A subscription, as Stripe shows it.
    pub(crate) async fn subscription(&self, id: &str) -> Value {
        self.front.played.lock().await.subscription(id).await.unwrap()
    }

    /// The subscriptions of a customer, those that are over included, newest first.
    pub(crate) async fn subscriptions_of(&self, customer: &str) -> Vec<Value> {
        self.front.played.lock().await.all_subscriptions(Some(customer)).await.unwrap()
    }

    /// Everybody's subscriptions that are not over, newest first.
    pub(crate) async fn live_subscriptions(&self) -> Vec<Value> {
        let mut all = self.front.played.lock().await.all_subscriptions(None).await.unwrap();
        all.retain(|subscription| !played::ended(subscription));
        all
    }

    /// The invoices of a subscription, newest first.
    pub(crate) async fn invoices(&self, subscription: &str) -> Vec<Value> {
        let filter = [("subscription", subscription)];
        self.front.played.lock().await.all_invoices(&filter).await.unwrap()
    }

    /// What the functions sent, in order.
    pub(crate) fn requests(&self) -> Vec<Sent> {
        self.front.sent()
    }

    /// Has the next `times` requests with the method and the path go wrong; one that ends in `/` stands for
    /// all that begin so. A failure with a status of 500 and more is kept under the request's key.
    pub(crate) fn fails(&self, method: &str, path_prefix: &str, fault: Fault, times: usize) {
        self.front.plan(method, path_prefix, fault, times);
    }

    /// Lays fields over an object wherever it is shown, for what it cannot come to here by itself. A
    /// cancellation ends that.
    pub(crate) fn show(&self, id: &str, fields: Value) {
        let Value::Object(fields) = fields else { panic!("not fields: {fields}") };
        let mut shown = self.front.shown.lock().unwrap();
        shown.entry(id.to_owned()).or_default().extend(fields);
    }

    /// Shows an object as it is again.
    pub(crate) fn shows_truth(&self, id: &str) {
        self.front.shown.lock().unwrap().remove(id);
    }

    /// Lets a subscription's next period begin, and charges for it.
    pub(crate) async fn next_period_begins(&self, subscription: &str) {
        let mut played = self.front.played.lock().await;
        played.next_period(subscription).await.unwrap();
        let shown = played.subscription(subscription).await.unwrap();
        drop(played);
        self.front.deliver("customer.subscription.updated", &shown);
    }

    /// The same, with a card whose charges fail from now on: the subscription is past due.
    pub(crate) async fn charge_fails_next_period(&self, subscription: &str) {
        let customer = self.subscription(subscription).await["customer"].as_str().unwrap().to_owned();
        self.front.played.lock().await.pays_with(&customer, CHARGE_FAILS_CARD).await.unwrap();
        self.next_period_begins(subscription).await;
    }

    /// The payload of an event of the type `kind`, such as `customer.subscription.deleted`.
    #[expect(clippy::unused_self, reason = "an event of a rig, whichever rig")]
    pub(crate) fn event(&self, kind: &str, object: &Value) -> String {
        webhooks::event(kind, object)
    }

    /// Delivers events to `url` from now on, signed, about a second after they happen.
    pub(crate) async fn delivers_webhooks_to(&self, url: &str) {
        self.front.delivers_to(url);
        let own = format!("{}{}", self.url, front::DELIVERIES);
        let webhook = [("url", own.as_str()), ("secret", WEBHOOK_SECRET)];
        // Answers with an empty body.
        self.makes("/_config/webhooks/rig", &webhook).await;
    }

    /// Takes what the judge has refused and what is not played.
    pub(crate) fn verdicts(&self) -> Vec<String> {
        self.front.take_verdicts()
    }
}

impl Drop for StripeRig {
    fn drop(&mut self) {
        self.server.abort();
        let verdicts = self.verdicts();
        if !thread::panicking() {
            assert!(verdicts.is_empty(), "Stripe would refuse, or is not played:\n{}", verdicts.join("\n"));
        }
    }
}
