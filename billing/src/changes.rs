//! What people change: the plan, the owner, the end of a bucket.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use shared::{
    Access,
    domain::{Bucket, BucketId, PlanName, Right, Subscription, Target, UserId},
    http::{FieldError, Problem},
    store::{
        Billing, BillingChange, BillingError, CHANGE_ATTEMPTS, DeleteError, Kept, NewChange, PeopleError,
        StoreError, before_attempt,
    },
};

use crate::{
    Cashier, StripeError,
    stripe::{NewSubscription, Stripe, StripeSubscription},
};

/// Attempts to begin a change, where one that was left unfinished has to be dealt with first.
const BEGINNINGS: u32 = 3;

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

impl PlanChange {
    /// What is wanted, as a text by which the same request is known again and that tells no secret.
    fn fingerprint(&self) -> String {
        let Self { plan, card, coupon } = self;
        let parts = [Some(plan.as_str()), card.as_deref(), coupon.as_deref()];
        let text = parts.map(|part| part.unwrap_or_default().replace('|', "||")).join(" | ");
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        STANDARD.encode(digest)
    }
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
pub(crate) fn refusal(error: &StripeError) -> Problem {
    let bad = |field: &str, detail: &str| Problem::invalid_input(vec![FieldError::new(field, detail)]);
    match error {
        StripeError::Card { message } => Problem::card_declined(message),
        StripeError::Invalid { param: Some(param), .. } if param == "source" => {
            bad("stripe_token", "is not a token of a card that can still be used")
        }
        StripeError::Invalid { param: Some(param), .. } if param.contains("coupon") => {
            bad("coupon_id", "is not a coupon that can be used")
        }
        StripeError::Invalid { .. } => Problem::stripe(
            "the payment service did not accept the change, and nothing was changed; report it with the \
             request id",
            error,
        ),
        StripeError::Key(_) | StripeError::NoPrice(_) => Problem::stripe(
            "payment is not set up rightly here, and nothing was changed; report it with the request id",
            error,
        ),
        StripeError::Content { .. } | StripeError::Unknown(_) => Problem::stripe(
            "the payment service did not answer; ask again for the same change, which charges nothing twice",
            error,
        ),
    }
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
        let (store, now) = (&self.app.store, self.app.now());
        let (id, actor) = (&access.bucket.id, &access.caller.user_id);
        let plan = self.app.config.plans.get(&wanted.plan);
        let is_free = plan.is_none_or(|plan| plan.price_lookup_key.is_none());
        let Some(stripe) = &self.stripe else {
            return Ok((store.switch_plan(access.bucket.clone(), actor, &wanted.plan, now).await?, None));
        };
        if is_free {
            let billing = store.billing(id).await?;
            if billing.going_on().is_none() && billing.change.is_none() {
                let bucket = billing.bucket.ok_or_else(Problem::bucket_not_found)?;
                let subscription = billing.subscription.map(|kept| kept.subscription);
                if bucket.plan_ends_at.is_some_and(|end| end > now) {
                    // What was paid for is not taken away.
                    return Ok((bucket, subscription));
                }
                return Ok((store.switch_plan(bucket, actor, &wanted.plan, now).await?, subscription));
            }
        }
        let change = NewChange {
            actor,
            right: Right::ChangePlan,
            fingerprint: &wanted.fingerprint(),
            new_owner: None,
        };
        let change = self.begin(stripe, id, &change).await?;
        let outcome = self.pay(stripe, access, wanted, &change).await;
        let (bucket, subscription) = self.ended(id, &change, outcome).await?;
        Ok((bucket, Some(subscription)))
    }

