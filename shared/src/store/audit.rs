//! The audit trail of a bucket.

use serde::{Deserialize, Serialize};

use super::{StoreError, items::AuditRow};
use crate::domain::{BucketId, Timestamp, UserId};

/// What was done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Create,
    Update,
    Delete,
}

/// The row for `action`, done to `bucket` by `actor`. Its id is a ULID: the time, then 80 random bits.
pub(crate) fn row(
    bucket: &BucketId,
    actor: &UserId,
    action: Action,
    at: Timestamp,
) -> Result<AuditRow, StoreError> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random)?;
    let id = ulid::Ulid::from_parts(
        u64::try_from(at.as_millis()).unwrap_or_default(),
        u128::from_le_bytes(random),
    );
    Ok(AuditRow { bucket_id: bucket.clone(), id: id.to_string(), actor_id: actor.clone(), action, at })
}
