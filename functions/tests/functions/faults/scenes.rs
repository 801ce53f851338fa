//! The requests that change the table, each in a situation of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use serde_json::{Value, json};
use shared::domain::UserId;

use super::super::{
    api::{Answer, Api, Person, Table, path},
    servers,
};

/// A request in a situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scene {
    AgentConnects,
    AgentDisconnects,
    BucketIsClaimedATrial,
    BucketIsCreated,
    BucketIsCreatedAtFirstSight,
    BucketIsDeleted,
    BucketIsUpdated,
    FeedbackIsSent,
    InvitationIsMade,
    InvitationIsRemoved,
    InvitationIsRenewed,
    MemberLeaves,
    MemberIsRemoved,
    NotificationIsSet,
    OptionsAreSet,
    OwnershipIsTransferred,
    PersonIsAdded,
    PersonSignsInFirst,
    PersonWithInvitationsSignsInFirst,
    PlanIsChanged,
    RoleIsSet,
    SecretIsRotated,
    ServerIsDeleted,
    ServerIsLinked,
    ServerReports,
}

impl Scene {
    pub(super) const ALL: [Self; 25] = [
        Self::AgentConnects,
        Self::AgentDisconnects,
        Self::BucketIsClaimedATrial,
        Self::BucketIsCreated,
        Self::BucketIsCreatedAtFirstSight,
        Self::BucketIsDeleted,
        Self::BucketIsUpdated,
        Self::FeedbackIsSent,
        Self::InvitationIsMade,
        Self::InvitationIsRemoved,
        Self::InvitationIsRenewed,
        Self::MemberLeaves,
        Self::MemberIsRemoved,
        Self::NotificationIsSet,
        Self::OptionsAreSet,
        Self::OwnershipIsTransferred,
        Self::PersonIsAdded,
        Self::PersonSignsInFirst,
        Self::PersonWithInvitationsSignsInFirst,
        Self::PlanIsChanged,
        Self::RoleIsSet,
        Self::SecretIsRotated,
        Self::ServerIsDeleted,
        Self::ServerIsLinked,
        Self::ServerReports,
    ];

