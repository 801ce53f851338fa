//! What pays for a bucket: the subscription as Stripe last told it, and the change that is under way.
//!
//! A change at Stripe and one in the table cannot be one transaction. So a change is first written down
//! with an id, under a lease; its calls to Stripe carry that id in their idempotency keys and in the
//! subscription's metadata; and what came of it is committed together with the end of the change. One
//! that is interrupted is resumed with the same id, or found at Stripe by it.

use super::{
    Store, StoreError,
    audit::{self, Action},
    buckets::live,
    items::{BillingChangeRow, StripeEventRow, SubscriptionRow, from_item},
    keys::Key,
    plans::plan_fields,
    transaction::{Transaction, Write},
};
use crate::domain::{Bucket, BucketId, Right, Subscription, Timestamp, UserId};

/// How long a change has what pays for a bucket to itself: longer than a function can run.
const LEASE_SECONDS: u32 = 40;

/// How many former subscriptions of a bucket are remembered, for their invoices.
const FORMER: usize = 20;

/// How long an event is remembered: Stripe sends one again for 30 days at most, if asked to.
const EVENT_DAYS: u32 = 40;

/// What pays for a bucket.
#[derive(Debug)]
pub struct Billing {
    /// The bucket, if it lives.
    pub bucket: Option<Bucket>,
    /// Whether it has lived: there never was another one, or it was in another table.
    pub was_deleted: bool,
    /// Its subscription, if it ever had one.
    pub subscription: Option<KeptSubscription>,
    /// The change that is under way or was left unfinished.
    pub change: Option<BillingChange>,
}

/// A subscription as Stripe last told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSubscription {
    /// What was told.
    pub subscription: Subscription,
    /// The ids of those that the same customer had for the bucket before, oldest first.
    pub former: Vec<String>,
    /// How often something was told.
    pub version: u32,
}

/// A change of what pays for a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillingChange {
    /// Its id, which its calls to Stripe carry.
    pub id: String,
    /// Who wants it.
    pub actor: UserId,
    /// Who is to pay from then on, where the bucket changes hands.
    pub new_owner: Option<UserId>,
    /// The call that may charge, once it may have been made.
    pub call: Option<BillingCall>,
    /// The subscription that is yet to be ended, where all else is done.
    pub replaced: Option<String>,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// Until when nobody else may touch what pays for the bucket.
    pub lease_until: Timestamp,
}

/// A call to Stripe, so that the very same one can be made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillingCall {
    /// Below `/v1`.
    pub path: String,
    /// The fields.
    pub form: String,
}

/// A change that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct NewChange<'a> {
    /// The owner who wants it.
    pub actor: &'a UserId,
    /// The right that this takes.
    pub right: Right,
    /// Who is to pay from then on, where the bucket changes hands.
    pub new_owner: Option<&'a UserId>,
}

/// How a change ends with what it has led to.
#[derive(Clone, Copy, Debug)]
pub enum ChangeEnd<'a> {
    /// It is done.
    Done(&'a str),
    /// It is done but for one thing: the subscription that was replaced is still to be ended.
    Replaced {
        /// The change.
        id: &'a str,
        /// The subscription that is still to be ended.
        subscription: &'a str,
    },
}

impl<'a> ChangeEnd<'a> {
    /// The end of the change `id`, by which the subscription `replaced` was replaced, if there was one.
    #[must_use]
    pub fn of(id: &'a str, replaced: Option<&'a str>) -> Self {
        replaced.map_or(Self::Done(id), |subscription| Self::Replaced { id, subscription })
    }
}

/// What has come of a subscription.
#[derive(Debug)]
pub struct Kept<'a> {
    /// The bucket as it was read, before Stripe was asked.
    pub bucket: Bucket,
    /// What was kept when the bucket was read.
    pub before: Option<&'a KeptSubscription>,
    /// What Stripe says now.
    pub subscription: Subscription,
    /// The end of the change that led to it.
    pub change: Option<ChangeEnd<'a>>,
    /// The event that told it.
    pub event: Option<&'a str>,
    /// Who wanted it; nobody where Stripe tells.
    pub actor: Option<&'a UserId>,
}

