//! The rows of the table and how they become domain types. Conversions take a row apart field by
//! field, so that a new field breaks the build until it is carried over.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use aws_sdk_dynamodb::types::AttributeValue;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{StoreError, audit::Action, keys::Key};
use crate::domain::{
    AppUrl, Bucket, BucketId, BucketName, Comment, Configuration, Email, Feedback, Invitation, Member,
    NotificationState, PlanName, PublicId, Report, Role, SecretId, Server, ServerName, Subscription,
    Timestamp, Trial, User, UserId, UserOptions, Username,
};

/// A row as the SDK gives and takes it.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// A kind of row. Its name stands in the attribute `type` of each.
pub(crate) trait Row: Serialize + DeserializeOwned {
    const TYPE: &'static str;

    fn key(&self) -> Key;
}

/// `row` as an item: its fields, its key, its type.
pub(crate) fn to_item<R: Row>(row: &R) -> Result<Item, StoreError> {
    let mut item: Item =
        serde_dynamo::to_item(row).map_err(|error| StoreError::Row(format!("{} row: {error}", R::TYPE)))?;
    item.extend(row.key().attributes());
    item.insert("type".to_owned(), AttributeValue::S(R::TYPE.to_owned()));
    Ok(item)
}

/// The row in `item`.
pub(crate) fn from_item<R: Row>(item: Item) -> Result<R, StoreError> {
    match item.get("type") {
        Some(AttributeValue::S(kind)) if kind == R::TYPE => {}
        other => {
            return Err(StoreError::Row(format!("expected a {} row, but its type is {other:?}", R::TYPE)));
        }
    }
    serde_dynamo::from_item(item).map_err(|error| StoreError::Row(format!("{} row: {error}", R::TYPE)))
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BucketRow {
    id: BucketId,
    name: BucketName,
    comment: Comment,
    app_url: AppUrl,
    /// JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
    public_id: PublicId,
    secret_id: SecretId,
    owner_id: UserId,
    owner_username: Username,
    plan: PlanName,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan_ends_at: Option<Timestamp>,
    /// There with `trial_ends_at`, or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    trial_plan: Option<PlanName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trial_ends_at: Option<Timestamp>,
    seats_used: u32,
    servers_used: u32,
    version: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<Timestamp>,
}

impl Row for BucketRow {
    const TYPE: &'static str = "bucket";

    fn key(&self) -> Key {
        Key::bucket(&self.id)
    }
}

impl From<&Bucket> for BucketRow {
    fn from(bucket: &Bucket) -> Self {
        let Bucket {
            id,
            name,
            comment,
            app_url,
            configuration,
            public_id,
            secret_id,
            owner_id,
            owner_username,
            plan,
            plan_ends_at,
            trial,
            seats_used,
            servers_used,
            version,
            created_at,
            updated_at,
            deleted_at,
        } = bucket.clone();
        let (trial_plan, trial_ends_at) = trial.map(|Trial { plan, ends_at }| (plan, ends_at)).unzip();
        Self {
            id,
            name,
            comment,
            app_url,
            configuration: configuration.map(|configuration| configuration.as_json().to_owned()),
            public_id,
            secret_id,
            owner_id,
            owner_username,
            plan,
            plan_ends_at,
            trial_plan,
            trial_ends_at,
            seats_used,
            servers_used,
            version,
            created_at,
            updated_at,
            deleted_at,
        }
    }
}

impl TryFrom<BucketRow> for Bucket {
    type Error = StoreError;

    fn try_from(row: BucketRow) -> Result<Self, StoreError> {
        let BucketRow {
            id,
            name,
            comment,
            app_url,
            configuration,
            public_id,
            secret_id,
            owner_id,
            owner_username,
            plan,
            plan_ends_at,
            trial_plan,
            trial_ends_at,
            seats_used,
            servers_used,
            version,
            created_at,
            updated_at,
            deleted_at,
        } = row;
        Ok(Self {
            id,
            name,
            comment,
            app_url,
            configuration: configuration
                .map(Configuration::from_stored)
                .transpose()
                .map_err(|error| StoreError::Row(format!("configuration: {error}")))?,
            public_id,
            secret_id,
            owner_id,
            owner_username,
            plan,
            plan_ends_at,
            trial: trial_plan.zip(trial_ends_at).map(|(plan, ends_at)| Trial { plan, ends_at }),
            seats_used,
            servers_used,
            version,
            created_at,
            updated_at,
            deleted_at,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemberRow {
    bucket_id: BucketId,
    user_id: UserId,
    role: Role,
    email: Email,
    username: Username,
    notification: NotificationState,
    /// JSON.
    options: String,
    joined_at: Timestamp,
}

impl Row for MemberRow {
    const TYPE: &'static str = "member";

    fn key(&self) -> Key {
        Key::member(&self.bucket_id, &self.user_id)
    }
}

impl MemberRow {
    pub(crate) fn new(bucket_id: &BucketId, member: &Member) -> Self {
        let Member { user_id, role, email, username, notification, options, joined_at } = member.clone();
        Self {
            bucket_id: bucket_id.clone(),
            user_id,
            role,
            email,
            username,
            notification,
            options: options.as_json().to_owned(),
            joined_at,
        }
    }
}

impl TryFrom<MemberRow> for Member {
    type Error = StoreError;

    fn try_from(row: MemberRow) -> Result<Self, StoreError> {
        let MemberRow { bucket_id: _, user_id, role, email, username, notification, options, joined_at } =
            row;
        Ok(Self {
            user_id,
            role,
            email,
            username,
            notification,
            options: UserOptions::from_stored(options)
                .map_err(|error| StoreError::Row(format!("options: {error}")))?,
            joined_at,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UserRow {
    id: UserId,
    email: Email,
    email_from: u32,
    username: Username,
    buckets_owned: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    trial_used: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stripe_customer: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unfinished: bool,
}

impl Row for UserRow {
    const TYPE: &'static str = "user";

    fn key(&self) -> Key {
        Key::user(&self.id)
    }
}

impl From<&User> for UserRow {
    fn from(user: &User) -> Self {
        let User { id, email, email_from, username, buckets_owned, trial_used, stripe_customer, unfinished } =
            user.clone();
        Self { id, email, email_from, username, buckets_owned, trial_used, stripe_customer, unfinished }
    }
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        let UserRow {
            id,
            email,
            email_from,
            username,
            buckets_owned,
            trial_used,
            stripe_customer,
            unfinished,
        } = row;
        Self { id, email, email_from, username, buckets_owned, trial_used, stripe_customer, unfinished }
    }
}

/// Lists one bucket of one user.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BucketPointerRow {
    pub(crate) user_id: UserId,
    pub(crate) bucket_id: BucketId,
}

impl Row for BucketPointerRow {
    const TYPE: &'static str = "bucket_pointer";

    fn key(&self) -> Key {
        Key::bucket_pointer(&self.user_id, &self.bucket_id)
    }
}

/// Says whose a verified address is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EmailClaimRow {
    pub(crate) email: Email,
    pub(crate) user_id: UserId,
}

impl Row for EmailClaimRow {
    const TYPE: &'static str = "email_claim";

    fn key(&self) -> Key {
        Key::email_claim(&self.email)
    }
}

/// Finds a bucket by its `public_id`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentKeyRow {
    pub(crate) public_id: PublicId,
    pub(crate) bucket_id: BucketId,
}

impl Row for AgentKeyRow {
    const TYPE: &'static str = "agent_key";

    fn key(&self) -> Key {
        Key::agent_key(&self.public_id)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InvitationRow {
    bucket_id: BucketId,
    email: Email,
    role: Role,
    invited_by: UserId,
    created_at: Timestamp,
    expires_at: Timestamp,
}

impl Row for InvitationRow {
    const TYPE: &'static str = "invitation";

    fn key(&self) -> Key {
        Key::invitation(&self.bucket_id, &self.email)
    }
}

impl InvitationRow {
    pub(crate) fn new(bucket_id: &BucketId, invitation: &Invitation) -> Self {
        let Invitation { email, role, invited_by, created_at, expires_at } = invitation.clone();
        Self { bucket_id: bucket_id.clone(), email, role, invited_by, created_at, expires_at }
    }
}

impl From<InvitationRow> for Invitation {
    fn from(row: InvitationRow) -> Self {
        let InvitationRow { bucket_id: _, email, role, invited_by, created_at, expires_at } = row;
        Self { email, role, invited_by, created_at, expires_at }
    }
}

/// Lists one invitation of an address.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InvitationPointerRow {
    pub(crate) email: Email,
    pub(crate) bucket_id: BucketId,
}

impl Row for InvitationPointerRow {
    const TYPE: &'static str = "invitation_pointer";

    fn key(&self) -> Key {
        Key::invitation_pointer(&self.email, &self.bucket_id)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FeedbackRow {
    pub(crate) bucket_id: BucketId,
    pub(crate) id: String,
    pub(crate) user_id: UserId,
    pub(crate) feedback: Feedback,
    pub(crate) at: Timestamp,
}

impl Row for FeedbackRow {
    const TYPE: &'static str = "feedback";

    fn key(&self) -> Key {
        Key::feedback(&self.bucket_id, &self.id)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServerRow {
    bucket_id: BucketId,
    name: ServerName,
    hostname: String,
    pm2_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    /// A set, and not there while it is empty: `DynamoDB` has no empty sets.
    #[serde(default, with = "serde_dynamo::string_set", skip_serializing_if = "BTreeSet::is_empty")]
    connections: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oversized_at: Option<Timestamp>,
    linked_at: Timestamp,
    last_seen: Timestamp,
}

impl Row for ServerRow {
    const TYPE: &'static str = "server";

    fn key(&self) -> Key {
        Key::server(&self.bucket_id, &self.name)
    }
}

impl ServerRow {
    pub(crate) fn new(bucket_id: &BucketId, server: &Server) -> Self {
        let Server { name, report, ip, connections, oversized_at, linked_at, last_seen } = server.clone();
        let Report { hostname, pm2_version, cpus, memory } = report;
        Self {
            bucket_id: bucket_id.clone(),
            name,
            hostname,
            pm2_version,
            cpus,
            memory,
            ip,
            connections: connections.into_iter().collect(),
            oversized_at,
            linked_at,
            last_seen,
        }
    }
}

impl From<ServerRow> for Server {
    fn from(row: ServerRow) -> Self {
        let ServerRow {
            bucket_id: _,
            name,
            hostname,
            pm2_version,
            cpus,
            memory,
            ip,
            connections,
            oversized_at,
            linked_at,
            last_seen,
        } = row;
        let report = Report { hostname, pm2_version, cpus, memory };
        Self {
            name,
            report,
            ip,
            connections: connections.into_iter().collect(),
            oversized_at,
            linked_at,
            last_seen,
        }
    }
}

/// Finds a server by a connection of its agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentConnectionRow {
    pub(crate) id: String,
    pub(crate) bucket_id: BucketId,
    pub(crate) server: ServerName,
    /// When `DynamoDB` may delete the row, in seconds since 1970.
    pub(crate) ttl: i64,
}

impl Row for AgentConnectionRow {
    const TYPE: &'static str = "agent_connection";

    fn key(&self) -> Key {
        Key::agent_connection(&self.id)
    }
}

/// The wrong keys that were tried from a subnet.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentAttemptsRow {
    pub(crate) subnet: String,
    /// Marks of the keys.
    #[serde(with = "serde_dynamo::string_set")]
    pub(crate) tried: BTreeSet<String>,
    /// Until when they count.
    pub(crate) until: Timestamp,
    /// When `DynamoDB` may delete the row, in seconds since 1970.
    pub(crate) ttl: i64,
}

impl Row for AgentAttemptsRow {
    const TYPE: &'static str = "agent_attempts";

    fn key(&self) -> Key {
        Key::agent_attempts(&self.subnet)
    }
}

/// What Stripe last told of a bucket's subscription.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SubscriptionRow {
    pub(crate) bucket_id: BucketId,
    pub(crate) subscription: Subscription,
    /// The ids of those that the same customer had for this bucket before.
    pub(crate) former: Vec<String>,
    /// Counts what was told, so that older news cannot overwrite newer ones.
    pub(crate) version: u32,
}

impl Row for SubscriptionRow {
    const TYPE: &'static str = "subscription";

    fn key(&self) -> Key {
        Key::subscription(&self.bucket_id)
    }
}

/// A change of what pays for a bucket that is under way, or that was left unfinished.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BillingChangeRow {
    pub(crate) bucket_id: BucketId,
    pub(crate) id: String,
    pub(crate) actor_id: UserId,
    /// Who is to pay, where the bucket changes hands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) new_owner_id: Option<UserId>,
    /// The call that may charge, once it may have been made. Holds no secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) call_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) call_form: Option<String>,
    /// The subscription that is yet to be ended, where all else is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replaced: Option<String>,
    pub(crate) begun_at: Timestamp,
    pub(crate) lease_until: Timestamp,
}

impl Row for BillingChangeRow {
    const TYPE: &'static str = "billing_change";

    fn key(&self) -> Key {
        Key::billing_change(&self.bucket_id)
    }
}

/// An event of Stripe's that was dealt with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StripeEventRow {
    pub(crate) id: String,
    /// When `DynamoDB` may delete the row, in seconds since 1970.
    pub(crate) ttl: i64,
}

impl Row for StripeEventRow {
    const TYPE: &'static str = "stripe_event";

    fn key(&self) -> Key {
        Key::stripe_event(&self.id)
    }
}

/// What was done to a bucket, by whom, to whom, when; written in the transaction that does it. Holds no
/// secret.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AuditRow {
    pub(crate) bucket_id: BucketId,
    pub(crate) id: String,
    /// Who did it; nobody where Stripe or an agent did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actor_id: Option<UserId>,
    pub(crate) action: Action,
    /// Whom it was done to, where that is a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target_id: Option<UserId>,
    /// Whom it was done to, where that is nobody's address yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target_email: Option<Email>,
    /// The server that it was done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<ServerName>,
    /// The role that was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<Role>,
    pub(crate) at: Timestamp,
}

impl Row for AuditRow {
    const TYPE: &'static str = "audit";

    fn key(&self) -> Key {
        Key::audit(&self.bucket_id, &self.id)
    }
}