    /// The function that is asked.
    pub(super) fn function(self) -> &'static str {
        match self {
            Self::AgentConnects => "agent_connect",
            Self::AgentDisconnects => "agent_disconnect",
            Self::BucketIsClaimedATrial => "claim_trial",
            Self::BucketIsCreated | Self::BucketIsCreatedAtFirstSight => "create",
            Self::BucketIsDeleted => "destroy",
            Self::BucketIsUpdated => "update",
            Self::FeedbackIsSent => "send_feedback",
            Self::InvitationIsMade | Self::InvitationIsRenewed | Self::PersonIsAdded => "invite_user",
            Self::InvitationIsRemoved => "remove_invitation",
            Self::MemberLeaves | Self::MemberIsRemoved => "remove_user",
            Self::NotificationIsSet => "set_notification_state",
            Self::OptionsAreSet => "update_user_options",
            Self::OwnershipIsTransferred => "transfer_ownership",
            Self::PersonSignsInFirst | Self::PersonWithInvitationsSignsInFirst => "retrieve_all",
            Self::PlanIsChanged => "upgrade",
            Self::RoleIsSet => "set_user_role",
            Self::SecretIsRotated => "rotate_secret",
            Self::ServerIsDeleted => "server_delete_server",
            Self::ServerIsLinked | Self::ServerReports => "node_verify",
        }
    }

    /// Whether everything that is mailed of it and of its situation is so to the end, and not taken back.
    pub(super) fn is_mailed(self) -> bool {
        matches!(
            self,
            Self::InvitationIsMade
                | Self::InvitationIsRenewed
                | Self::OwnershipIsTransferred
                | Self::PersonIsAdded
        )
    }

    /// Arranges the situation, and gives the request.
    pub(super) async fn set(self, cast: &Cast<'_>) -> Call {
        let owner = cast.person("owner");
        let creates = || Call::http("owner", "POST", "/api/bucket/create_classic", json!({ "name": "New" }));
        if self == Self::BucketIsCreatedAtFirstSight {
            return creates();
        }
        if self == Self::BucketIsCreated {
            owner.get("/api/bucket").await.ok();
            return creates();
        }
        if self == Self::PersonSignsInFirst {
            return Call::http("owner", "GET", "/api/bucket", Value::Null);
        }
        let bucket = owner.creates_bucket("Servers").await;
        let of = |who, method, rest: &str, body| Call::http(who, method, &path(&bucket, rest), body);
        let member = cast.address("member");
        let call = match self {
            Self::AgentConnects => {
                servers::links(cast.api, &bucket, "web-1").await.ok();
                Call::event("agent_connect", servers::connected(&bucket, "web-1", &cast.connection()))
            }
            Self::AgentDisconnects => {
                servers::links(cast.api, &bucket, "web-1").await.ok();
                servers::connects(cast.api, &bucket, "web-1", &cast.connection()).await;
                Call::event("agent_disconnect", servers::disconnected(&cast.connection(), 1000))
            }
            Self::BucketIsClaimedATrial => of("owner", "PUT", "/start_trial", json!({})),
            Self::BucketIsDeleted => {
                owner.adds(&bucket, &cast.person("member"), "user").await;
                of("owner", "DELETE", "", json!({}))
            }
            Self::BucketIsUpdated => of("owner", "PUT", "", json!({ "name": "Renamed" })),
            Self::FeedbackIsSent => of("owner", "PUT", "/feedback", json!({ "feedback": "Good" })),
            Self::InvitationIsMade => {
                of("owner", "POST", "/add_user", json!({ "email": cast.address("new"), "role": "admin" }))
            }
            Self::InvitationIsRemoved => {
                owner.invites(&bucket, &cast.address("new"), "user").await.ok();
                of("owner", "DELETE", &format!("/invitation?email={}", cast.address("new")), json!({}))
            }
            Self::InvitationIsRenewed => {
                owner.invites(&bucket, &cast.address("new"), "user").await.ok();
                of("owner", "POST", "/add_user", json!({ "email": cast.address("new"), "role": "admin" }))
            }
            Self::MemberLeaves => {
                owner.adds(&bucket, &cast.person("member"), "user").await;
                of("member", "POST", "/remove_user", json!({ "email": member }))
            }
            Self::MemberIsRemoved => {
                owner.adds(&bucket, &cast.person("member"), "user").await;
                of("owner", "POST", "/remove_user", json!({ "email": member }))
            }
            Self::NotificationIsSet => of(
                "owner",
                "POST",
                "/manage_notif",
                json!({ "email": cast.address("owner"), "state": "none" }),
            ),
            Self::OptionsAreSet => of("owner", "PUT", "/user_options", json!({ "options": { "a": 1 } })),
            Self::OwnershipIsTransferred => {
                owner.adds(&bucket, &cast.person("member"), "admin").await;
                of("owner", "POST", "/transfer_ownership", json!({ "new_owner": member }))
            }
            Self::PersonIsAdded => {
                cast.person("member").get("/api/bucket").await.ok();
                of("owner", "POST", "/add_user", json!({ "email": member, "role": "developer" }))
            }
            Self::PersonWithInvitationsSignsInFirst => {
                owner.invites(&bucket, &cast.address("new"), "admin").await.ok();
                let another = owner.creates_bucket("Another").await;
                owner.invites(&another, &cast.address("new"), "user").await.ok();
                Call::http("new", "GET", "/api/bucket", Value::Null).about(&another)
            }
            Self::PlanIsChanged => of("owner", "POST", "/upgrade", json!({ "plan": "pro" })),
            Self::RoleIsSet => {
                owner.adds(&bucket, &cast.person("member"), "user").await;
                of("owner", "POST", "/promote_user", json!({ "email": member, "role": "admin" }))
            }
            Self::SecretIsRotated => of("owner", "POST", "/rotate_secret", json!({})),
            Self::ServerIsDeleted => {
                servers::links(cast.api, &bucket, "web-1").await.ok();
                of("owner", "POST", "/data/deleteServer", json!({ "server_name": "web-1" }))
            }
            Self::ServerIsLinked => Call::of_agent(&servers::message(&bucket, "web-1")),
            Self::ServerReports => {
                servers::links(cast.api, &bucket, "web-1").await.ok();
                let mut message = servers::message(&bucket, "web-1");
                message["data"]["HOSTNAME"] = json!("another");
                Call::of_agent(&message)
            }
            Self::BucketIsCreated | Self::BucketIsCreatedAtFirstSight | Self::PersonSignsInFirst => {
                unreachable!("needs no bucket")
            }
        };
        call.about(&bucket)
    }
}

