//! A switch that takes one guard out of the transactions of a store, to see that something notices. It is
//! not there in release builds.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Write, WriteKind};
use crate::store::{Store, keys::Key, reads::key_of};

/// One condition of one write of a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guard {
    /// The change's name.
    pub change: String,
    /// The row that the condition is on, as the kinds of its keys.
    pub row: String,
    /// The condition.
    pub condition: String,
}

impl fmt::Display for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { change, row, condition } = self;
        write!(formatter, "`{condition}` on {row} in `{change}`")
    }
}

/// The guards that a store was seen to use, and the one that is left out.
#[derive(Debug, Default)]
pub struct Guards {
    seen: Mutex<BTreeSet<Guard>>,
    without: Option<Guard>,
}

impl Guards {
    /// Leaves out `guard`.
    #[must_use]
    pub fn without(guard: Guard) -> Self {
        Self { without: Some(guard), ..Self::default() }
    }

    /// The guards that were used, the one that was left out among them.
    #[must_use]
    pub fn seen(&self) -> BTreeSet<Guard> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The writes of `change` with the guards that are left in.
    pub(super) fn left_in(&self, change: &str, writes: Vec<Write>) -> Vec<Write> {
        writes.into_iter().map(|write| self.guards_left_in(change, write)).collect()
    }

    fn guards_left_in(&self, change: &str, mut write: Write) -> Write {
        let Some(row) = row(&write) else { return write };
        for condition in write.conditions.clone() {
            let guard = Guard { change: change.to_owned(), row: row.clone(), condition };
            if self.without.as_ref() == Some(&guard) {
                write = without(write, &guard.condition);
            }
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(guard);
        }
        write
    }
}

/// `write` without one of its conditions, and without the values that nothing else names. A check of that
/// alone becomes one that always holds: refusals are told by position.
fn without(mut write: Write, condition: &str) -> Write {
    write.conditions.retain(|present| present != condition);
    let update = match &write.kind {
        WriteKind::Update(_, expression) => expression.as_str(),
        WriteKind::Check(_) if write.conditions.is_empty() => {
            write.conditions.push("attribute_not_exists(#nothing)".to_owned());
            ""
        }
        WriteKind::Put(_) | WriteKind::Delete(_) | WriteKind::Check(_) => "",
    };
    let text = format!("{update} {}", write.conditions.join(" "));
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    write.values.retain(|name, _| text.split(|c| !is_part(c)).any(|word| word == name));
    write
}

/// The kind of the row of `write`, such as `BUCKET/MEMBER`.
fn row(write: &Write) -> Option<String> {
    let Key { pk, sk } = match &write.kind {
        WriteKind::Put(item) => key_of(item.as_ref().ok()?).ok()?,
        WriteKind::Update(key, _) | WriteKind::Delete(key) | WriteKind::Check(key) => key.clone(),
    };
    let kind = |text: &str| text.split('#').next().unwrap_or_default().to_owned();
    Some(format!("{}/{}", kind(&pk), kind(&sk)))
}

impl Store {
    /// The same store, whose transactions are seen and changed by `guards`.
    #[must_use]
    pub fn guarded_by(self, guards: Arc<Guards>) -> Self {
        Self { guards: Some(guards), ..self }
    }
}
