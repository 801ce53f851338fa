//! The people in a bucket.

use super::{
    Billing, ChangeEnd, Store, StoreError,
    audit::{self, Action},
    buckets::{CHANGE_ATTEMPTS, before_attempt, live},
    items::{EmailClaimRow, FeedbackRow, Item, MemberRow, from_item},
    keys::{Key, MEMBER_PREFIX},
    plans::plan_fields,
    transaction::Write,
};
use crate::domain::{
    Bucket, BucketId, Email, Feedback, GrantableRole, Member, NotificationState, Right, Role, Subscription,
    Target, Timestamp, UserId, UserOptions,
};

/// Why a change of a bucket's people was refused.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The bucket is gone, or the caller is not in it any more.
    #[error("there is no such bucket")]
    BucketNotFound,
    /// The caller is in it without the right.
    #[error("the role does not include the right {0:?}")]
    RoleTooLow(Right),
    /// All seats of the plan are taken.
    #[error("all {seats} seats are taken")]
    SeatLimit {
        /// The seats of the plan.
        seats: u32,
    },
    /// The invited person is in the bucket.
    #[error("the person is a member already")]
    AlreadyMember,
    /// Nobody in the bucket has this address.
    #[error("no member has this address")]
    UserNotFound,
    /// This address is not invited.
    #[error("the address is not invited")]
    InvitationNotFound,
    /// The owner cannot be removed, nor leave.
    #[error("the owner cannot go")]
    OwnerStays,
    /// The owner's role changes by a transfer only.
    #[error("the owner's role cannot be set")]
    OwnerRoleFixed,
    /// The bucket was to be handed to who has it.
    #[error("the person is the owner already")]
    AlreadyOwner,
    /// The new owner has as many buckets as one person may.
    #[error("the new owner has {limit} buckets already")]
    NewOwnerLimit {
        /// The most that one person may own.
        limit: u32,
    },
    /// A subscription pays for the bucket, which has to move to the new owner first.
    #[error("a subscription pays for the bucket")]
    Paid,
    /// What the decision rested on kept changing.
    #[error("it kept changing meanwhile")]
    Changed,
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The guard that `actor` is a member of `bucket` whose role has `right`. Its refusal:
/// [`without_right`].
pub(super) fn check_right(bucket: &BucketId, actor: &UserId, right: Right) -> Write {
    let holders = Role::ALL.into_iter().filter(|role| role.may(right));
    role_is_one_of(Write::check(Key::member(bucket, actor)), holders, None)
}

/// `write`, when the row's role is one of `roles`, or what `or` says.
pub(super) fn role_is_one_of(write: Write, roles: impl Iterator<Item = Role>, or: Option<&str>) -> Write {
    let roles: Vec<_> = roles.map(|role| (format!(":{}", role.as_str()), role)).collect();
    let names: Vec<_> = roles.iter().map(|(name, _)| name.as_str()).collect();
    let condition = format!("#role IN ({})", names.join(", "));
    let write = write.when(match or {
        Some(or) => format!("({condition} OR {or})"),
        None => condition,
    });
    roles.iter().fold(write, |write, (name, role)| write.value(name, role.as_str()))
}

/// What a failed [`check_right`] means: without a row the caller is out.
pub(super) fn without_right(right: Right) -> impl FnOnce(Option<Item>) -> PeopleError + Send {
    move |old| if old.is_some() { PeopleError::RoleTooLow(right) } else { PeopleError::BucketNotFound }
}

/// The guard that `bucket` lives; failing, it is not found.
pub(super) fn check_live(bucket: &BucketId) -> Write {
    Write::check(Key::bucket(bucket)).live()
}

/// The guard that `email` is the address of `user`.
pub(super) fn check_claim(email: &Email, user: &UserId) -> Write {
    Write::check(Key::email_claim(email)).when("#user_id = :user").value(":user", user.as_str())
}

/// The guard that `target` still has the address by which they were found; failing, nobody has it.
fn check_address(target: &Target) -> Write {
    check_claim(&target.email, &target.id)
}

/// What a failed guard on a bucket that `me` must own means.
fn not_owned(right: Right) -> impl FnOnce(Option<Item>) -> PeopleError + Send {
    move |old| match live(old) {
        Err(error) => error.into(),
        Ok(None) => PeopleError::BucketNotFound,
        Ok(Some(_)) => PeopleError::RoleTooLow(right),
    }
}

