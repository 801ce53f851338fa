//! What answers show of the domain's types.

use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::domain::{
    AppUrl, Bucket, BucketId, BucketName, Comment, Configuration, Email, Invitation, Member,
    NotificationState, PlanName, PublicId, Report, Right, Role, SecretId, Server, ServerName, Subscription,
    SubscriptionStatus, Timestamp, Trial, UserId, UserOptions, Username,
};

/// A bucket as one of its members sees it. The published clients read `_id`, `name`, `public_id`,
/// `secret_id`, `node.endpoints.web` (where they send the bucket's further requests),
/// `node_cache.endpoints.web` (the same for older ones), `credits.offer_type`,
/// `payment.offer_type` and `credits.payer`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Bucket")]
pub struct BucketView<'a> {
    _id: &'a BucketId,
    name: &'a BucketName,
    comment: &'a Comment,
    app_url: &'a AppUrl,
    configuration: Option<&'a Configuration>,
    public_id: &'a PublicId,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretId")]
    secret_id: Option<&'a SecretId>,
    node: Node,
    node_cache: Node,
    credits: Credits<'a>,
    payment: Payment,
    role: Role,
    user_options: &'a UserOptions,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "Timestamp::rfc3339_option")]
    #[schemars(with = "Timestamp")]
    plan_ends_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Trial")]
    trial: Option<&'a Trial>,
    #[serde(serialize_with = "Timestamp::rfc3339")]
    created_at: Timestamp,
    #[serde(serialize_with = "Timestamp::rfc3339")]
    updated_at: Timestamp,
}

/// Where the clients send a bucket's requests.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Node {
    endpoints: Endpoints,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Endpoints {
    /// The origin of the API.
    web: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Credits<'a> {
    /// The plan that the bucket is on now.
    offer_type: PlanName,
    payer: Payer<'a>,
}

/// The owner.
#[derive(Debug, Serialize, JsonSchema)]
struct Payer<'a> {
    _id: &'a UserId,
    username: &'a Username,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Payment {
    /// The plan that the bucket is on now.
    offer_type: PlanName,
}

/// A bucket, in the field in which some routes answer it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BucketAnswer")]
pub struct BucketAnswer<'a> {
    /// As the caller sees it.
    pub bucket: BucketView<'a>,
}

impl<'a> BucketView<'a> {
    /// `bucket` as `member` sees it at `now` through the API at `origin`.
    #[must_use]
    pub fn new(bucket: &'a Bucket, member: &'a Member, origin: String, now: Timestamp) -> Self {
        let node = Node { endpoints: Endpoints { web: origin } };
        let plan = bucket.plan_at(now);
        Self {
            _id: &bucket.id,
            name: &bucket.name,
            comment: &bucket.comment,
            app_url: &bucket.app_url,
            configuration: bucket.configuration.as_ref(),
            public_id: &bucket.public_id,
            secret_id: member.role.may(Right::SeeSecret).then_some(&bucket.secret_id),
            node: node.clone(),
            node_cache: node,
            credits: Credits {
                offer_type: plan.clone(),
                payer: Payer { _id: &bucket.owner_id, username: &bucket.owner_username },
            },
            payment: Payment { offer_type: plan },
            role: member.role,
            user_options: &member.options,
            plan_ends_at: bucket.plan_ends_at,
            trial: bucket.trial.as_ref(),
            created_at: bucket.created_at,
            updated_at: bucket.updated_at,
        }
    }
}

/// A member as others see them.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Member")]
pub struct MemberView<'a> {
    _id: &'a UserId,
    email: &'a Email,
    username: &'a Username,
    role: Role,
}

impl<'a> From<&'a Member> for MemberView<'a> {
    fn from(member: &'a Member) -> Self {
        Self { _id: &member.user_id, email: &member.email, username: &member.username, role: member.role }
    }
}

/// How a member is notified.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "MemberNotification")]
pub struct NotificationView<'a> {
    _id: &'a UserId,
    email: &'a Email,
    username: &'a Username,
    state: NotificationState,
}

impl<'a> From<&'a Member> for NotificationView<'a> {
    fn from(member: &'a Member) -> Self {
        Self {
            _id: &member.user_id,
            email: &member.email,
            username: &member.username,
            state: member.notification,
        }
    }
}

/// The invitations that can still be taken up.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Invitations")]
pub struct InvitationsView<'a> {
    invitations: Vec<InvitationView<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Invitation")]
struct InvitationView<'a> {
    email: &'a Email,
    role: Role,
    invited_by: &'a UserId,
    #[serde(serialize_with = "Timestamp::rfc3339")]
    created_at: Timestamp,
    #[serde(serialize_with = "Timestamp::rfc3339")]
    expires_at: Timestamp,
}

impl<'a> From<&'a [Invitation]> for InvitationsView<'a> {
    fn from(invitations: &'a [Invitation]) -> Self {
        let view = |invitation: &'a Invitation| InvitationView {
            email: &invitation.email,
            role: invitation.role,
            invited_by: &invitation.invited_by,
            created_at: invitation.created_at,
            expires_at: invitation.expires_at,
        };
        Self { invitations: invitations.iter().map(view).collect() }
    }
}

/// What pays for a bucket, in Stripe's words: times in seconds since 1970. The published clients read
/// `trial_end`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Subscription")]
pub struct SubscriptionView<'a> {
    /// Null for a trial that nothing is paid for.
    id: Option<&'a str>,
    status: SubscriptionStatus,
    plan: &'a PlanName,
    current_period_start: Option<i64>,
    current_period_end: Option<i64>,
    cancel_at: Option<i64>,
    cancel_at_period_end: bool,
    canceled_at: Option<i64>,
    trial_end: Option<i64>,
}

