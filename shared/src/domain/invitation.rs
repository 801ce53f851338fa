//! Invitations of addresses that are nobody's yet.

use super::{Email, Role, Timestamp, UserId};

/// An address that becomes a member at its owner's first verified sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Who is invited.
    pub email: Email,
    /// As what.
    pub role: Role,
    /// By whom.
    pub invited_by: UserId,
    /// When first.
    pub created_at: Timestamp,
    /// Until when it can be taken up. It keeps its seat until it is cleared.
    pub expires_at: Timestamp,
}

impl Invitation {
    /// Whether it can still be taken up.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// The role that it gives, where `inviter` is the role that the inviter has now, if any: nobody
    /// gives what they may no longer grant.
    #[must_use]
    pub fn role_given(&self, inviter: Option<Role>) -> Role {
        if inviter.is_some_and(|inviter| inviter.may_grant(self.role)) { self.role } else { Role::User }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation(role: Role) -> Invitation {
        Invitation {
            email: Email::parse("a@example.com").unwrap(),
            role,
            invited_by: UserId::of_subject("issuer", "subject"),
            created_at: Timestamp::from_millis(0),
            expires_at: Timestamp::from_millis(1_000),
        }
    }

    #[test]
    fn an_invitation_is_live_until_it_expires() {
        assert!(invitation(Role::User).is_live(Timestamp::from_millis(999)));
        assert!(!invitation(Role::User).is_live(Timestamp::from_millis(1_000)));
    }

    #[test]
    fn an_invitation_gives_its_role_only_while_its_inviter_may_grant_it() {
        for (role, inviter, given) in [
            (Role::Admin, Some(Role::Owner), Role::Admin),
            (Role::Admin, Some(Role::Admin), Role::Admin),
            (Role::Developer, Some(Role::Admin), Role::Developer),
            (Role::Developer, Some(Role::Developer), Role::User),
            (Role::Admin, Some(Role::User), Role::User),
            (Role::Admin, None, Role::User),
            (Role::User, None, Role::User),
        ] {
            assert_eq!(invitation(role).role_given(inviter), given, "{role:?} by {inviter:?}");
        }
    }
}
