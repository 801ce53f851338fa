//! Scenes, and the changes that may happen in each at the same time.

use shared::domain::{PlanName, Plans, PlansError, Role};

use crate::model::{
    Address, BucketNo, ChangeNo, Command, ConnectionNo, DAY, EventNo, INVITATION_DAYS, Person, SecretNo,
    ServerNo, State,
};

/// Plans by which each change of plan takes something away: a trial too, which a deployment may well do.
const PLANS: &str = r#"{
    "free": { "seats": 5, "servers": 2, "self_service": true },
    "small": { "seats": 4, "servers": 1, "self_service": true },
    "pro": { "seats": 6, "servers": 3, "self_service": true },
    "trial": { "seats": 4, "servers": 1, "trial_days": 14, "self_service": true }
}"#;

/// Plans by which a trial gives something.
const WITH_LARGE_TRIAL: &str = r#"{
    "free": { "seats": 5, "servers": 2, "self_service": true },
    "small": { "seats": 4, "servers": 1, "self_service": true },
    "trial": { "seats": 6, "servers": 3, "trial_days": 14, "self_service": true }
}"#;

/// A scene.
#[derive(Debug)]
pub struct Scene {
    /// What it is called.
    pub title: &'static str,
    /// The plans of the deployment.
    plans: &'static str,
    /// What has happened.
    pub commands: Vec<Command>,
    /// What may happen at once.
    pub changes: Vec<Change>,
}

/// Something that one actor does.
#[derive(Clone, Debug)]
pub struct Change {
    /// What it is called.
    pub title: &'static str,
    /// What the first actor does, and what another one does who wants the same.
    pub commands: [Vec<Command>; 2],
}

const ANN: Person = Person(0);
const BOB: Person = Person(1);
const CLEO: Person = Person(2);
const DAN: Person = Person(3);
const EVE: Person = Person(4);
const BUCKET: BucketNo = BucketNo(0);
const SECRET: SecretNo = SecretNo(0);
const SERVER: ServerNo = ServerNo(0);

fn plan(name: &str) -> PlanName {
    PlanName::from(name.to_owned())
}

fn once(title: &'static str, command: Command) -> Change {
    let commands = vec![command];
    Change { title, commands: [commands.clone(), commands] }
}

/// A change that gives something a name, which others cannot give too.
fn naming(title: &'static str, command: impl Fn(u8) -> Vec<Command>) -> Change {
    Change { title, commands: [command(10), command(11)] }
}

fn sign_in(who: Person, address: Address, at: u32) -> Command {
    Command::SignIn { who, address, at }
}

fn invite(who: Person, address: u8, role: Role) -> Command {
    Command::Invite { who, bucket: BUCKET, address: Address(address), role }
}

fn set_role(address: u8, role: Role) -> Command {
    Command::SetRole { who: ANN, bucket: BUCKET, address: Address(address), role }
}

fn transfer(address: u8) -> Command {
    Command::Transfer { who: ANN, bucket: BUCKET, address: Address(address) }
}

fn remove(who: Person, address: u8) -> Command {
    Command::RemoveUser { who, bucket: BUCKET, address: Address(address) }
}

fn deletes() -> Change {
    once("Ann deletes it", Command::Delete { who: ANN, bucket: BUCKET })
}

fn smaller_plan() -> Change {
    once("Ann puts it on a smaller plan", switch_plan("small"))
}

fn switch_plan(name: &str) -> Command {
    Command::SwitchPlan { who: ANN, bucket: BUCKET, plan: plan(name) }
}

fn trial() -> Change {
    once("Ann begins its trial", Command::ClaimTrial { who: ANN, bucket: BUCKET })
}

fn links(title: &'static str, server: u8) -> Change {
    once(title, link(server))
}

fn link(server: u8) -> Command {
    Command::Link { bucket: BUCKET, secret: SECRET, server: ServerNo(server) }
}

fn demotes_bob() -> Change {
    once("Ann demotes Bob", set_role(1, Role::User))
}

fn removes_bob() -> Change {
    once("Ann removes Bob", remove(ANN, 1))
}

fn hands_over_to_bob() -> Change {
    once("Ann hands over to Bob", transfer(1))
}

fn adds_dan() -> Change {
    once("Bob adds Dan", invite(BOB, 3, Role::Developer))
}

fn invites_stranger() -> Change {
    once("Bob invites a stranger", invite(BOB, 5, Role::Developer))
}

