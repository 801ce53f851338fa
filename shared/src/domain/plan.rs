//! Plans, trials and what they allow.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// The name of a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PlanName(String);

impl PlanName {
    /// The plan's name as the clients know it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for PlanName {
    /// The plan of a bucket that has never had another, or whose other one has ended.
    fn default() -> Self {
        Self("free".to_owned())
    }
}

/// A name that a plan of this deployment may have had: what a subscription was made for stays so.
impl From<String> for PlanName {
    fn from(name: String) -> Self {
        Self(name)
    }
}

/// Lets fields be in what `schema` describes that it does not name.
fn open(schema: &mut Schema) {
    schema.remove("additionalProperties");
}

/// The longest trial, in days: Stripe takes no longer ones.
const LONGEST_TRIAL: u32 = 730;

/// A plan: what it allows, and how one gets onto it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
// Of an operator's plans nothing is ignored; what the API answers may gain fields.
#[schemars(transform = open)]
pub struct Plan {
    /// Members and pending invitations.
    pub seats: u32,
    /// Servers that may be linked.
    pub servers: u32,
    /// Days that it may be tried for; 0 for a plan without trial.
    #[serde(default)]
    pub trial_days: u32,
    /// The lookup key of its price at Stripe; `null` for a plan that costs nothing.
    #[serde(default)]
    pub price_lookup_key: Option<String>,
    /// Whether an owner may put a bucket on it. The operator may put one on any plan.
    #[serde(default)]
    pub self_service: bool,
}

/// The plans of a deployment, by name. There always is the default one, which costs nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Plans(BTreeMap<PlanName, Plan>);

/// Why a list of plans cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlansError {
    /// Not JSON of the right form.
    #[error("not an object of plans by name: {0}")]
    Form(#[from] serde_json::Error),
    /// Buckets begin on it.
    #[error("the plan `free` is missing")]
    NoDefault,
    /// Buckets begin on it and fall back to it, without being asked.
    #[error("the plan `free` has a price, or cannot be chosen")]
    PaidDefault,
    /// A bucket needs one for its owner.
    #[error("the plan `{0}` has no seat")]
    NoSeat(String),
    /// A trial is not asked for by name.
    #[error("more than one plan has a trial")]
    Trials,
    /// Stripe takes no longer one, and the default plan has nothing to try.
    #[error("the plan `{0}` has a trial that it cannot have: of 1 to 730 days, and not of `free`")]
    Trial(String),
    /// It could not be told from no name, or no price.
    #[error("a plan has a blank name or price")]
    Blank,
    /// What is paid for must tell the plan.
    #[error("two plans have the price `{0}`")]
    SamePrice(String),
}

impl Plans {
    /// The plans of `plans.json`, which is part of the binary.
    ///
    /// # Errors
    /// The file was changed for the worse.
    pub fn built_in() -> Result<Self, PlansError> {
        Self::from_json(include_str!("../../../plans.json"))
    }

    /// The plans that `json` names.
    ///
    /// # Errors
    /// It is no usable list of plans.
    pub fn from_json(json: &str) -> Result<Self, PlansError> {
        let plans: BTreeMap<PlanName, Plan> = serde_json::from_str(json)?;
        let default = plans.get(&PlanName::default()).ok_or(PlansError::NoDefault)?;
        if default.price_lookup_key.is_some() || !default.self_service {
            return Err(PlansError::PaidDefault);
        }
        if let Some((name, _)) = plans.iter().find(|(_, plan)| plan.seats == 0) {
            return Err(PlansError::NoSeat(name.as_str().to_owned()));
        }
        let is_blank = |text: &str| text.trim().is_empty();
        if plans.iter().any(|(name, plan)| {
            is_blank(name.as_str()) || plan.price_lookup_key.as_deref().is_some_and(is_blank)
        }) {
            return Err(PlansError::Blank);
        }
        if let Some((name, _)) = plans.iter().find(|(name, plan)| {
            plan.trial_days > LONGEST_TRIAL || (plan.trial_days > 0 && **name == PlanName::default())
        }) {
            return Err(PlansError::Trial(name.as_str().to_owned()));
        }
        if plans.values().filter(|plan| plan.trial_days > 0).count() > 1 {
            return Err(PlansError::Trials);
        }
        let mut prices: Vec<_> = plans.values().filter_map(|plan| plan.price_lookup_key.as_ref()).collect();
        prices.sort();
        if let Some((price, _)) = prices.iter().zip(prices.iter().skip(1)).find(|(one, other)| one == other) {
            return Err(PlansError::SamePrice((*price).clone()));
        }
        Ok(Self(plans))
    }

    /// The plan `name`, if the deployment has it.
    #[must_use]
    pub fn get(&self, name: &PlanName) -> Option<&Plan> {
        self.0.get(name)
    }

    /// The names of all plans.
    pub fn names(&self) -> impl Iterator<Item = &PlanName> {
        self.0.keys()
    }

    /// The plan whose price at Stripe has this lookup key.
    #[must_use]
    pub fn of_price(&self, lookup_key: &str) -> Option<&PlanName> {
        self.0
            .iter()
            .find(|(_, plan)| plan.price_lookup_key.as_deref() == Some(lookup_key))
            .map(|(name, _)| name)
    }

