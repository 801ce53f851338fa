//! The plan of a bucket.

use super::{
    Billing, Store, StoreError,
    audit::{self, Action},
    buckets::live,
    keys::Key,
    transaction::{Value, Write},
};
use crate::domain::{Bucket, PlanName, Timestamp, Trial, UserId};

/// Why a bucket was not put on a plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It is gone, or the caller is no member any more.
    #[error("there is no such bucket")]
    BucketNotFound,
    /// The caller is not its owner.
    #[error("only the owner may choose the plan")]
    NotOwner,
    /// It kept being changed by others meanwhile.
    #[error("the bucket kept changing")]
    Changed,
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a trial was not begun.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The bucket is gone, or the caller is no member any more.
    #[error("there is no such bucket")]
    BucketNotFound,
    /// The caller is not its owner.
    #[error("only the owner may begin the trial")]
    NotOwner,
    /// The bucket has had its trial.
    #[error("the bucket has had its trial")]
    BucketHadOne,
    /// The owner has had a trial, of another bucket perhaps.
    #[error("the owner has had a trial")]
    OwnerHadOne,
    /// The bucket is on a plan that is not the default one.
    #[error("the bucket is on another plan than the default one")]
    OnPlan,
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// `write`, only when the plan of `bucket`, the plan's end and the trial are as they were read.
pub(super) fn plan_as_read(write: Write, bucket: &Bucket) -> Write {
    let trial_ends_at = bucket.trial.as_ref().map(|trial| trial.ends_at);
    let write = write.when("#plan = :plan_as_read").value(":plan_as_read", bucket.plan.as_str());
    [("plan_ends_at", bucket.plan_ends_at), ("trial_ends_at", trial_ends_at)].into_iter().fold(
        write,
        |write, (name, time)| match time {
            Some(time) => {
                let value = format!(":{name}_as_read");
                write.when(format!("#{name} = {value}")).value(&value, time)
            }
            None => write.when(format!("attribute_not_exists(#{name})")),
        },
    )
}

/// Whether [`plan_as_read`] would hold for `bucket`, of which `read` was read.
pub(super) fn is_on_same_plan(bucket: &Bucket, read: &Bucket) -> bool {
    (&bucket.plan, bucket.plan_ends_at, &bucket.trial) == (&read.plan, read.plan_ends_at, &read.trial)
}

/// The fields of the plan of `bucket`, with those that every change of a bucket sets.
pub(super) fn plan_fields(bucket: &Bucket) -> [(&'static str, Option<Value>); 5] {
    [
        ("plan", Some(bucket.plan.as_str().into())),
        ("plan_ends_at", bucket.plan_ends_at.map(Into::into)),
        ("trial_ends_at", bucket.trial.as_ref().map(|trial| trial.ends_at.into())),
        ("updated_at", Some(bucket.updated_at.into())),
        ("version", Some(bucket.version.into())),
    ]
}

impl Store {
    /// Puts the bucket of `billing` on `plan` for its owner `actor`, free of charge, while nothing pays for
    /// it but what was read. Gives the bucket as it is then.
    ///
    /// # Errors
    /// The bucket is gone, `actor` is not its owner; [`PlanError::Changed`] where anything that was read is
    /// no longer so.
    pub async fn switch_plan(
        &self,
        billing: &Billing,
        actor: &UserId,
        plan: &PlanName,
        now: Timestamp,
    ) -> Result<Bucket, PlanError> {
        let Some(bucket) = billing.bucket.clone() else { return Err(PlanError::BucketNotFound) };
        if bucket.plan == *plan && bucket.plan_ends_at.is_none() {
            return Ok(bucket);
        }
        let (id, version) = (bucket.id.clone(), bucket.version);
        let switched = bucket.on_plan(plan.clone(), None, now);
        let me = actor.clone();
        self.transaction("switch_plan")
            .guarded_by(
                Write::set(Key::bucket(&id), plan_fields(&switched)).at_version(version).owned_by(actor),
                move |old| match live(old) {
                    Err(error) => error.into(),
                    Ok(None) => PlanError::BucketNotFound,
                    Ok(Some(bucket)) if bucket.owner_id != me => PlanError::NotOwner,
                    Ok(Some(_)) => PlanError::Changed,
                },
            )
            .paid_as_read(&id, billing, None, || PlanError::Changed)
            .with(audit::entry(&id, actor, Action::Upgrade, now).write()?)
            .commit()
            .await?;
        Ok(switched)
    }

    /// Begins the trial of `plan` for the bucket `bucket` and its owner `actor`, who both have one in
    /// their lives; it lasts `days`.
    ///
    /// # Errors
    /// The bucket is gone, `actor` is not its owner, one of them has had a trial, or the bucket is on
    /// another plan than the default one.
    pub async fn claim_trial(
        &self,
        bucket: &Bucket,
        actor: &UserId,
        plan: &PlanName,
        days: u32,
        now: Timestamp,
    ) -> Result<(), TrialError> {
        let trial = Trial { plan: plan.clone(), ends_at: now.plus_days(days) };
        let me = actor.clone();
        self.transaction("claim_trial")
            .guarded_by(
                Write::update(
                    Key::bucket(&bucket.id),
                    "SET #trial_plan = :trial_plan, #trial_ends_at = :trial_ends_at, #updated_at = :now \
                     ADD #version :one",
                )
                .not_deleted()
                .owned_by(actor)
                .when("attribute_not_exists(#trial_ends_at)")
                .when("(#plan = :default OR #plan_ends_at <= :now)")
                .value(":trial_plan", trial.plan.as_str())
                .value(":trial_ends_at", trial.ends_at)
                .value(":now", now)
                .value(":one", 1)
                .value(":default", PlanName::default().as_str()),
                move |old| match live(old) {
                    Err(error) => error.into(),
                    Ok(None) => TrialError::BucketNotFound,
                    Ok(Some(bucket)) if bucket.owner_id != me => TrialError::NotOwner,
                    Ok(Some(bucket)) if bucket.trial.is_some() => TrialError::BucketHadOne,
                    Ok(Some(_)) => TrialError::OnPlan,
                },
            )
            .guarded_by(
                Write::update(Key::user(actor), "SET #trial_used = :true")
                    .when("attribute_exists(#pk)")
                    .when("attribute_not_exists(#trial_used)")
                    .value(":true", true),
                |old| match old {
                    Some(_) => TrialError::OwnerHadOne,
                    None => StoreError::Row("an owner without user row".to_owned()).into(),
                },
            )
            .with(audit::entry(&bucket.id, actor, Action::ClaimTrial, now).write()?)
            .commit()
            .await
    }
}
