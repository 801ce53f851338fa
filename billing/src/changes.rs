//! What people change: the plan, the owner, the end of a bucket.

use std::time::Duration;

use shared::{
    Access,
    domain::{Bucket, BucketId, Plan, PlanName, Right, Subscription, Target, Timestamp, UserId},
    http::{FieldError, Problem},
    store::{
        Billing, BillingCall, BillingChange, BillingError, CHANGE_ATTEMPTS, ChangeEnd, DeleteError, Kept,
        NewChange, PeopleError, PlanError, StoreError, before_attempt,
    },
};
use tokio::time::Instant;

use crate::{
    Cashier, StripeError,
    stripe::{Customer, NewSubscription, Stripe, StripeSubscription},
};

/// Attempts to begin a change, where one that was left unfinished has to be dealt with first.
const BEGINNINGS: u32 = 3;

/// How long a request may spend with Stripe, so that there is time left to say what has come of it before
/// the function's 25 seconds are over.
const BUDGET: Duration = Duration::from_secs(19);

/// How long Stripe surely knows a call again by its key: it forgets keys after 24 hours.
const REPLAYED_FOR_SECONDS: u32 = 20 * 3_600;

const OWNER_NEEDS_CARD: &str =
    "this plan costs money, and there is no card to pay with; send one as `stripe_token`";

const NEW_OWNER_NEEDS_CARD: &str = "a subscription pays for this bucket, and the new owner has no card to go on \
                                    with it; they can add one by putting a bucket of their own on a plan";

/// The plan that an owner wants.
#[derive(Debug)]
pub struct PlanChange {
    /// The plan.
    pub plan: PlanName,
    /// A card to pay with from now on, as a token of Stripe's.
    pub card: Option<String>,
    /// The id of a coupon at Stripe.
    pub coupon: Option<String>,
}

/// Why a change did not happen.
pub(crate) enum Failure {
    /// Whoever asks is told so, and nothing has happened.
    Refused(Problem),
    Billing(BillingError),
    Stripe(StripeError),
}

impl Failure {
    /// Whether it is certain that Stripe has changed nothing that would have to be found again.
    fn is_final(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Billing(_) => false,
            Self::Stripe(error) => error.is_final(),
        }
    }

    /// What is refused here has happened in part, and is yet to be undone.
    fn not_final(error: &StripeError) -> Self {
        Self::Stripe(StripeError::Unknown(error.to_string()))
    }
}

impl From<BillingError> for Failure {
    fn from(error: BillingError) -> Self {
        Self::Billing(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Billing(error.into())
    }
}

impl From<StripeError> for Failure {
    fn from(error: StripeError) -> Self {
        Self::Stripe(error)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(problem) => problem,
            Failure::Billing(error) => error.into(),
            Failure::Stripe(error) => refusal(&error),
        }
    }
}

/// What a failure of Stripe means for who asks.
fn refusal(error: &StripeError) -> Problem {
    let bad = |field: &str, detail: &str| Problem::invalid_input(vec![FieldError::new(field, detail)]);
    match error {
        StripeError::Card { message } => Problem::card_declined(message),
        StripeError::Invalid { code, .. } if code == "token_already_used" => bad(
            "stripe_token",
            "was used before; leave it out to pay with the card that is known, or make a new one",
        ),
        StripeError::Invalid { param: Some(param), .. } if param == "source" => {
            bad("stripe_token", "is not a token of a card that can be used")
        }
        StripeError::Invalid { param: Some(param), .. } if param.contains("coupon") => {
            bad("coupon_id", "is not a coupon that can be used")
        }
        StripeError::Invalid { .. } => Problem::stripe(
            "the payment service did not accept this, and the plan was not changed; report it with the \
             request id",
            error,
        ),
        StripeError::Key(_) | StripeError::NoPrice(_) | StripeError::NotConfigured => Problem::stripe(
            "payment is not set up rightly here, and the plan was not changed; report it with the request id",
            error,
        ),
        StripeError::Content { .. } => Problem::stripe(
            "the payment service told something that is not understood here; report it with the request id",
            error,
        ),
        StripeError::Failed(_) => Problem::stripe(
            "the payment service failed, and the plan was not changed; try again in a moment",
            error,
        ),
        StripeError::Unknown(_) => Problem::stripe(
            "the payment service did not answer; ask again for the same change, which charges nothing twice",
            error,
        ),
    }
}

