//! Every key string of the table; no other file contains one.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::domain::{BucketId, Email, PublicId, ServerName, UserId};

/// The primary key of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) pk: String,
    pub(crate) sk: String,
}

/// What the sort keys of a bucket's members begin with.
pub(crate) const MEMBER_PREFIX: &str = "MEMBER#";

/// What the sort keys of invitations begin with, under a bucket and under an address.
pub(crate) const INVITATION_PREFIX: &str = "INVITATION#";

/// What the sort keys of a bucket's feedback begin with.
pub(crate) const FEEDBACK_PREFIX: &str = "FEEDBACK#";

/// What the sort keys of a bucket's servers begin with.
pub(crate) const SERVER_PREFIX: &str = "SERVER#";

impl Key {
    fn new(pk: String, sk: String) -> Self {
        Self { pk, sk }
    }

    pub(crate) fn bucket(bucket: &BucketId) -> Self {
        Self::new(format!("BUCKET#{}", bucket.as_str()), "BUCKET".to_owned())
    }

    pub(crate) fn member(bucket: &BucketId, user: &UserId) -> Self {
        Self::new(format!("BUCKET#{}", bucket.as_str()), format!("{MEMBER_PREFIX}{}", user.as_str()))
    }

    pub(crate) fn invitation(bucket: &BucketId, email: &Email) -> Self {
        Self::new(format!("BUCKET#{}", bucket.as_str()), format!("{INVITATION_PREFIX}{}", email.as_str()))
    }

    /// `id` is a ULID: rows of one bucket sort by time.
    pub(crate) fn feedback(bucket: &BucketId, id: &str) -> Self {
        Self::new(format!("BUCKET#{}", bucket.as_str()), format!("{FEEDBACK_PREFIX}{id}"))
    }

    /// `id` is a ULID: rows of one bucket sort by time.
    pub(crate) fn audit(bucket: &BucketId, id: &str) -> Self {
        Self::new(format!("BUCKET#{}", bucket.as_str()), format!("AUDIT#{id}"))
    }

    pub(crate) fn server(bucket: &BucketId, name: &ServerName) -> Self {
        Self::new(Self::bucket(bucket).pk, format!("{SERVER_PREFIX}{}", name.as_str()))
    }

    /// Finds a server by a connection of its agent.
    pub(crate) fn agent_connection(id: &str) -> Self {
        Self::new(format!("CONNECTION#{id}"), "CONNECTION".to_owned())
    }

    /// The wrong keys that were tried from a subnet.
    pub(crate) fn agent_attempts(subnet: &str) -> Self {
        Self::new(format!("ATTEMPTS#{subnet}"), "ATTEMPTS".to_owned())
    }

    /// What Stripe last told of the bucket's subscription.
    pub(crate) fn subscription(bucket: &BucketId) -> Self {
        Self::new(Self::bucket(bucket).pk, "SUBSCRIPTION".to_owned())
    }

    /// The change of what pays for the bucket that is under way, at most one.
    pub(crate) fn billing_change(bucket: &BucketId) -> Self {
        Self::new(Self::bucket(bucket).pk, "BILLING_CHANGE".to_owned())
    }

    /// An event of Stripe's that was dealt with.
    pub(crate) fn stripe_event(id: &str) -> Self {
        Self::new(format!("STRIPE_EVENT#{id}"), "STRIPE_EVENT".to_owned())
    }

    pub(crate) fn user(user: &UserId) -> Self {
        Self::new(format!("USER#{}", user.as_str()), "USER".to_owned())
    }

    /// Lists a user's buckets; holds no role.
    pub(crate) fn bucket_pointer(user: &UserId, bucket: &BucketId) -> Self {
        Self::new(Self::user(user).pk, format!("BUCKET#{}", bucket.as_str()))
    }

    /// Says whose a verified address is.
    pub(crate) fn email_claim(email: &Email) -> Self {
        Self::new(format!("EMAIL#{}", email.as_str()), "USER".to_owned())
    }

    /// Lists the invitations of an address.
    pub(crate) fn invitation_pointer(email: &Email, bucket: &BucketId) -> Self {
        Self::new(Self::email_claim(email).pk, format!("{INVITATION_PREFIX}{}", bucket.as_str()))
    }

    /// Finds a bucket by the public half of its agents' credentials.
    pub(crate) fn agent_key(public_id: &PublicId) -> Self {
        Self::new(format!("KEY#{}", public_id.as_str()), "KEY".to_owned())
    }

