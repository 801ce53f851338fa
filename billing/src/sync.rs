//! What happens at Stripe, and comes by webhook.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use shared::{
    domain::{Bucket, BucketId, Subscription, Timestamp},
    http::{FieldError, Problem},
    store::{Billing, BillingChange, BillingError, CHANGE_ATTEMPTS, ChangeEnd, Kept, before_attempt},
};

use tokio::time::Instant;

use crate::{
    Cashier,
    changes::{Failure, Left},
    invoices::Invoice,
    signature::{self, SignatureError},
    stripe::{Stripe, StripeSubscription},
};

/// An event (<https://docs.stripe.com/api/events/object>). Nothing in it is taken for true but what it is
/// about.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "StripeEvent")]
pub struct Event {
    id: String,
    r#type: String,
    /// The connected account that it comes from, if it is not this one's own.
    account: Option<String>,
    data: EventData,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "StripeEventData")]
struct EventData {
    object: Value,
}

impl Event {
    /// The subscription that it is about, if any.
    fn subscription(&self) -> Option<&str> {
        let object = &self.data.object;
        let id = match self.r#type.split('.').next()? {
            "customer" if self.r#type.starts_with("customer.subscription.") => object.get("id")?,
            "invoice" => object
                .pointer("/parent/subscription_details/subscription")
                .or_else(|| object.get("subscription"))?,
            _ => return None,
        };
        // Some objects may come expanded.
        id.as_str().or_else(|| id.get("id")?.as_str()).filter(|id| !id.is_empty())
    }
}

/// What to do about a subscription.
#[derive(Debug, PartialEq, Eq)]
enum Decision<'b> {
    /// The bucket follows it; with a change's id, that change is done.
    Keep { change: Option<&'b str> },
    /// It was made here for something that is no longer so, and must not cost anything.
    Cancel,
    /// A change is under way that may be about it.
    Wait,
    /// A change was left unfinished, which has to be dealt with first.
    Resolve(&'b BillingChange),
    /// It is nothing to this deployment.
    Ignore,
}

/// What to do about `told`, which names the bucket of `billing`, at `now`.
fn decide<'b>(billing: &'b Billing, told: &StripeSubscription, now: Timestamp) -> Decision<'b> {
    let is_ours = told.change().is_some();
    let stray = if is_ours && !told.is_over() { Decision::Cancel } else { Decision::Ignore };
    if billing.bucket.is_none() {
        // Of a bucket that was never here, another deployment on the same account may know.
        return if billing.was_deleted { stray } else { Decision::Ignore };
    }
    let kept = billing.kept();
    let is_kept = kept.is_some_and(|kept| kept.id == told.id);
    if let Some(change) = &billing.change {
        let is_leased = change.lease_until > now;
        let is_its = told.change() == Some(&*change.id);
        return match (is_kept || is_its, is_leased) {
            // News of what is kept are always right; the change notices that they came.
            (true, true) if is_kept => Decision::Keep { change: None },
            (true, _) if is_its && change.new_owner.is_none() && (is_kept || !told.is_over()) => {
                Decision::Keep { change: Some(&change.id) }
            }
            (_, true) => Decision::Wait,
            (_, false) => Decision::Resolve(change),
        };
    }
    if is_kept && told.is_over() && kept.is_some_and(Subscription::is_over) {
        // Nothing more can come of it.
        return Decision::Ignore;
    }
    if is_kept || (!told.is_over() && kept.is_none_or(Subscription::is_over)) {
        return Decision::Keep { change: None };
    }
    stray
}

