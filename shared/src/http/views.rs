//! What answers show of the domain's types.

use serde::Serialize;
use serde_json::{Value, json};

use crate::domain::{
    AppUrl, Bucket, BucketId, BucketName, Comment, Configuration, Member, PublicId, Right, Role, SecretId,
    Timestamp, UserOptions,
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
