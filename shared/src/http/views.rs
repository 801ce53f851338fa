//! What answers show of the domain's types.

use serde::Serialize;
use serde_json::{Value, json};

use crate::domain::{
    AppUrl, Bucket, BucketId, BucketName, Comment, Configuration, Email, Invitation, Member,
    NotificationState, PublicId, Right, Role, SecretId, Timestamp, UserId, UserOptions, Username,
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
    #[serde(serialize_with = "Timestamp::rfc3339")]
    created_at: Timestamp,
    #[serde(serialize_with = "Timestamp::rfc3339")]
    updated_at: Timestamp,
}

impl<'a> BucketView<'a> {
    /// `bucket` as `member` sees it through the API at `origin`.
    #[must_use]
    pub fn new(bucket: &'a Bucket, member: &'a Member, origin: &str) -> Self {
        let node = json!({ "endpoints": { "web": origin } });
        let plan = bucket.plan.as_str();
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
