//! The specification: what buckets, their people, plans and servers are, and what each command does to
//! them, without table, network or clock.
//!
//! A command asks for facts ([`State::refusals`]) and, if they all hold, has an effect, both at one moment.
//! A few take several moments: signing in takes up what waits for the address, one invitation at a time,
//! and who finds a bucket full clears what has expired in it. [`State::steps`] says which.
//!
//! Counts are no part of it: the seats that are used are the members and invitations that are there, and
//! the buckets that somebody owns are those of which they are the owner.

mod command;
mod effect;
mod refusal;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
};

use shared::domain::{Limits, PlanName, Plans, Role};

pub use command::{
    Address, Answer, BucketNo, ChangeNo, Command, ConnectionNo, EventNo, No, Outcome, Person, SecretNo,
    ServerNo,
};
pub use steps::{Next, Op};

/// Seconds since the story began.
pub type Time = u32;

/// Days that an invitation lives.
pub const INVITATION_DAYS: u32 = 7;

/// Buckets that one person may own.
pub const BUCKETS_PER_OWNER: u32 = 2;

/// Seconds of a day.
pub const DAY: Time = 86_400;

/// Seconds that who changes what pays for a bucket has it to themselves.
pub(crate) const CHANGE_LEASE: Time = 40;

/// Seconds that who sends a mail has it to themselves.
pub(crate) const MAIL_LEASE: Time = 90;

/// Seconds after which a connected server that says nothing may be deleted.
pub(crate) const SILENCE: Time = 300;

/// Seconds that an agent whose message was too large is kept from connecting again.
pub(crate) const OVERSIZED: Time = 600;

/// How many different wrong keys one machine may try in [`GUESSES_COUNT`] seconds.
pub(crate) const GUESSES: u32 = 20;

/// Seconds that wrong keys count together.
pub(crate) const GUESSES_COUNT: Time = 600;

/// Everything that is so at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The plans of the deployment.
    pub plans: Plans,
    /// The clock.
    pub now: Time,
    /// The people who have signed in.
    pub users: BTreeMap<Person, User>,
    /// The buckets, the deleted ones too.
    pub buckets: BTreeMap<BucketNo, Bucket>,
    /// The open connections of agents.
    pub connections: BTreeMap<ConnectionNo, (BucketNo, ServerNo)>,
    /// How many wrong keys came from each machine, and until when they count.
    pub guesses: BTreeMap<u8, (u32, Time)>,
    /// The events of Stripe's that were dealt with.
    pub events: BTreeSet<EventNo>,
}

/// A person who has signed in with a verified address, which nobody else has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// The address.
    pub address: Address,
    /// When the token was issued that it is from.
    pub since: u32,
    /// Whether the person has had a trial.
    pub trial_used: bool,
    /// The customer that the person is at Stripe.
    pub customer: Option<u8>,
    /// Whether something may wait to be brought in line with the address.
    pub unfinished: bool,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// Its name.
    pub name: u8,
    /// What it says of itself.
    pub comment: u8,
    /// Its owner.
    pub owner: Person,
    /// The secret of its agents.
    pub secret: SecretNo,
    /// The plan that it was put on.
    pub plan: PlanName,
    /// When that ends.
    pub plan_ends: Option<Time>,
    /// When its trial ends or ended, if it had one.
    pub trial_ends: Option<Time>,
    /// Whether it was deleted, for good.
    pub deleted: bool,
    /// Its members.
    pub members: BTreeMap<Person, Member>,
    /// The addresses that are invited.
    pub invitations: BTreeMap<Address, Invitation>,
    /// Its servers.
    pub servers: BTreeMap<ServerNo, Server>,
    /// How much feedback was sent.
    pub feedback: u32,
    /// What was done, and how often.
    pub audit: BTreeMap<Audit, u32>,
    /// The mail of its creation, in whose stead any mail may stand.
    pub mail: Mail,
    /// What pays for it.
    pub subscription: Option<Subscription>,
    /// The change of what pays for it that is under way or was left unfinished.
    pub change: Option<Change>,
}

