//! Stories: what a few people do to a few buckets, at random.

use std::{collections::BTreeSet, fmt};

use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop, prop_oneof};
use proptest_state_machine::ReferenceStateMachine;
use shared::domain::{PlanName, Plans, Role};

use crate::model::{
    Address, BucketNo, ChangeNo, Command, ConnectionNo, DAY, EventNo, Person, SecretNo, ServerNo, State,
};

/// Small plans, so that stories meet their limits.
const PLANS: &str = r#"{
    "free": { "seats": 3, "servers": 1, "self_service": true },
    "plus": { "seats": 4, "servers": 2, "trial_days": 14, "self_service": true },
    "pro": { "seats": 6, "servers": 3, "self_service": true }
}"#;

/// A story so far: what is so, and the names that were given.
#[derive(Clone, Debug)]
pub struct Story {
    /// What is so.
    pub state: State,
    used: BTreeSet<(char, u8)>,
}

/// The plans of all stories.
///
/// # Errors
/// They are wrong.
pub fn plans() -> Result<Plans, shared::domain::PlansError> {
    Plans::from_json(PLANS)
}

impl Story {
    /// How every story begins: four people have signed in, and the first has a bucket, in which the second
    /// is an admin and somebody is invited who has not come yet.
    #[must_use]
    pub fn beginning(plans: Plans) -> (Self, Vec<Command>) {
        let (who, bucket, secret) = (Person(0), BucketNo(0), SecretNo(0));
        let sign_in = |who: u8| Command::SignIn { who: Person(who), address: Address(who), at: 1 };
        let invite = |address, role| Command::Invite { who, bucket, address: Address(address), role };
        let commands = vec![
            sign_in(0),
            Command::Create { who, bucket, secret },
            sign_in(1),
            sign_in(2),
            sign_in(3),
            invite(1, Role::Admin),
            invite(4, Role::Developer),
        ];
        let story = Self { state: State::new(plans), used: BTreeSet::new() };
        let story = commands.iter().fold(story, Self::apply);
        (story, commands)
    }

    /// Whether the `command` makes sense here: names are given once, and what is named is there.
    #[must_use]
    pub fn is_fit(&self, command: &Command) -> bool {
        let is_new = |kind, no: u8| !self.used.contains(&(kind, no));
        let bucket = |bucket: &BucketNo| self.state.buckets.contains_key(bucket);
        let known = |kind, no: u8| self.used.contains(&(kind, no));
        match command {
            Command::SignIn { who, address, .. } | Command::SignInCutOff { who, address, .. } => {
                self.state.users.contains_key(who) || *address == who.address()
            }
            Command::Create { bucket, secret, .. } => is_new('b', bucket.0) && is_new('s', secret.0),
            Command::RotateSecret { bucket: no, secret, .. } => bucket(no) && is_new('s', secret.0),
            Command::BeginChange { bucket: no, change, .. } => bucket(no) && is_new('x', change.0),
            Command::Connect { bucket: no, secret, connection, .. } => {
                bucket(no) && known('s', secret.0) && is_new('c', connection.0)
            }
            Command::Link { bucket: no, secret, .. } => bucket(no) && known('s', secret.0),
            Command::EndChange { bucket: no, change, .. }
            | Command::NoteCall { bucket: no, change }
            | Command::DropChange { bucket: no, change }
            | Command::LeaveChange { bucket: no, change }
            | Command::TransferPaid { bucket: no, change, .. } => bucket(no) && known('x', change.0),
            Command::Guess { guess, .. } => is_new('g', *guess),
            Command::Wait { .. } | Command::Disconnect { .. } | Command::NoteEvent { .. } => true,
            // Nobody stops being a customer.
            Command::SetCustomer { who, before, .. } => {
                let customer = self.state.users.get(who).and_then(|user| user.customer);
                before.is_none() || customer.is_some()
            }
            Command::Update { bucket: no, .. }
            | Command::Delete { bucket: no, .. }
            | Command::Clear { bucket: no }
            | Command::Invite { bucket: no, .. }
            | Command::RemoveInvitation { bucket: no, .. }
            | Command::RemoveUser { bucket: no, .. }
            | Command::SetRole { bucket: no, .. }
            | Command::Transfer { bucket: no, .. }
            | Command::SetMuted { bucket: no, .. }
            | Command::SetOptions { bucket: no, .. }
            | Command::SendFeedback { bucket: no, .. }
            | Command::SwitchPlan { bucket: no, .. }
            | Command::ClaimTrial { bucket: no, .. }
            | Command::DeleteServer { bucket: no, .. }
            | Command::Told { bucket: no, .. }
            | Command::LeaseMail { bucket: no }
            | Command::NoteMail { bucket: no }
            | Command::ReturnMail { bucket: no } => bucket(no),
        }
    }

