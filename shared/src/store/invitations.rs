//! Invitations, and the people whom they bring.

use super::{
    Store, StoreError,
    audit::{self, Action},
    buckets::{CHANGE_ATTEMPTS, before_attempt, live},
    items::{
        BucketPointerRow, EmailClaimRow, InvitationPointerRow, InvitationRow, Item, MemberRow, from_item,
    },
    keys::{INVITATION_PREFIX, Key},
    members::{PeopleError, check_claim, check_live, check_right, role_is_one_of, without_right},
    plans::{is_on_same_plan, plan_as_read},
    transaction::Write,
};
use crate::domain::{
    Bucket, BucketId, Email, GrantableRole, Invitation, Member, NotificationState, Right, Role, Timestamp,
    User, UserId, UserOptions,
};

/// Who invites whom.
#[derive(Clone, Copy, Debug)]
pub struct Invite<'a> {
    /// The member who invites.
    pub actor: &'a UserId,
    /// The address that is invited.
    pub email: &'a Email,
    /// As what.
    pub role: GrantableRole,
    /// Days until an invitation expires.
    pub lifetime: u32,
    /// The time.
    pub now: Timestamp,
}

/// Why an attempt to invite did not do it.
enum Hindrance {
    /// The address is invited already.
    Invited,
    /// The address is this user's.
    HasUser(UserId),
    Other(PeopleError),
}

impl From<StoreError> for Hindrance {
    fn from(error: StoreError) -> Self {
        Self::Other(error.into())
    }
}

/// Why an invitation is cleared, which must still be so.
#[derive(Clone, Copy)]
enum Needless<'a> {
    /// It has expired.
    Expired,
    /// This user, whose address it is for, is a member.
    Member(&'a UserId),
}

impl Store {
    /// The invitations of `bucket` that can still be taken up, oldest first.
    ///
    /// # Errors
    /// The table failed.
    pub async fn invitations(
        &self,
        bucket: &BucketId,
        now: Timestamp,
    ) -> Result<Vec<Invitation>, StoreError> {
        let mut invitations = self.all_invitations(bucket).await?;
        invitations.retain(|invitation| invitation.is_live(now));
        invitations.sort_by(|a, b| (a.created_at, &a.email).cmp(&(b.created_at, &b.email)));
        Ok(invitations)
    }

    async fn all_invitations(&self, bucket: &BucketId) -> Result<Vec<Invitation>, StoreError> {
        let items = self.query(&Key::bucket(bucket).pk, Some(INVITATION_PREFIX)).await?;
        items.into_iter().map(|item| Ok(from_item::<InvitationRow>(item)?.into())).collect()
    }

    /// The invitation of `email` to `bucket`, expired or not.
    ///
    /// # Errors
    /// The table failed.
    pub async fn invitation(
        &self,
        bucket: &BucketId,
        email: &Email,
    ) -> Result<Option<Invitation>, StoreError> {
        let item = self.get(&Key::invitation(bucket, email)).await?;
        Ok(item.map(from_item::<InvitationRow>).transpose()?.map(Invitation::from))
    }