    /// The plan that may be tried, and for how many days.
    #[must_use]
    pub fn trial(&self) -> Option<(&PlanName, u32)> {
        self.0.iter().find(|(_, plan)| plan.trial_days > 0).map(|(name, plan)| (name, plan.trial_days))
    }

    /// What the plan `name` allows. One that the deployment does not have (any more) allows what the
    /// default one does: nobody is thrown out, and growth is bounded.
    #[must_use]
    pub fn limits(&self, name: &PlanName) -> Limits {
        let plan = self.get(name).or_else(|| self.get(&PlanName::default()));
        // There always is the default one.
        plan.map_or(Limits { seats: 1, servers: 0 }, |plan| Limits {
            seats: plan.seats,
            servers: plan.servers,
        })
    }
}

/// What a plan allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Members and pending invitations.
    pub seats: u32,
    /// Servers that may be linked.
    pub servers: u32,
}

/// A trial that was begun; once it has ended it only tells that there was one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Trial {
    /// The plan that counts while it lasts.
    pub plan: PlanName,
    /// When it ends or has ended.
    #[serde(serialize_with = "Timestamp::rfc3339")]
    pub ends_at: Timestamp,
}

impl Trial {
    /// Whether it lasts at `now`.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        now < self.ends_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> PlanName {
        PlanName(name.to_owned())
    }

    #[test]
    fn the_built_in_plans_are_those_that_are_documented() {
        let plans = Plans::built_in().unwrap();

        assert_eq!(plans.limits(&name("free")), Limits { seats: 5, servers: 2 });
        assert_eq!(plans.trial(), Some((&name("plus"), 14)));
        assert_eq!(plans.of_price("bucket_pro"), Some(&name("pro")));
        assert!(!plans.get(&name("enterprise")).unwrap().self_service);
    }

    #[test]
    fn plans_are_known_by_name_and_may_be_tried_for_two_years() {
        let plans = Plans::built_in().unwrap();
        assert!(plans.names().map(PlanName::as_str).eq(["enterprise", "free", "plus", "pro"]));
        assert_eq!(PlanName::from("pro".to_owned()), name("pro"));

        let longest = r#"{"free": { "seats": 1, "servers": 1, "self_service": true },
            "a": { "seats": 1, "servers": 1, "trial_days": 730 }}"#;
        assert_eq!(Plans::from_json(longest).unwrap().trial(), Some((&name("a"), 730)));
    }

    #[test]
    fn the_default_plan_stands_in_for_one_that_is_gone() {
        let plans = Plans::built_in().unwrap();

        assert_eq!(plans.limits(&name("plan of another time")), plans.limits(&PlanName::default()));
        assert_eq!(plans.get(&name("plan of another time")), None);
        assert_eq!(plans.of_price("price of another time"), None);
    }

    #[test]
    fn plans_that_cannot_work_are_refused_with_the_reason() {
        let free = r#""free": { "seats": 1, "servers": 1, "self_service": true }"#;
        for (json, reason) in [
            ("[]".to_owned(), "not an object of plans by name"),
            ("{}".to_owned(), "the plan `free` is missing"),
            (r#"{"free": { "seats": 1 }}"#.to_owned(), "missing field `servers`"),
            (r#"{"free": { "seats": 1, "servers": 1, "seat": 1 }}"#.to_owned(), "unknown field `seat`"),
            (r#"{"free": { "seats": 1, "servers": 1 }}"#.to_owned(), "has a price, or cannot be chosen"),
            (
                r#"{"free": { "seats": 1, "servers": 1, "self_service": true, "price_lookup_key": "a" }}"#
                    .to_owned(),
                "has a price, or cannot be chosen",
            ),
            (format!(r#"{{{free}, " ": {{ "seats": 1, "servers": 1 }}}}"#), "a blank name or price"),
            (
                format!(r#"{{{free}, "a": {{ "seats": 1, "servers": 1, "price_lookup_key": "" }}}}"#),
                "a blank name or price",
            ),
            (
                format!(r#"{{{free}, "a": {{ "seats": 1, "servers": 1, "trial_days": 731 }}}}"#),
                "`a` has a trial that it cannot have",
            ),
            (
                r#"{"free": { "seats": 1, "servers": 1, "self_service": true, "trial_days": 1 }}"#.to_owned(),
                "`free` has a trial that it cannot have",
            ),
            (format!(r#"{{{free}, "none": {{ "seats": 0, "servers": 1 }}}}"#), "`none` has no seat"),
            (
                format!(
                    r#"{{{free}, "a": {{ "seats": 1, "servers": 1, "trial_days": 1 }},
                        "b": {{ "seats": 1, "servers": 1, "trial_days": 2 }}}}"#
                ),
                "more than one plan has a trial",
            ),
            (
                format!(
                    r#"{{{free}, "a": {{ "seats": 1, "servers": 1, "price_lookup_key": "p" }},
                        "b": {{ "seats": 1, "servers": 1, "price_lookup_key": "p" }}}}"#
                ),
                "two plans have the price `p`",
            ),
        ] {
            let error = Plans::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }

    #[test]
    fn a_trial_is_over_at_its_end() {
        let at = Timestamp::from_millis;
        let trial = Trial { plan: name("plus"), ends_at: at(1_000) };

        assert!(trial.is_active(at(999)));
        assert!(!trial.is_active(at(1_000)));
    }
}
