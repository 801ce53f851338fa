//! What a call touches, and so whether it matters which of two comes first.

use std::collections::BTreeSet;

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use serde_json::Value;

type Key = (String, String);

/// The rows that a call reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    reads: BTreeSet<Key>,
    /// All rows under a partition key whose sort keys begin so.
    ranges: BTreeSet<Key>,
    writes: BTreeSet<Key>,
}

/// The kind of a write of a transaction, and what holds its row's key.
pub(crate) fn row_of(write: &Value) -> Option<(&str, &Value)> {
    let (kind, write) = write.as_object()?.iter().next()?;
    Some((kind, if kind == "Put" { &write["Item"] } else { &write["Key"] }))
}

fn key(item: &Value) -> Key {
    let part = |name: &str| item[name]["S"].as_str().unwrap_or_default().to_owned();
    (part("pk"), part("sk"))
}

impl Footprint {
    /// What `request` touches.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body: Value =
            serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap_or_default();
        let mut footprint = Self::default();
        match target.rsplit('.').next().unwrap_or_default() {
            "GetItem" => drop(footprint.reads.insert(key(&body["Key"]))),
            "BatchGetItem" => {
                let tables = body["RequestItems"].as_object().into_iter().flatten();
                let keys = tables.flat_map(|(_, table)| table["Keys"].as_array().into_iter().flatten());
                footprint.reads.extend(keys.map(key));
            }
            "Query" => {
                let value = |name: &str| {
                    let value = &body["ExpressionAttributeValues"][name]["S"];
                    value.as_str().unwrap_or_default().to_owned()
                };
                footprint.ranges.insert((value(":pk"), value(":prefix")));
            }
            _ => {
                let writes = body["TransactItems"].as_array().into_iter().flatten();
                for (kind, row) in writes.filter_map(row_of) {
                    let rows =
                        if kind == "ConditionCheck" { &mut footprint.reads } else { &mut footprint.writes };
                    rows.insert(key(row));
                }
            }
        }
        footprint
    }

    /// Whether it is a transaction.
    #[must_use]
    pub fn writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Whether it changes something that the model knows of.
    #[must_use]
    pub fn is_of_the_model(&self) -> bool {
        // Agents that know a bucket come from machines of their own, whose wrong keys are not looked at.
        self.writes.iter().any(|(pk, _)| !pk.starts_with("ATTEMPTS#10."))
    }

    /// Whether this call and `other` do the same in either order.
    #[must_use]
    pub fn commutes_with(&self, other: &Self) -> bool {
        !self.changes_what_is_touched_by(other) && !other.changes_what_is_touched_by(self)
    }

    fn changes_what_is_touched_by(&self, other: &Self) -> bool {
        self.writes.iter().any(|key| {
            let (pk, sk) = key;
            other.writes.contains(key)
                || other.reads.contains(key)
                || other.ranges.iter().any(|(of, prefix)| of == pk && sk.starts_with(prefix.as_str()))
        })
    }
}
