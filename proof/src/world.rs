//! The real thing: the store over a table, used as the functions use it.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use serde_json::json;
use shared::{
    domain::{
        AppUrl, BucketChanges, BucketId, BucketName, Comment, Email, GrantableRole, Member, NewBucket,
        NotificationState, PlanName, Plans, Report, Right, Role, ServerName, Subscription,
        SubscriptionStatus, Target, Timestamp, UserId, UserOptions, Username,
    },
    store::{
        Action, AgentError, AgentKeys, AuditEntry, BillingCall, BillingError, CHANGE_ATTEMPTS, ChangeEnd,
        CreateError, DeleteError, Invite, Kept, Lease, NewChange, PeopleError, PlanError, RegisterError,
        ServerError, Store, StoreError, TrialError, UpdateError, before_attempt,
    },
};

use crate::{
    engine::{Engine, EngineError, TABLE},
    model::{
        Address, Answer, BUCKETS_PER_OWNER, BucketNo, ChangeNo, Command, ConnectionNo, EventNo,
        INVITATION_DAYS, No, Outcome, Person, SecretNo, ServerNo, State, Time,
    },
    table,
};

/// When every story begins: 2026-01-01, in seconds since 1970.
const BEGINNING: i64 = 1_767_225_600;

/// Why a command has no outcome that can be compared.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The store gave up, or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The table could not be looked at.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The command cannot be put into the store's terms.
    #[error("no such thing in this story: {0}")]
    Story(String),
}

/// Whether a route looks at the caller's right before it asks the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As the functions do.
    Careful,
    /// As a function would that forgot to: the store has to refuse by itself.
    Careless,
}

/// What the things of a story are called in the table.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub(crate) buckets: BTreeMap<BucketNo, BucketId>,
    pub(crate) public_ids: BTreeMap<BucketNo, String>,
    pub(crate) secrets: BTreeMap<SecretNo, String>,
    pub(crate) changes: BTreeMap<ChangeNo, String>,
    pub(crate) mails: BTreeMap<BucketNo, String>,
}

/// The store over an engine's table, and what things are called there.
pub struct World {
    engine: Engine,
    plans: Plans,
    names: Mutex<Names>,
}

impl fmt::Debug for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("World").field("engine", &self.engine).finish_non_exhaustive()
    }
}

pub(crate) fn user_id(person: Person) -> UserId {
    UserId::of_subject("https://identity.example.com", &person.to_string())
}

pub(crate) fn email(address: Address) -> Result<Email, Broken> {
    Email::parse(&address.to_string()).map_err(|error| Broken::Story(error.to_string()))
}

pub(crate) fn at(time: Time) -> Timestamp {
    Timestamp::from_seconds(BEGINNING + i64::from(time))
}

/// The time of a story that is `millis` after 1970.
pub(crate) fn time(millis: i64) -> Option<Time> {
    Time::try_from(millis / 1_000 - BEGINNING).ok()
}

fn server_name(server: ServerNo) -> Result<ServerName, Broken> {
    ServerName::try_from(format!("server-{}", server.0)).map_err(|error| Broken::Story(error.to_string()))
}

fn connection_id(connection: ConnectionNo) -> String {
    format!("connection-{}", connection.0)
}

fn event_id(event: EventNo) -> String {
    format!("evt_{}", event.0)
}

fn parsed<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, Broken> {
    serde_json::from_value(value).map_err(|error| Broken::Story(error.to_string()))
}