fn eve_signs_in() -> Change {
    once("Eve signs in", sign_in(EVE, Address(4), 1))
}

fn creates_another() -> Change {
    naming("Ann creates another", |no| {
        vec![Command::Create { who: ANN, bucket: BucketNo(no), secret: SecretNo(no) }]
    })
}

fn begins_change() -> Change {
    naming("Ann begins a change", |no| {
        vec![Command::BeginChange { who: ANN, bucket: BUCKET, change: ChangeNo(no) }]
    })
}

/// Ann's bucket, with the admin Bob and the user Cleo; Dan has signed in and is not in it; Eve was invited
/// by Bob and has not come. One seat is left, and one place for a server; the first server is connected.
fn beginning() -> Vec<Command> {
    vec![
        sign_in(ANN, Address(0), 1),
        sign_in(BOB, Address(1), 1),
        sign_in(CLEO, Address(2), 1),
        sign_in(DAN, Address(3), 1),
        Command::Create { who: ANN, bucket: BUCKET, secret: SECRET },
        invite(ANN, 1, Role::Admin),
        invite(ANN, 2, Role::User),
        invite(BOB, 4, Role::Developer),
        link(0),
        Command::Connect { bucket: BUCKET, secret: SECRET, server: SERVER, connection: ConnectionNo(0) },
    ]
}

fn people() -> Vec<Change> {
    vec![
        eve_signs_in(),
        once("Cleo moves", sign_in(CLEO, Address(6), 2)),
        once("Cleo moves to an earlier token's address", sign_in(CLEO, Address(7), 1)),
        once("Dan moves to Eve's address", sign_in(DAN, Address(4), 2)),
        once("Cleo moves on and is cut off", Command::SignInCutOff { who: CLEO, address: Address(7), at: 3 }),
        Change {
            title: "Cleo moves and comes back",
            commands: [(); 2].map(|()| vec![sign_in(CLEO, Address(7), 4), sign_in(CLEO, Address(2), 5)]),
        },
        once("Bob moves", sign_in(BOB, Address(8), 2)),
        once("Ann moves", sign_in(ANN, Address(9), 2)),
        once("Ann invites a stranger", invite(ANN, 5, Role::User)),
        invites_stranger(),
        adds_dan(),
        once("Bob invites Eve again", invite(BOB, 4, Role::Admin)),
        once("Ann invites Eve again", invite(ANN, 4, Role::User)),
        once(
            "Bob removes Eve's invitation",
            Command::RemoveInvitation { who: BOB, bucket: BUCKET, address: Address(4) },
        ),
        once("Ann removes Cleo", remove(ANN, 2)),
        removes_bob(),
        once("Cleo leaves", remove(CLEO, 2)),
        once("Bob leaves", remove(BOB, 1)),
        demotes_bob(),
        once("Ann demotes herself", set_role(0, Role::User)),
        once("Ann promotes Cleo", set_role(2, Role::Admin)),
        hands_over_to_bob(),
        once("Ann hands over to Cleo", transfer(2)),
        once(
            "Bob mutes Cleo",
            Command::SetMuted { who: BOB, bucket: BUCKET, address: Address(2), muted: true },
        ),
        once(
            "Cleo mutes herself",
            Command::SetMuted { who: CLEO, bucket: BUCKET, address: Address(2), muted: true },
        ),
        once("Cleo sets options", Command::SetOptions { who: CLEO, bucket: BUCKET, options: 3 }),
        once("Cleo sends feedback", Command::SendFeedback { who: CLEO, bucket: BUCKET }),
    ]
}

fn of_the_bucket() -> Vec<Change> {
    vec![
        creates_another(),
        once("Ann renames it", Command::Update { who: ANN, bucket: BUCKET, name: Some(7), comment: None }),
        once("Ann describes it", Command::Update { who: ANN, bucket: BUCKET, name: None, comment: Some(8) }),
        deletes(),
        Change {
            title: "Ann deletes it, and it is cleared",
            commands: [(); 2].map(|()| {
                vec![Command::Delete { who: ANN, bucket: BUCKET }, Command::Clear { bucket: BUCKET }]
            }),
        },
        once("it is cleared", Command::Clear { bucket: BUCKET }),
        smaller_plan(),
        trial(),
        once("its mail is about to be sent", Command::LeaseMail { bucket: BUCKET }),
        once("its mail was sent", Command::NoteMail { bucket: BUCKET }),
    ]
}