    /// Those of `actors`' commands that make sense here, each name given once.
    #[must_use]
    pub fn fit(&self, actors: &[Vec<Command>]) -> Vec<Vec<Command>> {
        let mut given = self.clone();
        let actors = actors.iter().map(|commands| {
            let fit = commands.iter().filter(|command| {
                // Names that others give meanwhile are not known to anybody else yet.
                let is_fit = self.is_fit(command) && given.is_fit(command);
                if is_fit {
                    given.give_names(command);
                }
                is_fit && !matches!(command, Command::Wait { .. })
            });
            fit.cloned().collect::<Vec<_>>()
        });
        actors.filter(|commands| !commands.is_empty()).collect()
    }

    /// Gives the names that `command` gives.
    pub(crate) fn give_names(&mut self, command: &Command) {
        match command {
            Command::Create { bucket, secret, .. } => {
                self.used.extend([('b', bucket.0), ('s', secret.0)]);
            }
            Command::Guess { guess, .. } => self.used.extend([('g', *guess)]),
            Command::RotateSecret { secret, .. } => self.used.extend([('s', secret.0)]),
            Command::BeginChange { change, .. } => self.used.extend([('x', change.0)]),
            Command::Connect { connection, .. } => self.used.extend([('c', connection.0)]),
            _ => {}
        }
    }
}

impl ReferenceStateMachine for Story {
    type State = Self;
    type Transition = Command;

    fn init_state() -> BoxedStrategy<Self> {
        // Plans that are part of this file: they are right, or every test says so.
        let plans = plans().unwrap_or_else(|_| unreachable!("the plans of stories are wrong"));
        Just(Self::beginning(plans).0).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Command> {
        command().boxed()
    }

    fn apply(mut story: Self, command: &Command) -> Self {
        story.give_names(command);
        // What comes of it is asked for where it is compared.
        let _ = story.state.run(command);
        story
    }

    fn preconditions(story: &Self, command: &Command) -> bool {
        story.is_fit(command)
    }
}

fn person() -> impl Strategy<Value = Person> {
    prop_oneof![4 => Just(0), 3 => Just(1), 2 => Just(2), 1 => Just(3), 1 => Just(4)].prop_map(Person)
}

fn address() -> impl Strategy<Value = Address> {
    (0..7_u8).prop_map(Address)
}

/// Mostly the bucket that everybody knows.
fn bucket() -> impl Strategy<Value = BucketNo> {
    prop_oneof![6 => Just(0_u8), 2 => Just(1), 1 => Just(2)].prop_map(BucketNo)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::User), Just(Role::Developer), Just(Role::Admin)]
}

fn plan() -> impl Strategy<Value = PlanName> {
    prop_oneof![Just("free"), Just("plus"), Just("pro")].prop_map(|name| PlanName::from(name.to_owned()))
}

fn secret() -> impl Strategy<Value = SecretNo> {
    prop_oneof![3 => Just(0_u8), 1 => 0..6_u8].prop_map(SecretNo)
}

fn change() -> impl Strategy<Value = ChangeNo> {
    (0..3_u8).prop_map(ChangeNo)
}

fn server() -> impl Strategy<Value = ServerNo> {
    (0..3_u8).prop_map(ServerNo)
}

fn connection() -> impl Strategy<Value = ConnectionNo> {
    (0..4_u8).prop_map(ConnectionNo)
}

/// A command, of anybody, about anything.
pub fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        10 => people(),
        4 => buckets(),
        3 => servers(),
        3 => money(),
    ]
}

fn people() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => (person(), address(), 0..9_u32).prop_map(|(who, address, at)| Command::SignIn { who, address, at }),
        2 => (person(), 0..9_u32)
            .prop_map(|(who, at)| Command::SignIn { who, address: who.address(), at }),
        1 => (person(), 0..9_u32)
            .prop_map(|(who, at)| Command::SignInCutOff { who, address: who.address(), at }),
        1 => (person(), address(), 0..9_u32)
            .prop_map(|(who, address, at)| Command::SignInCutOff { who, address, at }),
        6 => (person(), bucket(), address(), role())
            .prop_map(|(who, bucket, address, role)| Command::Invite { who, bucket, address, role }),
        2 => (person(), bucket(), address())
            .prop_map(|(who, bucket, address)| Command::RemoveInvitation { who, bucket, address }),
        3 => (person(), bucket(), address())
            .prop_map(|(who, bucket, address)| Command::RemoveUser { who, bucket, address }),
        1 => (person(), bucket())
            .prop_map(|(who, bucket)| Command::RemoveUser { who, bucket, address: who.address() }),
        3 => (person(), bucket(), address(), role())
            .prop_map(|(who, bucket, address, role)| Command::SetRole { who, bucket, address, role }),
        3 => (person(), bucket(), address())
            .prop_map(|(who, bucket, address)| Command::Transfer { who, bucket, address }),
        1 => (person(), bucket(), address(), any::<bool>())
            .prop_map(|(who, bucket, address, muted)| Command::SetMuted { who, bucket, address, muted }),
        1 => (person(), bucket(), 1..9_u8)
            .prop_map(|(who, bucket, options)| Command::SetOptions { who, bucket, options }),
        1 => (person(), bucket()).prop_map(|(who, bucket)| Command::SendFeedback { who, bucket }),
    ]
}

