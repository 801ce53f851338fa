//! Calls to Stripe: `async-stripe`'s typed requests, sent over the HTTPS client that everything here uses,
//! with answers read for the few fields that matter, so that a new version of Stripe's API breaks nothing.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};
use shared::{
    StartError, Web, WebAnswer, WebError,
    config::optional,
    domain::{BucketId, Plan, PlanName, Plans, Subscription, SubscriptionStatus, Timestamp, User},
    store::BillingCall,
};
use stripe_billing::{
    invoice::ListInvoice,
    subscription::{
        CancelSubscription, CreateSubscription, CreateSubscriptionItems, CreateSubscriptionPaymentBehavior,
        CreateSubscriptionTrialEnd, DiscountsDataParam, ListSubscription, ListSubscriptionStatus,
        RetrieveSubscription, UpdateSubscription, UpdateSubscriptionItems, UpdateSubscriptionPaymentBehavior,
        UpdateSubscriptionProrationBehavior, UpdateSubscriptionTrialEnd,
    },
};
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest, VERSION};
use stripe_core::customer::{
    CreateCustomer, RetrieveCustomer, UpdateCustomer, UpdateCustomerInvoiceSettings,
};
use stripe_product::price::ListPrice;
use tokio::time::Instant;

use crate::{invoices::Invoice, secret::Keys};

/// Where Stripe is, unless `STRIPE_URL` says otherwise.
const DEFAULT_URL: &str = "https://api.stripe.com";

/// How long one answer may take. A payment goes through a bank.
const TIMEOUT: Duration = Duration::from_secs(5);

/// No further try after this, so that there is time left to say so.
const PATIENCE: Duration = Duration::from_secs(9);

/// How often a call is made in all.
const ATTEMPTS: u32 = 3;

/// The wait that the first further try stays below.
const FIRST_WAIT: Duration = Duration::from_millis(400);

/// The bucket that a subscription pays for, in its metadata.
pub(crate) const BUCKET: &str = "bucket_id";

/// The plan that a subscription pays for, in its metadata: its price may lose the lookup key to a dearer
/// one that new subscribers get.
const PLAN: &str = "plan";

/// The change that made a subscription or changed it last, in its metadata.
pub(crate) const CHANGE: &str = "change";

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum StripeError {
    /// The card was not accepted; the message is for its holder.
    #[error("the card was not accepted")]
    Card {
        /// Stripe's message.
        message: String,
    },
    /// Something that was sent is not known or not possible. Stripe's message is not among it: it may name an address or a token.
    #[error("Stripe refuses {}: {kind} {code}", param.as_deref().unwrap_or("the request"))]
    Invalid {
        /// The parameter, if it is one.
        param: Option<String>,
        /// Stripe's type.
        kind: String,
        /// Stripe's code.
        code: String,
    },
    /// The call has failed at Stripe's end, and will be told so as often as it is made.
    #[error("the call has failed at Stripe with status {0}")]
    Failed(u16),
    /// Something is paid, and the deployment has no account at Stripe any more.
    #[error("a subscription pays for the bucket, and the deployment names no account at Stripe")]
    NotConfigured,
    /// Stripe does not take the key, or the key may not do this.
    #[error("Stripe refuses the secret key: {0}")]
    Key(String),
    /// No price has the plan's lookup key.
    #[error("no active price at Stripe has the lookup key `{0}`")]
    NoPrice(String),
    /// An answer that is not what was asked for.
    #[error("Stripe answers {what} unexpectedly: {reason}")]
    Content {
        /// What was asked for.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Whether it has happened is not known.
    #[error("Stripe gives no answer: {0}")]
    Unknown(String),
}

impl StripeError {
    /// Whether Stripe has said that nothing happened.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Card { .. }
            | Self::Invalid { .. }
            | Self::Key(_)
            | Self::NoPrice(_)
            | Self::Failed(_)
            | Self::NotConfigured => true,
            Self::Content { .. } | Self::Unknown(_) => false,
        }
    }

    /// Whether what was named is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Invalid { code, .. } if code == "resource_missing")
    }
}