/// The number that a text ends with.
pub(crate) fn number(text: &str) -> Option<u8> {
    text.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What is told of a bucket's subscription: to the end, or for so many seconds, of which none means that it
/// has ended.
fn subscription(plan: &PlanName, ends_in: Option<u32>, now: Timestamp) -> Subscription {
    let ends = ends_in.map(|seconds| now.plus_seconds(seconds));
    let is_over = ends_in == Some(0);
    Subscription {
        id: "sub_1".to_owned(),
        item: "si_1".to_owned(),
        customer: "cus_1".to_owned(),
        plan: plan.clone(),
        status: if is_over { SubscriptionStatus::Canceled } else { SubscriptionStatus::Active },
        period_start: now,
        period_end: ends.unwrap_or_else(|| now.plus_days(30)),
        cancel_at: ends.filter(|_| !is_over),
        canceled_at: ends.map(|_| now),
        trial_end: None,
        payment_failed: false,
    }
}

impl World {
    /// An empty table of `engine`, in which `plans` hold.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn new(engine: Engine, plans: Plans) -> Result<Self, EngineError> {
        engine.make_table().await?;
        Ok(Self { engine, plans, names: Mutex::default() })
    }

    /// A store over the table.
    #[must_use]
    pub fn store(&self) -> Store {
        self.store_by(|connector| connector)
    }

    /// A store over the table, each of whose calls goes the way that `wrap` makes.
    pub fn store_by(
        &self,
        wrap: impl Fn(SharedHttpConnector) -> SharedHttpConnector + Send + Sync + 'static,
    ) -> Store {
        Store::new(&self.engine.aws(wrap), TABLE, &self.plans)
    }

    /// Where the table is.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What things are called.
    pub fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is so in the table.
    ///
    /// # Errors
    /// The table cannot be read, or breaks an invariant: then a text says which.
    pub async fn state(&self, now: Time) -> Result<Result<State, String>, EngineError> {
        let rows = self.engine.rows().await?;
        Ok(table::state(&rows, &self.names(), &self.plans, now))
    }

    fn bucket_id(&self, bucket: BucketNo) -> Option<BucketId> {
        self.names().buckets.get(&bucket).cloned()
    }

    /// Carries out `command` by `store` at `now`.
    ///
    /// # Errors
    /// The store gave up or failed.
    pub async fn perform(
        &self,
        store: &Store,
        command: &Command,
        now: Time,
        manner: Manner,
    ) -> Result<Outcome, Broken> {
        let caller = Caller { world: self, store, now: at(now), manner };
        Box::pin(caller.perform(command)).await.or_else(|end| match end {
            End::No(no) => Ok(Err(no)),
            End::Broken(broken) => Err(broken),
        })
    }
}

/// How a command ends that does not succeed.
enum End {
    No(No),
    Broken(Broken),
}

impl From<No> for End {
    fn from(no: No) -> Self {
        Self::No(no)
    }
}

macro_rules! ends {
    ($($error:ty),*) => {$(
        impl From<$error> for End {
            fn from(error: $error) -> Self {
                Self::Broken(error.into())
            }
        }
    )*};
}

ends!(Broken, StoreError, EngineError);

impl From<PeopleError> for End {
    fn from(error: PeopleError) -> Self {
        Self::No(match error {
            PeopleError::BucketNotFound => No::BucketNotFound,
            PeopleError::RoleTooLow(_) => No::RoleTooLow,
            PeopleError::SeatLimit { .. } => No::SeatLimit,
            PeopleError::AlreadyMember => No::AlreadyMember,
            PeopleError::UserNotFound => No::UserNotFound,
            PeopleError::InvitationNotFound => No::InvitationNotFound,
            PeopleError::OwnerStays => No::OwnerStays,
            PeopleError::OwnerRoleFixed => No::OwnerRoleFixed,
            PeopleError::AlreadyOwner => No::AlreadyOwner,
            PeopleError::NewOwnerLimit { .. } => No::BucketLimit,
            PeopleError::Paid => No::Paid,
            PeopleError::Changed => No::Changed,
            PeopleError::Store(error) => return error.into(),
        })
    }
}

impl From<BillingError> for End {
    fn from(error: BillingError) -> Self {
        Self::No(match error {
            BillingError::BucketNotFound => No::BucketNotFound,
            BillingError::NotOwner(_) => No::RoleTooLow,
            BillingError::Busy => No::Busy,
            // One that was left unfinished is met only where another begins, which has its own answer.
            BillingError::Unfinished(_) | BillingError::Changed => No::Changed,
            BillingError::EventSeen => No::EventSeen,
            BillingError::Store(error) => return error.into(),
        })
    }
}

impl From<AgentError> for End {
    fn from(error: AgentError) -> Self {
        Self::No(match error {
            AgentError::WrongKeys => No::WrongKeys,
            AgentError::ServerLimit { .. } => No::ServerLimit,
            AgentError::Oversized => No::Oversized,
            AgentError::NotLinked => No::NotLinked,
            AgentError::Changed => No::Changed,
            AgentError::TooManyAttempts => No::TooManyGuesses,
            AgentError::Store(error) => return error.into(),
        })
    }
}

