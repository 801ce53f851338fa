//! People.

use super::{
    Store, StoreError,
    items::{EmailClaimRow, UserRow, from_item},
    keys::Key,
    transaction::Write,
};
use crate::domain::{Email, User, UserId, Username};

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

    /// Records a person at first verified sight, together with the claim on the address.
    ///
    /// # Errors
    /// The address is another user's, or the table failed.
    pub async fn register(
        &self,
        id: &UserId,
        email: &Email,
        username: &Username,
    ) -> Result<User, RegisterError> {
        enum Refused {
            Registered,
            EmailTaken,
            Store(StoreError),
        }
        impl From<StoreError> for Refused {
            fn from(error: StoreError) -> Self {
                Self::Store(error)
            }
        }
        let user =
            User { id: id.clone(), email: email.clone(), username: username.clone(), buckets_owned: 0 };
        let claim = EmailClaimRow { email: email.clone(), user_id: id.clone() };
        let committed = self
            .transaction()
            .guarded(Write::put_new(&UserRow::from(&user)), Refused::Registered)
            .guarded(Write::put_new(&claim), Refused::EmailTaken)
            .commit()
            .await;
        match committed {
            Ok(()) => Ok(user),
            Err(Refused::EmailTaken) => Err(RegisterError::EmailTaken),
            Err(Refused::Store(error)) => Err(error.into()),
            // Another request of the same person was first.
            Err(Refused::Registered) => Ok(self.user(id).await?.unwrap_or(user)),
        }
    }
}