fn servers() -> Vec<Change> {
    vec![
        naming("Ann rotates the secret", |no| {
            vec![Command::RotateSecret { who: ANN, bucket: BUCKET, secret: SecretNo(no) }]
        }),
        links("the first agent reports", 0),
        links("a second agent links", 1),
        links("a third agent links", 2),
        naming("the first agent connects", |no| {
            let connection = ConnectionNo(no);
            vec![Command::Connect { bucket: BUCKET, secret: SECRET, server: SERVER, connection }]
        }),
        once("the connection ends", Command::Disconnect { connection: ConnectionNo(0), oversized: false }),
        once(
            "the connection ends for its size",
            Command::Disconnect { connection: ConnectionNo(0), oversized: true },
        ),
    ]
}

fn told(ends_in: Option<u32>, event: Option<u8>) -> Command {
    Command::Told { bucket: BUCKET, plan: plan("small"), ends_in, event: event.map(EventNo) }
}

/// Everything about people, the bucket and its servers.
fn common() -> Scene {
    let changes = [people(), of_the_bucket(), servers()].into_iter().flatten();
    Scene { title: "a bucket", plans: PLANS, commands: beginning(), changes: changes.collect() }
}

/// The first server is no longer connected, and may be deleted.
fn quiet_server() -> Scene {
    let mut commands = beginning();
    commands.push(Command::Disconnect { connection: ConnectionNo(0), oversized: false });
    let mut changes = servers();
    changes.extend([
        once("Bob deletes the server", Command::DeleteServer { who: BOB, bucket: BUCKET, server: SERVER }),
        demotes_bob(),
        removes_bob(),
        deletes(),
        smaller_plan(),
        trial(),
    ]);
    Scene { title: "a server that is quiet", plans: PLANS, commands, changes }
}

/// The last seat is Eve's, whose invitation has expired.
fn expired() -> Scene {
    let mut commands = beginning();
    commands.push(invite(ANN, 5, Role::User));
    commands.push(Command::Wait { seconds: INVITATION_DAYS * DAY });
    let mut changes = vec![
        eve_signs_in(),
        once("Ann invites a stranger again", invite(ANN, 5, Role::User)),
        adds_dan(),
        once("Bob invites Eve again", invite(BOB, 4, Role::Admin)),
        demotes_bob(),
        once("Ann removes Cleo", remove(ANN, 2)),
    ];
    changes.extend([
        deletes(),
        once(
            "Bob removes the stranger's invitation",
            Command::RemoveInvitation { who: BOB, bucket: BUCKET, address: Address(5) },
        ),
        once("Ann invites another stranger", invite(ANN, 6, Role::User)),
    ]);
    Scene { title: "a full bucket whose invitations have expired", plans: PLANS, commands, changes }
}

/// Cleo was invited under another address too, and Bob's invitation of Eve waits for an admin's role.
fn two_addresses() -> Scene {
    let mut commands = beginning();
    commands.push(invite(BOB, 6, Role::Admin));
    let changes = vec![
        once("Cleo moves to the invited address", sign_in(CLEO, Address(6), 2)),
        once("Cleo moves elsewhere", sign_in(CLEO, Address(7), 3)),
        once("Cleo leaves", remove(CLEO, 2)),
        once("Ann removes Cleo", remove(ANN, 2)),
        once("Dan moves to the invited address", sign_in(DAN, Address(6), 2)),
        once("Bob invites the address again", invite(BOB, 6, Role::User)),
        once(
            "Bob removes the invitation",
            Command::RemoveInvitation { who: BOB, bucket: BUCKET, address: Address(6) },
        ),
        demotes_bob(),
        removes_bob(),
        deletes(),
    ];
    Scene { title: "somebody with two addresses", plans: PLANS, commands, changes }
}

/// An inviter who can no longer grant what he has promised, and may be promoted again.
fn demoted_inviter() -> Scene {
    let mut commands = beginning();
    commands.push(set_role(1, Role::User));
    let changes = vec![
        eve_signs_in(),
        once("Ann promotes Bob", set_role(1, Role::Admin)),
        removes_bob(),
        once("Ann invites Eve again", invite(ANN, 4, Role::Developer)),
    ];
    Scene { title: "an inviter who was demoted", plans: PLANS, commands, changes }
}