/// A member of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// What they may do.
    pub role: Role,
    /// The address that others see.
    pub address: Address,
    /// Whether they get no mail.
    pub muted: bool,
    /// Their options.
    pub options: u8,
}

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Invitation {
    /// The role that it gives.
    pub role: Role,
    /// Who has invited.
    pub by: Person,
    /// When it expires.
    pub expires: Time,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// The connections of its agents.
    pub connections: BTreeSet<ConnectionNo>,
    /// When something was last heard of it.
    pub last_seen: Time,
    /// When a connection was closed for the size of what came.
    pub oversized: Option<Time>,
}

/// An entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audit {
    /// What was done.
    pub action: String,
    /// By whom.
    pub actor: Option<Person>,
    /// To whom.
    pub target: Option<Person>,
    /// To which address.
    pub address: Option<Address>,
    /// To which server.
    pub server: Option<ServerNo>,
    /// The role that was given.
    pub role: Option<Role>,
}

/// A mail that is to be sent once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mail {
    /// Until when somebody has it to themselves.
    pub lease: Option<Time>,
    /// Whether it was sent.
    pub sent: bool,
}

/// A subscription as Stripe last told it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// The plan.
    pub plan: PlanName,
    /// When it ends.
    pub ends: Option<Time>,
    /// Whether it has ended.
    pub over: bool,
    /// How often something was told.
    pub version: u32,
}

/// A change of what pays for a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// Which one.
    pub no: ChangeNo,
    /// Until when nobody else may touch it.
    pub lease: Time,
    /// Whether the call that charges was noted.
    pub call: bool,
    /// Whether a subscription is still to be ended.
    pub replaced: bool,
}

/// The plans stay the same throughout a story.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { plans: _, now, users, buckets, connections, guesses, events } = self;
        (now, users, buckets, connections, guesses, events).hash(hasher);
    }
}

impl State {
    /// Nothing and nobody, with these plans.
    #[must_use]
    pub fn new(plans: Plans) -> Self {
        Self {
            plans,
            now: 0,
            users: BTreeMap::new(),
            buckets: BTreeMap::new(),
            connections: BTreeMap::new(),
            guesses: BTreeMap::new(),
            events: BTreeSet::new(),
        }
    }

    /// Whose address `address` is.
    #[must_use]
    pub fn user_of(&self, address: Address) -> Option<Person> {
        self.users.iter().find(|(_, user)| user.address == address).map(|(person, _)| *person)
    }

    /// The bucket `no`, if it lives.
    #[must_use]
    pub fn live(&self, no: BucketNo) -> Option<&Bucket> {
        self.buckets.get(&no).filter(|bucket| !bucket.deleted)
    }

    /// The role of `person` in the live bucket `no`.
    #[must_use]
    pub fn role(&self, no: BucketNo, person: Person) -> Option<Role> {
        Some(self.live(no)?.members.get(&person)?.role)
    }

    /// How many live buckets `person` owns.
    #[must_use]
    pub fn owned(&self, person: Person) -> u32 {
        count(self.buckets.values().filter(|bucket| !bucket.deleted && bucket.owner == person))
    }

    /// What the plan of `bucket` that counts now allows.
    #[must_use]
    pub fn limits(&self, bucket: &Bucket) -> Limits {
        let plan = match bucket.trial_ends {
            Some(ends) if self.now < ends => self.plans.trial().map(|(plan, _)| plan.clone()),
            _ if bucket.plan_ends.is_some_and(|ends| ends <= self.now) => None,
            _ => Some(bucket.plan.clone()),
        };
        self.plans.limits(&plan.unwrap_or_default())
    }
}

impl Bucket {
    /// A new one, in which nobody is yet.
    pub(crate) fn new(owner: Person, secret: SecretNo) -> Self {
        Self {
            name: 0,
            comment: 0,
            owner,
            secret,
            plan: PlanName::default(),
            plan_ends: None,
            trial_ends: None,
            deleted: false,
            members: BTreeMap::new(),
            invitations: BTreeMap::new(),
            servers: BTreeMap::new(),
            feedback: 0,
            audit: BTreeMap::new(),
            mail: Mail::default(),
            subscription: None,
            change: None,
        }
    }

    /// Members and invitations.
    #[must_use]
    pub fn seats(&self) -> u32 {
        count(self.members.keys()) + count(self.invitations.keys())
    }
}

/// How many there are.
pub(crate) fn count(things: impl Iterator) -> u32 {
    things.fold(0, |count, _| count + 1)
}