impl Store {
    /// The members of `bucket`, in the order in which they came.
    ///
    /// # Errors
    /// The table failed.
    pub async fn members(&self, bucket: &BucketId) -> Result<Vec<Member>, StoreError> {
        let items = self.query(&Key::bucket(bucket).pk, Some(MEMBER_PREFIX)).await?;
        let mut members = items
            .into_iter()
            .map(|item| from_item::<MemberRow>(item).and_then(Member::try_from))
            .collect::<Result<Vec<_>, _>>()?;
        members.sort_by(|a, b| (a.joined_at, &a.user_id).cmp(&(b.joined_at, &b.user_id)));
        Ok(members)
    }

    /// Whose the verified address `email` is.
    ///
    /// # Errors
    /// The table failed.
    pub async fn user_of_address(&self, email: &Email) -> Result<Option<UserId>, StoreError> {
        let item = self.get(&Key::email_claim(email)).await?;
        Ok(item.map(from_item::<EmailClaimRow>).transpose()?.map(|claim| claim.user_id))
    }

    /// The membership of `user` in `bucket`.
    ///
    /// # Errors
    /// The table failed.
    pub async fn member(&self, bucket: &BucketId, user: &UserId) -> Result<Option<Member>, StoreError> {
        let item = self.get(&Key::member(bucket, user)).await?;
        item.map(from_item::<MemberRow>).transpose()?.map(Member::try_from).transpose()
    }

    /// The role that `user` has in `bucket`, if any.
    pub(super) async fn role(&self, bucket: &BucketId, user: &UserId) -> Result<Option<Role>, StoreError> {
        Ok(self.member(bucket, user).await?.map(|member| member.role))
    }

    /// Removes `target` from `bucket` for its owner `actor`: membership and pointer go, and the seat is
    /// free.
    ///
    /// # Errors
    /// The bucket is gone, `actor` is not its owner, `target` is the owner or not in it.
    pub async fn remove_user(
        &self,
        bucket: &BucketId,
        actor: &UserId,
        target: &Target,
        now: Timestamp,
    ) -> Result<(), PeopleError> {
        if *actor == target.id {
            return self.leave(bucket, target, now).await;
        }
        self.transaction("remove_user")
            .guarded_by(
                Write::update(Key::bucket(bucket), "ADD #seats_used :less")
                    .not_deleted()
                    .owned_by(actor)
                    .value(":less", -1),
                not_owned(Right::RemoveUser),
            )
            .guarded(check_address(target), PeopleError::UserNotFound)
            .guarded(
                Write::delete(Key::member(bucket, &target.id)).when("attribute_exists(#pk)"),
                PeopleError::UserNotFound,
            )
            .with(Write::delete(Key::bucket_pointer(&target.id, bucket)))
            .with(audit::entry(bucket, actor, Action::RemoveUser, now).to(&target.id).write()?)
            .commit()
            .await
    }

    /// Takes the person `me` out of `bucket` by their own will.
    async fn leave(&self, bucket: &BucketId, me: &Target, now: Timestamp) -> Result<(), PeopleError> {
        let member = &me.id;
        self.transaction("leave")
            .guarded_by(
                Write::update(Key::bucket(bucket), "ADD #seats_used :less")
                    .live()
                    .when("#owner_id <> :me")
                    .value(":less", -1)
                    .value(":me", member.as_str()),
                |old| match live(old) {
                    Err(error) => error.into(),
                    Ok(None) => PeopleError::BucketNotFound,
                    Ok(Some(_)) => PeopleError::OwnerStays,
                },
            )
            .guarded(check_address(me), PeopleError::UserNotFound)
            .guarded(
                Write::delete(Key::member(bucket, member)).when("attribute_exists(#pk)"),
                PeopleError::BucketNotFound,
            )
            .with(Write::delete(Key::bucket_pointer(member, bucket)))
            .with(audit::entry(bucket, member, Action::Leave, now).write()?)
            .commit()
            .await
    }

