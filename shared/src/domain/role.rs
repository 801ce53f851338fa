//! What each role may do.

use serde::{Deserialize, Serialize};

/// A member's role in a bucket, from the least to the most. The wire names are lower case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads; the role of whoever is added without another.
    #[default]
    User,
    /// Reads; told apart from [`Role::User`] by the clients' own features.
    Developer,
    /// Also manages people's invitations and sees the secret.
    Admin,
    /// Everything. Each bucket has exactly one; only a transfer makes another.
    Owner,
}

/// Something that not every member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// See `secret_id`, which lets servers join the bucket.
    SeeSecret,
    /// Change what the bucket says of itself.
    Update,
    /// Delete the bucket.
    Delete,
}

impl Role {
    /// Whether a member with this role has `right`.
    #[must_use]
    pub fn may(self, right: Right) -> bool {
        match right {
            Right::SeeSecret => self >= Self::Admin,
            Right::Update | Right::Delete => self == Self::Owner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_right_belongs_to_the_roles_of_the_table() {
        use Right::{Delete, SeeSecret, Update};
        use Role::{Admin, Developer, Owner, User};

        for (right, holders) in
            [(SeeSecret, vec![Admin, Owner]), (Update, vec![Owner]), (Delete, vec![Owner])]
        {
            let may: Vec<Role> =
                [User, Developer, Admin, Owner].into_iter().filter(|role| role.may(right)).collect();
            assert_eq!(may, holders, "{right:?}");
        }
    }
}
