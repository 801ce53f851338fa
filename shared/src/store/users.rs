//! People.

use super::{
    Store, StoreError,
    audit::{self, Action},
    buckets::{CHANGE_ATTEMPTS, before_attempt},
    items::{EmailClaimRow, UserRow, from_item},
    keys::Key,
    members::check_live,
    transaction::{Refused, Write},
};
use crate::domain::{Email, Timestamp, User, UserId, Username};

/// Why a person could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The address belongs to another user.
    #[error("the address belongs to another user")]
    EmailTaken,
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The user `id`, if that person has ever come with a verified address.
    ///
    /// # Errors
    /// The table failed.
    pub async fn user(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        let item = self.get(&Key::user(id)).await?;
        Ok(item.map(from_item::<UserRow>).transpose()?.map(User::from))
    }

    /// Records a person at first verified sight, together with the claim on the address. From then on
    /// the address cannot be invited any more, only the person added; what was invited before waits for
    /// [`Store::settle`].
    ///
    /// # Errors
    /// The address is another user's, or the table failed.
    pub async fn register(
        &self,
        id: &UserId,
        email: &Email,
        email_from: u32,
        username: &Username,
    ) -> Result<User, RegisterError> {
        enum Guard {
            Registered,
            EmailTaken,
        }
        let user = User {
            id: id.clone(),
            email: email.clone(),
            email_from,
            username: username.clone(),
            buckets_owned: 0,
            trial_used: false,
            stripe_customer: None,
            unfinished: true,
        };
        let claim = EmailClaimRow { email: email.clone(), user_id: id.clone() };
        let committed = self
            .transaction("register")
            .guarded(Write::put_new(&UserRow::from(&user)), Refused::By(Guard::Registered))
            .guarded(Write::put_new(&claim), Refused::By(Guard::EmailTaken))
            .commit()
            .await;
        match committed {
            Ok(()) => Ok(user),
            Err(Refused::By(Guard::EmailTaken)) => Err(RegisterError::EmailTaken),
            Err(Refused::Store(error)) => Err(error.into()),
            // Another request of the same person was first.
            Err(Refused::By(Guard::Registered)) => Ok(self.user(id).await?.unwrap_or(user)),
        }
    }

    /// Moves `user` to the verified address `email`, which a token issued at `email_from` names, with the
    /// claim; the former address is free then. Memberships follow with [`Store::settle`]. Gives the user as
    /// they are then: the address of a later token stays.
    ///
    /// # Errors
    /// The address is another user's, or the table failed.
    pub async fn change_address(
        &self,
        mut user: User,
        email: &Email,
        email_from: u32,
    ) -> Result<User, RegisterError> {
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            // Tokens live on for a while: the address is that of the latest.
            if *email == user.email || email_from <= user.email_from {
                return Ok(user);
            }
            if let Some(moved) = self.move_to_address(&user, email, email_from).await? {
                return Ok(moved);
            }
            // Another request of the same person was first.
            let id = user.id;
            user = self
                .user(&id)
                .await?
                .ok_or_else(|| StoreError::Row(format!("user {} is gone", id.as_str())))?;
        }
        Err(StoreError::Unavailable("the address kept changing".to_owned()).into())
    }

    /// `user` at `email`; nothing where they are no longer where they were read.
    async fn move_to_address(
        &self,
        user: &User,
        email: &Email,
        email_from: u32,
    ) -> Result<Option<User>, RegisterError> {
        enum Guard {
            Moved,
            EmailTaken,
        }
        let moved = User { email: email.clone(), email_from, unfinished: true, ..user.clone() };
        let claim = EmailClaimRow { email: email.clone(), user_id: user.id.clone() };
        let me = user.id.clone();
        let committed = self
            .transaction("change_address")
            .guarded(
                Write::update(
                    Key::user(&user.id),
                    "SET #email = :new, #email_from = :from, #unfinished = :true",
                )
                .when("#email_from < :from")
                .value(":from", email_from)
                .value(":new", email.as_str())
                .value(":true", true),
                Refused::By(Guard::Moved),
            )
            .guarded_by(Write::put_new(&claim), move |old| {
                match old.map(from_item::<EmailClaimRow>).transpose() {
                    // By a request of their own.
                    Ok(Some(claim)) if claim.user_id == me => Refused::By(Guard::Moved),
                    Ok(_) => Refused::By(Guard::EmailTaken),
                    Err(error) => error.into(),
                }
            })
            .guarded(
                Write::delete(Key::email_claim(&user.email))
                    .when("#user_id = :me")
                    .value(":me", user.id.as_str()),
                Refused::By(Guard::Moved),
            )
            .commit()
            .await;
        match committed {
            Ok(()) => Ok(Some(moved)),
            Err(Refused::By(Guard::EmailTaken)) => Err(RegisterError::EmailTaken),
            Err(Refused::By(Guard::Moved)) => Ok(None),
            Err(Refused::Store(error)) => Err(error.into()),
        }
    }

    /// Has `user`'s memberships show the address that the user has now.
    pub(super) async fn sync_memberships(&self, user: &User, now: Timestamp) -> Result<(), StoreError> {
        struct Elsewhere;
        let (_, memberships) = self.user_with_memberships(&user.id).await?;
        for (bucket, member) in memberships {
            if member.email == user.email {
                continue;
            }
            let committed = self
                .transaction("sync_membership")
                .guarded(
                    Write::update(Key::member(&bucket.id, &user.id), "SET #email = :email")
                        .when("#email = :former")
                        .value(":former", member.email.as_str())
                        .value(":email", user.email.as_str()),
                    Refused::By(Elsewhere),
                )
                .guarded(
                    Write::check(Key::user(&user.id))
                        .when("#email = :email")
                        .value(":email", user.email.as_str()),
                    Refused::By(Elsewhere),
                )
                .guarded(check_live(&bucket.id), Refused::By(Elsewhere))
                .with(audit::entry(&bucket.id, &user.id, Action::ChangeAddress, now).write()?)
                .commit()
                .await;
            match committed {
                // Not a member any more, or moved once more, or followed up by another request already.
                Ok(()) | Err(Refused::By(Elsewhere)) => {}
                Err(Refused::Store(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Clears the mark of [`Store::settle`], unless the address has moved on meanwhile.
    pub(super) async fn clear_mark(&self, user: &User) -> Result<(), StoreError> {
        struct MovedOn;
        let committed = self
            .transaction("clear_mark")
            .guarded(
                // No token moves an address twice: this tells the very claim that was settled.
                Write::update(Key::user(&user.id), "REMOVE #unfinished")
                    .when("#email_from = :from")
                    .value(":from", user.email_from),
                Refused::By(MovedOn),
            )
            .commit()
            .await;
        match committed {
            Ok(()) | Err(Refused::By(MovedOn)) => Ok(()),
            Err(Refused::Store(error)) => Err(error),
        }
    }
}