impl Cashier {
    /// Takes up an event that Stripe has sent as `payload`, signed as `header` says.
    ///
    /// # Errors
    /// It is not from Stripe; or it cannot be dealt with now, and Stripe has to send it again.
    pub async fn take_event(&self, header: Option<&str>, payload: &[u8]) -> Result<(), Problem> {
        // Without an account there is nobody who could send one.
        let stripe = self.stripe.as_ref().ok_or_else(Problem::route_not_found)?;
        let now = self.app.now();
        signature::verify(header, payload, stripe.webhook_secret(), now).map_err(|error| {
            Problem::invalid_signature(match error {
                SignatureError::Malformed => "the header `Stripe-Signature` is missing or malformed",
                SignatureError::Mismatch => {
                    "the signature does not match: the signing secret is another, or the body was changed"
                }
                SignatureError::Stale => "the signature is more than five minutes from now",
            })
        })?;
        let event: Event = serde_json::from_slice(payload).map_err(|error| {
            Problem::invalid_input(vec![FieldError::new("body", format!("is not an event: {error}"))])
        })?;
        if self.app.store.event_seen(&event.id).await? {
            return Ok(());
        }
        match event.subscription() {
            Some(subscription) if event.account.is_none() => {
                Ok(self.sync(stripe, subscription, &event.id).await?)
            }
            _ => Ok(self.app.store.note_event(&event.id, now).await?),
        }
    }