/// A deployment's account at Stripe.
#[derive(Debug)]
pub(crate) struct Stripe {
    web: Web,
    url: String,
    keys: Keys,
}

/// Stripe's errors (<https://docs.stripe.com/api/errors>).
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    param: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ListOf<T> {
    data: Vec<T>,
}

/// A customer, as far as it is read.
#[derive(Deserialize)]
pub(crate) struct Customer {
    pub(crate) id: String,
    #[serde(default)]
    deleted: bool,
    default_source: Option<String>,
    #[serde(default)]
    invoice_settings: InvoiceSettings,
}

#[derive(Default, Deserialize)]
struct InvoiceSettings {
    default_payment_method: Option<String>,
}

impl Customer {
    /// Whether there is a card to charge.
    pub(crate) fn has_card(&self) -> bool {
        self.default_source.is_some() || self.invoice_settings.default_payment_method.is_some()
    }
}

#[derive(Debug, Deserialize)]
struct Price {
    id: String,
    lookup_key: Option<String>,
}

/// A subscription, as far as it is read.
#[derive(Debug, Deserialize)]
pub(crate) struct StripeSubscription {
    pub(crate) id: String,
    customer: String,
    status: SubscriptionStatus,
    items: ListOf<Item>,
    cancel_at: Option<i64>,
    canceled_at: Option<i64>,
    trial_end: Option<i64>,
    cancellation_details: Option<CancellationDetails>,
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Item {
    id: String,
    price: Price,
    current_period_start: i64,
    current_period_end: i64,
}

#[derive(Debug, Deserialize)]
struct CancellationDetails {
    reason: Option<String>,
}

impl StripeSubscription {
    /// The bucket that it pays for, if it says so.
    pub(crate) fn bucket(&self) -> Option<BucketId> {
        self.metadata.get(BUCKET).and_then(|id| BucketId::try_from(id.clone()).ok())
    }

    /// The change that made it or changed it last, if it was made here.
    pub(crate) fn change(&self) -> Option<&str> {
        self.metadata.get(CHANGE).map(String::as_str)
    }

    /// Whether it can never cost anything any more.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status, SubscriptionStatus::Canceled | SubscriptionStatus::IncompleteExpired)
    }

    /// Whether Stripe is still trying to collect an invoice.
    pub(crate) fn is_past_due(&self) -> bool {
        self.status == SubscriptionStatus::PastDue
    }

    /// What the table keeps of it. The plan is that of its price; where the price has lost its lookup key,
    /// or the deployment the plan, the one that it was made for.
    ///
    /// # Errors
    /// It pays for nothing that is known here.
    pub(crate) fn kept(&self, plans: &Plans) -> Result<Subscription, StripeError> {
        let content =
            |reason: &str| StripeError::Content { what: "a subscription", reason: reason.to_owned() };
        let item = self.items.data.first().ok_or_else(|| content("it has no item"))?;
        let named = || self.metadata.get(PLAN).map(|name| PlanName::from(name.clone()));
        let plan =
            item.price.lookup_key.as_deref().and_then(|key| plans.of_price(key)).cloned().or_else(named);
        let time = |seconds: Option<i64>| seconds.map(Timestamp::from_seconds);
        let reason = self.cancellation_details.as_ref().and_then(|details| details.reason.as_deref());
        Ok(Subscription {
            id: self.id.clone(),
            item: item.id.clone(),
            customer: self.customer.clone(),
            plan: plan.ok_or_else(|| content("no plan has its price"))?,
            status: self.status,
            period_start: Timestamp::from_seconds(item.current_period_start),
            period_end: Timestamp::from_seconds(item.current_period_end),
            cancel_at: time(self.cancel_at),
            canceled_at: time(self.canceled_at),
            trial_end: time(self.trial_end),
            payment_failed: reason == Some("payment_failed"),
        })
    }
}

/// A subscription to be made.
pub(crate) struct NewSubscription<'a> {
    pub(crate) bucket: &'a BucketId,
    pub(crate) customer: &'a str,
    pub(crate) plan: &'a PlanName,
    pub(crate) price: &'a str,
    pub(crate) coupon: Option<&'a str>,
    /// From when on it is paid for, if that is not at once.
    pub(crate) free_until: Option<Timestamp>,
    pub(crate) change: &'a str,
}

