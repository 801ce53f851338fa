//! What becomes of the rows under a deleted bucket.

use super::{
    Store, StoreError,
    items::{FeedbackRow, Item, Row},
    items::{InvitationRow, MemberRow, ServerRow, from_item},
    keys::{FEEDBACK_PREFIX, INVITATION_PREFIX, Key, MEMBER_PREFIX, SERVER_PREFIX},
    transaction::{Refused, Write},
};
use crate::domain::{Bucket, BucketId, Invitation, Member};

/// Rows that go in one transaction, which takes 100: each may bring its pointer, and one is the guard.
const AT_ONCE: usize = 49;

impl Store {
    /// The live bucket `id`.
    ///
    /// # Errors
    /// The table failed.
    pub async fn bucket(&self, id: &BucketId) -> Result<Option<Bucket>, StoreError> {
        super::buckets::live(self.get(&Key::bucket(id)).await?)
    }

    /// Clears what hangs under the deleted bucket `id`: members and invitations with their pointers,
    /// feedback and servers. The bucket itself and its audit trail stay, so that it stays deleted. Interrupted, it
    /// goes on when it is called again.
    ///
    /// # Errors
    /// The bucket lives, or the table failed.
    pub async fn clear_deleted_bucket(&self, id: &BucketId) -> Result<(), StoreError> {
        let member = |item: Item| {
            let member = Member::try_from(from_item::<MemberRow>(item)?)?;
            Ok(vec![Key::member(id, &member.user_id), Key::bucket_pointer(&member.user_id, id)])
        };
        let invitation = |item: Item| {
            let invitation = Invitation::from(from_item::<InvitationRow>(item)?);
            Ok(vec![Key::invitation(id, &invitation.email), Key::invitation_pointer(&invitation.email, id)])
        };
        let feedback = |item: Item| Ok(vec![from_item::<FeedbackRow>(item)?.key()]);
        self.clear(id, MEMBER_PREFIX, member).await?;
        self.clear(id, INVITATION_PREFIX, invitation).await?;
        let server = |item: Item| Ok(vec![from_item::<ServerRow>(item)?.key()]);
        self.clear(id, FEEDBACK_PREFIX, feedback).await?;
        self.clear(id, SERVER_PREFIX, server).await
    }

    /// Deletes the rows of bucket `id` whose sort keys begin with `prefix`, with those that go with them.
    async fn clear(
        &self,
        id: &BucketId,
        prefix: &str,
        rows: impl Fn(Item) -> Result<Vec<Key>, StoreError>,
    ) -> Result<(), StoreError> {
        struct Lives;
        let mut items = self.query(&Key::bucket(id).pk, Some(prefix)).await?;
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(AT_ONCE));
            let deleted = Write::check(Key::bucket(id)).when("attribute_exists(#deleted_at)");
            let mut change = self.transaction("clear_deleted").guarded(deleted, Refused::By(Lives));
            for item in items {
                for key in rows(item)? {
                    change = change.with(Write::delete(key));
                }
            }
            match change.commit().await {
                Ok(()) => {}
                Err(Refused::By(Lives)) => {
                    return Err(StoreError::Refused("a bucket to be cleared lives".to_owned()));
                }
                Err(Refused::Store(error)) => return Err(error),
            }
            items = rest;
        }
        Ok(())
    }
}