/// Whether a change that was left is carried out after all, if it surely was not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Who asks wants a plan that costs money, as whoever left it did: it is asked for again.
    CarriedOut,
    /// Who asks wants something else: what has come of it so far is found.
    Found,
}

impl Cashier {
    /// Puts the bucket of `access` on the plan of `wanted` for its owner, and gives the bucket as it is
    /// then, and what pays for it.
    ///
    /// Without Stripe plans are switched freely. With it, a plan with a price is subscribed to, which
    /// takes a card; one without lets the subscription end with its period, until when the plan stays.
    ///
    /// # Errors
    /// The bucket is gone, the caller is not its owner, the card or the coupon is refused, or Stripe does
    /// not answer: then the same request, sent again, goes on where this one ended.
    pub async fn change_plan(
        &self,
        access: &Access,
        wanted: &PlanChange,
    ) -> Result<(Bucket, Option<Subscription>), Problem> {
        let start = Instant::now();
        let (id, actor) = (&access.bucket.id, &access.caller.user_id);
        let plan = self.app.config.plans.get(&wanted.plan).filter(|plan| plan.price_lookup_key.is_some());
        let (Some(stripe), false) = (&self.stripe, plan.is_none() && !self.is_paid(id).await?) else {
            return self.switch_freely(id, actor, &wanted.plan).await;
        };
        let change = NewChange { actor, right: Right::ChangePlan, new_owner: None };
        let left = if plan.is_some() { Left::CarriedOut } else { Left::Found };
        let change = self.begin(stripe, id, &change, left, start).await?;
        let outcome = in_time(start, Box::pin(self.pay(stripe, id, wanted, plan, &change))).await;
        let (bucket, subscription) = self.ended(id, &change, outcome).await?;
        Ok((bucket, Some(subscription)))
    }

    /// Whether a subscription pays for the bucket and goes on, or may come to do so.
    async fn is_paid(&self, id: &BucketId) -> Result<bool, Problem> {
        let billing = self.app.store.billing(id).await?;
        Ok(billing.going_on().is_some() || billing.change.is_some())
    }