    /// Does at Stripe what `wanted` takes, and keeps what came of it.
    async fn pay(
        &self,
        stripe: &Stripe,
        access: &Access,
        wanted: &PlanChange,
        change: &BillingChange,
    ) -> Result<(Bucket, Subscription), Failure> {
        let store = &self.app.store;
        let id = &access.bucket.id;
        let before = store.billing(id).await?;
        let Some(bucket) = before.bucket.as_ref() else {
            return Err(Failure::Refused(Problem::bucket_not_found()));
        };
        let plan = self.app.config.plans.get(&wanted.plan);
        let told = match (plan.filter(|plan| plan.price_lookup_key.is_some()), before.not_over()) {
            (None, Some(subscription)) => {
                stripe.end_with_period(&subscription.id, true, &change.id, &change.id).await?
            }
            // It has ended meanwhile, and who asks again is switched.
            (None, None) => return Err(changed_meanwhile()),
            (Some(plan), present) => {
                let customer = self.customer(stripe, &change.actor).await?;
                match &wanted.card {
                    Some(token) => match stripe.set_card(&customer.id, token, &change.id).await {
                        // It came with a request that failed for another reason, and its card is known.
                        Err(error) if error.is_used_token() && customer.has_card() => {}
                        outcome => drop(outcome?),
                    },
                    None if customer.has_card() => {}
                    None => return Err(Failure::Refused(Problem::card_required(OWNER_NEEDS_CARD))),
                }
                let (price, coupon) = (stripe.price(plan).await?, wanted.coupon.as_deref());
                if let Some(subscription) = present {
                    let is_so = subscription.plan == wanted.plan && subscription.goes_on();
                    if is_so && coupon.is_none() {
                        stripe.subscription(&subscription.id).await?.ok_or_else(|| gone(&subscription.id))?
                    } else {
                        stripe.change_price(subscription, &wanted.plan, &price, coupon, &change.id).await?
                    }
                } else {
                    // Who subscribes to the plan that they are trying pays from the trial's end on.
                    let trial = bucket.trial.as_ref().filter(|trial| {
                        trial.plan == wanted.plan && trial.is_active(self.app.now().plus_seconds(60))
                    });
                    let new = NewSubscription {
                        bucket: id,
                        customer: &customer.id,
                        plan: &wanted.plan,
                        price: &price,
                        coupon,
                        free_until: trial.map(|trial| trial.ends_at),
                        change: &change.id,
                    };
                    stripe.subscribe(&new).await?
                }
            }
        };
        self.keep(stripe, id, told, before, change).await
    }

