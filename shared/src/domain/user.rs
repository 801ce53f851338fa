//! A person who has signed in with a verified e-mail address.

use super::{Email, UserId, Username};

/// A person who has signed in with a verified e-mail address; only such a person may own or join a
/// bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who it is, whatever the address.
    pub id: UserId,
    /// The verified address, which no other user has.
    pub email: Email,
    /// When the token was issued that the address is from, in seconds since 1970: only a later one moves
    /// the user to another address.
    pub email_from: u32,
    /// The name to show.
    pub username: Username,
    /// How many live buckets this person owns.
    pub buckets_owned: u32,
    /// Whether this person has claimed a trial, for whichever bucket.
    pub trial_used: bool,
    /// The customer that this person is at Stripe, if they ever were one.
    pub stripe_customer: Option<String>,
    /// Whether invitations of the address, or memberships under a former one, may still wait to be
    /// brought in line: set with the claim on an address, cleared when that is done.
    pub unfinished: bool,
}

/// A person as others name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who has the address.
    pub id: UserId,
    /// The address that was named.
    pub email: Email,
}