    /// Brings the table in line with the subscription `id` as it is at Stripe now, whatever `event` said of
    /// it: so events may come late, twice and in any order.
    async fn sync(&self, stripe: &Stripe, id: &str, event: &str) -> Result<(), Failure> {
        let (store, start) = (&self.app.store, Instant::now());
        // Only for the bucket that it names, which never changes.
        let Some(bucket) = stripe.subscription(id).await?.and_then(|told| told.bucket()) else {
            return Ok(store.note_event(event, self.app.now()).await?);
        };
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let billing = store.billing(&bucket).await?;
            // Read before it is asked for: what was committed meanwhile cannot be newer than this.
            let Some(told) = stripe.subscription(id).await? else {
                return Ok(store.note_event(event, self.app.now()).await?);
            };
            match decide(&billing, &told, self.app.now()) {
                Decision::Keep { change } => match self.keep_told(&billing, &told, change, event).await {
                    Ok(replaced) => {
                        if let (Some(change), Some(replaced)) = (change, replaced) {
                            self.end_replaced(stripe, &bucket, change, Some(&replaced)).await;
                        }
                        return Ok(());
                    }
                    Err(BillingError::EventSeen) => return Ok(()),
                    Err(BillingError::Changed | BillingError::BucketNotFound) => {}
                    Err(error) => return Err(error.into()),
                },
                Decision::Cancel => {
                    tracing::error!(
                        subscription = id,
                        "a subscription pays for nothing: it is cancelled, and what is left of it credited"
                    );
                    stripe.cancel_with_credit(id).await?;
                    return Ok(store.note_event(event, self.app.now()).await?);
                }
                Decision::Wait => return Err(BillingError::Busy.into()),
                Decision::Resolve(change) => self.resolve_left(stripe, &bucket, change, start).await?,
                Decision::Ignore => return Ok(store.note_event(event, self.app.now()).await?),
            }
        }
        // Stripe sends it again.
        Err(BillingError::Changed.into())
    }

    /// Keeps what was told by `event`, with which `change` ends if there is one. Gives the subscription that
    /// is replaced by it, and yet to be ended.
    async fn keep_told(
        &self,
        billing: &Billing,
        told: &StripeSubscription,
        change: Option<&str>,
        event: &str,
    ) -> Result<Option<String>, BillingError> {
        let bucket = billing.bucket.clone().ok_or(BillingError::BucketNotFound)?;
        let subscription = match told.kept(&self.app.config.plans) {
            Ok(subscription) => subscription,
            Err(error) => {
                // The operator's own, with a price of their own: no plan follows from it.
                tracing::warn!(subscription = told.id, error = %error, "a subscription is not understood");
                self.app.store.note_event(event, self.app.now()).await?;
                return Ok(None);
            }
        };
        let replaced = change.and_then(|_| billing.replaced_by(&told.id));
        let end = change.map(|id| ChangeEnd::of(id, replaced.as_deref()));
        let kept = Kept {
            bucket,
            before: billing.subscription.as_ref(),
            subscription,
            change: end,
            event: Some(event),
            actor: None,
        };
        self.app.store.keep_subscription(kept, self.app.now()).await?;
        Ok(replaced)
    }

    /// Deals with a change that its author has left, if nobody else does.
    async fn resolve_left(
        &self,
        stripe: &Stripe,
        bucket: &BucketId,
        change: &BillingChange,
        start: Instant,
    ) -> Result<(), Failure> {
        let leased = self.app.store.lease_change(bucket, change, self.app.now()).await?;
        match leased {
            Some(change) => self.resolve(stripe, bucket, &change, Left::Found, start).await,
            None => Err(BillingError::Busy.into()),
        }
    }

    /// The invoices that the owner of `bucket` has had for it, latest first; none where nothing was paid.
    ///
    /// # Errors
    /// The table or Stripe does not answer.
    pub async fn invoices(&self, bucket: &Bucket) -> Result<Vec<Invoice>, Problem> {
        let Some(stripe) = &self.stripe else { return Ok(Vec::new()) };
        let Some(kept) = self.app.store.billing(&bucket.id).await?.subscription else {
            return Ok(Vec::new());
        };
        let owner = self.app.store.user(&bucket.owner_id).await?;
        if owner.and_then(|owner| owner.stripe_customer).as_ref() != Some(&kept.subscription.customer) {
            // A former owner pays until the period is over.
            return Ok(Vec::new());
        }
        let mut invoices = Vec::new();
        for id in kept.former.iter().chain([&kept.subscription.id]) {
            invoices.extend(stripe.invoices(id).await.map_err(|error| {
                Problem::stripe(
                    "the payment service does not tell the invoices; try again in a moment",
                    &error,
                )
            })?);
        }
        invoices.sort_by_key(|invoice| std::cmp::Reverse(invoice.created()));
        Ok(invoices)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::{
        domain::{PlanName, Plans},
        store::KeptSubscription,
    };

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn told(id: &str, status: &str, change: Option<&str>) -> StripeSubscription {
        let mut told = json!({
            "id": id, "customer": "cus_1", "status": status, "metadata": { "bucket_id": "0123456789abcdef01234567" },
            "items": { "data": [{
                "id": "si_1", "price": { "id": "price_1", "lookup_key": "bucket_plus" },
                "current_period_start": 1, "current_period_end": 2,
            }] },
        });
        if let Some(change) = change {
            told["metadata"]["change"] = json!(change);
        }
        serde_json::from_value(told).unwrap()
    }

    fn kept(id: &str, status: &str) -> KeptSubscription {
        let subscription = told(id, status, None).kept(&Plans::built_in().unwrap()).unwrap();
        KeptSubscription { subscription, former: Vec::new(), version: 1 }
    }

    fn change(id: &str, is_transfer: bool, is_leased: bool) -> BillingChange {
        let user = || serde_json::from_value(json!("0123456789abcdef01234567")).unwrap();
        BillingChange {
            id: id.to_owned(),
            actor: user(),
            call: None,
            replaced: None,
            begun_at: NOW,
            new_owner: is_transfer.then(user),
            lease_until: Timestamp::from_seconds(if is_leased { 1_001 } else { 1_000 }),
        }
    }

    fn bucket() -> Bucket {
        Bucket {
            id: serde_json::from_value(json!("0123456789abcdef01234567")).unwrap(),
            name: serde_json::from_value(json!("Servers")).unwrap(),
            comment: serde_json::from_value(json!("")).unwrap(),
            app_url: serde_json::from_value(json!("")).unwrap(),
            configuration: None,
            public_id: serde_json::from_value(json!("abcdefghijklmno")).unwrap(),
            secret_id: serde_json::from_value(json!("abcdefghijklmno")).unwrap(),
            owner_id: serde_json::from_value(json!("0123456789abcdef01234567")).unwrap(),
            owner_username: serde_json::from_value(json!("owner")).unwrap(),
            plan: PlanName::default(),
            plan_ends_at: None,
            trial: None,
            seats_used: 1,
            servers_used: 0,
            version: 1,
            created_at: NOW,
            updated_at: NOW,
            deleted_at: None,
        }
    }

    #[test]
    fn what_is_done_about_a_subscription_depends_on_what_is_kept_and_what_is_under_way() {
        use Decision::{Cancel, Ignore, Keep, Resolve, Wait};
        let keep = Keep { change: None };
        let own = || told("sub_1", "active", Some("own"));
        let by_hand = || told("sub_1", "active", None);
        let over = || told("sub_1", "canceled", Some("own"));
        let (upgrade, left) = (change("own", false, true), change("own", false, false));
        let (moving, unmoved) = (change("own", true, true), change("own", true, false));
        let (other, other_left) = (change("other", false, true), change("other", false, false));
        let same = Some(kept("sub_1", "active"));
        let another = Some(kept("sub_2", "active"));
        let ended = Some(kept("sub_2", "canceled"));

        for (number, (told, subscription, change, expected)) in [
            // Nothing is under way.
            (own(), None, None, keep),
            (by_hand(), None, None, Keep { change: None }),
            (own(), same.clone(), None, Keep { change: None }),
            (over(), same.clone(), None, Keep { change: None }),
            (own(), ended.clone(), None, Keep { change: None }),
            (own(), another.clone(), None, Cancel),
            (by_hand(), another.clone(), None, Ignore),
            (over(), another.clone(), None, Ignore),
            (over(), None, None, Ignore),
            (over(), Some(kept("sub_1", "canceled")), None, Ignore),
            // Its own change is, or was left.
            (own(), None, Some(&upgrade), Keep { change: Some("own") }),
            (own(), None, Some(&left), Keep { change: Some("own") }),
            (own(), same.clone(), Some(&left), Keep { change: Some("own") }),
            (own(), same.clone(), Some(&upgrade), Keep { change: None }),
            (over(), another.clone(), Some(&upgrade), Wait),
            (over(), another.clone(), Some(&left), Resolve(&left)),
            (own(), another.clone(), Some(&moving), Wait),
            (own(), another.clone(), Some(&unmoved), Resolve(&unmoved)),
            // Another one is, or was left.
            (own(), same.clone(), Some(&other), Keep { change: None }),
            (own(), same.clone(), Some(&other_left), Resolve(&other_left)),
            (own(), None, Some(&other), Wait),
            (own(), None, Some(&other_left), Resolve(&other_left)),
        ]
        .into_iter()
        .enumerate()
        {
            let (bucket, change) = (Some(bucket()), change.cloned());
            let billing = Billing { bucket, was_deleted: false, subscription, change };

            assert_eq!(decide(&billing, &told, NOW), expected, "case {number}");
        }
        for (told, was_deleted, expected) in
            [(own(), true, Cancel), (by_hand(), true, Ignore), (over(), true, Ignore), (own(), false, Ignore)]
        {
            let billing = Billing { bucket: None, was_deleted, subscription: None, change: None };
            assert_eq!(decide(&billing, &told, NOW), expected, "of a bucket that is gone: {was_deleted}");
        }
    }

    #[test]
    fn an_event_tells_which_subscription_to_look_at_and_nothing_else() {
        let event = |kind: &str, object: Value| -> Event {
            serde_json::from_value(json!({ "id": "evt_1", "type": kind, "data": { "object": object } }))
                .unwrap()
        };
        let parent = json!({ "subscription_details": { "subscription": "sub_1" } });
        for (kind, object, expected) in [
            ("customer.subscription.updated", json!({ "id": "sub_1" }), Some("sub_1")),
            ("customer.subscription.trial_will_end", json!({ "id": "sub_1" }), Some("sub_1")),
            ("invoice.paid", json!({ "id": "in_1", "parent": parent }), Some("sub_1")),
            ("invoice.paid", json!({ "id": "in_1", "subscription": "sub_1" }), Some("sub_1")),
            ("invoice.paid", json!({ "id": "in_1", "subscription": { "id": "sub_1" } }), Some("sub_1")),
            ("invoice.paid", json!({ "id": "in_1", "subscription": null }), None),
            ("customer.subscription.updated", json!({ "id": "" }), None),
            ("customer.updated", json!({ "id": "cus_1" }), None),
            ("charge.succeeded", json!({ "id": "ch_1", "subscription": "sub_1" }), None),
            ("", json!({}), None),
        ] {
            assert_eq!(event(kind, object).subscription(), expected, "{kind}");
        }
    }
}