    /// Puts a bucket on a plan that takes no money, now or with the end of what was paid for.
    async fn switch_freely(
        &self,
        id: &BucketId,
        actor: &UserId,
        plan: &PlanName,
    ) -> Result<(Bucket, Option<Subscription>), Problem> {
        let store = &self.app.store;
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let (billing, now) = (store.billing(id).await?, self.app.now());
            if self.stripe.is_none() && (billing.not_over().is_some() || billing.change.is_some()) {
                return Err(refusal(&StripeError::NotConfigured));
            }
            let subscription = billing.kept().cloned();
            match &billing.bucket {
                // What was paid for is not taken away.
                Some(bucket) if self.stripe.is_some() && bucket.plan_ends_at.is_some_and(|end| end > now) => {
                    return Ok((bucket.clone(), subscription));
                }
                _ => {}
            }
            match store.switch_plan(&billing, actor, plan, now).await {
                Ok(bucket) => {
                    let subscription = subscription.filter(|subscription| !subscription.is_over());
                    return Ok((bucket, subscription));
                }
                Err(PlanError::Changed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(PlanError::Changed.into())
    }

    /// Does at Stripe what `wanted` takes, on `plan` if that has a price, and keeps what came of it.
    async fn pay(
        &self,
        stripe: &Stripe,
        id: &BucketId,
        wanted: &PlanChange,
        plan: Option<&Plan>,
        change: &BillingChange,
    ) -> Result<(Bucket, Subscription), Failure> {
        let before = self.app.store.billing(id).await?;
        let Some(bucket) = before.bucket.as_ref() else {
            return Err(Failure::Refused(Problem::bucket_not_found()));
        };
        let Some(plan) = plan else {
            // It has ended meanwhile, and who asks again is switched.
            let Some(present) = before.not_over() else { return Err(changed_meanwhile()) };
            let told = stripe.end_with_period(&present.id, &change.id).await?;
            return self.keep(stripe, id, told, before, change, Some(&change.actor)).await;
        };
        let price = stripe.price(plan).await?;
        let customer = self.customer(stripe, &change.actor, &change.id).await?;
        match &wanted.card {
            Some(token) => drop(stripe.set_card(&customer.id, token, &change.id).await?),
            None if customer.has_card() => {}
            None => return Err(Failure::Refused(Problem::card_required(OWNER_NEEDS_CARD))),
        }
        let (coupon, present) = (wanted.coupon.as_deref(), before.not_over().cloned());
        let own = present.as_ref().filter(|present| {
            // What somebody else pays for, and what nothing is collected for, is left alone.
            present.customer == customer.id && present.can_be_changed()
        });
        let told = match own {
            Some(present) if present.plan == wanted.plan && present.goes_on() && coupon.is_none() => {
                stripe.subscription(&present.id).await?.ok_or_else(|| gone(&present.id))?
            }
            Some(present) => {
                let now = stripe.subscription(&present.id).await?.ok_or_else(|| gone(&present.id))?;
                if now.is_past_due() {
                    return Err(Failure::Refused(Problem::card_declined(
                        "the last invoice is still open; pay it first with a card that works",
                    )));
                }
                let call = Stripe::change_price(present, &wanted.plan, &price, coupon, &change.id);
                self.charge(stripe, id, change, call).await?
            }
            None => {
                // Who subscribes to the plan that they are trying, or that somebody else has paid for,
                // pays from its end on.
                let trial = bucket.trial.as_ref().filter(|trial| trial.plan == wanted.plan);
                let paid = present.as_ref().filter(|paid| paid.plan == wanted.plan && paid.is_paid());
                let until = trial.map(|trial| trial.ends_at).max(paid.map(|paid| paid.period_end));
                let call = Stripe::subscribe(&NewSubscription {
                    bucket: id,
                    customer: &customer.id,
                    plan: &wanted.plan,
                    price: &price,
                    coupon,
                    free_until: self.unless_soon(until),
                    change: &change.id,
                });
                self.charge(stripe, id, change, call).await?
            }
        };
        self.keep(stripe, id, told, before, change, Some(&change.actor)).await
    }

    /// `end`, unless it is so near that it may be over when Stripe reads it, which takes no end in the past.
    fn unless_soon(&self, end: Option<Timestamp>) -> Option<Timestamp> {
        let soon = self.app.now().plus_seconds(60);
        end.filter(|end| *end > soon)
    }

    /// Makes the call that may charge, after writing it down, so that the very same one can be made again.
    async fn charge(
        &self,
        stripe: &Stripe,
        id: &BucketId,
        change: &BillingChange,
        call: BillingCall,
    ) -> Result<StripeSubscription, Failure> {
        self.app.store.note_call(id, &change.id, &call).await?;
        Ok(stripe.charge(&call, &change.id).await?)
    }

    /// Commits what Stripe has told of the subscription that `change` led to, and ends the one that it
    /// replaces. Done by `actor`, or by nobody who signs in.
    async fn keep(
        &self,
        stripe: &Stripe,
        id: &BucketId,
        mut told: StripeSubscription,
        mut before: Billing,
        change: &BillingChange,
        actor: Option<&UserId>,
    ) -> Result<(Bucket, Subscription), Failure> {
        for attempt in 1..=CHANGE_ATTEMPTS {
            let Some(bucket) = before.bucket.take() else {
                stripe.cancel_with_credit(&told.id).await.map_err(|error| Failure::not_final(&error))?;
                return Err(Failure::Refused(Problem::bucket_not_found()));
            };
            let is_ended = before.change.as_ref().is_none_or(|present| present.id != change.id);
            if let (true, Some(kept)) = (is_ended, &before.subscription)
                && kept.subscription.id == told.id
            {
                // Its event was here first.
                return Ok((bucket, kept.subscription.clone()));
            }
            let subscription = told.kept(&self.app.config.plans)?;
            let replaced = before.replaced_by(&told.id);
            let end = ChangeEnd::of(&change.id, replaced.as_deref());
            let kept = Kept {
                bucket,
                before: before.subscription.as_ref(),
                subscription: subscription.clone(),
                change: Some(end),
                event: None,
                actor,
            };
            match self.app.store.keep_subscription(kept, self.app.now()).await {
                Ok(bucket) => {
                    self.end_replaced(stripe, id, &change.id, replaced.as_deref()).await;
                    return Ok((bucket, subscription));
                }
                Err(BillingError::Changed | BillingError::BucketNotFound) => {}
                Err(error) => return Err(error.into()),
            }
            before_attempt(attempt).await?;
            before = self.app.store.billing(id).await?;
            // Read before it is asked for: what was committed meanwhile cannot be newer than this.
            told = stripe.subscription(&told.id).await?.ok_or_else(|| gone(&told.id))?;
        }
        Err(BillingError::Changed.into())
    }

    /// Ends the subscription `replaced`, the last thing that the change `change` is about. Where that fails
    /// the change is left, and whoever comes next does it: nothing else depends on it.
    pub(crate) async fn end_replaced(
        &self,
        stripe: &Stripe,
        id: &BucketId,
        change: &str,
        replaced: Option<&str>,
    ) {
        let Some(replaced) = replaced else { return };
        let ended = match stripe.cancel(replaced).await {
            Ok(()) => self.app.store.drop_change(id, change).await.map_err(Failure::from),
            Err(error) => {
                let left = self.app.store.leave_change(id, change, self.app.now()).await;
                left.map_err(Failure::from).and(Err(error.into()))
            }
        };
        if let Err(failure) = ended {
            let cause = Problem::from(failure);
            tracing::error!(error = cause.cause(), subscription = replaced, "it is yet to be ended");
        }
    }

    /// The customer at Stripe that `user` is, made for the sake of `change` if need be.
    async fn customer(&self, stripe: &Stripe, user: &UserId, change: &str) -> Result<Customer, Failure> {
        let store = &self.app.store;
        let no_user = || StoreError::Row("a payer without user row".to_owned());
        let user = store.user(user).await?.ok_or_else(no_user)?;
        if let Some(id) = &user.stripe_customer
            && let Some(customer) = stripe.customer(id).await?
        {
            return Ok(customer);
        }
        let created = stripe.create_customer(&user, change).await?;
        let id = store.set_customer(&user.id, &created.id, user.stripe_customer.as_deref()).await?;
        if id == created.id {
            return Ok(created);
        }
        stripe.customer(&id).await?.ok_or_else(|| gone(&id).into())
    }

    /// Begins a change, after dealing with one that was left unfinished.
    async fn begin(
        &self,
        stripe: &Stripe,
        bucket: &BucketId,
        change: &NewChange<'_>,
        left: Left,
        start: Instant,
    ) -> Result<BillingChange, Failure> {
        for _ in 0..BEGINNINGS {
            match self.app.store.begin_change(bucket, change, self.app.now()).await {
                Ok(change) => return Ok(change),
                Err(BillingError::Unfinished(unfinished)) => {
                    Box::pin(self.resolve(stripe, bucket, &unfinished, left, start)).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(BillingError::Busy.into())
    }

    /// Deals with a change that was left unfinished, whose lease is ours: what it has led to at Stripe is
    /// kept, or undone where it was a move to another payer; then it is no more.
    pub(crate) async fn resolve(
        &self,
        stripe: &Stripe,
        bucket: &BucketId,
        change: &BillingChange,
        left: Left,
        start: Instant,
    ) -> Result<(), Failure> {
        let outcome = in_time(start, Box::pin(self.resolve_leased(stripe, bucket, change, left))).await;
        if outcome.is_err() {
            // Nobody has to wait for the lease to end.
            self.app.store.leave_change(bucket, &change.id, self.app.now()).await?;
        }
        outcome
    }

    async fn resolve_leased(
        &self,
        stripe: &Stripe,
        bucket: &BucketId,
        change: &BillingChange,
        left: Left,
    ) -> Result<(), Failure> {
        let store = &self.app.store;
        let done = async || Ok(store.drop_change(bucket, &change.id).await?);
        if let Some(replaced) = &change.replaced {
            stripe.cancel(replaced).await?;
            return done().await;
        }
        let before = store.billing(bucket).await?;
        let payer = change.new_owner.as_ref().unwrap_or(&change.actor);
        let customer = store.user(payer).await?.and_then(|user| user.stripe_customer);
        let found = match &customer {
            Some(customer) => stripe.subscriptions_of(customer).await?,
            None => Vec::new(),
        };
        let made = found.into_iter().find(|found| found.change() == Some(&*change.id));
        if change.new_owner.is_some() {
            // Not committed, or the one that it replaces would be named: it has cost nothing yet.
            if let Some(made) = made.filter(|made| !made.is_over()) {
                stripe.cancel(&made.id).await?;
            }
            return done().await;
        }
        let is_fresh = self.app.now() < change.begun_at.plus_seconds(REPLAYED_FOR_SECONDS);
        let told = match (made, &change.call, before.not_over()) {
            // It has come to be, and has ended since: nothing is left of it.
            (Some(made), ..) if made.is_over() => return done().await,
            (Some(made), ..) => made,
            (None, Some(call), _) if left == Left::CarriedOut && is_fresh => {
                let id = match stripe.charge(call, &change.id).await {
                    Ok(told) => told.id,
                    // That is how it ended, then as now.
                    Err(error) if error.is_final() => return done().await,
                    Err(error) => return Err(error.into()),
                };
                // The answer may be that of then.
                match stripe.subscription(&id).await?.filter(|told| !told.is_over()) {
                    Some(told) => told,
                    None => return done().await,
                }
            }
            // Perhaps it was to end with its period.
            (None, _, Some(present)) => match stripe.subscription(&present.id).await? {
                Some(told) => told,
                None => return done().await,
            },
            (None, _, None) => return done().await,
        };
        self.keep(stripe, bucket, told, before, change, Some(&change.actor)).await.map(drop)
    }

    /// Ends `change` as its `outcome` asks for: one that Stripe has surely not carried out is forgotten,
    /// one that it may have is left for who comes next.
    async fn ended<T>(
        &self,
        bucket: &BucketId,
        change: &BillingChange,
        outcome: Result<T, Failure>,
    ) -> Result<T, Problem> {
        let failure = match outcome {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        if failure.is_final() {
            self.app.store.drop_change(bucket, &change.id).await?;
        } else {
            self.app.store.leave_change(bucket, &change.id, self.app.now()).await?;
        }
        Err(failure.into())
    }

    /// Deletes the bucket of `access` for its owner. A subscription is cancelled first, and where that
    /// fails nothing is changed.
    ///
    /// # Errors
    /// The bucket is gone, the caller is not its owner, or Stripe does not cancel the subscription.
    pub async fn destroy(&self, access: &Access) -> Result<(), Problem> {
        let start = Instant::now();
        let store = &self.app.store;
        let (id, actor) = (&access.bucket.id, &access.caller.user_id);
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let mut billing = store.billing(id).await?;
            let mut begun = None;
            if billing.not_over().is_some() || billing.change.is_some() {
                let stripe =
                    self.stripe.as_ref().ok_or_else(|| refusal_to_cancel(&StripeError::NotConfigured))?;
                let change = NewChange { actor, right: Right::Delete, new_owner: None };
                let change = self.begin(stripe, id, &change, Left::Found, start).await?;
                billing = store.billing(id).await?;
                let cancelled = match billing.not_over() {
                    Some(subscription) => {
                        in_time(start, async { Ok(stripe.cancel(&subscription.id).await?) }).await
                    }
                    None => Ok(()),
                };
                if let Err(failure) = cancelled {
                    // To be cancelled again does no harm: there is nothing to resume.
                    store.drop_change(id, &change.id).await?;
                    return Err(match failure {
                        Failure::Stripe(ref error) => refusal_to_cancel(error),
                        Failure::Refused(_) | Failure::Billing(_) => failure.into(),
                    });
                }
                begun = Some(change);
            }
            let outcome = store.delete_bucket(&access.bucket, &billing, actor, self.app.now()).await;
            if let (Err(_), Some(change)) = (&outcome, &begun) {
                store.drop_change(id, &change.id).await?;
            }
            match outcome {
                Err(DeleteError::Changed) => {}
                outcome => return Ok(outcome?),
            }
        }
        Err(DeleteError::Changed.into())
    }

    /// Hands the bucket of `access` from its owner to the member `target`, and gives the bucket as it is
    /// then. Where a subscription pays for it and goes on, the new owner's card pays from the end of the
    /// period that the old one has paid for, and the old one's subscription ends.
    ///
    /// # Errors
    /// As [`shared::store::Store::transfer`]; the new owner has no card, or Stripe does not answer.
    pub async fn transfer(&self, access: &Access, target: &Target) -> Result<Bucket, Problem> {
        let start = Instant::now();
        let store = &self.app.store;
        let (id, actor) = (&access.bucket.id, &access.caller.user_id);
        let limit = self.app.config.buckets_per_owner;
        match store.transfer(id, actor, target, limit, self.app.now()).await {
            Err(PeopleError::Paid) => {}
            outcome => return Ok(outcome?),
        }
        let stripe = self.stripe.as_ref().ok_or_else(|| refusal(&StripeError::NotConfigured))?;
        // Money is moved for nothing where it is plain from the start that the bucket cannot be.
        if *actor == target.id {
            return Err(PeopleError::AlreadyOwner.into());
        }
        if store.member(id, &target.id).await?.is_none() {
            return Err(PeopleError::UserNotFound.into());
        }
        if store.user(&target.id).await?.is_none_or(|user| user.buckets_owned >= limit) {
            return Err(PeopleError::NewOwnerLimit { limit }.into());
        }
        let change = NewChange { actor, right: Right::Transfer, new_owner: Some(&target.id) };
        let change = self.begin(stripe, id, &change, Left::Found, start).await?;
        let outcome = in_time(start, Box::pin(self.move_and_hand_over(stripe, id, target, &change))).await;
        self.ended(id, &change, outcome).await
    }

    /// First the new owner's subscription, which costs nothing until the period is over; then the bucket
    /// and what pays for it in one; and then the old owner's subscription ends. Until the second nothing has
    /// happened to the old one, and from there on it is written down that it is to end.
    async fn move_and_hand_over(
        &self,
        stripe: &Stripe,
        id: &BucketId,
        target: &Target,
        change: &BillingChange,
    ) -> Result<Bucket, Failure> {
        let before = self.app.store.billing(id).await?;
        // Without one, or with one that ends by itself, there is nothing to move.
        let Some(present) = before.going_on().cloned() else { return Err(changed_meanwhile()) };
        let Some(plan) = self.app.config.plans.get(&present.plan) else {
            let reason = "its plan is none of the deployment's any more".to_owned();
            return Err(StripeError::Content { what: "a subscription", reason }.into());
        };
        let price = stripe.price(plan).await?;
        let customer = self.customer(stripe, &target.id, &change.id).await?;
        if !customer.has_card() {
            return Err(Failure::Refused(Problem::card_required(NEW_OWNER_NEEDS_CARD)));
        }
        let paid_until = Some(present.period_end).filter(|_| present.is_paid());
        let call = Stripe::subscribe(&NewSubscription {
            bucket: id,
            customer: &customer.id,
            plan: &present.plan,
            price: &price,
            coupon: None,
            free_until: self.unless_soon(paid_until),
            change: &change.id,
        });
        let made = self.charge(stripe, id, change, call).await?;
        let end = ChangeEnd::Replaced { id: &change.id, subscription: &present.id };
        match self.hand_over(&change.actor, target, id, &made, end).await {
            Ok(bucket) => {
                self.end_replaced(stripe, id, &change.id, Some(&present.id)).await;
                Ok(bucket)
            }
            Err(Failure::Refused(problem)) => {
                stripe.cancel_with_credit(&made.id).await.map_err(|error| Failure::not_final(&error))?;
                Err(Failure::Refused(problem))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn hand_over(
        &self,
        actor: &UserId,
        target: &Target,
        id: &BucketId,
        made: &StripeSubscription,
        end: ChangeEnd<'_>,
    ) -> Result<Bucket, Failure> {
        let (store, limit) = (&self.app.store, self.app.config.buckets_per_owner);
        let moved = made.kept(&self.app.config.plans)?;
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let billing = store.billing(id).await?;
            let moved = Some((end, moved.clone()));
            match store.hand_over(&billing, actor, target, limit, moved, self.app.now()).await {
                Ok(bucket) => return Ok(bucket),
                Err(PeopleError::Changed) => {}
                Err(PeopleError::Store(error)) => return Err(error.into()),
                Err(refusal) => return Err(Failure::Refused(refusal.into())),
            }
        }
        Err(BillingError::Changed.into())
    }
}

/// What comes of `work`, or that it takes too long, counted from `start`.
async fn in_time<T>(start: Instant, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = |_| Err(StripeError::Unknown("the time for this request is over".to_owned()).into());
    tokio::time::timeout_at(start + BUDGET, work).await.unwrap_or_else(late)
}

/// What the change rested on is no longer so, and nothing has happened: who asks again starts afresh.
fn changed_meanwhile() -> Failure {
    Failure::Refused(Problem::unavailable(&BillingError::Changed))
}

fn gone(what: &str) -> StripeError {
    StripeError::Content { what: "what it has just told", reason: format!("{what} is gone") }
}

fn refusal_to_cancel(error: &StripeError) -> Problem {
    Problem::stripe(
        "the payment service did not cancel the subscription, so the bucket was not deleted; try again in a \
         moment",
        error,
    )
}