/// Ann and Bob each own as many buckets as one may but one.
fn owners() -> Scene {
    let mut commands = beginning();
    let (second, third) = (BucketNo(1), BucketNo(2));
    commands.extend([
        Command::Create { who: BOB, bucket: second, secret: SecretNo(1) },
        Command::Invite { who: BOB, bucket: second, address: Address(0), role: Role::Admin },
        Command::Create { who: CLEO, bucket: third, secret: SecretNo(2) },
        Command::Invite { who: CLEO, bucket: third, address: Address(1), role: Role::Admin },
    ]);
    let changes = vec![
        creates_another(),
        naming("Bob creates another", |no| {
            vec![Command::Create { who: BOB, bucket: BucketNo(no + 2), secret: SecretNo(no + 2) }]
        }),
        hands_over_to_bob(),
        once("Bob hands over to Ann", Command::Transfer { who: BOB, bucket: second, address: Address(0) }),
        once("Cleo hands over to Bob", Command::Transfer { who: CLEO, bucket: third, address: Address(1) }),
        once("Ann deletes hers", Command::Delete { who: ANN, bucket: BUCKET }),
        once("Bob deletes his", Command::Delete { who: BOB, bucket: second }),
        trial(),
        once("Bob begins his trial", Command::ClaimTrial { who: BOB, bucket: second }),
        Change {
            title: "Ann hands over to Bob, who begins its trial",
            commands: [(); 2].map(|()| vec![transfer(1), Command::ClaimTrial { who: BOB, bucket: BUCKET }]),
        },
    ];
    Scene { title: "owners at their limit", plans: PLANS, commands, changes }
}

/// A subscription pays for the bucket, and a change of it is under way.
fn paying() -> Scene {
    let mut commands = beginning();
    let (change, free) = (ChangeNo(0), plan("free"));
    commands.extend([
        Command::Told { bucket: BUCKET, plan: free.clone(), ends_in: None, event: None },
        Command::BeginChange { who: ANN, bucket: BUCKET, change },
    ]);
    let end =
        |replaced| Command::EndChange { who: ANN, bucket: BUCKET, change, plan: free.clone(), replaced };
    let mut changes = vec![
        once("the call is noted", Command::NoteCall { bucket: BUCKET, change }),
        once("the change ends", end(false)),
        once("the change ends but for what it replaced", end(true)),
        once("the change is dropped", Command::DropChange { bucket: BUCKET, change }),
        once("the change is left", Command::LeaveChange { bucket: BUCKET, change }),
        Change {
            title: "the change is dropped, and another begins",
            commands: [10, 11].map(|no| {
                vec![
                    Command::DropChange { bucket: BUCKET, change },
                    Command::BeginChange { who: ANN, bucket: BUCKET, change: ChangeNo(no) },
                ]
            }),
        },
        Change {
            title: "the change is dropped, and another begins and is left",
            commands: [10, 11].map(|no| {
                vec![
                    Command::DropChange { bucket: BUCKET, change },
                    Command::BeginChange { who: ANN, bucket: BUCKET, change: ChangeNo(no) },
                    Command::LeaveChange { bucket: BUCKET, change: ChangeNo(no) },
                ]
            }),
        },
        Change {
            title: "the change is left, and taken over",
            commands: [10, 11].map(|no| {
                vec![
                    Command::LeaveChange { bucket: BUCKET, change },
                    Command::BeginChange { who: ANN, bucket: BUCKET, change: ChangeNo(no) },
                ]
            }),
        },
        once(
            "Ann hands over to Bob, who pays",
            Command::TransferPaid {
                who: ANN,
                bucket: BUCKET,
                address: Address(1),
                change,
                plan: free.clone(),
            },
        ),
        invites_stranger(),
        links("a second agent links", 1),
    ];
    changes.extend(told_things());
    Scene { title: "a bucket that is paid for", plans: PLANS, commands, changes }
}

fn told_things() -> Vec<Change> {
    vec![
        once("Stripe tells of an end", told(Some(0), None)),
        once("Stripe tells of a coming end", told(Some(DAY), None)),
        once("Stripe tells of a plan by an event", told(None, Some(0))),
        once("Stripe tells the event", Command::NoteEvent { event: EventNo(0) }),
    ]
}