impl<'a> From<&'a Subscription> for SubscriptionView<'a> {
    fn from(subscription: &'a Subscription) -> Self {
        let Subscription {
            id,
            item: _,
            customer: _,
            plan,
            status,
            period_start,
            period_end,
            cancel_at,
            canceled_at,
            trial_end,
            payment_failed: _,
        } = subscription;
        let seconds = |time: &Option<Timestamp>| time.map(Timestamp::as_seconds);
        Self {
            id: Some(id),
            status: *status,
            plan,
            current_period_start: Some(period_start.as_seconds()),
            current_period_end: Some(period_end.as_seconds()),
            cancel_at: seconds(cancel_at),
            cancel_at_period_end: cancel_at.is_some_and(|end| end == *period_end),
            canceled_at: seconds(canceled_at),
            trial_end: seconds(trial_end),
        }
    }
}

impl<'a> From<&'a Trial> for SubscriptionView<'a> {
    fn from(trial: &'a Trial) -> Self {
        let Trial { plan, ends_at } = trial;
        Self {
            id: None,
            status: SubscriptionStatus::Trialing,
            plan,
            current_period_start: None,
            current_period_end: Some(ends_at.as_seconds()),
            cancel_at: Some(ends_at.as_seconds()),
            cancel_at_period_end: true,
            canceled_at: None,
            trial_end: Some(ends_at.as_seconds()),
        }
    }
}

/// That of an IP address, or null.
fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [
        { "type": "string", "format": "ipv4" },
        { "type": "string", "format": "ipv6" },
        { "type": "null" },
    ] })
}

/// A server as members see it. The published clients read `name`, `ip`, `cpus`, `pm2_version` and
/// `active`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Server")]
pub struct ServerView<'a> {
    name: &'a ServerName,
    hostname: &'a str,
    #[schemars(schema_with = "address")]
    ip: Option<IpAddr>,
    cpus: Option<u32>,
    /// In MB of a million bytes.
    memory: Option<u32>,
    pm2_version: &'a str,
    active: bool,
    #[serde(serialize_with = "Timestamp::rfc3339")]
    last_seen: Timestamp,
}

impl<'a> ServerView<'a> {
    /// `server` as it is at `now`.
    #[must_use]
    pub fn new(server: &'a Server, now: Timestamp) -> Self {
        let Report { hostname, pm2_version, cpus, memory } = &server.report;
        Self {
            name: &server.name,
            hostname,
            ip: server.ip,
            cpus: *cpus,
            memory: *memory,
            pm2_version,
            active: server.is_active(now),
            last_seen: server.last_seen,
        }
    }
}

/// The answer of `current_role`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CurrentRole {
    /// The caller's.
    pub role: Role,
}

/// The answer of `upgrade`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Upgraded<'a> {
    /// The bucket on its plan.
    pub bucket: BucketView<'a>,
    /// Null where nothing is paid.
    pub subscription: Option<SubscriptionView<'a>>,
}

/// The answer of `claim_trial`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Claimed<'a> {
    /// For people, such as `14 days`.
    pub duration: String,
    /// The plan that is tried.
    pub plan: &'a PlanName,
}

/// The answer of `server_delete_server`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Deleted {
    /// True.
    pub success: bool,
    /// For people.
    pub msg: &'static str,
}

/// The answer of `stripe_webhook`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Received {
    /// True.
    pub received: bool,
}

/// The answer of `is_logged`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LoggedIn {
    /// The caller's id.
    #[serde(rename = "_id")]
    pub id: UserId,
    /// How the caller is shown to others.
    pub username: Username,
    /// The address that the identity provider tells, verified or not.
    pub email: Option<Email>,
    /// Not a token: the original backend's name for the mark of an address that is not validated.
    pub email_token: Option<&'static str>,
    /// The ids of the caller's buckets.
    pub authorized_bucket: Vec<BucketId>,
}

/// The answer of `oauth_token`.
#[derive(Serialize, JsonSchema)]
pub struct TokenAnswer {
    /// For `Authorization`.
    pub access_token: String,
    /// The one to use next time.
    pub refresh_token: String,
    /// `Bearer`.
    pub token_type: &'static str,
    /// When the access token expires.
    #[serde(serialize_with = "Timestamp::rfc3339")]
    pub expire_at: Timestamp,
}

/// Tokens stay out of logs.
impl std::fmt::Debug for TokenAnswer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TokenAnswer").field("expire_at", &self.expire_at).finish_non_exhaustive()
    }
}

/// The answer of `node_verify`: where the agent connects to, in the words that agents of pm2 read.
#[expect(clippy::struct_excessive_bools, reason = "the form that agents read")]
#[derive(Debug, Serialize, JsonSchema)]
pub struct Linked<'a> {
    endpoints: AgentEndpoints<'a>,
    active: bool,
    pending: bool,
    disabled: bool,
    /// Whether the server was not known before.
    new: bool,
    name: &'a ServerName,
}

/// Only `ws` is used; older agents want the others to be there.
#[derive(Debug, Serialize, JsonSchema)]
struct AgentEndpoints<'a> {
    web: &'a str,
    ws: &'a str,
    push: &'a str,
    reverse: &'a str,
    realtime: &'a str,
}

impl<'a> Linked<'a> {
    /// The server `name` is linked, `new` or not: the API is at `web`, and connections open at `endpoint`.
    #[must_use]
    pub fn new(name: &'a ServerName, new: bool, web: &'a str, endpoint: &'a str) -> Self {
        Self {
            endpoints: AgentEndpoints {
                web,
                ws: endpoint,
                push: endpoint,
                reverse: endpoint,
                realtime: endpoint,
            },
            active: true,
            pending: false,
            disabled: false,
            new,
            name,
        }
    }
}
