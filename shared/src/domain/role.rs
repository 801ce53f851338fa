//! What each role may do.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A member's role in a bucket, from the least to the most. The wire names are lower case.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads; the role of whoever is added without another.
    #[default]
    User,
    /// Reads; told apart from `user` by the clients' own features.
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
    /// See, make and remove invitations; add people.
    Invite,
    /// Set the notification state of others.
    ManageNotifications,
    /// Delete a server.
    DeleteServer,
    /// See the subscription and the invoices.
    SeeBilling,
    /// Change what the bucket says of itself.
    Update,
    /// Remove others.
    RemoveUser,
    /// Set the role of others.
    SetRole,
    /// Put the bucket on a plan, or begin its trial.
    ChangePlan,
    /// Give the bucket another secret.
    RotateSecret,
    /// Hand the bucket over.
    Transfer,
    /// Delete the bucket.
    Delete,
}

impl Role {
    /// All roles, from the least to the most.
    pub const ALL: [Self; 4] = [Self::User, Self::Developer, Self::Admin, Self::Owner];

    /// The name on the wire and in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Developer => "developer",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// Whether a member with this role has `right`.
    #[must_use]
    pub fn may(self, right: Right) -> bool {
        match right {
            Right::SeeSecret
            | Right::Invite
            | Right::ManageNotifications
            | Right::DeleteServer
            | Right::SeeBilling => self >= Self::Admin,
            Right::Update
            | Right::RemoveUser
            | Right::SetRole
            | Right::ChangePlan
            | Right::RotateSecret
            | Right::Transfer
            | Right::Delete => self == Self::Owner,
        }
    }

    /// Whether a member with this role may invite somebody as `role`: up to one's own, never as owner.
    #[must_use]
    pub fn may_grant(self, role: Self) -> bool {
        self.may(Right::Invite) && role <= self && role != Self::Owner
    }
}

/// A role that can be given: any but [`Role::Owner`], which only a transfer makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Role")]
pub struct GrantableRole(Role);

impl JsonSchema for GrantableRole {
    fn schema_name() -> Cow<'static, str> {
        "GrantableRole".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let grantable = Role::ALL.into_iter().filter(|role| Self::try_from(*role).is_ok());
        json_schema!({ "type": "string", "enum": grantable.map(Role::as_str).collect::<Vec<_>>() })
    }
}

impl TryFrom<Role> for GrantableRole {
    type Error = &'static str;

    fn try_from(role: Role) -> Result<Self, Self::Error> {
        match role {
            Role::Owner => Err("the role `owner` cannot be given; hand the bucket over instead"),
            Role::User | Role::Developer | Role::Admin => Ok(Self(role)),
        }
    }
}

impl From<GrantableRole> for Role {
    fn from(GrantableRole(role): GrantableRole) -> Self {
        role
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_right_belongs_to_the_roles_of_the_table() {
        use Right::{
            ChangePlan, Delete, DeleteServer, Invite, ManageNotifications, RemoveUser, RotateSecret,
            SeeBilling, SeeSecret, SetRole, Transfer, Update,
        };
        use Role::{Admin, Owner};

        for (rights, holders) in [
            (vec![SeeSecret, Invite, ManageNotifications, DeleteServer, SeeBilling], vec![Admin, Owner]),
            (vec![Update, RemoveUser, SetRole, ChangePlan, RotateSecret, Transfer, Delete], vec![Owner]),
        ] {
            for right in rights {
                let may: Vec<Role> = Role::ALL.into_iter().filter(|role| role.may(right)).collect();
                assert_eq!(may, holders, "{right:?}");
            }
        }
    }

    #[test]
    fn nobody_grants_more_than_their_own_role_or_owner() {
        for granting in Role::ALL {
            for role in Role::ALL {
                let may = granting >= Role::Admin && role <= Role::Admin;
                assert_eq!(granting.may_grant(role), may, "{granting:?} grants {role:?}");
            }
        }
    }

    #[test]
    fn a_role_is_written_as_it_is_read() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert!(serde_json::from_str::<GrantableRole>("\"owner\"").is_err());
        assert_eq!(serde_json::from_str::<GrantableRole>("\"admin\"").map(Role::from).unwrap(), Role::Admin);
    }
}
