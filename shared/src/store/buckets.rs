//! Buckets.

use std::time::Duration;

use super::{
    Billing, Store, StoreError,
    audit::{self, Action},
    items::{AgentKeyRow, BucketPointerRow, BucketRow, Item, MemberRow, UserRow, from_item},
    keys::Key,
    reads::key_of,
    transaction::{Write, jitter},
};
use crate::domain::{
    AppUrl, Bucket, BucketChanges, BucketId, BucketName, Comment, Configuration, Member, NewBucket,
    NotificationState, PlanName, PublicId, Role, SecretId, Timestamp, User, UserId, UserOptions,
};

/// How often a change that rests on what was read is decided anew when something came between.
pub const CHANGE_ATTEMPTS: u32 = 10;

/// Waits before a change is decided anew, so that those who keep meeting spread out.
///
/// # Errors
/// The operating system's random source failed.
pub async fn before_attempt(attempt: u32) -> Result<(), StoreError> {
    if attempt > 0 {
        tokio::time::sleep(jitter(attempt, Duration::from_millis(10))?).await;
    }
    Ok(())
}

/// Why a bucket could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The owner has as many as one person may.
    #[error("the owner has {limit} buckets already")]
    BucketLimit {
        /// The most that one person may own.
        limit: u32,
    },
    /// The owner's address changed while the bucket was being created.
    #[error("the owner's address changed meanwhile")]
    OwnerChanged,
    /// A new random identifier was taken already.
    #[error("a random identifier was taken")]
    IdTaken,
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a bucket could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// It is gone, or the caller is no member any more.
    #[error("there is no such bucket")]
    BucketNotFound,
    /// The caller is not its owner.
    #[error("only the owner may change a bucket")]
    NotOwner,
    /// It kept being changed by others meanwhile.
    #[error("the bucket kept changing")]
    Changed,
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a bucket could not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// It is gone.
    #[error("there is no such bucket")]
    BucketNotFound,
    /// The caller is not its owner.
    #[error("only the owner may delete a bucket")]
    NotOwner,
    /// What pays for it has changed.
    #[error("what pays for the bucket has changed")]
    Changed,
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The live bucket `bucket` and `user`'s membership in it, or nothing: one read.
    ///
    /// # Errors
    /// The table failed.
    pub async fn membership(
        &self,
        bucket: &BucketId,
        user: &UserId,
    ) -> Result<Option<(Bucket, Member)>, StoreError> {
        let keys = [Key::bucket(bucket), Key::member(bucket, user)];
        let mut found = self.batch_get(&keys).await?;
        let [bucket, member] = keys.map(|key| found.remove(&key));
        live_membership(bucket, member)
    }

    /// The user `id` and the live buckets that they are a member of, oldest first: one query for the
    /// user and the pointers, then reads of up to 50 buckets each.
    ///
    /// # Errors
    /// The table failed.
    pub async fn user_with_memberships(
        &self,
        id: &UserId,
    ) -> Result<(Option<User>, Vec<(Bucket, Member)>), StoreError> {
        let user_key = Key::user(id);
        let (mut user, mut pointers) = (None, Vec::new());
        for item in self.query(&user_key.pk, None).await? {
            if key_of(&item)? == user_key {
                user = Some(from_item::<UserRow>(item)?.into());
            } else {
                pointers.push(from_item::<BucketPointerRow>(item)?.bucket_id);
            }
        }
        let keys: Vec<_> =
            pointers.iter().flat_map(|bucket| [Key::bucket(bucket), Key::member(bucket, id)]).collect();
        let mut found = self.batch_get(&keys).await?;
        let mut memberships = Vec::with_capacity(pointers.len());
        for bucket_id in &pointers {
            let bucket = found.remove(&Key::bucket(bucket_id));
            let member = found.remove(&Key::member(bucket_id, id));
            memberships.extend(live_membership(bucket, member)?);
        }
        memberships.sort_by(|(a, _), (b, _)| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok((user, memberships))
    }

    /// Creates a bucket of `owner`, who may own `limit` at most: bucket, membership, pointer, agent
    /// key, the owner's count and the audit row together.
    ///
    /// # Errors
    /// The limit is reached, or the table failed.
    pub async fn create_bucket(
        &self,
        new: NewBucket,
        owner: &User,
        limit: u32,
        now: Timestamp,
    ) -> Result<(Bucket, Member), CreateError> {
        let NewBucket { name, comment, app_url } = new;
        let bucket = Bucket {
            id: BucketId::random().map_err(StoreError::from)?,
            name,
            comment,
            app_url,
            configuration: None,
            public_id: PublicId::random().map_err(StoreError::from)?,
            secret_id: SecretId::random().map_err(StoreError::from)?,
            owner_id: owner.id.clone(),
            owner_username: owner.username.clone(),
            plan: PlanName::default(),
            plan_ends_at: None,
            trial: None,
            seats_used: 1,
            servers_used: 0,
            version: 1,
            created_at: now,
            updated_at: now,
            deleted_at: None,
        };
        let member = Member {
            user_id: owner.id.clone(),
            role: Role::Owner,
            email: owner.email.clone(),
            username: owner.username.clone(),
            notification: NotificationState::default(),
            options: UserOptions::default(),
            joined_at: now,
        };
        let pointer = BucketPointerRow { user_id: owner.id.clone(), bucket_id: bucket.id.clone() };
        let agent_key = AgentKeyRow { public_id: bucket.public_id.clone(), bucket_id: bucket.id.clone() };
        self.transaction("create")
            .guarded_by(
                Write::update(Key::user(&owner.id), "ADD #buckets_owned :one")
                    .when("#buckets_owned < :limit")
                    .when("#email = :email")
                    .value(":one", 1)
                    .value(":limit", limit)
                    .value(":email", owner.email.as_str()),
                move |old| match old.map(from_item::<UserRow>).transpose() {
                    Err(error) => error.into(),
                    Ok(user) => match user.map(User::from) {
                        Some(user) if user.buckets_owned >= limit => CreateError::BucketLimit { limit },
                        Some(_) | None => CreateError::OwnerChanged,
                    },
                },
            )
            .guarded(Write::put_new(&BucketRow::from(&bucket)), CreateError::IdTaken)
            .guarded(Write::put_new(&MemberRow::new(&bucket.id, &member)), CreateError::IdTaken)
            .guarded(Write::put_new(&pointer), CreateError::IdTaken)
            .guarded(Write::put_new(&agent_key), CreateError::IdTaken)
            .with(audit::entry(&bucket.id, &owner.id, Action::Create, now).write()?)
            .commit()
            .await?;
        Ok((bucket, member))
    }

    /// Changes `bucket`, as last read, for its owner `actor`. The answer is exact: when somebody
    /// else's change came between, it is read and decided anew.
    ///
    /// # Errors
    /// The bucket is gone, `actor` is not its owner, or the table failed.
    pub async fn update_bucket(
        &self,
        mut bucket: Bucket,
        actor: &UserId,
        changes: BucketChanges,
        now: Timestamp,
    ) -> Result<Bucket, UpdateError> {
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let id = bucket.id.clone();
            let version = bucket.version;
            let updated = bucket.changed(changes.clone(), now);
            let me = actor.clone();
            let committed = self
                .transaction("update")
                .guarded_by(
                    change_write(&updated, &changes).at_version(version).owned_by(actor),
                    move |old| match live(old) {
                        Err(error) => error.into(),
                        Ok(None) => UpdateError::BucketNotFound,
                        Ok(Some(bucket)) if bucket.owner_id != me => UpdateError::NotOwner,
                        Ok(Some(_)) => UpdateError::Changed,
                    },
                )
                .with(audit::entry(&id, actor, Action::Update, now).write()?)
                .commit()
                .await;
            match committed {
                Ok(()) => return Ok(updated),
                Err(UpdateError::Changed) => {}
                Err(error) => return Err(error),
            }
            let Some((read, _)) = self.membership(&id, actor).await? else {
                return Err(UpdateError::BucketNotFound);
            };
            bucket = read;
        }
        Err(UpdateError::Changed)
    }

    /// Deletes `bucket` for its owner `actor`: it, its agent key, its place in the owner's count and what
    /// is known of its subscription go together. What hangs under it is unreachable from then on.
    ///
    /// # Errors
    /// The bucket is gone, `actor` is not its owner, or the table failed; [`DeleteError::Changed`] where
    /// what pays for it is no longer as it was read in `billing`.
    pub async fn delete_bucket(
        &self,
        bucket: &Bucket,
        billing: &Billing,
        actor: &UserId,
        now: Timestamp,
    ) -> Result<(), DeleteError> {
        let [subscription, change] = billing.end_as_read(&bucket.id);
        self.transaction("delete")
            .guarded_by(
                Write::update(
                    Key::bucket(&bucket.id),
                    "SET #deleted_at = :now, #updated_at = :now ADD #version :one",
                )
                .not_deleted()
                .owned_by(actor)
                .value(":now", now)
                .value(":one", 1),
                |old| match live(old) {
                    Err(error) => error.into(),
                    Ok(None) => DeleteError::BucketNotFound,
                    Ok(Some(_)) => DeleteError::NotOwner,
                },
            )
            .guarded(
                Write::update(Key::user(actor), "ADD #buckets_owned :less")
                    .when("attribute_exists(#pk)")
                    .value(":less", -1),
                StoreError::Row("an owner without user row".to_owned()).into(),
            )
            .with(Write::delete(Key::agent_key(&bucket.public_id)))
            .guarded(subscription, DeleteError::Changed)
            .guarded(change, DeleteError::Changed)
            .with(audit::entry(&bucket.id, actor, Action::Delete, now).write()?)
            .commit()
            .await
    }
}