/// A request.
pub(super) struct Call {
    kind: Kind,
    /// The buckets of the situation.
    buckets: Vec<Value>,
}

enum Kind {
    Http { who: Option<&'static str>, method: &'static str, path: String, body: Value },
    Event { function: &'static str, event: Value },
}

impl Call {
    fn http(who: &'static str, method: &'static str, path: &str, body: Value) -> Self {
        let path = path.to_owned();
        Self { kind: Kind::Http { who: Some(who), method, path, body }, buckets: Vec::new() }
    }

    fn of_agent(message: &Value) -> Self {
        let (path, body) = ("/api/node/verifyPM2".to_owned(), message.clone());
        Self { kind: Kind::Http { who: None, method: "POST", path, body }, buckets: Vec::new() }
    }

    fn event(function: &'static str, event: Value) -> Self {
        Self { kind: Kind::Event { function, event }, buckets: Vec::new() }
    }

    fn about(mut self, bucket: &Value) -> Self {
        self.buckets.push(bucket.clone());
        self
    }

    pub(super) async fn sent(&self, cast: &Cast<'_>) -> Answer {
        match &self.kind {
            Kind::Http { who, method, path, body } => {
                let token = who.map(|who| cast.person(who).token);
                let body = (!body.is_null()).then(|| body.to_string());
                cast.api.send(method, path, token.as_deref(), body.as_deref()).await
            }
            Kind::Event { function, event } => {
                let answer = cast.api.stack.invoke(function, event.to_string().into_bytes()).await;
                // As API Gateway tells it.
                let failed = br#"{ "statusCode": 500, "body": "{}" }"#;
                let answer = answer.unwrap_or_else(|_| failed.as_slice().into());
                let answer: Value = serde_json::from_slice(&answer).unwrap();
                let headers = answer["headers"].as_object().into_iter().flatten();
                Answer {
                    status: u16::try_from(answer["statusCode"].as_u64().unwrap()).unwrap(),
                    headers: headers
                        .map(|(name, value)| {
                            (name.parse().unwrap(), value.as_str().unwrap().parse().unwrap())
                        })
                        .collect(),
                    body: answer["body"].as_str().map_or(Value::Null, |body| {
                        serde_json::from_str(body).unwrap_or_else(|_| Value::from(body))
                    }),
                }
            }
        }
    }
}

/// The people of one case, whom no other case knows.
pub(super) struct Cast<'a> {
    pub(super) api: &'a Api,
    table: &'a Table,
    number: usize,
    names: Mutex<BTreeSet<&'static str>>,
}

impl<'a> Cast<'a> {
    pub(super) fn new(api: &'a Api, table: &'a Table, number: usize) -> Self {
        Self { api, table, number, names: Mutex::default() }
    }

    /// What sets the names of this case apart from those of others.
    pub(super) fn suffix(&self) -> String {
        format!(".x{}x", self.number)
    }

    pub(super) fn address(&self, name: &'static str) -> String {
        self.names.lock().unwrap().insert(name);
        format!("{name}{}@example.com", self.suffix())
    }

    fn connection(&self) -> String {
        format!("connection{}", self.suffix())
    }