/// What was paid for has ended, or is about to.
fn ending() -> Scene {
    let mut commands = beginning();
    commands.extend([
        Command::Told { bucket: BUCKET, plan: plan("free"), ends_in: Some(0), event: None },
        Command::Told { bucket: BUCKET, plan: plan("free"), ends_in: Some(0), event: None },
    ]);
    let mut changes = vec![
        deletes(),
        smaller_plan(),
        hands_over_to_bob(),
        begins_change(),
        naming("Ann begins a change that leads to a plan", |no| {
            let (change, plan) = (ChangeNo(no), plan("small"));
            vec![
                Command::BeginChange { who: ANN, bucket: BUCKET, change },
                Command::EndChange { who: ANN, bucket: BUCKET, change, plan, replaced: false },
            ]
        }),
        trial(),
        invites_stranger(),
        adds_dan(),
        links("a second agent links", 1),
    ];
    changes.extend(told_things());
    Scene { title: "a bucket that was paid for", plans: PLANS, commands, changes }
}

/// Nothing was ever paid for.
fn unpaid() -> Scene {
    let customer = |customer, before| Command::SetCustomer { who: ANN, customer, before };
    let mut changes = vec![
        deletes(),
        smaller_plan(),
        hands_over_to_bob(),
        begins_change(),
        once("Ann becomes a customer", customer(1, None)),
        once("Ann becomes another customer", customer(2, None)),
    ];
    changes.extend(told_things());
    Scene { title: "a bucket that nobody has paid for", plans: PLANS, commands: beginning(), changes }
}

/// Ann is a customer already.
fn customers() -> Scene {
    let customer = |customer, before| Command::SetCustomer { who: ANN, customer, before };
    let mut commands = beginning();
    commands.push(customer(1, None));
    let changes = vec![
        once("Ann becomes another customer", customer(2, Some(1))),
        once("Ann becomes a third customer", customer(3, Some(1))),
        once("Ann becomes a customer as if for the first time", customer(3, None)),
    ];
    Scene { title: "a customer", plans: PLANS, commands, changes }
}

/// The plan that gives the last seat and the last place is about to end, or to be told to end.
fn full_by(title: &'static str, plans: &'static str, by: Vec<Command>, ends: Vec<Change>) -> Scene {
    let mut commands = beginning();
    commands.extend(by);
    commands.extend([invite(ANN, 5, Role::User), link(1)]);
    let mut changes = vec![
        once("Bob invites a stranger", invite(BOB, 6, Role::Developer)),
        adds_dan(),
        links("a third agent links", 2),
    ];
    changes.extend(ends);
    Scene { title, plans, commands, changes }
}

fn told_of_pro(ends_in: Option<u32>) -> Command {
    Command::Told { bucket: BUCKET, plan: plan("pro"), ends_in, event: None }
}

fn large_plans() -> [Scene; 3] {
    let its_end = || vec![once("Stripe tells that it has ended", told_of_pro(Some(0)))];
    let and_back = ["small", "free"].map(switch_plan).to_vec();
    [
        full_by("a paid plan", PLANS, vec![told_of_pro(None)], its_end()),
        full_by("a paid plan that will end", PLANS, vec![told_of_pro(Some(DAY))], its_end()),
        full_by(
            "a trial",
            WITH_LARGE_TRIAL,
            vec![Command::ClaimTrial { who: ANN, bucket: BUCKET }],
            vec![Change {
                title: "Ann puts it on another plan and back",
                commands: [and_back.clone(), and_back],
            }],
        ),
    ]
}

/// Nobody has guessed keys for a while, or somebody just has.
fn guesses() -> [Scene; 2] {
    let guess = |guess| Command::Guess { from: 1, guess };
    let changes = || {
        vec![
            naming("keys are guessed", |no| vec![guess(no)]),
            naming("keys are guessed twice", |no| vec![guess(no), guess(no + 2)]),
        ]
    };
    let before =
        |commands| Scene { title: "keys that were guessed", plans: PLANS, commands, changes: changes() };
    [
        before(vec![guess(0)]),
        Scene {
            title: "keys that were guessed a while ago",
            ..before(vec![guess(0), Command::Wait { seconds: 601 }])
        },
    ]
}

/// All scenes.
#[must_use]
pub fn scenes() -> Vec<Scene> {
    let mut scenes =
        vec![customers(), demoted_inviter(), unpaid(), quiet_server(), owners(), paying(), ending()];
    scenes.extend(large_plans());
    scenes.extend(guesses());
    scenes.extend([common(), expired(), two_addresses()]);
    scenes
}

impl Scene {
    /// What is so before it is set.
    ///
    /// # Errors
    /// Its plans are wrong.
    pub fn nothing(&self) -> Result<State, PlansError> {
        Ok(State::new(Plans::from_json(self.plans)?))
    }
}