/// Why a change of what pays for a bucket was refused.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    /// The bucket is gone.
    #[error("there is no such bucket")]
    BucketNotFound,
    /// The caller is not its owner.
    #[error("only the owner has the right {0:?}")]
    NotOwner(Right),
    /// Another change is under way.
    #[error("another change of what pays for the bucket is under way")]
    Busy,
    /// Another change was left unfinished, and has to be dealt with first; the lease of it is the caller's.
    #[error("another change of what pays for the bucket was left unfinished")]
    Unfinished(Box<BillingChange>),
    /// What the decision rested on has changed.
    #[error("it kept changing meanwhile")]
    Changed,
    /// The event was dealt with before.
    #[error("the event was dealt with before")]
    EventSeen,
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SubscriptionRow> for KeptSubscription {
    fn from(row: SubscriptionRow) -> Self {
        let SubscriptionRow { bucket_id: _, subscription, former, version } = row;
        Self { subscription, former, version }
    }
}

impl From<BillingChangeRow> for BillingChange {
    fn from(row: BillingChangeRow) -> Self {
        let BillingChangeRow {
            bucket_id: _,
            id,
            actor_id,
            new_owner_id,
            call_path,
            call_form,
            replaced,
            begun_at,
            lease_until,
        } = row;
        let call = call_path.zip(call_form).map(|(path, form)| BillingCall { path, form });
        Self { id, actor: actor_id, new_owner: new_owner_id, call, replaced, begun_at, lease_until }
    }
}

impl Billing {
    /// The subscription that is kept, over or not.
    #[must_use]
    pub fn kept(&self) -> Option<&Subscription> {
        self.subscription.as_ref().map(|kept| &kept.subscription)
    }

    /// The subscription, where it goes on by itself.
    #[must_use]
    pub fn going_on(&self) -> Option<&Subscription> {
        self.kept().filter(|subscription| subscription.goes_on())
    }

    /// The subscription, where it is not over.
    #[must_use]
    pub fn not_over(&self) -> Option<&Subscription> {
        self.kept().filter(|subscription| !subscription.is_over())
    }

    /// The id of the subscription that is not over, where `told` is another one, which replaces it.
    #[must_use]
    pub fn replaced_by(&self, told: &str) -> Option<String> {
        self.not_over().map(|present| &present.id).filter(|id| *id != told).cloned()
    }

    /// The writes that delete the rows of what pays for `bucket`, while they are as they were read.
    pub(super) fn end_as_read(&self, bucket: &BucketId) -> [Write; 2] {
        [
            as_read(Write::delete(Key::subscription(bucket)), self.subscription.as_ref()),
            match &self.change {
                Some(change) => end_of_change(bucket, ChangeEnd::Done(&change.id)),
                None => no_change(bucket),
            },
        ]
    }
}

/// The guard that the subscription's row is as it was read.
fn as_read(write: Write, before: Option<&KeptSubscription>) -> Write {
    match before {
        Some(KeptSubscription { version, .. }) => write.at_version(*version),
        None => write.when("attribute_not_exists(#pk)"),
    }
}

/// The guard that no change is under way or unfinished.
fn no_change(bucket: &BucketId) -> Write {
    Write::check(Key::billing_change(bucket)).when("attribute_not_exists(#pk)")
}

/// The end of a change, which must be the one under way.
fn end_of_change(bucket: &BucketId, end: ChangeEnd<'_>) -> Write {
    let key = Key::billing_change(bucket);
    let (write, id) = match end {
        ChangeEnd::Done(id) => (Write::delete(key), id),
        ChangeEnd::Replaced { id, subscription } => {
            let write = Write::update(key, "SET #replaced = :replaced REMOVE #call_path, #call_form");
            (write.value(":replaced", subscription), id)
        }
    };
    write.when("#id = :id").value(":id", id)
}

/// The row of `bucket` after `before`, when the subscription is `subscription`.
fn next_row(
    bucket: &BucketId,
    before: Option<&KeptSubscription>,
    subscription: Subscription,
) -> SubscriptionRow {
    let version = before.map_or(1, |before| before.version.saturating_add(1));
    let mut former = match before {
        Some(before) if before.subscription.customer == subscription.customer => before.former.clone(),
        _ => Vec::new(),
    };
    if let Some(before) = before
        && before.subscription.customer == subscription.customer
        && before.subscription.id != subscription.id
    {
        former.push(before.subscription.id.clone());
        former.drain(..former.len().saturating_sub(FORMER));
    }
    SubscriptionRow { bucket_id: bucket.clone(), subscription, former, version }
}