    pub(super) fn person(&self, name: &'static str) -> Person<'a> {
        let email = self.address(name);
        self.api.user_with_claims(&json!({ "sub": email, "email": email, "email_verified": true }))
    }

    fn ids(&self) -> BTreeMap<String, &'static str> {
        let names = self.names.lock().unwrap().clone();
        let issuer = self.api.stack.identity().issuer();
        let id = |name| UserId::of_subject(issuer, &self.address(name)).as_str().to_owned();
        names.into_iter().map(|name| (id(name), name)).collect()
    }

    /// What calls about this case name.
    pub(super) fn marks(&self, call: &Call) -> Vec<String> {
        let buckets = call.buckets.iter().map(|bucket| bucket["_id"].as_str().unwrap().to_owned());
        self.ids().into_keys().chain(buckets).chain([self.suffix()]).collect()
    }

    /// The rows of the people, of their buckets and of their agents' connections, as they are.
    pub(super) async fn rows(&self, call: &Call) -> Vec<Value> {
        let mut rows = Vec::new();
        for (id, name) in self.ids() {
            rows.extend(self.table.under(&format!("USER#{id}")).await);
            rows.extend(self.table.under(&format!("EMAIL#{}", self.address(name))).await);
        }
        let mut buckets: BTreeSet<String> =
            call.buckets.iter().map(|bucket| bucket["_id"].as_str().unwrap().to_owned()).collect();
        buckets.extend(rows.iter().filter_map(|row| Some(row["bucket_id"].as_str()?.to_owned())));
        let mut keys: BTreeSet<String> =
            call.buckets.iter().map(|bucket| bucket["public_id"].as_str().unwrap().to_owned()).collect();
        for bucket in buckets {
            let under = self.table.under(&format!("BUCKET#{bucket}")).await;
            keys.extend(under.iter().filter_map(|row| Some(row["public_id"].as_str()?.to_owned())));
            rows.extend(under);
        }
        for key in keys {
            rows.extend(self.table.under(&format!("KEY#{key}")).await);
        }
        rows.extend(self.table.under(&format!("CONNECTION#{}", self.connection())).await);
        if rows.iter().any(|row| row["deleted_at"].is_number()) {
            // What hangs under a deleted bucket goes in its own time.
            rows.retain(|row| {
                matches!(row["type"].as_str().unwrap(), "audit" | "bucket" | "user" | "email_claim")
            });
        }
        rows
    }

    /// `rows`, or an answer, with the names of roles for what is random or of this case alone.
    pub(super) fn plain(&self, call: &Call, rows: &[Value], value: &Value) -> Value {
        let mut text = value.to_string().replace(&self.suffix(), "");
        for (id, name) in self.ids() {
            text = text.replace(&id, name);
        }
        for bucket in &call.buckets {
            let name = bucket["name"].as_str().unwrap();
            text = text.replace(bucket["_id"].as_str().unwrap(), name);
            text = text.replace(bucket["public_id"].as_str().unwrap(), &format!("public of {name}"));
            text = text.replace(bucket["secret_id"].as_str().unwrap(), &format!("secret of {name}"));
        }
        // What has been made since.
        for row in rows.iter().filter(|row| row["type"] == "bucket") {
            for name in ["id", "public_id", "secret_id"] {
                text = text.replace(row[name].as_str().unwrap(), &format!("new {name}"));
            }
        }
        let mut plain = serde_json::from_str(&text).unwrap();
        without_times(&mut plain);
        if let Value::Array(rows) = &mut plain {
            rows.sort_by_key(Value::to_string);
        }
        plain
    }
}

/// Replaces times, and what is made of them.
fn without_times(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(without_times),
        Value::Object(members) => {
            members.retain(|name, _| name != "request_id");
            members.values_mut().for_each(without_times);
        }
        Value::Number(number) if number.as_i64().is_some_and(|number| number > 1_000_000_000) => {
            *value = json!("a time");
        }
        Value::String(text) => {
            let (before, last) = text.rsplit_once('#').unwrap_or(("", text));
            let is_ulid =
                last.len() == 26 && last.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
            let is_time = text.len() >= 20 && text.starts_with("20") && text.ends_with('Z');
            if is_ulid {
                *text = format!("{before}#a ULID");
            } else if is_time {
                "a time".clone_into(text);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