    /// A row that never exists: reading it opens the connection.
    pub(crate) fn nothing() -> Self {
        Self::new("NOTHING".to_owned(), "NOTHING".to_owned())
    }

    /// Another row that never exists.
    pub(crate) fn nowhere() -> Self {
        Self::new("NOTHING".to_owned(), "NOWHERE".to_owned())
    }

    /// The form that the SDK takes.
    pub(crate) fn attributes(&self) -> HashMap<String, AttributeValue> {
        let Self { pk, sk } = self;
        HashMap::from([
            ("pk".to_owned(), AttributeValue::S(pk.clone())),
            ("sk".to_owned(), AttributeValue::S(sk.clone())),
        ])
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;
    use crate::store::items::{
        AgentAttemptsRow, AgentConnectionRow, AgentKeyRow, AuditRow, BillingChangeRow, BucketPointerRow,
        BucketRow, EmailClaimRow, FeedbackRow, InvitationPointerRow, InvitationRow, MemberRow, Row,
        ServerRow, StripeEventRow, SubscriptionRow, UserRow,
    };

    fn parsed<T: DeserializeOwned>(text: &str) -> T {
        serde_json::from_value(json!(text)).unwrap()
    }

    /// The first three columns of the table of rows in `docs/data-model.md`.
    fn documented() -> BTreeSet<(String, String, String)> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/data-model.md");
        let text = fs::read_to_string(file).unwrap();
        let rows = text.lines().skip_while(|line| !line.starts_with("| row |")).skip(2);
        rows.take_while(|line| line.starts_with('|'))
            .map(|line| {
                let cells: Vec<_> = line.split('|').map(|cell| cell.trim().replace('`', "")).collect();
                (cells[1].clone(), cells[2].clone(), cells[3].clone())
            })
            .collect()
    }

    #[test]
    fn the_data_model_lists_every_row_with_its_key() {
        let bucket: BucketId = parsed("5f1d2c3b4a5968778695a4b5");
        let user: UserId = parsed("0a1b2c3d4e5f60718293a4b5");
        let email: Email = parsed("alice@example.com");
        let public_id: PublicId = parsed("k3v9x0q7m2b8d4z");
        let server: ServerName = parsed("web-1");
        let written = |row: &str, key: Key, names: [&str; 2]| {
            let [partition, sort] = names;
            let masked = |text: &str, name: &str| match text.split_once('#') {
                Some((kind, _)) => format!("{kind}#<{name}>"),
                None => text.to_owned(),
            };
            (row.to_owned(), masked(&key.pk, partition), masked(&key.sk, sort))
        };

        let rows = [
            written(BucketRow::TYPE, Key::bucket(&bucket), ["id", ""]),
            written(MemberRow::TYPE, Key::member(&bucket, &user), ["id", "user_id"]),
            written(InvitationRow::TYPE, Key::invitation(&bucket, &email), ["id", "address"]),
            written(FeedbackRow::TYPE, Key::feedback(&bucket, "1"), ["id", "ulid"]),
            written(AuditRow::TYPE, Key::audit(&bucket, "1"), ["id", "ulid"]),
            written(ServerRow::TYPE, Key::server(&bucket, &server), ["id", "name"]),
            written(AgentConnectionRow::TYPE, Key::agent_connection("1"), ["id", ""]),
            written(AgentAttemptsRow::TYPE, Key::agent_attempts("1"), ["subnet", ""]),
            written(SubscriptionRow::TYPE, Key::subscription(&bucket), ["id", ""]),
            written(BillingChangeRow::TYPE, Key::billing_change(&bucket), ["id", ""]),
            written(StripeEventRow::TYPE, Key::stripe_event("1"), ["id", ""]),
            written(UserRow::TYPE, Key::user(&user), ["user_id", ""]),
            written(BucketPointerRow::TYPE, Key::bucket_pointer(&user, &bucket), ["user_id", "id"]),
            written(EmailClaimRow::TYPE, Key::email_claim(&email), ["address", ""]),
            written(
                InvitationPointerRow::TYPE,
                Key::invitation_pointer(&email, &bucket),
                ["address", "bucket_id"],
            ),
            written(AgentKeyRow::TYPE, Key::agent_key(&public_id), ["public_id", ""]),
        ];

        assert_eq!(documented(), BTreeSet::from(rows));
    }
}