fn buckets() -> impl Strategy<Value = Command> {
    let waits = prop_oneof![Just(1), Just(41), Just(91), Just(301), Just(601), Just(DAY), Just(8 * DAY)];
    prop_oneof![
        3 => (person(), 1..6_u8)
            .prop_map(|(who, no)| Command::Create { who, bucket: BucketNo(no), secret: SecretNo(no) }),
        3 => (person(), bucket(), prop::option::of(1..9_u8), prop::option::of(1..9_u8))
            .prop_map(|(who, bucket, name, comment)| Command::Update { who, bucket, name, comment }),
        1 => (person(), bucket()).prop_map(|(who, bucket)| Command::Delete { who, bucket }),
        1 => bucket().prop_map(|bucket| Command::Clear { bucket }),
        2 => waits.prop_map(|seconds| Command::Wait { seconds }),
        1 => bucket().prop_map(|bucket| Command::LeaseMail { bucket }),
        1 => bucket().prop_map(|bucket| Command::NoteMail { bucket }),
        1 => bucket().prop_map(|bucket| Command::ReturnMail { bucket }),
    ]
}

fn servers() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (bucket(), secret(), server())
            .prop_map(|(bucket, secret, server)| Command::Link { bucket, secret, server }),
        3 => (bucket(), secret(), server(), connection()).prop_map(|(bucket, secret, server, connection)| {
            Command::Connect { bucket, secret, server, connection }
        }),
        2 => (connection(), prop::bool::weighted(0.2))
            .prop_map(|(connection, oversized)| Command::Disconnect { connection, oversized }),
        1 => (0..2_u8, any::<u8>()).prop_map(|(from, guess)| Command::Guess { from, guess }),
        2 => (person(), bucket(), server())
            .prop_map(|(who, bucket, server)| Command::DeleteServer { who, bucket, server }),
        1 => (person(), bucket(), 6..20_u8)
            .prop_map(|(who, bucket, no)| Command::RotateSecret { who, bucket, secret: SecretNo(no) }),
    ]
}

fn money() -> impl Strategy<Value = Command> {
    let ends = prop::option::of(prop_oneof![Just(0), Just(DAY)]);
    prop_oneof![
        5 => (person(), bucket(), plan())
            .prop_map(|(who, bucket, plan)| Command::SwitchPlan { who, bucket, plan }),
        2 => (person(), bucket()).prop_map(|(who, bucket)| Command::ClaimTrial { who, bucket }),
        2 => (bucket(), plan(), ends, prop::option::of((0..3_u8).prop_map(EventNo)))
            .prop_map(|(bucket, plan, ends_in, event)| Command::Told { bucket, plan, ends_in, event }),
        1 => (0..3_u8).prop_map(|event| Command::NoteEvent { event: EventNo(event) }),
        2 => (person(), bucket(), change())
            .prop_map(|(who, bucket, change)| Command::BeginChange { who, bucket, change }),
        1 => (bucket(), change()).prop_map(|(bucket, change)| Command::NoteCall { bucket, change }),
        2 => (person(), bucket(), change(), plan(), any::<bool>()).prop_map(
            |(who, bucket, change, plan, replaced)| {
                Command::EndChange { who, bucket, change, plan, replaced }
            }
        ),
        1 => (bucket(), change()).prop_map(|(bucket, change)| Command::DropChange { bucket, change }),
        1 => (bucket(), change()).prop_map(|(bucket, change)| Command::LeaveChange { bucket, change }),
        1 => (person(), bucket(), address(), change(), plan()).prop_map(
            |(who, bucket, address, change, plan)| {
                Command::TransferPaid { who, bucket, address, change, plan }
            }
        ),
        1 => (person(), 1..4_u8, prop::option::of(1..4_u8))
            .prop_map(|(who, customer, before)| Command::SetCustomer { who, customer, before }),
    ]
}

/// A story told line by line.
#[derive(Debug)]
pub struct Told<'s> {
    /// What came first.
    pub setting: &'s [Command],
    /// What happened then, one after another.
    pub sequence: &'s [Command],
    /// What happened at last, all at once.
    pub actors: &'s [Vec<Command>],
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for command in self.setting.iter().chain(self.sequence) {
            writeln!(f, "  {command}")?;
        }
        if !self.actors.is_empty() {
            writeln!(f, "  and then at once:")?;
        }
        for (number, commands) in self.actors.iter().enumerate() {
            for command in commands {
                writeln!(f, "    [{}] {command}", number + 1)?;
            }
        }
        Ok(())
    }
}