impl<E: From<StoreError>> Transaction<'_, E> {
    /// Only while what pays for `bucket` is as it was read in `billing`, and no change of it is under way;
    /// else `changed`. With `moved`, a change ends by which another subscription pays for it.
    pub(super) fn paid_as_read(
        self,
        bucket: &BucketId,
        billing: &Billing,
        moved: Option<(ChangeEnd<'_>, Subscription)>,
        changed: impl Fn() -> E,
    ) -> Self {
        let before = billing.subscription.as_ref();
        let (row, change) = match moved {
            Some((end, subscription)) => {
                (Write::put(&next_row(bucket, before, subscription)), end_of_change(bucket, end))
            }
            None => (Write::check(Key::subscription(bucket)), no_change(bucket)),
        };
        self.guarded(as_read(row, before), changed()).guarded(change, changed())
    }
}

impl Store {
    /// What pays for `bucket`: one read.
    ///
    /// # Errors
    /// The table failed.
    pub async fn billing(&self, bucket: &BucketId) -> Result<Billing, StoreError> {
        let keys = [Key::bucket(bucket), Key::subscription(bucket), Key::billing_change(bucket)];
        let mut found = self.batch_get(&keys).await?;
        let [bucket, subscription, change] = keys.map(|key| found.remove(&key));
        Ok(Billing {
            was_deleted: bucket.as_ref().is_some_and(|row| row.contains_key("deleted_at")),
            bucket: live(bucket)?,
            subscription: subscription.map(from_item::<SubscriptionRow>).transpose()?.map(Into::into),
            change: change.map(from_item::<BillingChangeRow>).transpose()?.map(Into::into),
        })
    }

    /// Begins `change` of what pays for `bucket`.
    ///
    /// # Errors
    /// The bucket is gone, the actor is not its owner, or another change is under way or was left
    /// unfinished: then it is the caller's to deal with.
    pub async fn begin_change(
        &self,
        bucket: &BucketId,
        change: &NewChange<'_>,
        now: Timestamp,
    ) -> Result<BillingChange, BillingError> {
        let NewChange { actor, right, new_owner } = *change;
        let present = self.get(&Key::billing_change(bucket)).await?;
        if let Some(present) = present.map(from_item::<BillingChangeRow>).transpose()? {
            let present = BillingChange::from(present);
            let leased = if present.lease_until > now {
                None
            } else {
                self.lease_change(bucket, &present, now).await?
            };
            return Err(leased.map_or(BillingError::Busy, |left| BillingError::Unfinished(Box::new(left))));
        }
        let row = BillingChangeRow {
            bucket_id: bucket.clone(),
            id: audit::ulid(now)?,
            actor_id: actor.clone(),
            new_owner_id: new_owner.cloned(),
            call_path: None,
            call_form: None,
            replaced: None,
            begun_at: now,
            lease_until: now.plus_seconds(LEASE_SECONDS),
        };
        let me = actor.clone();
        self.transaction("begin_change")
            .guarded_by(
                Write::check(Key::bucket(bucket)).not_deleted().owned_by(actor),
                move |old| match live(old) {
                    Err(error) => error.into(),
                    Ok(Some(bucket)) if bucket.owner_id != me => BillingError::NotOwner(right),
                    Ok(_) => BillingError::BucketNotFound,
                },
            )
            .guarded(Write::put_new(&row), BillingError::Busy)
            .commit()
            .await?;
        Ok(row.into())
    }

    /// Writes down the `call` that may charge, before it is made.
    ///
    /// # Errors
    /// [`BillingError::Changed`] where somebody else has ended the change.
    pub async fn note_call(
        &self,
        bucket: &BucketId,
        id: &str,
        call: &BillingCall,
    ) -> Result<(), BillingError> {
        let BillingCall { path, form } = call;
        let write = Write::update(
            Key::billing_change(bucket),
            "SET #call_path = :call_path, #call_form = :call_form",
        )
        .when("#id = :id")
        .value(":call_path", path.as_str())
        .value(":call_form", form.as_str())
        .value(":id", id);
        self.transaction("note_call").guarded(write, BillingError::Changed).commit().await
    }

    /// Takes over the change `left`, which its author has left unfinished; nothing where somebody else has.
    ///
    /// # Errors
    /// The table failed.
    pub async fn lease_change(
        &self,
        bucket: &BucketId,
        left: &BillingChange,
        now: Timestamp,
    ) -> Result<Option<BillingChange>, StoreError> {
        let lease_until = now.plus_seconds(LEASE_SECONDS);
        let write = Write::update(Key::billing_change(bucket), "SET #lease_until = :lease_until")
            .when("#id = :id")
            .when("#lease_until = :lease_as_read")
            .value(":lease_until", lease_until)
            .value(":id", left.id.as_str())
            .value(":lease_as_read", left.lease_until);
        let is_taken = self.write_if("lease_change", write).await?;
        Ok(is_taken.then(|| BillingChange { lease_until, ..left.clone() }))
    }

