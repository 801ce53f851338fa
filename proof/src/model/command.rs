//! What the people of a story do, and what comes of it.

use std::fmt;

use shared::domain::{PlanName, Role};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u8);
    )*};
}

numbers! {
    /// Somebody.
    Person,
    /// An e-mail address. The first are those that the people of the same number come with.
    Address,
    /// A bucket, by the command that creates it.
    BucketNo,
    /// A secret of a bucket's agents, by the command that makes it.
    SecretNo,
    /// A server's name.
    ServerNo,
    /// A connection of an agent.
    ConnectionNo,
    /// A change of what pays for a bucket, by the command that begins it.
    ChangeNo,
    /// An event of Stripe's.
    EventNo,
}

const NAMES: [&str; 6] = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Finn"];

impl fmt::Display for Person {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0)) {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "Person{}", self.0),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0)) {
            Some(name) => write!(formatter, "{}@example.com", name.to_lowercase()),
            None => write!(formatter, "other{}@example.com", self.0),
        }
    }
}

impl fmt::Display for BucketNo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "bucket {}", self.0)
    }
}

impl Person {
    /// The address that the person first comes with.
    #[must_use]
    pub fn address(self) -> Address {
        Address(self.0)
    }
}

/// Something that somebody does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are who does it, to which bucket, and what they say")]
pub enum Command {
    /// Comes with a token for this address, issued at that time.
    SignIn {
        who: Person,
        address: Address,
        at: u32,
    },
    /// The same, cut off as soon as the person is recorded.
    SignInCutOff {
        who: Person,
        address: Address,
        at: u32,
    },
    /// Time passes.
    Wait {
        seconds: u32,
    },
    Create {
        who: Person,
        bucket: BucketNo,
        secret: SecretNo,
    },
    Update {
        who: Person,
        bucket: BucketNo,
        name: Option<u8>,
        comment: Option<u8>,
    },
    Delete {
        who: Person,
        bucket: BucketNo,
    },
    /// What hangs under a deleted bucket is cleared.
    Clear {
        bucket: BucketNo,
    },
    Invite {
        who: Person,
        bucket: BucketNo,
        address: Address,
        role: Role,
    },
    RemoveInvitation {
        who: Person,
        bucket: BucketNo,
        address: Address,
    },
    RemoveUser {
        who: Person,
        bucket: BucketNo,
        address: Address,
    },
    SetRole {
        who: Person,
        bucket: BucketNo,
        address: Address,
        role: Role,
    },
    Transfer {
        who: Person,
        bucket: BucketNo,
        address: Address,
    },
    SetMuted {
        who: Person,
        bucket: BucketNo,
        address: Address,
        muted: bool,
    },
    SetOptions {
        who: Person,
        bucket: BucketNo,
        options: u8,
    },
    SendFeedback {
        who: Person,
        bucket: BucketNo,
    },
    SwitchPlan {
        who: Person,
        bucket: BucketNo,
        plan: PlanName,
    },
    ClaimTrial {
        who: Person,
        bucket: BucketNo,
    },
    RotateSecret {
        who: Person,
        bucket: BucketNo,
        secret: SecretNo,
    },
    /// An agent shows a bucket's keys and reports.
    Link {
        bucket: BucketNo,
        secret: SecretNo,
        server: ServerNo,
    },
    Connect {
        bucket: BucketNo,
        secret: SecretNo,
        server: ServerNo,
        connection: ConnectionNo,
    },
    Disconnect {
        connection: ConnectionNo,
        oversized: bool,
    },
    /// Somebody shows keys of no bucket that nobody has shown before.
    Guess {
        from: u8,
        guess: u8,
    },
    DeleteServer {
        who: Person,
        bucket: BucketNo,
        server: ServerNo,
    },
    /// Stripe tells of a bucket's subscription, which ends in so many seconds, if at all.
    Told {
        bucket: BucketNo,
        plan: PlanName,
        ends_in: Option<u32>,
        event: Option<EventNo>,
    },
    /// Stripe tells of something from which nothing follows.
    NoteEvent {
        event: EventNo,
    },
    BeginChange {
        who: Person,
        bucket: BucketNo,
        change: ChangeNo,
    },
    NoteCall {
        bucket: BucketNo,
        change: ChangeNo,
    },
    /// A change has led to a subscription; `replaced` where another one is still to be ended.
    EndChange {
        who: Person,
        bucket: BucketNo,
        change: ChangeNo,
        plan: PlanName,
        replaced: bool,
    },
    DropChange {
        bucket: BucketNo,
        change: ChangeNo,
    },
    LeaveChange {
        bucket: BucketNo,
        change: ChangeNo,
    },
    /// A bucket changes hands with what pays for it.
    TransferPaid {
        who: Person,
        bucket: BucketNo,
        address: Address,
        change: ChangeNo,
        plan: PlanName,
    },
    /// A person becomes a customer of Stripe's, and is no longer the one `before`.
    SetCustomer {
        who: Person,
        customer: u8,
        before: Option<u8>,
    },
    LeaseMail {
        bucket: BucketNo,
    },
    NoteMail {
        bucket: BucketNo,
    },
    ReturnMail {
        bucket: BucketNo,
    },
}

