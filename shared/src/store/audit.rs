//! The audit trail of a bucket. What happens after a commit (mails, clearing) happens because of its
//! rows: each is written once, in the transaction that it tells of.

use serde::{Deserialize, Serialize};

use super::{
    Store, StoreError,
    items::{AuditRow, Row},
    keys::Key,
    transaction::{Refused, Write},
};
use crate::domain::{BucketId, Email, Role, ServerName, Timestamp, UserId};

/// How long who sends a mail has it to themselves: longer than the function can run.
const LEASE_SECONDS: u32 = 90;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The bucket was created.
    Create,
    /// What it says of itself was changed.
    Update,
    /// It was deleted.
    Delete,
    /// An address was invited, or invited again.
    Invite,
    /// An invitation was removed.
    RemoveInvitation,
    /// An expired invitation was cleared, or one of somebody who is in already.
    ClearInvitation,
    /// A person was added directly.
    AddUser,
    /// A person took up an invitation.
    AcceptInvitation,
    /// A person was removed.
    RemoveUser,
    /// A person left.
    Leave,
    /// A person came under another address.
    ChangeAddress,
    /// A person was given another role.
    SetRole,
    /// A server was linked.
    LinkServer,
    /// A server was deleted.
    DeleteServer,
    /// The bucket was given another secret.
    RotateSecret,
    /// The bucket was put on a plan.
    Upgrade,
    /// What pays for it has changed.
    SyncSubscription,
    /// Its trial was begun.
    ClaimTrial,
    /// The bucket was handed over.
    TransferOwnership,
    /// A person's notification state was set.
    SetNotificationState,
    /// A person set their own options.
    UpdateUserOptions,
    /// A person sent feedback.
    SendFeedback,
}

/// What was done, as the stream tells it.
#[derive(Debug)]
pub struct AuditEntry {
    /// The bucket that it was done to.
    pub bucket_id: BucketId,
    /// A ULID.
    pub id: String,
    /// Who did it; nobody where Stripe or an agent did.
    pub actor_id: Option<UserId>,
    /// What.
    pub action: Action,
    /// To whom, where that is a user.
    pub target_id: Option<UserId>,
    /// To whom, where that is nobody's address yet.
    pub target_email: Option<Email>,
}

impl AuditEntry {
    /// The entry in a row's image, if it is an audit row.
    pub(crate) fn from_image(image: serde_dynamo::Item) -> Result<Option<Self>, StoreError> {
        match image.get("type") {
            Some(serde_dynamo::AttributeValue::S(kind)) if kind == AuditRow::TYPE => {}
            _ => return Ok(None),
        }
        let AuditRow { bucket_id, id, actor_id, action, target_id, target_email, server: _, role: _, at: _ } =
            serde_dynamo::from_item(image).map_err(|error| StoreError::Row(format!("audit row: {error}")))?;
        Ok(Some(Self { bucket_id, id, actor_id, action, target_id, target_email }))
    }

    fn key(&self) -> Key {
        Key::audit(&self.bucket_id, &self.id)
    }
}

/// Whether to send a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Yes, and nobody else does meanwhile.
    Granted,
    /// It was sent.
    Sent,
    /// Somebody else is sending it, or was when they were last heard of.
    Held,
}

impl Store {
    /// Asks for the right to send the mail of `entry`, from `now` on for a while.
    ///
    /// # Errors
    /// The table failed.
    pub async fn lease_mail(&self, entry: &AuditEntry, now: Timestamp) -> Result<Lease, StoreError> {
        let committed = self
            .transaction("lease_mail")
            .guarded_by(
                Write::update(entry.key(), "SET #mail_lease = :until")
                    .when("attribute_exists(#pk)")
                    .when("attribute_not_exists(#mailed_at)")
                    .when("(attribute_not_exists(#mail_lease) OR #mail_lease < :now)")
                    .value(":until", now.plus_seconds(LEASE_SECONDS))
                    .value(":now", now),
                |old| {
                    let sent = old.is_none_or(|row| row.contains_key("mailed_at"));
                    Refused::By(if sent { Lease::Sent } else { Lease::Held })
                },
            )
            .commit()
            .await;
        match committed {
            Ok(()) => Ok(Lease::Granted),
            Err(Refused::By(lease)) => Ok(lease),
            Err(Refused::Store(error)) => Err(error),
        }
    }

    /// Notes that the mail of `entry` was sent, or `refused` for good by that code.
    ///
    /// # Errors
    /// The table failed.
    pub async fn note_mail(
        &self,
        entry: &AuditEntry,
        refused: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let note = match refused {
            None => Write::update(entry.key(), "SET #mailed_at = :now REMOVE #mail_lease"),
            Some(code) => {
                Write::update(entry.key(), "SET #mailed_at = :now, #mail_refused = :code REMOVE #mail_lease")
                    .value(":code", code)
            }
        };
        self.transaction("note_mail").with(note.value(":now", now)).commit().await
    }

    /// Gives back the right to send the mail of `entry`, which was not sent.
    ///
    /// # Errors
    /// The table failed.
    pub async fn return_mail(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.transaction("return_mail").with(Write::update(entry.key(), "REMOVE #mail_lease")).commit().await
    }
}

/// An entry that is being put together.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    bucket: &'a BucketId,
    actor: Option<&'a UserId>,
    action: Action,
    at: Timestamp,
    target: Option<&'a UserId>,
    email: Option<&'a Email>,
    server: Option<&'a ServerName>,
    role: Option<Role>,
}

/// `actor` did `action` to `bucket` at `at`.
pub(super) fn entry<'a>(bucket: &'a BucketId, actor: &'a UserId, action: Action, at: Timestamp) -> Entry<'a> {
    Entry { bucket, actor: Some(actor), action, at, target: None, email: None, server: None, role: None }
}

/// Nobody who signs in did `action` to `bucket` at `at`, but Stripe or an agent.
pub(super) fn entry_of_nobody(bucket: &BucketId, action: Action, at: Timestamp) -> Entry<'_> {
    Entry { bucket, actor: None, action, at, target: None, email: None, server: None, role: None }
}

impl<'a> Entry<'a> {
    /// To the user `target`.
    pub(super) fn to(self, target: &'a UserId) -> Self {
        Self { target: Some(target), ..self }
    }

    /// To an address that is nobody's yet.
    pub(super) fn at_address(self, email: &'a Email) -> Self {
        Self { email: Some(email), ..self }
    }

    /// To the server `name`.
    pub(super) fn about(self, name: &'a ServerName) -> Self {
        Self { server: Some(name), ..self }
    }

    /// Giving `role`.
    pub(super) fn giving(self, role: Role) -> Self {
        Self { role: Some(role), ..self }
    }

    /// The write of the entry's row.
    pub(super) fn write(self) -> Result<Write, StoreError> {
        let Self { bucket, actor, action, at, target, email, server, role } = self;
        Ok(Write::put(&AuditRow {
            bucket_id: bucket.clone(),
            id: ulid(at)?,
            actor_id: actor.cloned(),
            action,
            target_id: target.cloned(),
            target_email: email.cloned(),
            server: server.cloned(),
            role,
            at,
        }))
    }
}

/// A ULID: the time `at`, then 80 random bits.
pub(super) fn ulid(at: Timestamp) -> Result<String, StoreError> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random)?;
    let time = u64::try_from(at.as_millis()).unwrap_or_default();
    Ok(ulid::Ulid::from_parts(time, u128::from_le_bytes(random)).to_string())
}