impl Stripe {
    /// The account that the environment names, if it names one.
    ///
    /// # Errors
    /// Its keys cannot be had.
    pub(crate) async fn from_environment() -> Result<Option<Self>, StartError> {
        let Some(name) = optional("STRIPE_SECRET_NAME") else { return Ok(None) };
        let url = optional("STRIPE_URL").unwrap_or_else(|| DEFAULT_URL.to_owned());
        let url = url.trim_end_matches('/').to_owned();
        Ok(Some(Self { web: Web::default(), url, keys: Keys::fetch(&name).await? }))
    }

    /// What signs this endpoint's events.
    pub(crate) fn webhook_secret(&self) -> &str {
        &self.keys.webhook_secret
    }

    /// The customer `id`, if it is there and was not deleted.
    pub(crate) async fn customer(&self, id: &str) -> Result<Option<Customer>, StripeError> {
        match self.call::<Customer>("a customer", &RetrieveCustomer::new(id), None).await {
            Ok(customer) => Ok(Some(customer).filter(|customer| !customer.deleted)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A new customer for `user`. Asked again for the sake of the same change, it is the same.
    pub(crate) async fn create_customer(&self, user: &User, change: &str) -> Result<Customer, StripeError> {
        let request = CreateCustomer::new()
            .email(user.email.as_str())
            .name(user.username.as_str())
            .metadata(HashMap::from([("user_id".to_owned(), user.id.as_str().to_owned())]));
        self.call("a customer", &request, Some(&format!("{change}-customer"))).await
    }

    /// Makes the card behind `token` the one that `customer` pays with, whatever they paid with before.
    pub(crate) async fn set_card(
        &self,
        customer: &str,
        token: &str,
        change: &str,
    ) -> Result<Customer, StripeError> {
        // A payment method that one of Stripe's pages has set would come first.
        let no_other = UpdateCustomerInvoiceSettings {
            default_payment_method: Some(String::new()),
            ..UpdateCustomerInvoiceSettings::new()
        };
        let request = UpdateCustomer::new(customer).source(token).invoice_settings(no_other);
        self.call("a customer", &request, Some(&format!("{change}-card"))).await
    }

    /// The id of the price of `plan`, for which it has to have one.
    pub(crate) async fn price(&self, plan: &Plan) -> Result<String, StripeError> {
        let key = plan.price_lookup_key.clone().unwrap_or_default();
        let request = ListPrice::new().active(true).lookup_keys([key.clone()]).limit(1);
        let prices: ListOf<Price> = self.call("prices", &request, None).await?;
        prices.data.into_iter().next().map(|price| price.id).ok_or(StripeError::NoPrice(key))
    }

    /// The call that makes a subscription, which pays at once or does not come to be.
    pub(crate) fn subscribe(new: &NewSubscription<'_>) -> BillingCall {
        let NewSubscription { bucket, customer, plan, price, coupon, free_until, change } = *new;
        let item =
            CreateSubscriptionItems { price: Some(price.to_owned()), ..CreateSubscriptionItems::new() };
        let metadata = [(BUCKET, bucket.as_str()), (PLAN, plan.as_str()), (CHANGE, change)];
        let mut request = CreateSubscription::new()
            .customer(customer)
            .items([item])
            .metadata(metadata.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .payment_behavior(CreateSubscriptionPaymentBehavior::ErrorIfIncomplete);
        if let Some(coupon) = coupon {
            let discount =
                DiscountsDataParam { coupon: Some(coupon.to_owned()), ..DiscountsDataParam::new() };
            request = request.discounts([discount]);
        }
        if let Some(time) = free_until {
            request = request.trial_end(CreateSubscriptionTrialEnd::Timestamp(time.as_seconds()));
        }
        written_down(&request)
    }

    /// The call that moves `subscription` to another price, which pays the difference at once or does not
    /// happen, and lets it go on if it was to end.
    pub(crate) fn change_price(
        subscription: &Subscription,
        plan: &PlanName,
        price: &str,
        coupon: Option<&str>,
        change: &str,
    ) -> BillingCall {
        let item = UpdateSubscriptionItems {
            id: Some(subscription.item.clone()),
            price: Some(price.to_owned()),
            ..UpdateSubscriptionItems::new()
        };
        let metadata = [(PLAN, plan.as_str()), (CHANGE, change)];
        let mut request = UpdateSubscription::new(&*subscription.id)
            .items([item])
            .cancel_at_period_end(false)
            .metadata(metadata.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .payment_behavior(UpdateSubscriptionPaymentBehavior::ErrorIfIncomplete)
            .proration_behavior(UpdateSubscriptionProrationBehavior::AlwaysInvoice);
        if subscription.status == SubscriptionStatus::Trialing && *plan != subscription.plan {
            // A trial is one of the plan that it was begun with.
            request = request.trial_end(UpdateSubscriptionTrialEnd::Now);
        }
        if let Some(coupon) = coupon {
            let discount =
                DiscountsDataParam { coupon: Some(coupon.to_owned()), ..DiscountsDataParam::new() };
            request = request.discounts([discount]);
        }
        written_down(&request)
    }

    /// Makes a call that may charge, always under the same key for the same change.
    pub(crate) async fn charge(
        &self,
        call: &BillingCall,
        change: &str,
    ) -> Result<StripeSubscription, StripeError> {
        let BillingCall { path, form } = call;
        let mut request = RequestBuilder::new(StripeMethod::Post, path.clone());
        request.body = Some(form.clone());
        self.make("a subscription", &request, Some(&format!("{change}-charge"))).await
    }

    /// Lets the subscription `id` end with its period, for the sake of `change`.
    pub(crate) async fn end_with_period(
        &self,
        id: &str,
        change: &str,
    ) -> Result<StripeSubscription, StripeError> {
        let request = UpdateSubscription::new(id).cancel_at_period_end(true);
        self.call("a subscription", &request, Some(&format!("{change}-end"))).await
    }

    /// Ends the subscription `id` now. One that has ended, or was never there, is fine.
    pub(crate) async fn cancel(&self, id: &str) -> Result<(), StripeError> {
        self.end(&CancelSubscription::new(id)).await
    }

    /// As [`Stripe::cancel`], for one that should never have been: what was paid for the rest of its
    /// period is the customer's, for their next invoice.
    pub(crate) async fn cancel_with_credit(&self, id: &str) -> Result<(), StripeError> {
        self.end(&CancelSubscription::new(id).prorate(true).invoice_now(true)).await
    }

    async fn end(&self, request: &CancelSubscription) -> Result<(), StripeError> {
        match self.call::<StripeSubscription>("a subscription", request, None).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The subscription `id`, if it is of this account.
    pub(crate) async fn subscription(&self, id: &str) -> Result<Option<StripeSubscription>, StripeError> {
        match self.call("a subscription", &RetrieveSubscription::new(id), None).await {
            Ok(subscription) => Ok(Some(subscription)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The latest hundred subscriptions of `customer`, the ended ones too.
    pub(crate) async fn subscriptions_of(
        &self,
        customer: &str,
    ) -> Result<Vec<StripeSubscription>, StripeError> {
        let request =
            ListSubscription::new().customer(customer).status(ListSubscriptionStatus::All).limit(100);
        match self.call::<ListOf<_>>("subscriptions", &request, None).await {
            Ok(list) => Ok(list.data),
            // The customer is of another account.
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The latest hundred invoices of the subscription `id`.
    pub(crate) async fn invoices(&self, id: &str) -> Result<Vec<Invoice>, StripeError> {
        let request = ListInvoice::new().subscription(id).limit(100);
        Ok(self.call::<ListOf<_>>("invoices", &request, None).await?.data)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        what: &'static str,
        request: &impl StripeRequest,
        key: Option<&str>,
    ) -> Result<T, StripeError> {
        self.make(what, &request.build(), key).await
    }

    /// Makes a call, again where its outcome is not known and another try is safe: with the same
    /// idempotency key, or where it changes nothing, or leads to the same.
    async fn make<T: DeserializeOwned>(
        &self,
        what: &'static str,
        request: &RequestBuilder,
        key: Option<&str>,
    ) -> Result<T, StripeError> {
        let start = Instant::now();
        for attempt in 1.. {
            let unknown = match self.send(request, key).await {
                Ok(answer) => match read(what, &answer) {
                    Err(StripeError::Unknown(reason)) => reason,
                    outcome => return outcome,
                },
                Err(error) => error.to_string(),
            };
            if attempt == ATTEMPTS || start.elapsed() > PATIENCE {
                return Err(StripeError::Unknown(unknown));
            }
            tokio::time::sleep(jitter(attempt)?).await;
        }
        Err(StripeError::Unknown("not asked".to_owned()))
    }

    async fn send(&self, request: &RequestBuilder, key: Option<&str>) -> Result<WebAnswer, WebError> {
        let RequestBuilder { query, body, path, method } = request;
        let method = match method {
            StripeMethod::Get => "GET",
            StripeMethod::Post => "POST",
            StripeMethod::Delete => "DELETE",
        };
        let query = query.as_deref().filter(|query| !query.is_empty());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let authorization = format!("Bearer {}", self.keys.secret_key);
        let version = VERSION.to_string();
        let mut headers = vec![
            ("authorization", authorization.as_str()),
            ("stripe-version", version.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
            ("user-agent", concat!("bucket-api/", env!("CARGO_PKG_VERSION"))),
        ];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        let url = format!("{}/v1{path}{query}", self.url);
        self.web.send(method, &url, &headers, in_order(body.as_deref().unwrap_or_default()), TIMEOUT).await
    }
}

/// `request`, which has a form, as it can be kept.
fn written_down(request: &impl StripeRequest) -> BillingCall {
    let RequestBuilder { query: _, body, path, method: _ } = request.build();
    BillingCall { path, form: in_order(body.as_deref().unwrap_or_default()) }
}

/// The fields of a form in alphabetical order: metadata come in any, and the same request under the same
/// key should be the same to the letter.
fn in_order(form: &str) -> String {
    let mut fields: Vec<_> = form.split('&').collect();
    fields.sort_unstable();
    fields.join("&")
}

fn read<T: DeserializeOwned>(what: &'static str, answer: &WebAnswer) -> Result<T, StripeError> {
    if answer.is_success() {
        return answer.json().map_err(|error| StripeError::Content { what, reason: error.to_string() });
    }
    let Some(ErrorBody { error }) = answer.any_json::<ErrorBody>() else {
        return Err(StripeError::Unknown(format!("status {}", answer.status)));
    };
    let ErrorDetail { r#type, code, message, param } = error;
    // https://docs.stripe.com/api/idempotent_requests: what went wrong at Stripe's end is kept under the key
    // too. Told again, it is how that call has ended.
    let is_told_again = answer.header("idempotent-replayed") == Some("true");
    if answer.status >= 500 && is_told_again {
        return Err(StripeError::Failed(answer.status));
    }
    // https://docs.stripe.com/api/errors: 409 is a call that still runs under the same key, 429 and those
    // of the server may pass. Another call under the same key does not tell what became of the first.
    Err(match answer.status {
        _ if r#type == "idempotency_error" => StripeError::Unknown(r#type),
        402 => StripeError::Card { message },
        401 | 403 => StripeError::Key(code),
        409 | 424 | 429 | 500.. => StripeError::Unknown(format!("status {}: {type} {code}", answer.status)),
        _ if r#type == "card_error" => StripeError::Card { message },
        _ => StripeError::Invalid { param, kind: r#type, code },
    })
}

fn jitter(attempt: u32) -> Result<Duration, StripeError> {
    let mut random = [0_u8; 4];
    getrandom::fill(&mut random).map_err(|error| StripeError::Unknown(error.to_string()))?;
    let most = FIRST_WAIT.saturating_mul(1 << attempt.min(4));
    Ok(most.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)))
}