/// Somebody who asks.
struct Caller<'w> {
    world: &'w World,
    store: &'w Store,
    now: Timestamp,
    manner: Manner,
}

/// Where a caller is in a bucket.
struct Access {
    me: UserId,
    bucket: shared::domain::Bucket,
    member: Option<Member>,
}

impl Caller<'_> {
    /// As [`shared::App::access`], for people who have signed in. Without care, any live bucket.
    async fn access(&self, who: Person, bucket: BucketNo) -> Result<Access, End> {
        let me = user_id(who);
        let Some(id) = self.world.bucket_id(bucket) else { return Err(No::BucketNotFound.into()) };
        let found = match self.manner {
            Manner::Careful => {
                self.store.membership(&id, &me).await?.map(|(bucket, member)| (bucket, Some(member)))
            }
            Manner::Careless => self.store.bucket(&id).await?.map(|bucket| (bucket, None)),
        };
        let (bucket, member) = found.ok_or(No::BucketNotFound)?;
        Ok(Access { me, bucket, member })
    }

    /// As [`shared::Access::require`].
    async fn with_right(&self, who: Person, bucket: BucketNo, right: Right) -> Result<Access, End> {
        let access = self.access(who, bucket).await?;
        access.require(right)?;
        Ok(access)
    }

    /// As [`shared::Access::user_at`].
    async fn user_at(&self, address: Address) -> Result<Target, End> {
        let email = email(address)?;
        let id = self.store.user_of_address(&email).await?.ok_or(No::UserNotFound)?;
        Ok(Target { id, email })
    }

    fn answer(bucket: &shared::domain::Bucket) -> Result<Outcome, End> {
        let number = |text: &str| number(text).unwrap_or_default();
        let owner = table::person(bucket.owner_id.as_str()).map_err(Broken::Story)?;
        let (name, comment) = (number(bucket.name.as_str()), number(bucket.comment.as_str()));
        Ok(Ok(Answer::Bucket { name, comment, plan: bucket.plan.clone(), owner }))
    }

    async fn perform(&self, command: &Command) -> Result<Outcome, End> {
        let (store, now) = (self.store, self.now);
        match command {
            Command::Wait { .. } => {}
            Command::SignIn { who, address, at } => return self.sign_in(*who, *address, *at, false).await,
            Command::SignInCutOff { who, address, at } => {
                return self.sign_in(*who, *address, *at, true).await;
            }
            Command::Create { who, bucket, secret } => self.create(*who, *bucket, *secret).await?,
            Command::Update { who, bucket, name, comment } => {
                let Access { me, bucket, .. } = self.with_right(*who, *bucket, Right::Update).await?;
                let changes = BucketChanges {
                    name: name.map(bucket_name).transpose()?,
                    comment: comment.map(self::comment).transpose()?,
                    ..BucketChanges::default()
                };
                return match store.update_bucket(bucket, &me, changes, now).await {
                    Ok(bucket) => Self::answer(&bucket),
                    Err(UpdateError::BucketNotFound) => Err(No::BucketNotFound.into()),
                    Err(UpdateError::NotOwner) => Err(No::RoleTooLow.into()),
                    Err(UpdateError::Changed) => Err(No::Changed.into()),
                    Err(UpdateError::Store(error)) => Err(error.into()),
                };
            }
            Command::Delete { who, bucket } => self.delete(*who, *bucket).await?,
            Command::Clear { bucket } => {
                let Some(id) = self.world.bucket_id(*bucket) else { return Ok(Ok(Answer::Done)) };
                match store.clear_deleted_bucket(&id).await {
                    Err(StoreError::Refused(text)) if text.contains("lives") => return Err(No::Lives.into()),
                    outcome => outcome?,
                }
            }
            Command::Invite { who, bucket, address, role } => {
                let Access { me, bucket, .. } = self.with_right(*who, *bucket, Right::Invite).await?;
                let (email, role) = (email(*address)?, grantable(*role)?);
                let invite = Invite { actor: &me, email: &email, role, lifetime: INVITATION_DAYS, now };
                store.invite(bucket, &invite).await?;
            }
            Command::RemoveInvitation { who, bucket, address } => {
                let access = self.with_right(*who, *bucket, Right::Invite).await?;
                store.remove_invitation(&access.bucket.id, &access.me, &email(*address)?, now).await?;
            }
            Command::RemoveUser { who, bucket, address } => {
                let access = self.access(*who, *bucket).await?;
                if !access.is_at(*address)? {
                    access.require(Right::RemoveUser)?;
                }
                let target = self.user_at(*address).await?;
                store.remove_user(&access.bucket.id, &access.me, &target, now).await?;
            }
            Command::SetRole { who, bucket, address, role } => {
                let access = self.with_right(*who, *bucket, Right::SetRole).await?;
                let target = self.user_at(*address).await?;
                store.set_role(&access.bucket.id, &access.me, &target, grantable(*role)?, now).await?;
            }
            Command::Transfer { who, bucket, address } => {
                let access = self.with_right(*who, *bucket, Right::Transfer).await?;
                let target = self.user_at(*address).await?;
                let limit = BUCKETS_PER_OWNER;
                let bucket = store.transfer(&access.bucket.id, &access.me, &target, limit, now).await?;
                return Self::answer(&bucket);
            }
            Command::TransferPaid { who, bucket, address, change, plan } => {
                let access = self.with_right(*who, *bucket, Right::Transfer).await?;
                let target = self.user_at(*address).await?;
                let billing = store.billing(&access.bucket.id).await?;
                let change = self.change_id(*change);
                let moved = Some((ChangeEnd::Done(&change), subscription(plan, None, now)));
                let limit = BUCKETS_PER_OWNER;
                let bucket = store.hand_over(&billing, &access.me, &target, limit, moved, now).await?;
                return Self::answer(&bucket);
            }
            Command::SetMuted { who, bucket, address, muted } => {
                let access = self.access(*who, *bucket).await?;
                if !access.is_at(*address)? {
                    access.require(Right::ManageNotifications)?;
                }
                let target = self.user_at(*address).await?;
                let state = if *muted { NotificationState::None } else { NotificationState::Email };
                store.set_notification_state(&access.bucket.id, &access.me, &target, state, now).await?;
            }
            Command::SetOptions { who, bucket, options } => {
                let access = self.access(*who, *bucket).await?;
                let options = parsed::<UserOptions>(json!({ "n": options }))?;
                store.set_options(&access.bucket.id, &access.me, &options, now).await?;
            }
            Command::SendFeedback { who, bucket } => {
                let access = self.access(*who, *bucket).await?;
                let feedback = parsed(json!("Good."))?;
                store.send_feedback(&access.bucket.id, &access.me, &feedback, now).await?;
            }
            Command::SwitchPlan { who, bucket, plan } => return self.switch_plan(*who, *bucket, plan).await,
            Command::ClaimTrial { who, bucket } => {
                let access = self.with_right(*who, *bucket, Right::ChangePlan).await?;
                let (plan, days) =
                    self.world.plans.trial().ok_or_else(|| Broken::Story("no trial".to_owned()))?;
                match store.claim_trial(&access.bucket, &access.me, plan, days, now).await {
                    Ok(()) => {}
                    Err(TrialError::BucketNotFound) => return Err(No::BucketNotFound.into()),
                    Err(TrialError::NotOwner) => return Err(No::RoleTooLow.into()),
                    Err(TrialError::BucketHadOne) => return Err(No::BucketHadTrial.into()),
                    Err(TrialError::OwnerHadOne) => return Err(No::OwnerHadTrial.into()),
                    Err(TrialError::OnPlan) => return Err(No::OnPlan.into()),
                    Err(TrialError::Store(error)) => return Err(error.into()),
                }
            }
            Command::RotateSecret { who, bucket, secret } => {
                let Access { me, bucket, .. } = self.with_right(*who, *bucket, Right::RotateSecret).await?;
                let rotated = store.rotate_secret(bucket, &me, now).await?;
                self.world.names().secrets.insert(*secret, rotated.secret_id.as_str().to_owned());
                return Self::answer(&rotated);
            }
            Command::Guess { from, guess } => {
                let address = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, *from)));
                let secret_id = format!("wrong-{guess}");
                let keys = AgentKeys { public_id: "unknown", secret_id: &secret_id, address };
                store.agent(&keys, &server_name(ServerNo(0))?, now).await?;
            }
            Command::Link { .. } | Command::Connect { .. } | Command::Disconnect { .. } => {
                return self.as_agent(command).await;
            }
            Command::DeleteServer { who, bucket, server } => {
                let access = self.with_right(*who, *bucket, Right::DeleteServer).await?;
                let name = server_name(*server)?;
                match store.delete_server(&access.bucket.id, &access.me, &name, now).await {
                    Ok(()) => {}
                    Err(ServerError::NotFound) => return Err(No::ServerNotFound.into()),
                    Err(ServerError::Connected) => return Err(No::ServerConnected.into()),
                    Err(ServerError::People(error)) => return Err(error.into()),
                }
            }
            Command::Told { .. }
            | Command::NoteEvent { .. }
            | Command::BeginChange { .. }
            | Command::NoteCall { .. }
            | Command::EndChange { .. }
            | Command::DropChange { .. }
            | Command::LeaveChange { .. }
            | Command::SetCustomer { .. } => return self.about_money(command).await,
            Command::LeaseMail { bucket } => match store.lease_mail(&self.mail(*bucket)?, now).await? {
                Lease::Granted => {}
                Lease::Sent => return Err(No::Sent.into()),
                Lease::Held => return Err(No::Held.into()),
            },
            Command::NoteMail { bucket } => store.note_mail(&self.mail(*bucket)?, None, now).await?,
            Command::ReturnMail { bucket } => store.return_mail(&self.mail(*bucket)?).await?,
        }
        Ok(Ok(Answer::Done))
    }

    /// As [`shared::App::sight`].
    async fn sign_in(
        &self,
        who: Person,
        address: Address,
        issued: u32,
        cut_off: bool,
    ) -> Result<Outcome, End> {
        let (id, email) = (user_id(who), email(address)?);
        let user = match self.store.user(&id).await? {
            None => {
                let username = Username::from_claim(None, &who.to_string());
                match self.store.register(&id, &email, issued, &username).await {
                    Ok(user) => user,
                    Err(RegisterError::EmailTaken) => return Err(No::EmailTaken.into()),
                    Err(RegisterError::Store(error)) => return Err(error.into()),
                }
            }
            Some(user) => match self.store.change_address(user.clone(), &email, issued).await {
                Ok(user) => user,
                Err(RegisterError::EmailTaken) => user,
                Err(RegisterError::Store(error)) => return Err(error.into()),
            },
        };
        if user.unfinished && !cut_off {
            self.store.settle(&user, self.now).await?;
        }
        Ok(Ok(Answer::Known(table::address(user.email.as_str()).map_err(Broken::Story)?)))
    }

    async fn create(&self, who: Person, bucket: BucketNo, secret: SecretNo) -> Result<(), End> {
        let user = self.store.user(&user_id(who)).await?.ok_or(No::NotSignedIn)?;
        let new = NewBucket { name: bucket_name(0)?, comment: comment(0)?, app_url: AppUrl::default() };
        let created = match self.store.create_bucket(new, &user, BUCKETS_PER_OWNER, self.now).await {
            Ok((created, _)) => created,
            Err(CreateError::BucketLimit { .. }) => return Err(No::BucketLimit.into()),
            Err(CreateError::OwnerChanged) => return Err(No::Changed.into()),
            Err(CreateError::IdTaken) => return Err(Broken::Story("an id was taken".to_owned()).into()),
            Err(CreateError::Store(error)) => return Err(error.into()),
        };
        let rows = self.world.engine.rows().await?;
        let mail = table::audit_id(&rows, created.id.as_str(), "create").map_err(Broken::Story)?;
        let mut names = self.world.names();
        names.public_ids.insert(bucket, created.public_id.as_str().to_owned());
        names.secrets.insert(secret, created.secret_id.as_str().to_owned());
        names.mails.insert(bucket, mail);
        names.buckets.insert(bucket, created.id);
        Ok(())
    }

    async fn delete(&self, who: Person, bucket: BucketNo) -> Result<(), End> {
        let access = self.with_right(who, bucket, Right::Delete).await?;
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let billing = self.store.billing(&access.bucket.id).await?;
            if billing.not_over().is_some() || billing.change.is_some() {
                return Err(No::Paid.into());
            }
            match self.store.delete_bucket(&access.bucket, &billing, &access.me, self.now).await {
                Ok(()) => return Ok(()),
                Err(DeleteError::BucketNotFound) => return Err(No::BucketNotFound.into()),
                Err(DeleteError::NotOwner) => return Err(No::RoleTooLow.into()),
                Err(DeleteError::Changed) => {}
                Err(DeleteError::Store(error)) => return Err(error.into()),
            }
        }
        Err(No::Changed.into())
    }

    async fn switch_plan(&self, who: Person, bucket: BucketNo, plan: &PlanName) -> Result<Outcome, End> {
        let access = self.with_right(who, bucket, Right::ChangePlan).await?;
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let billing = self.store.billing(&access.bucket.id).await?;
            if billing.not_over().is_some() || billing.change.is_some() {
                return Err(No::Paid.into());
            }
            match self.store.switch_plan(&billing, &access.me, plan, self.now).await {
                Ok(bucket) => return Self::answer(&bucket),
                Err(PlanError::BucketNotFound) => return Err(No::BucketNotFound.into()),
                Err(PlanError::NotOwner) => return Err(No::RoleTooLow.into()),
                Err(PlanError::Changed) => {}
                Err(PlanError::Store(error)) => return Err(error.into()),
            }
        }
        Err(No::Changed.into())
    }

    async fn as_agent(&self, command: &Command) -> Result<Outcome, End> {
        let (store, now) = (self.store, self.now);
        let (bucket, secret, server) = match command {
            Command::Link { bucket, secret, server } | Command::Connect { bucket, secret, server, .. } => {
                (bucket, secret, server)
            }
            Command::Disconnect { connection, oversized } => {
                store.disconnect_server(&connection_id(*connection), *oversized, now).await?;
                return Ok(Ok(Answer::Done));
            }
            _ => return Ok(Ok(Answer::Done)),
        };
        let (public_id, secret_id) = {
            let names = self.world.names();
            let of = |found: Option<&String>| found.cloned().unwrap_or_else(|| "unknown".to_owned());
            (of(names.public_ids.get(bucket)), of(names.secrets.get(secret)))
        };
        // Each from an address of its own, so that none is throttled.
        let address = Some(IpAddr::V4(Ipv4Addr::new(10, bucket.0, secret.0, server.0)));
        let keys = AgentKeys { public_id: &public_id, secret_id: &secret_id, address };
        let name = server_name(*server)?;
        let agent = store.agent(&keys, &name, now).await?;
        if let Command::Connect { connection, .. } = command {
            store.connect_server(&agent, &connection_id(*connection), now).await?;
            return Ok(Ok(Answer::Done));
        }
        // A report that is never like the last one: what is noted has to be noted.
        let mut cpus = [0; 4];
        getrandom::fill(&mut cpus).map_err(StoreError::from)?;
        let report = Report { cpus: Some(u32::from_le_bytes(cpus)), ..Report::default() };
        Ok(Ok(Answer::Linked { new: store.link_server(&keys, agent, &name, &report, now).await? }))
    }

    async fn about_money(&self, command: &Command) -> Result<Outcome, End> {
        let (store, now) = (self.store, self.now);
        let bucket_id = |bucket: &BucketNo| self.world.bucket_id(*bucket).ok_or(No::BucketNotFound);
        match command {
            Command::Told { bucket, plan, ends_in, event } => {
                let id = bucket_id(bucket)?;
                let event = event.map(event_id);
                for attempt in 0..CHANGE_ATTEMPTS {
                    before_attempt(attempt).await?;
                    let billing = store.billing(&id).await?;
                    let bucket = billing.bucket.ok_or(No::BucketNotFound)?;
                    let kept = Kept {
                        bucket,
                        before: billing.subscription.as_ref(),
                        subscription: subscription(plan, *ends_in, now),
                        change: None,
                        event: event.as_deref(),
                        actor: None,
                    };
                    match store.keep_subscription(kept, now).await {
                        Err(BillingError::Changed) => {}
                        outcome => {
                            outcome?;
                            return Ok(Ok(Answer::Done));
                        }
                    }
                }
                return Err(No::Changed.into());
            }
            Command::NoteEvent { event } => store.note_event(&event_id(*event), now).await?,
            Command::BeginChange { who, bucket, change } => {
                let access = self.access(*who, *bucket).await?;
                let new = NewChange { actor: &access.me, right: Right::ChangePlan, new_owner: None };
                match store.begin_change(&access.bucket.id, &new, now).await {
                    Ok(begun) => drop(self.world.names().changes.insert(*change, begun.id)),
                    Err(BillingError::Unfinished(left)) => {
                        let names = self.world.names();
                        let known = names.changes.iter().find(|(_, known)| **known == left.id);
                        let no = known.map_or(ChangeNo(u8::MAX), |(no, _)| *no);
                        return Ok(Ok(Answer::TookOver(no)));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Command::NoteCall { bucket, change } => {
                let call = BillingCall { path: "/v1/subscriptions".to_owned(), form: "a=b".to_owned() };
                store.note_call(&bucket_id(bucket)?, &self.change_id(*change), &call).await?;
            }
            Command::EndChange { who, bucket, change, plan, replaced } => {
                let billing = store.billing(&bucket_id(bucket)?).await?;
                let change = self.change_id(*change);
                let kept = Kept {
                    bucket: billing.bucket.ok_or(No::BucketNotFound)?,
                    before: billing.subscription.as_ref(),
                    subscription: subscription(plan, None, now),
                    change: Some(ChangeEnd::of(&change, replaced.then_some("sub_0"))),
                    event: None,
                    actor: Some(&user_id(*who)),
                };
                store.keep_subscription(kept, now).await?;
            }
            Command::DropChange { bucket, change } => {
                store.drop_change(&bucket_id(bucket)?, &self.change_id(*change)).await?;
            }
            Command::LeaveChange { bucket, change } => {
                store.leave_change(&bucket_id(bucket)?, &self.change_id(*change), now).await?;
            }
            Command::SetCustomer { who, customer, before } => {
                let name = |customer: u8| format!("cus_{customer}");
                let before = before.map(name);
                let id = user_id(*who);
                if store.user(&id).await?.is_none() {
                    return Err(No::NotSignedIn.into());
                }
                let stands = store.set_customer(&id, &name(*customer), before.as_deref()).await?;
                return Ok(Ok(Answer::Customer(number(&stands).unwrap_or_default())));
            }
            _ => {}
        }
        Ok(Ok(Answer::Done))
    }

    fn change_id(&self, change: ChangeNo) -> String {
        let names = self.world.names();
        // One that never came to be, or whose name was not learnt, is nobody's.
        names.changes.get(&change).cloned().unwrap_or_else(|| format!("never-{}", change.0))
    }

    fn mail(&self, bucket: BucketNo) -> Result<AuditEntry, Broken> {
        let names = self.world.names();
        let found = names.buckets.get(&bucket).zip(names.mails.get(&bucket));
        let (id, mail) = found.ok_or_else(|| Broken::Story(format!("no mail of {bucket}")))?;
        Ok(AuditEntry {
            bucket_id: id.clone(),
            id: mail.clone(),
            actor_id: None,
            action: Action::Create,
            target_id: None,
            target_email: None,
        })
    }
}

impl Access {
    fn require(&self, right: Right) -> Result<(), No> {
        let may = |member: &Member| member.role.may(right);
        if self.member.as_ref().is_none_or(may) { Ok(()) } else { Err(No::RoleTooLow) }
    }

    /// Whether `address` is what the bucket shows as the caller's.
    fn is_at(&self, address: Address) -> Result<bool, Broken> {
        let email = email(address)?;
        Ok(self.member.as_ref().is_some_and(|member| member.email == email))
    }
}

fn bucket_name(number: u8) -> Result<BucketName, Broken> {
    parsed(json!(format!("name {number}")))
}

fn comment(number: u8) -> Result<Comment, Broken> {
    parsed(json!(format!("comment {number}")))
}

fn grantable(role: Role) -> Result<GrantableRole, Broken> {
    GrantableRole::try_from(role).map_err(|error| Broken::Story(error.to_owned()))
}