impl Command {
    /// The same by `person`; nothing where nobody does it, or where it is about themselves.
    #[must_use]
    pub fn by(&self, person: Person) -> Option<Self> {
        let mut command = self.clone();
        match &mut command {
            Self::Update { who, .. }
            | Self::Delete { who, .. }
            | Self::Invite { who, .. }
            | Self::RemoveInvitation { who, .. }
            | Self::RemoveUser { who, .. }
            | Self::SetRole { who, .. }
            | Self::Transfer { who, .. }
            | Self::SetMuted { who, .. }
            | Self::SetOptions { who, .. }
            | Self::SendFeedback { who, .. }
            | Self::SwitchPlan { who, .. }
            | Self::ClaimTrial { who, .. }
            | Self::RotateSecret { who, .. }
            | Self::DeleteServer { who, .. }
            | Self::BeginChange { who, .. } => *who = person,
            Self::SignIn { .. }
            | Self::SignInCutOff { .. }
            | Self::Wait { .. }
            | Self::Create { .. }
            | Self::Clear { .. }
            | Self::Link { .. }
            | Self::Connect { .. }
            | Self::Disconnect { .. }
            | Self::Guess { .. }
            | Self::Told { .. }
            | Self::NoteEvent { .. }
            | Self::NoteCall { .. }
            | Self::EndChange { .. }
            | Self::DropChange { .. }
            | Self::LeaveChange { .. }
            | Self::TransferPaid { .. }
            | Self::SetCustomer { .. }
            | Self::LeaseMail { .. }
            | Self::NoteMail { .. }
            | Self::ReturnMail { .. } => return None,
        }
        Some(command)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = |what: &str, value: &Option<u8>| {
            value.map_or_else(String::new, |value| format!(", {what} {value}"))
        };
        match self {
            Self::SignIn { who, address, at } => write!(f, "{who} signs in as {address} (token {at})"),
            Self::SignInCutOff { who, address, at } => {
                write!(f, "{who} signs in as {address} (token {at}) and is cut off once recorded")
            }
            Self::Wait { seconds } => write!(f, "{seconds} seconds pass"),
            Self::Create { who, bucket, secret } => write!(f, "{who} creates {bucket} (secret {})", secret.0),
            Self::Update { who, bucket, name, comment } => {
                write!(f, "{who} updates {bucket}{}{}", given("name", name), given("comment", comment))
            }
            Self::Delete { who, bucket } => write!(f, "{who} deletes {bucket}"),
            Self::Clear { bucket } => write!(f, "what hangs under {bucket} is cleared"),
            Self::Invite { who, bucket, address, role } => {
                write!(f, "{who} invites {address} into {bucket} as {}", role.as_str())
            }
            Self::RemoveInvitation { who, bucket, address } => {
                write!(f, "{who} removes the invitation of {address} to {bucket}")
            }
            Self::RemoveUser { who, bucket, address } => write!(f, "{who} removes {address} from {bucket}"),
            Self::SetRole { who, bucket, address, role } => {
                write!(f, "{who} makes {address} {} of {bucket}", role.as_str())
            }
            Self::Transfer { who, bucket, address } => write!(f, "{who} hands {bucket} to {address}"),
            Self::SetMuted { who, bucket, address, muted } => {
                write!(f, "{who} turns mails of {bucket} to {address} {}", if *muted { "off" } else { "on" })
            }
            Self::SetOptions { who, bucket, options } => {
                write!(f, "{who} sets their options for {bucket} to {options}")
            }
            Self::SendFeedback { who, bucket } => write!(f, "{who} sends feedback on {bucket}"),
            Self::SwitchPlan { who, bucket, plan } => write!(f, "{who} puts {bucket} on {}", plan.as_str()),
            Self::ClaimTrial { who, bucket } => write!(f, "{who} begins the trial of {bucket}"),
            Self::RotateSecret { who, bucket, secret } => {
                write!(f, "{who} gives {bucket} another secret ({})", secret.0)
            }
            Self::Link { bucket, secret, server } => {
                write!(f, "the agent of server {} reports to {bucket} with secret {}", server.0, secret.0)
            }
            Self::Connect { bucket, secret, server, connection } => write!(
                f,
                "the agent of server {} opens connection {} to {bucket} with secret {}",
                server.0, connection.0, secret.0
            ),
            Self::Disconnect { connection, oversized } => {
                let why = if *oversized { ", too large" } else { "" };
                write!(f, "connection {} ends{why}", connection.0)
            }
            Self::Guess { from, guess } => write!(f, "machine {from} guesses keys ({guess})"),
            Self::DeleteServer { who, bucket, server } => {
                write!(f, "{who} deletes server {} of {bucket}", server.0)
            }
            Self::Told { bucket, plan, ends_in, event } => {
                write!(f, "Stripe tells that {bucket} is on {}", plan.as_str())?;
                ends_in.map_or(Ok(()), |seconds| write!(f, " for {seconds} seconds"))?;
                event.map_or(Ok(()), |event| write!(f, " (event {})", event.0))
            }
            Self::NoteEvent { event } => {
                write!(f, "Stripe tells event {}, of which nothing follows", event.0)
            }
            Self::BeginChange { who, bucket, change } => {
                write!(f, "{who} begins change {} of what pays for {bucket}", change.0)
            }
            Self::NoteCall { bucket, change } => {
                write!(f, "the call of change {} of {bucket} is noted", change.0)
            }
            Self::EndChange { who, bucket, change, plan, replaced } => {
                let left = if *replaced { ", but for one that it replaced" } else { "" };
                write!(f, "{who}'s change {} of {bucket} ends on {}{left}", change.0, plan.as_str())
            }
            Self::DropChange { bucket, change } => write!(f, "change {} of {bucket} is dropped", change.0),
            Self::LeaveChange { bucket, change } => {
                write!(f, "change {} of {bucket} is left unfinished", change.0)
            }
            Self::TransferPaid { who, bucket, address, change, plan } => write!(
                f,
                "{who} hands {bucket} to {address}, who pays for {} by change {}",
                plan.as_str(),
                change.0
            ),
            Self::SetCustomer { who, customer, before } => {
                write!(f, "{who} becomes customer {customer}")?;
                before.map_or(Ok(()), |before| write!(f, " instead of {before}"))
            }
            Self::LeaseMail { bucket } => write!(f, "a mail of {bucket} is about to be sent"),
            Self::NoteMail { bucket } => write!(f, "the mail of {bucket} was sent"),
            Self::ReturnMail { bucket } => write!(f, "the mail of {bucket} was not sent"),
        }
    }
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are the refusals of the API, by their codes")]
pub enum No {
    /// There is no such bucket, or the person is not in it: nobody can tell which.
    BucketNotFound,
    RoleTooLow,
    UserNotFound,
    AlreadyMember,
    SeatLimit,
    InvitationNotFound,
    OwnerStays,
    OwnerRoleFixed,
    AlreadyOwner,
    BucketLimit,
    Paid,
    BucketHadTrial,
    OwnerHadTrial,
    OnPlan,
    WrongKeys,
    TooManyGuesses,
    ServerLimit,
    NotLinked,
    Oversized,
    ServerNotFound,
    ServerConnected,
    EmailTaken,
    /// The person has never signed in with a verified address.
    NotSignedIn,
    /// A change of what pays for the bucket is under way.
    Busy,
    /// The event was dealt with before.
    EventSeen,
    /// The bucket lives, and is not cleared.
    Lives,
    /// The mail was sent.
    Sent,
    /// Somebody else is sending the mail.
    Held,
    /// What the change rests on has changed: it may be tried again.
    Changed,
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It is done.
    Done,
    /// The bucket as it is then.
    Bucket {
        /// Its name.
        name: u8,
        /// What it says of itself.
        comment: u8,
        /// Its plan.
        plan: PlanName,
        /// Its owner.
        owner: Person,
    },
    /// The address that the person is known by.
    Known(Address),
    /// A change of what pays for the bucket was left unfinished, and is in the hands of who asks.
    TookOver(ChangeNo),
    /// The server is linked, and was not before if it is `new`.
    Linked {
        /// Whether it is.
        new: bool,
    },
    /// The customer that stands.
    Customer(u8),
}

/// What comes of a command.
pub type Outcome = Result<Answer, No>;