/// Writes of `updated` what `changes` names, and nothing else: what others change at the same time
/// is theirs.
fn change_write(updated: &Bucket, changes: &BucketChanges) -> Write {
    let BucketChanges { name, comment, app_url, configuration } = changes;
    let texts = [
        ("name", name.as_ref().map(BucketName::as_str)),
        ("comment", comment.as_ref().map(Comment::as_str)),
        ("app_url", app_url.as_ref().map(AppUrl::as_str)),
        ("configuration", configuration.as_ref().map(Configuration::as_json)),
    ];
    let given = || texts.iter().filter_map(|(field, text)| text.map(|text| (field, text)));
    let expression = given().fold(
        "SET #updated_at = :updated_at, #version = :next_version".to_owned(),
        |expression, (field, _)| expression + &format!(", #{field} = :{field}"),
    );
    let write = Write::update(Key::bucket(&updated.id), expression)
        .value(":updated_at", updated.updated_at)
        .value(":next_version", updated.version);
    given().fold(write, |write, (field, text)| write.value(&format!(":{field}"), text))
}

/// The bucket in `item`, unless there is none or it was deleted.
pub(super) fn live(item: Option<Item>) -> Result<Option<Bucket>, StoreError> {
    let bucket = item.map(from_item::<BucketRow>).transpose()?.map(Bucket::try_from).transpose()?;
    Ok(bucket.filter(Bucket::is_live))
}

/// A membership counts where the bucket lives and the member's row is there.
fn live_membership(
    bucket: Option<Item>,
    member: Option<Item>,
) -> Result<Option<(Bucket, Member)>, StoreError> {
    let member = member.map(from_item::<MemberRow>).transpose()?.map(Member::try_from).transpose()?;
    Ok(live(bucket)?.zip(member))
}
