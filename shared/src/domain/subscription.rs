//! What pays for a bucket's plan.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PlanName, Timestamp};

/// A subscription at Stripe, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id at Stripe.
    pub id: String,
    /// The id of its one item, which has the price.
    pub item: String,
    /// The customer who pays.
    pub customer: String,
    /// The plan that is paid for.
    pub plan: PlanName,
    /// How it stands.
    pub status: SubscriptionStatus,
    /// When the present period began.
    pub period_start: Timestamp,
    /// When the present period ends.
    pub period_end: Timestamp,
    /// When it ends, where that is settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_at: Option<Timestamp>,
    /// When it was cancelled, be it for a later time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canceled_at: Option<Timestamp>,
    /// When its trial ends or ended, if it began with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial_end: Option<Timestamp>,
    /// Whether Stripe has ended it because payments failed.
    pub payment_failed: bool,
}

/// How a subscription stands, in Stripe's words
/// (<https://docs.stripe.com/api/subscriptions/object#subscription_object-status>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionStatus {
    /// The first payment has not gone through yet.
    Incomplete,
    /// The first payment did not go through in time.
    IncompleteExpired,
    /// Nothing is to be paid yet.
    Trialing,
    /// Paid.
    Active,
    /// A payment failed, and Stripe tries again.
    PastDue,
    /// Ended.
    Canceled,
    /// Payments failed, and Stripe does not try again.
    Unpaid,
    /// Its trial has ended without a card.
    Paused,
}

impl Subscription {
    /// Whether it can never cost anything any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status, SubscriptionStatus::Canceled | SubscriptionStatus::IncompleteExpired)
    }

    /// Whether it goes on by itself, so that it must be dealt with before its bucket changes hands.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        !self.is_over() && self.cancel_at.is_none()
    }

    /// Whether another plan can be had by changing it; one that nothing is collected for any more has to be
    /// replaced.
    #[must_use]
    pub fn can_be_changed(&self) -> bool {
        use SubscriptionStatus::{Active, PastDue, Trialing};
        matches!(self.status, Active | Trialing | PastDue)
    }

    /// Whether its present period is paid for, or free.
    #[must_use]
    pub fn is_paid(&self) -> bool {
        matches!(self.status, SubscriptionStatus::Active | SubscriptionStatus::Trialing)
    }

    /// When the plan ends that it pays for; `None` while it goes on.
    ///
    /// While Stripe still tries to collect a payment the plan stays: how long that is, is a setting of
    /// the Stripe account. What was never paid for ends where what was paid for ends.
    #[must_use]
    pub fn plan_ends_at(&self) -> Option<Timestamp> {
        use SubscriptionStatus::{
            Active, Canceled, Incomplete, IncompleteExpired, PastDue, Paused, Trialing, Unpaid,
        };
        match self.status {
            Active | Trialing | PastDue => self.cancel_at,
            Canceled if !self.payment_failed => Some(self.period_end),
            Canceled | Incomplete | IncompleteExpired | Unpaid | Paused => Some(self.period_start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_lasts_as_long_as_it_is_paid_for() {
        use SubscriptionStatus::{
            Active, Canceled, Incomplete, IncompleteExpired, PastDue, Paused, Trialing, Unpaid,
        };
        let at = Timestamp::from_seconds;
        for (status, cancel_at, payment_failed, ends_at) in [
            (Active, None, false, None),
            (Trialing, None, false, None),
            (PastDue, None, false, None),
            (Active, Some(at(20)), false, Some(at(20))),
            (Canceled, None, false, Some(at(20))),
            (Canceled, None, true, Some(at(10))),
            (Unpaid, None, false, Some(at(10))),
            (Incomplete, None, false, Some(at(10))),
            (IncompleteExpired, None, false, Some(at(10))),
            (Paused, None, false, Some(at(10))),
        ] {
            let subscription = Subscription {
                id: "sub_1".to_owned(),
                item: "si_1".to_owned(),
                customer: "cus_1".to_owned(),
                plan: PlanName::default(),
                status,
                period_start: at(10),
                period_end: at(20),
                cancel_at,
                canceled_at: None,
                trial_end: None,
                payment_failed,
            };

            assert_eq!(subscription.plan_ends_at(), ends_at, "{status:?}");
            assert_eq!(
                subscription.can_be_changed(),
                matches!(status, Active | Trialing | PastDue),
                "{status:?}"
            );
            assert_eq!(subscription.is_paid(), matches!(status, Active | Trialing), "{status:?}");
            assert_eq!(subscription.is_over(), matches!(status, Canceled | IncompleteExpired), "{status:?}");
            assert_eq!(subscription.goes_on(), !subscription.is_over() && cancel_at.is_none(), "{status:?}");
        }
    }
}
