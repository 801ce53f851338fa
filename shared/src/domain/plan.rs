//! Plans and their limits.

use std::{collections::BTreeMap, sync::OnceLock};

use serde::{Deserialize, Serialize};

/// The name of a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanName(String);

impl PlanName {
    /// The plan's name as the clients know it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the plan allows. A plan that `plans.json` does not name (any more) allows what the default
    /// one does: nobody is thrown out, and growth is bounded.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let plans = plans();
        plans
            .get(self)
            .or_else(|| plans.get(&Self::default()))
            .copied()
            .unwrap_or(Limits { seats: 1, servers: 0 })
    }
}

impl Default for PlanName {
    /// The plan of a bucket that has never had another.
    fn default() -> Self {
        Self("free".to_owned())
    }
}

/// What a plan allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Members and pending invitations.
    pub seats: u32,
    /// Servers that may be linked.
    pub servers: u32,
}

/// The plans of `plans.json`, which is part of the binary.
pub fn plans() -> &'static BTreeMap<PlanName, Limits> {
    static PLANS: OnceLock<BTreeMap<PlanName, Limits>> = OnceLock::new();
    // A test holds the file to its form, so the default never stands in for it.
    PLANS.get_or_init(|| serde_json::from_str(include_str!("../../../plans.json")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_plan_is_in_the_file_and_stands_in_for_an_unknown_one() {
        let unknown: PlanName = serde_json::from_str("\"plan of another time\"").unwrap();

        assert!(plans().contains_key(&PlanName::default()));
        assert_eq!(PlanName::default().limits(), Limits { seats: 5, servers: 2 });
        assert_eq!(unknown.limits(), PlanName::default().limits());
    }
}
