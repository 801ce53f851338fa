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
use stripe_core::customer::{CreateCustomer, RetrieveCustomer, UpdateCustomer};
use stripe_product::price::ListPrice;
use tokio::time::Instant;

use crate::{invoices::Invoice, secret::Keys};

/// Where Stripe is, unless `STRIPE_URL` says otherwise.
const DEFAULT_URL: &str = "https://api.stripe.com";

/// How long one answer may take. A payment goes through a bank.
const TIMEOUT: Duration = Duration::from_secs(6);

/// No further try after this, so that there is time left to say so.
const PATIENCE: Duration = Duration::from_secs(12);

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

/// The change that ends a subscription in favour of another customer's, in its metadata.
pub(crate) const ENDING: &str = "ending";

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum StripeError {
    /// The card was not accepted; the message is for its holder.
    #[error("the card was not accepted")]
    Card {
        /// Stripe's message.
        message: String,
    },
    /// Something that was sent is not known or not possible.
    #[error("Stripe refuses {}: {code}: {message}", param.as_deref().unwrap_or("the request"))]
    Invalid {
        /// The parameter, if it is one.
        param: Option<String>,
        /// Stripe's code.
        code: String,
        /// Stripe's message.
        message: String,
    },
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
            Self::Card { .. } | Self::Invalid { .. } | Self::Key(_) | Self::NoPrice(_) => true,
            Self::Content { .. } | Self::Unknown(_) => false,
        }
    }

    /// Whether a token was used before, which can be done once.
    pub(crate) fn is_used_token(&self) -> bool {
        matches!(self, Self::Invalid { code, .. } if code == "token_already_used")
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

    /// Whether it ends with its period for the sake of the change `id`.
    pub(crate) fn is_ending_for(&self, id: &str) -> bool {
        self.metadata.get(ENDING).is_some_and(|ending| ending == id)
    }

    /// What the table keeps of it. The plan is that of its price; where the price has lost its lookup key,
    /// the one that it was made for.
    ///
    /// # Errors
    /// It pays for nothing that is known here.
    pub(crate) fn kept(&self, plans: &Plans) -> Result<Subscription, StripeError> {
        let content =
            |reason: &str| StripeError::Content { what: "a subscription", reason: reason.to_owned() };
        let item = self.items.data.first().ok_or_else(|| content("it has no item"))?;
        let named = || {
            let name = self.metadata.get(PLAN)?;
            plans.names().find(|plan| plan.as_str() == name)
        };
        let plan = item.price.lookup_key.as_deref().and_then(|key| plans.of_price(key)).or_else(named);
        let time = |seconds: Option<i64>| seconds.map(Timestamp::from_seconds);
        let reason = self.cancellation_details.as_ref().and_then(|details| details.reason.as_deref());
        Ok(Subscription {
            id: self.id.clone(),
            item: item.id.clone(),
            customer: self.customer.clone(),
            plan: plan.cloned().ok_or_else(|| content("no plan has its price"))?,
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

    /// A new customer for `user`. Asked again within a day for the same user, it is the same.
    pub(crate) async fn create_customer(&self, user: &User) -> Result<Customer, StripeError> {
        let request = CreateCustomer::new()
            .email(user.email.as_str())
            .name(user.username.as_str())
            .metadata(HashMap::from([("user_id".to_owned(), user.id.as_str().to_owned())]));
        // One that was deleted there must not come back from the key of its own creation.
        let instead_of = user.stripe_customer.as_deref().unwrap_or("none");
        let key = format!("customer-{}-{instead_of}", user.id.as_str());
        self.call("a customer", &request, Some(&key)).await
    }

    /// Makes the card behind `token` the one that `customer` pays with.
    pub(crate) async fn set_card(
        &self,
        customer: &str,
        token: &str,
        change: &str,
    ) -> Result<Customer, StripeError> {
        let request = UpdateCustomer::new(customer).source(token);
        self.call("a customer", &request, Some(&format!("{change}-card"))).await
    }

    /// The id of the price of `plan`, for which it has to have one.
    pub(crate) async fn price(&self, plan: &Plan) -> Result<String, StripeError> {
        let key = plan.price_lookup_key.clone().unwrap_or_default();
        let request = ListPrice::new().active(true).lookup_keys([key.clone()]).limit(1);
        let prices: ListOf<Price> = self.call("prices", &request, None).await?;
        prices.data.into_iter().next().map(|price| price.id).ok_or(StripeError::NoPrice(key))
    }

    /// Makes a subscription, which pays at once or does not come to be.
    pub(crate) async fn subscribe(
        &self,
        new: &NewSubscription<'_>,
    ) -> Result<StripeSubscription, StripeError> {
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
        self.call("a subscription", &request, Some(&format!("{change}-subscription"))).await
    }

    /// Moves `subscription` to another price, which pays the difference at once or does not happen, and
    /// lets it go on if it was to end.
    pub(crate) async fn change_price(
        &self,
        subscription: &Subscription,
        plan: &PlanName,
        price: &str,
        coupon: Option<&str>,
        change: &str,
    ) -> Result<StripeSubscription, StripeError> {
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
        self.call("a subscription", &request, Some(&format!("{change}-subscription"))).await
    }

    /// Lets the subscription `id` end with its period, or go on after all, for the sake of `change`.
    /// `ending` is noted in its metadata.
    pub(crate) async fn end_with_period(
        &self,
        id: &str,
        ends: bool,
        ending: &str,
        change: &str,
    ) -> Result<StripeSubscription, StripeError> {
        let request = UpdateSubscription::new(id)
            .cancel_at_period_end(ends)
            .metadata([(ENDING.to_owned(), ending.to_owned())]);
        let verb = if ends { "end" } else { "go-on" };
        self.call("a subscription", &request, Some(&format!("{change}-{verb}"))).await
    }

    /// Ends the subscription `id` now. One that has ended, or was never there, is fine.
    pub(crate) async fn cancel(&self, id: &str) -> Result<(), StripeError> {
        match self.call::<StripeSubscription>("a subscription", &CancelSubscription::new(id), None).await {
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
        Ok(self.call::<ListOf<_>>("subscriptions", &request, None).await?.data)
    }

    /// The latest hundred invoices of the subscription `id`.
    pub(crate) async fn invoices(&self, id: &str) -> Result<Vec<Invoice>, StripeError> {
        let request = ListInvoice::new().subscription(id).limit(100);
        Ok(self.call::<ListOf<_>>("invoices", &request, None).await?.data)
    }

    /// Makes a call, again where its outcome is not known and another try is safe: with the same
    /// idempotency key, or where it changes nothing, or leads to the same.
    async fn call<T: DeserializeOwned>(
        &self,
        what: &'static str,
        request: &impl StripeRequest,
        key: Option<&str>,
    ) -> Result<T, StripeError> {
        let request = request.build();
        let start = Instant::now();
        for attempt in 1.. {
            let unknown = match self.send(&request, key).await {
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
    // https://docs.stripe.com/api/errors: 409 is a call that still runs under the same key, 429 and those
    // of the server may pass.
    Err(match answer.status {
        402 => StripeError::Card { message },
        401 | 403 => StripeError::Key(code),
        409 | 424 | 429 | 500.. => StripeError::Unknown(format!("status {}: {type} {code}", answer.status)),
        _ if r#type == "card_error" => StripeError::Card { message },
        _ => StripeError::Invalid { param, code, message },
    })
}

fn jitter(attempt: u32) -> Result<Duration, StripeError> {
    let mut random = [0_u8; 4];
    getrandom::fill(&mut random).map_err(|error| StripeError::Unknown(error.to_string()))?;
    let most = FIRST_WAIT.saturating_mul(1 << attempt.min(4));
    Ok(most.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)))
}
