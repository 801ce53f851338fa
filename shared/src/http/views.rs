//! What answers show of the domain's types.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::domain::{
    AppUrl, Bucket, BucketId, BucketName, Comment, Configuration, Email, Invitation, Member,
    NotificationState, PlanName, PublicId, Report, Right, Role, SecretId, Server, ServerName, Subscription,
    SubscriptionStatus, Timestamp, Trial, UserId, UserOptions, Username,
};

/// A bucket as `member` sees it. The published clients read `_id`, `name`, `public_id`,
/// `secret_id`, `node.endpoints.web` (where they send the bucket's further requests),
/// `node_cache.endpoints.web` (the same for older ones), `credits.offer_type`,
/// `payment.offer_type` and `credits.payer`.
#[derive(Debug, Serialize)]
pub struct BucketView<'a> {
    _id: &'a BucketId,
    name: &'a BucketName,
    comment: &'a Comment,
    app_url: &'a AppUrl,
    configuration: Option<&'a Configuration>,
    public_id: &'a PublicId,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_id: Option<&'a SecretId>,
    node: Value,
    node_cache: Value,
    credits: Value,
    payment: Value,
    role: Role,
    user_options: &'a UserOptions,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "Timestamp::rfc3339_option")]
    plan_ends_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trial: Option<&'a Trial>,
    #[serde(serialize_with = "Timestamp::rfc3339")]
    created_at: Timestamp,
    #[serde(serialize_with = "Timestamp::rfc3339")]
    updated_at: Timestamp,
}

impl<'a> BucketView<'a> {
    /// `bucket` as `member` sees it at `now` through the API at `origin`.
    #[must_use]
    pub fn new(bucket: &'a Bucket, member: &'a Member, origin: &str, now: Timestamp) -> Self {
        let node = json!({ "endpoints": { "web": origin } });
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
            credits: json!({
                "offer_type": plan,
                "payer": { "_id": bucket.owner_id, "username": bucket.owner_username },
            }),
            payment: json!({ "offer_type": plan }),
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
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
pub struct InvitationsView<'a> {
    invitations: Vec<InvitationView<'a>>,
}

#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
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

/// A server as members see it. The published clients read `name`, `ip`, `cpus`, `pm2_version` and
/// `active`.
#[derive(Debug, Serialize)]
pub struct ServerView<'a> {
    name: &'a ServerName,
    hostname: &'a str,
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