    /// Commits what Stripe has told of the subscription that `change` led to.
    async fn keep(
        &self,
        stripe: &Stripe,
        id: &BucketId,
        mut told: StripeSubscription,
        mut before: Billing,
        change: &BillingChange,
    ) -> Result<(Bucket, Subscription), Failure> {
        for attempt in 1..=CHANGE_ATTEMPTS {
            let Some(bucket) = before.bucket.take() else {
                stripe.cancel(&told.id).await?;
                return Err(Failure::Refused(Problem::bucket_not_found()));
            };
            let is_ended = before.change.as_ref().is_none_or(|present| present.id != change.id);
            if let (true, Some(kept)) = (is_ended, &before.subscription)
                && kept.subscription.id == told.id
            {
                // Its webhook was here first.
                return Ok((bucket, kept.subscription.clone()));
            }
            let subscription = told.kept(&self.app.config.plans)?;
            let kept = Kept {
                bucket,
                before: before.subscription.as_ref(),
                subscription: subscription.clone(),
                change: Some(&change.id),
                event: None,
                actor: Some(&change.actor),
            };
            match self.app.store.keep_subscription(kept, self.app.now()).await {
                Ok(bucket) => return Ok((bucket, subscription)),
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

    /// The customer at Stripe that `user` is, made if need be.
    async fn customer(&self, stripe: &Stripe, user: &UserId) -> Result<crate::stripe::Customer, Failure> {
        let store = &self.app.store;
        let no_user = || StoreError::Row("a payer without user row".to_owned());
        let user = store.user(user).await?.ok_or_else(no_user)?;
        if let Some(id) = &user.stripe_customer
            && let Some(customer) = stripe.customer(id).await?
        {
            return Ok(customer);
        }
        let created = stripe.create_customer(&user).await?;
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
    ) -> Result<BillingChange, Failure> {
        for _ in 0..BEGINNINGS {
            match self.app.store.begin_change(bucket, change, self.app.now()).await {
                Ok(change) => return Ok(change),
                Err(BillingError::Unfinished(unfinished)) => {
                    self.resolve(stripe, bucket, &unfinished).await?;
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
    ) -> Result<(), Failure> {
        let outcome = self.resolve_leased(stripe, bucket, change).await;
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
    ) -> Result<(), Failure> {
        let store = &self.app.store;
        let payer = change.new_owner.as_ref().unwrap_or(&change.actor);
        let before = store.billing(bucket).await?;
        let customer = store.user(payer).await?.and_then(|user| user.stripe_customer);
        let found = match &customer {
            Some(customer) => stripe.subscriptions_of(customer).await?,
            None => Vec::new(),
        };
        let made = found.into_iter().find(|found| found.change() == Some(&*change.id));
        if change.new_owner.is_some() {
            self.undo_move(stripe, &before, made.map(|made| made.id), change).await?;
        } else if let Some(made) = made {
            self.keep(stripe, bucket, made, before, change).await?;
            return Ok(());
        } else if let Some(present) = before.not_over() {
            // Perhaps it was to end with its period.
            if let Some(told) = stripe.subscription(&present.id).await? {
                self.keep(stripe, bucket, told, before, change).await?;
                return Ok(());
            }
        }
        Ok(store.drop_change(bucket, &change.id).await?)
    }

    /// Ends `change` as its `outcome` asks for: one that Stripe has surely not carried out is forgotten,
    /// one that it may have is left for who asks again.
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
        let store = &self.app.store;
        let (id, actor) = (&access.bucket.id, &access.caller.user_id);
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let mut billing = store.billing(id).await?;
            let mut begun = None;
            if let Some(stripe) = &self.stripe
                && (billing.not_over().is_some() || billing.change.is_some())
            {
                let change =
                    NewChange { actor, right: Right::Delete, fingerprint: "destroy", new_owner: None };
                let change = self.begin(stripe, id, &change).await?;
                billing = store.billing(id).await?;
                if let Some(subscription) = billing.not_over()
                    && let Err(error) = stripe.cancel(&subscription.id).await
                {
                    store.drop_change(id, &change.id).await?;
                    return Err(refusal_to_cancel(&error));
                }
                begun = Some(change);
            }
            match (store.delete_bucket(&access.bucket, &billing, actor, self.app.now()).await, begun) {
                (Ok(()), _) => return Ok(()),
                (Err(DeleteError::Changed), None) => {}
                (Err(DeleteError::Changed), Some(change)) => store.drop_change(id, &change.id).await?,
                (Err(error), begun) => {
                    if let Some(change) = begun {
                        store.drop_change(id, &change.id).await?;
                    }
                    return Err(error.into());
                }
            }
        }
        Err(DeleteError::Changed.into())
    }

    /// Hands the bucket of `access` from its owner to the member `target`, and gives the bucket as it is
    /// then. Where a subscription pays for it, the new owner's card goes on paying when the period that
    /// the old one has paid for is over.
    ///
    /// # Errors
    /// As [`shared::store::Store::transfer`]; the new owner has no card, or Stripe does not answer.
    pub async fn transfer(&self, access: &Access, target: &Target) -> Result<Bucket, Problem> {
        let store = &self.app.store;
        let (id, actor) = (&access.bucket.id, &access.caller.user_id);
        let limit = self.app.config.buckets_per_owner;
        let takes_money = self.stripe.is_some();
        let outcome = store.transfer(id, actor, target, limit, takes_money, self.app.now()).await;
        let (Some(stripe), Err(PeopleError::Paid)) = (&self.stripe, &outcome) else {
            return Ok(outcome?);
        };
        // Money is moved for nothing where it is plain from the start that the bucket cannot be.
        if store.member(id, &target.id).await?.is_none() {
            return Err(PeopleError::UserNotFound.into());
        }
        if *actor == target.id {
            return Err(PeopleError::AlreadyOwner.into());
        }
        let change =
            NewChange { actor, right: Right::Transfer, fingerprint: "transfer", new_owner: Some(&target.id) };
        let change = self.begin(stripe, id, &change).await?;
        let outcome = self.move_and_hand_over(stripe, id, target, &change).await;
        self.ended(id, &change, outcome).await
    }

    async fn move_and_hand_over(
        &self,
        stripe: &Stripe,
        id: &BucketId,
        target: &Target,
        change: &BillingChange,
    ) -> Result<Bucket, Failure> {
        let store = &self.app.store;
        let before = store.billing(id).await?;
        let Some(present) = before.not_over().cloned() else {
            return Err(changed_meanwhile());
        };
        let told = stripe.subscription(&present.id).await?.ok_or_else(|| gone(&present.id))?;
        if told.is_over() || (present.cancel_at.is_some() && !told.is_ending_for(&change.id)) {
            return Err(changed_meanwhile());
        }
        let plan = self.app.config.plans.get(&present.plan).ok_or_else(|| StripeError::Content {
            what: "a subscription",
            reason: "its plan is gone".to_owned(),
        })?;
        let customer = self.customer(stripe, &target.id).await?;
        if !customer.has_card() {
            return Err(Failure::Refused(Problem::card_required(NEW_OWNER_NEEDS_CARD)));
        }
        let price = stripe.price(plan).await?;
        // From here on there is something to undo: first the old one ends, so that whatever happens
        // nobody pays twice.
        stripe.end_with_period(&present.id, true, &change.id, &change.id).await?;
        let now = self.app.now();
        let new = NewSubscription {
            bucket: id,
            customer: &customer.id,
            plan: &present.plan,
            price: &price,
            coupon: None,
            free_until: Some(present.period_end).filter(|end| *end > now.plus_seconds(60)),
            change: &change.id,
        };
        let made = match stripe.subscribe(&new).await {
            Ok(made) => made,
            Err(error) if error.is_final() => {
                self.undo_move(stripe, &before, None, change).await?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        match self.hand_over(&change.actor, target, id, &made, change).await {
            Err(Failure::Refused(problem)) => {
                self.undo_move(stripe, &before, Some(made.id), change).await?;
                Err(Failure::Refused(problem))
            }
            outcome => outcome,
        }
    }

    async fn hand_over(
        &self,
        actor: &UserId,
        target: &Target,
        id: &BucketId,
        made: &StripeSubscription,
        change: &BillingChange,
    ) -> Result<Bucket, Failure> {
        let (store, limit) = (&self.app.store, self.app.config.buckets_per_owner);
        let moved = made.kept(&self.app.config.plans)?;
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let billing = store.billing(id).await?;
            let moved = Some((&*change.id, moved.clone()));
            match store.hand_over(&billing, actor, target, limit, moved, self.app.now()).await {
                Ok(bucket) => return Ok(bucket),
                Err(PeopleError::Changed) => {}
                Err(PeopleError::Store(error)) => return Err(error.into()),
                Err(refusal) => return Err(Failure::Refused(refusal.into())),
            }
        }
        Err(BillingError::Changed.into())
    }

    /// Undoes a move to another payer that was not committed: what was made for the new one is cancelled
    /// before it costs anything, and the old one goes on.
    async fn undo_move(
        &self,
        stripe: &Stripe,
        before: &Billing,
        made: Option<String>,
        change: &BillingChange,
    ) -> Result<(), Failure> {
        if let Some(made) = made {
            stripe.cancel(&made).await?;
        }
        if let Some(present) = before.not_over()
            && let Some(told) = stripe.subscription(&present.id).await?
            && told.is_ending_for(&change.id)
        {
            stripe.end_with_period(&present.id, false, "", &change.id).await?;
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_is_known_again_and_no_other() {
        let plan = |name: &str| serde_json::from_str::<PlanName>(&format!("\"{name}\"")).unwrap();
        let change = |name, card: Option<&str>, coupon: Option<&str>| {
            PlanChange { plan: plan(name), card: card.map(Into::into), coupon: coupon.map(Into::into) }
                .fingerprint()
        };
        let of = [
            change("plus", None, None),
            change("pro", None, None),
            change("plus", Some("tok_1"), None),
            change("plus", None, Some("tok_1")),
            change("plus", Some("tok_1"), Some("X")),
            change("plus", Some("tok_1 | X"), None),
        ];

        assert_eq!(of[0], change("plus", None, None));
        for (index, one) in of.iter().enumerate() {
            assert!(!of[..index].contains(one), "{index}");
            assert!(!one.contains("tok"));
        }
    }
}