    /// Brings the address of `invite` into `bucket`: whoever has it becomes a member at once; else it
    /// is invited, or invited anew.
    ///
    /// Who finds the bucket full clears its expired invitations and tries once more.
    ///
    /// # Errors
    /// The bucket is gone or full, the actor may not invite, or the person is a member already.
    pub async fn invite(&self, mut bucket: Bucket, invite: &Invite<'_>) -> Result<(), PeopleError> {
        let (mut cleared, mut full) = (false, None);
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            match self.invite_once(&bucket, invite).await {
                Err(error @ PeopleError::SeatLimit { .. }) if !cleared => {
                    cleared = true;
                    self.clear_expired(&bucket.id, invite.actor, invite.now).await?;
                    full = Some(error);
                }
                Err(PeopleError::Changed) => {}
                outcome => return outcome,
            }
            let Some((read, _)) = self.membership(&bucket.id, invite.actor).await? else {
                return Err(PeopleError::BucketNotFound);
            };
            // A seat may be free now, whoever was first to clear what had expired.
            if let Some(full) = full.take()
                && read.seats_used >= self.plans.limits(&read.plan_at(invite.now)).seats
            {
                return Err(full);
            }
            bucket = read;
        }
        Err(PeopleError::Changed)
    }

    async fn invite_once(&self, bucket: &Bucket, invite: &Invite<'_>) -> Result<(), PeopleError> {
        match self.invite_address(bucket, invite).await {
            Ok(()) => Ok(()),
            Err(Hindrance::Invited) => self.invite_again(&bucket.id, invite).await,
            Err(Hindrance::HasUser(user)) => self.add_user(bucket, invite, &user).await,
            Err(Hindrance::Other(error)) => Err(error),
        }
    }

    /// Records an invitation and takes a seat, where the address is nobody's.
    async fn invite_address(&self, bucket: &Bucket, invite: &Invite<'_>) -> Result<(), Hindrance> {
        let Invite { actor, email, role, lifetime, now } = *invite;
        let invitation = Invitation {
            email: email.clone(),
            role: role.into(),
            invited_by: actor.clone(),
            created_at: now,
            expires_at: now.plus_days(lifetime),
        };
        let pointer = InvitationPointerRow { email: email.clone(), bucket_id: bucket.id.clone() };
        let refused = without_right(Right::Invite);
        let seats = self.plans.limits(&bucket.plan_at(now)).seats;
        let full = no_seat(bucket, seats);
        self.transaction("invite")
            .guarded_by(check_right(&bucket.id, actor, Right::Invite), |old| Hindrance::Other(refused(old)))
            .guarded_by(Write::check(Key::email_claim(email)).when("attribute_not_exists(#pk)"), |old| {
                match old.map(from_item::<EmailClaimRow>).transpose() {
                    Ok(Some(claim)) => Hindrance::HasUser(claim.user_id),
                    Ok(None) => Hindrance::Other(PeopleError::Changed),
                    Err(error) => error.into(),
                }
            })
            .guarded(Write::put_new(&InvitationRow::new(&bucket.id, &invitation)), Hindrance::Invited)
            .with(Write::put(&pointer))
            .guarded_by(take_seat(bucket, seats), |old| Hindrance::Other(full(old)))
            .with(
                audit::entry(&bucket.id, actor, Action::Invite, now)
                    .at_address(email)
                    .giving(role.into())
                    .write()?,
            )
            .commit()
            .await
    }

    /// Renews an invitation that is there, pending or expired; it has its seat.
    async fn invite_again(&self, bucket: &BucketId, invite: &Invite<'_>) -> Result<(), PeopleError> {
        let Invite { actor, email, role, lifetime, now } = *invite;
        self.transaction("invite_again")
            .guarded(check_live(bucket), PeopleError::BucketNotFound)
            .guarded_by(check_right(bucket, actor, Right::Invite), without_right(Right::Invite))
            .guarded(
                Write::update(
                    Key::invitation(bucket, email),
                    "SET #role = :role, #invited_by = :me, #expires_at = :expires_at",
                )
                .when("attribute_exists(#pk)")
                .value(":role", Role::from(role).as_str())
                .value(":me", actor.as_str())
                .value(":expires_at", now.plus_days(lifetime)),
                PeopleError::Changed,
            )
            .with(
                audit::entry(bucket, actor, Action::Invite, now)
                    .at_address(email)
                    .giving(role.into())
                    .write()?,
            )
            .commit()
            .await
    }

    /// Makes the user whose address it is a member, and takes a seat.
    async fn add_user(&self, bucket: &Bucket, invite: &Invite<'_>, id: &UserId) -> Result<(), PeopleError> {
        let Invite { actor, email, role, lifetime: _, now } = *invite;
        if id == actor {
            return Err(PeopleError::AlreadyMember);
        }
        let seats = self.plans.limits(&bucket.plan_at(now)).seats;
        let Some(user) = self.user(id).await?.filter(|user| user.email == *email) else {
            return Err(PeopleError::Changed);
        };
        if user.unfinished {
            // An invitation of this very bucket may be waiting: it comes first, or one person would
            // have two seats.
            self.settle(&user, now).await?;
        }
        let member = new_member(&user, role.into(), now);
        let pointer = BucketPointerRow { user_id: user.id.clone(), bucket_id: bucket.id.clone() };
        self.transaction("add_user")
            .guarded_by(check_right(&bucket.id, actor, Right::Invite), without_right(Right::Invite))
            .guarded(check_claim(email, &user.id), PeopleError::Changed)
            .guarded(
                Write::check(Key::invitation(&bucket.id, email)).when("attribute_not_exists(#pk)"),
                PeopleError::Changed,
            )
            .guarded(Write::put_new(&MemberRow::new(&bucket.id, &member)), PeopleError::AlreadyMember)
            .with(Write::put(&pointer))
            .guarded_by(take_seat(bucket, seats), no_seat(bucket, seats))
            .with(
                audit::entry(&bucket.id, actor, Action::AddUser, now)
                    .to(&user.id)
                    .giving(role.into())
                    .write()?,
            )
            .commit()
            .await
    }

    /// Removes the invitation of `email` to `bucket` and frees its seat.
    ///
    /// # Errors
    /// The bucket is gone, `actor` has not the right, or the address is not invited.
    pub async fn remove_invitation(
        &self,
        bucket: &BucketId,
        actor: &UserId,
        email: &Email,
        now: Timestamp,
    ) -> Result<(), PeopleError> {
        self.transaction("remove_invitation")
            .guarded(free_seat(bucket).live(), PeopleError::BucketNotFound)
            .guarded_by(check_right(bucket, actor, Right::Invite), without_right(Right::Invite))
            .guarded(
                Write::delete(Key::invitation(bucket, email)).when("attribute_exists(#pk)"),
                PeopleError::InvitationNotFound,
            )
            .with(Write::delete(Key::invitation_pointer(email, bucket)))
            .with(audit::entry(bucket, actor, Action::RemoveInvitation, now).at_address(email).write()?)
            .commit()
            .await
    }

    /// Clears the expired invitations of `bucket`, each by itself.
    async fn clear_expired(
        &self,
        bucket: &BucketId,
        actor: &UserId,
        now: Timestamp,
    ) -> Result<(), PeopleError> {
        for invitation in self.all_invitations(bucket).await? {
            if invitation.is_live(now) {
                continue;
            }
            match self.clear_invitation(bucket, actor, &invitation.email, Needless::Expired, now).await {
                // Or somebody cleared, renewed or removed it meanwhile.
                Ok(()) | Err(PeopleError::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn clear_invitation(
        &self,
        bucket: &BucketId,
        actor: &UserId,
        email: &Email,
        needless: Needless<'_>,
        now: Timestamp,
    ) -> Result<(), PeopleError> {
        let delete = Write::delete(Key::invitation(bucket, email));
        let change = self.transaction("clear_invitation");
        let change = match needless {
            Needless::Expired => {
                change.guarded(delete.when("#expires_at <= :now").value(":now", now), PeopleError::Changed)
            }
            Needless::Member(user) => {
                let is_member = Write::check(Key::member(bucket, user)).when("attribute_exists(#pk)");
                change
                    .guarded(delete.when("attribute_exists(#pk)"), PeopleError::Changed)
                    .guarded(is_member, PeopleError::Changed)
                    .guarded(check_claim(email, user), PeopleError::UserNotFound)
            }
        };
        change
            .with(Write::delete(Key::invitation_pointer(email, bucket)))
            .guarded(free_seat(bucket).live(), PeopleError::BucketNotFound)
            .with(audit::entry(bucket, actor, Action::ClearInvitation, now).at_address(email).write()?)
            .commit()
            .await
    }

    /// Brings what hangs on `user`'s address in line after a claim on it: every live invitation becomes
    /// a membership and every expired one goes, and memberships show the address that the user has now.
    /// Then the user's mark is cleared. Whatever it is interrupted by, doing it again completes it.
    ///
    /// # Errors
    /// The table failed; the mark stays.
    pub async fn settle(&self, user: &User, now: Timestamp) -> Result<(), StoreError> {
        for item in self.query(&Key::email_claim(&user.email).pk, Some(INVITATION_PREFIX)).await? {
            let pointer = from_item::<InvitationPointerRow>(item)?;
            self.take_up(user, &pointer.bucket_id, now).await?;
        }
        self.sync_memberships(user, now).await?;
        self.clear_mark(user).await
    }

    /// Takes up the invitation of `user` to `bucket`.
    async fn take_up(&self, user: &User, bucket: &BucketId, now: Timestamp) -> Result<(), StoreError> {
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let outcome = match self.invitation(bucket, &user.email).await? {
                None => return Ok(()),
                Some(invitation) if invitation.is_live(now) => {
                    match self.accept(user, bucket, &invitation, now).await {
                        // In already, under a former address: the seat is one too many.
                        Err(PeopleError::AlreadyMember) => {
                            let needless = Needless::Member(&user.id);
                            self.clear_invitation(bucket, &user.id, &user.email, needless, now).await
                        }
                        outcome => outcome,
                    }
                }
                Some(_) => self.clear_invitation(bucket, &user.id, &user.email, Needless::Expired, now).await,
            };
            match outcome {
                // What hangs under a deleted bucket is cleared with it, and whoever has moved on is followed up
                // by who moved them.
                Ok(()) | Err(PeopleError::BucketNotFound | PeopleError::UserNotFound) => return Ok(()),
                Err(PeopleError::Changed) => {}
                Err(error) => return Err(as_store_error(error)),
            }
        }
        Err(StoreError::Unavailable("an invitation kept changing".to_owned()))
    }

    /// Turns `invitation` into a membership of `user`; the seat stays the same.
    async fn accept(
        &self,
        user: &User,
        bucket: &BucketId,
        invitation: &Invitation,
        now: Timestamp,
    ) -> Result<(), PeopleError> {
        // Who invited an address that became their own is no member, or is told so by the guard on that.
        let by_another = invitation.invited_by != user.id;
        let inviter = if by_another { self.role(bucket, &invitation.invited_by).await? } else { None };
        let role = invitation.role_given(inviter);
        let pointer = BucketPointerRow { user_id: user.id.clone(), bucket_id: bucket.clone() };
        let change = self
            .transaction("accept_invitation")
            .guarded(
                Write::delete(Key::invitation(bucket, &user.email))
                    .when("#role = :role")
                    .when("#invited_by = :inviter")
                    .value(":role", invitation.role.as_str())
                    .value(":inviter", invitation.invited_by.as_str()),
                PeopleError::Changed,
            )
            .with(Write::delete(Key::invitation_pointer(&user.email, bucket)))
            .guarded(check_claim(&user.email, &user.id), PeopleError::UserNotFound)
            .guarded(check_live(bucket), PeopleError::BucketNotFound)
            .guarded(
                Write::put_new(&MemberRow::new(bucket, &new_member(user, role, now))),
                PeopleError::AlreadyMember,
            )
            .with(Write::put(&pointer))
            .with(audit::entry(bucket, &user.id, Action::AcceptInvitation, now).giving(role).write()?);
        // `user` is given whatever the inviter may; for more, their role is part of the decision.
        let change = if invitation.role == Role::User || !by_another {
            change
        } else {
            let check = Write::check(Key::member(bucket, &invitation.invited_by));
            let may = |role: &Role| role.may_grant(invitation.role);
            let check = if role == invitation.role {
                role_is_one_of(check, Role::ALL.into_iter().filter(may), None)
            } else {
                let may_not = Role::ALL.into_iter().filter(|role| !may(role));
                role_is_one_of(check, may_not, Some("attribute_not_exists(#pk)"))
            };
            change.guarded(check, PeopleError::Changed)
        };
        change.commit().await
    }
}

fn as_store_error(error: PeopleError) -> StoreError {
    let PeopleError::Store(error) = error else {
        return StoreError::Refused(format!("an invitation could not be taken up: {error}"));
    };
    error
}

fn new_member(user: &User, role: Role, now: Timestamp) -> Member {
    Member {
        user_id: user.id.clone(),
        role,
        email: user.email.clone(),
        username: user.username.clone(),
        notification: NotificationState::default(),
        options: UserOptions::default(),
        joined_at: now,
    }
}

/// Takes a seat of `bucket`, if it lives, its plan is as it was read, and that has one at `now`.
fn take_seat(bucket: &Bucket, seats: u32) -> Write {
    let write = Write::update(Key::bucket(&bucket.id), "ADD #seats_used :one")
        .not_deleted()
        .when("#seats_used < :seats")
        .value(":one", 1)
        .value(":seats", seats);
    plan_as_read(write, bucket)
}

/// What a failed [`take_seat`] means.
fn no_seat(bucket: &Bucket, seats: u32) -> impl FnOnce(Option<Item>) -> PeopleError + Send + 'static {
    let read = bucket.clone();
    move |old| match live(old) {
        Err(error) => error.into(),
        Ok(None) => PeopleError::BucketNotFound,
        Ok(Some(bucket)) if !is_on_same_plan(&bucket, &read) => PeopleError::Changed,
        Ok(Some(_)) => PeopleError::SeatLimit { seats },
    }
}

fn free_seat(bucket: &BucketId) -> Write {
    Write::update(Key::bucket(bucket), "ADD #seats_used :less").value(":less", -1)
}