    /// Gives `target` the role `role` in `bucket`, for its owner `actor`.
    ///
    /// # Errors
    /// The bucket is gone, `actor` is not its owner, `target` is the owner or not in it.
    pub async fn set_role(
        &self,
        bucket: &BucketId,
        actor: &UserId,
        target: &Target,
        role: GrantableRole,
        now: Timestamp,
    ) -> Result<(), PeopleError> {
        let role = Role::from(role);
        self.transaction("set_role")
            .guarded_by(
                Write::check(Key::bucket(bucket)).not_deleted().owned_by(actor),
                not_owned(Right::SetRole),
            )
            .guarded(check_address(target), PeopleError::UserNotFound)
            .guarded_by(
                Write::update(Key::member(bucket, &target.id), "SET #role = :role")
                    .when("attribute_exists(#pk)")
                    .when("#role <> :owner")
                    .value(":role", role.as_str())
                    .value(":owner", Role::Owner.as_str()),
                |old| if old.is_some() { PeopleError::OwnerRoleFixed } else { PeopleError::UserNotFound },
            )
            .with(audit::entry(bucket, actor, Action::SetRole, now).to(&target.id).giving(role).write()?)
            .commit()
            .await
    }

    /// Hands `bucket` from its owner `actor`, who becomes admin, to the member `target`, who may own
    /// `limit` buckets at most. Gives the bucket as it is then. When somebody else's change came between,
    /// it is read and decided anew.
    ///
    /// # Errors
    /// The bucket is gone, `actor` is not its owner, `target` is not in it, owns it already or owns
    /// too many; [`PeopleError::Paid`] for a subscription that has to move first.
    pub async fn transfer(
        &self,
        bucket: &BucketId,
        actor: &UserId,
        target: &Target,
        limit: u32,
        now: Timestamp,
    ) -> Result<Bucket, PeopleError> {
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let billing = self.billing(bucket).await?;
            if billing.going_on().is_some() || billing.change.is_some() {
                return Err(PeopleError::Paid);
            }
            match self.hand_over(&billing, actor, target, limit, None, now).await {
                Err(PeopleError::Changed) => {}
                outcome => return outcome,
            }
        }
        Err(PeopleError::Changed)
    }

    /// Hands the bucket of `billing` over as [`Store::transfer`] does, while what pays for it is as it was
    /// read. With `moved`, another subscription pays for it from then on, and the change that led to it ends.
    ///
    /// # Errors
    /// As [`Store::transfer`]; [`PeopleError::Changed`] where anything that was read is no longer so.
    pub async fn hand_over(
        &self,
        billing: &Billing,
        actor: &UserId,
        target: &Target,
        limit: u32,
        moved: Option<(ChangeEnd<'_>, Subscription)>,
        now: Timestamp,
    ) -> Result<Bucket, PeopleError> {
        if *actor == target.id {
            return Err(PeopleError::AlreadyOwner);
        }
        let Some(bucket) = billing.bucket.clone() else {
            return Err(PeopleError::BucketNotFound);
        };
        let Some(new_owner) = self.member(&bucket.id, &target.id).await? else {
            return Err(PeopleError::UserNotFound);
        };
        let version = bucket.version;
        let handed_over = match &moved {
            Some((_, subscription)) => {
                let (plan, plan_ends_at) = (subscription.plan.clone(), subscription.plan_ends_at());
                Bucket { plan, plan_ends_at, ..bucket.handed_over(&new_owner, now) }
            }
            None => bucket.handed_over(&new_owner, now),
        };
        let id = &handed_over.id;
        let owner = [
            ("owner_id", Some(target.id.as_str().into())),
            ("owner_username", Some(handed_over.owner_username.as_str().into())),
        ];
        let me = actor.clone();
        self.transaction("transfer")
            .guarded_by(
                Write::set(Key::bucket(id), owner.into_iter().chain(plan_fields(&handed_over)))
                    .at_version(version)
                    .owned_by(actor),
                move |old| match live(old) {
                    Err(error) => error.into(),
                    Ok(None) => PeopleError::BucketNotFound,
                    Ok(Some(bucket)) if bucket.owner_id != me => PeopleError::RoleTooLow(Right::Transfer),
                    Ok(Some(_)) => PeopleError::Changed,
                },
            )
            .guarded(check_address(target), PeopleError::UserNotFound)
            .guarded_by(
                Write::update(Key::member(id, &target.id), "SET #role = :owner")
                    .when("#username = :username")
                    .value(":owner", Role::Owner.as_str())
                    .value(":username", handed_over.owner_username.as_str()),
                |old| if old.is_some() { PeopleError::Changed } else { PeopleError::UserNotFound },
            )
            .guarded(
                Write::update(Key::member(id, actor), "SET #role = :admin")
                    .when("attribute_exists(#pk)")
                    .value(":admin", Role::Admin.as_str()),
                StoreError::Row("an owner who is no member".to_owned()).into(),
            )
            .guarded(
                Write::update(Key::user(&target.id), "ADD #buckets_owned :one")
                    .when("#buckets_owned < :limit")
                    .value(":one", 1)
                    .value(":limit", limit),
                PeopleError::NewOwnerLimit { limit },
            )
            .guarded(
                Write::update(Key::user(actor), "ADD #buckets_owned :less")
                    .when("attribute_exists(#pk)")
                    .value(":less", -1),
                StoreError::Row("an owner without user row".to_owned()).into(),
            )
            .paid_as_read(id, billing, moved, || PeopleError::Changed)
            .with(audit::entry(id, actor, Action::TransferOwnership, now).to(&target.id).write()?)
            .commit()
            .await?;
        Ok(handed_over)
    }

    /// Sets how `target` is notified in `bucket`. Others' state is for who may manage notifications.
    ///
    /// # Errors
    /// The bucket is gone, `actor` has not the right, `target` is not in it.
    pub async fn set_notification_state(
        &self,
        bucket: &BucketId,
        actor: &UserId,
        target: &Target,
        state: NotificationState,
        now: Timestamp,
    ) -> Result<(), PeopleError> {
        let update = Write::update(Key::member(bucket, &target.id), "SET #notification = :state")
            .when("attribute_exists(#pk)")
            .value(":state", state.as_str());
        let entry = audit::entry(bucket, actor, Action::SetNotificationState, now).to(&target.id).write()?;
        let change = self
            .transaction("set_notification_state")
            .guarded(check_live(bucket), PeopleError::BucketNotFound)
            .guarded(check_address(target), PeopleError::UserNotFound);
        let change = if *actor == target.id {
            change.guarded(update, PeopleError::BucketNotFound)
        } else {
            let right = Right::ManageNotifications;
            change
                .guarded_by(check_right(bucket, actor, right), without_right(right))
                .guarded(update, PeopleError::UserNotFound)
        };
        change.with(entry).commit().await
    }

    /// Sets `member`'s own options for `bucket`.
    ///
    /// # Errors
    /// The bucket is gone, or `member` is not in it.
    pub async fn set_options(
        &self,
        bucket: &BucketId,
        member: &UserId,
        options: &UserOptions,
        now: Timestamp,
    ) -> Result<(), PeopleError> {
        self.transaction("set_options")
            .guarded(check_live(bucket), PeopleError::BucketNotFound)
            .guarded(
                Write::update(Key::member(bucket, member), "SET #options = :options")
                    .when("attribute_exists(#pk)")
                    .value(":options", options.as_json()),
                PeopleError::BucketNotFound,
            )
            .with(audit::entry(bucket, member, Action::UpdateUserOptions, now).write()?)
            .commit()
            .await
    }

    /// Keeps what `member` of `bucket` has to say.
    ///
    /// # Errors
    /// The bucket is gone, or `member` is not in it.
    pub async fn send_feedback(
        &self,
        bucket: &BucketId,
        member: &UserId,
        feedback: &Feedback,
        now: Timestamp,
    ) -> Result<(), PeopleError> {
        self.transaction("send_feedback")
            .guarded(check_live(bucket), PeopleError::BucketNotFound)
            .guarded(
                Write::check(Key::member(bucket, member)).when("attribute_exists(#pk)"),
                PeopleError::BucketNotFound,
            )
            .with(Write::put(&FeedbackRow {
                bucket_id: bucket.clone(),
                id: audit::ulid(now)?,
                user_id: member.clone(),
                feedback: feedback.clone(),
                at: now,
            }))
            .with(audit::entry(bucket, member, Action::SendFeedback, now).write()?)
            .commit()
            .await
    }
}