    /// Forgets the change `id`, of which nothing has come or will come.
    ///
    /// # Errors
    /// The table failed.
    pub async fn drop_change(&self, bucket: &BucketId, id: &str) -> Result<(), StoreError> {
        // Where it is no longer there, somebody else has ended it.
        self.write_if("drop_change", end_of_change(bucket, ChangeEnd::Done(id))).await.map(drop)
    }

    /// Leaves the change `id` unfinished, for who asks for it again: what has come of it is not known.
    ///
    /// # Errors
    /// The table failed.
    pub async fn leave_change(&self, bucket: &BucketId, id: &str, now: Timestamp) -> Result<(), StoreError> {
        let write = Write::update(Key::billing_change(bucket), "SET #lease_until = :now")
            .when("#id = :id")
            .value(":now", now)
            .value(":id", id);
        self.write_if("leave_change", write).await.map(drop)
    }

    /// Keeps what Stripe says of a bucket's subscription: the bucket's plan follows it, the change that
    /// led to it ends, and the event that told it is remembered. Gives the bucket as it is then.
    ///
    /// # Errors
    /// The bucket is gone or has changed, other news came first, or the event was dealt with before.
    pub async fn keep_subscription(&self, kept: Kept<'_>, now: Timestamp) -> Result<Bucket, BillingError> {
        let Kept { bucket, before, subscription, change, event, actor } = kept;
        let (id, version) = (bucket.id.clone(), bucket.version);
        let paid = bucket.on_plan(subscription.plan.clone(), subscription.plan_ends_at(), now);
        let row = next_row(&id, before, subscription);
        let entry = match actor {
            Some(actor) => audit::entry(&id, actor, Action::Upgrade, now),
            None => audit::entry_of_nobody(&id, Action::SyncSubscription, now),
        };
        let mut transaction =
            self.transaction("keep_subscription")
                .guarded_by(Write::set(Key::bucket(&id), plan_fields(&paid)).at_version(version), |old| {
                    match live(old) {
                        Err(error) => error.into(),
                        Ok(None) => BillingError::BucketNotFound,
                        Ok(Some(_)) => BillingError::Changed,
                    }
                })
                .guarded(as_read(Write::put(&row), before), BillingError::Changed)
                .with(entry.write()?);
        if let Some(change) = change {
            transaction = transaction.guarded(end_of_change(&id, change), BillingError::Changed);
        }
        if let Some(event) = event {
            transaction = transaction.guarded(event_write(event, now), BillingError::EventSeen);
        }
        transaction.commit().await?;
        Ok(paid)
    }

    /// Whether the event `id` was dealt with.
    ///
    /// # Errors
    /// The table failed.
    pub async fn event_seen(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.get(&Key::stripe_event(id)).await?.is_some())
    }

    /// Remembers that the event `id`, of which nothing follows, was dealt with.
    ///
    /// # Errors
    /// The table failed.
    pub async fn note_event(&self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        self.write_if("note_event", event_write(id, now)).await.map(drop)
    }

    /// Notes that `user` is the customer `customer` at Stripe, and no longer `before`. Where somebody else
    /// was first, theirs stands. Gives the customer that stands.
    ///
    /// # Errors
    /// The table failed, or there is no such user.
    pub async fn set_customer(
        &self,
        user: &UserId,
        customer: &str,
        before: Option<&str>,
    ) -> Result<String, StoreError> {
        let write =
            Write::update(Key::user(user), "SET #stripe_customer = :customer").value(":customer", customer);
        let write = match before {
            Some(before) => write.when("#stripe_customer = :before").value(":before", before),
            None => write.when("attribute_exists(#pk)").when("attribute_not_exists(#stripe_customer)"),
        };
        if self.write_if("set_customer", write).await? {
            return Ok(customer.to_owned());
        }
        let user = self.user(user).await?;
        user.and_then(|user| user.stripe_customer)
            .ok_or_else(|| StoreError::Row("a payer without user row".to_owned()))
    }
}

fn event_write(id: &str, now: Timestamp) -> Write {
    let ttl = now.plus_days(EVENT_DAYS).as_seconds();
    Write::put_new(&StripeEventRow { id: id.to_owned(), ttl })
}
