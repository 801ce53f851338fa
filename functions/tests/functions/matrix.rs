//! Who may what: every route of the template against every kind of caller. A route without a row here
//! fails.

use std::collections::BTreeMap;

use local::template::Route;
use serde_json::{Value, json};

use super::{
    api::{Answer, Api, Person},
    get_subscription::subscription,
    servers,
};

/// Who gets through.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    /// With or without a token.
    Anybody,
    /// With a good token.
    SignedIn,
    /// Members with these roles.
    Members(&'static [&'static str]),
}

const EVERY_MEMBER: Who = Who::Members(&["user", "developer", "admin", "owner"]);
const ADMINS: Who = Who::Members(&["admin", "owner"]);
const OWNER: Who = Who::Members(&["owner"]);

/// Who gets through to `function`, and with what body a call of theirs succeeds.
fn row(function: &str) -> (Who, Value) {
    let target = json!({ "email": "target@example.com" });
    match function {
        "misc_plans" | "not_found" | "node_verify" | "stripe_webhook" => (Who::Anybody, json!({})),
        "oauth_token" => {
            (Who::Anybody, json!({ "grant_type": "refresh_token", "refresh_token": "a@example.com" }))
        }
        "create" => (Who::SignedIn, json!({ "name": "Another" })),
        "retrieve_all" | "is_logged" => (Who::SignedIn, json!({})),
        "retrieve" | "current_role" | "retrieve_users" | "retrieve_servers" => (EVERY_MEMBER, json!({})),
        "update_user_options" => (EVERY_MEMBER, json!({ "options": {} })),
        "send_feedback" => (EVERY_MEMBER, json!({ "feedback": "Good" })),
        "invite_user" => (ADMINS, json!({ "email": "another@example.com" })),
        "remove_invitation" => (ADMINS, json!({ "params": { "email": "invited@example.com" } })),
        "set_notification_state" => (ADMINS, json!({ "email": "target@example.com", "state": "none" })),
        "get_subscription" | "retrieve_charges" | "retrieve_invitations" => (ADMINS, json!({})),
        "upgrade" => (OWNER, json!({ "plan": "pro" })),
        "update" => (OWNER, json!({ "name": "Renamed" })),
        "remove_user" => (OWNER, target),
        "set_user_role" => (OWNER, json!({ "email": "target@example.com", "role": "admin" })),
        "transfer_ownership" => (OWNER, json!({ "new_owner": "target@example.com" })),
        "server_delete_server" => (ADMINS, json!({ "server_name": "web-1" })),
        "claim_trial" | "destroy" | "rotate_secret" => (OWNER, json!({})),
        _ => panic!("the route of {function} has no row in the matrix"),
    }
}

/// The body with which a call of `function` succeeds, in a bucket that [`Cast::bucket_for`] has made for it.
pub(crate) fn good_body(function: &str) -> Value {
    row(function).1
}

/// The people, signed in.
pub(crate) struct Cast<'a> {
    api: &'a Api,
    pub(crate) by_kind: BTreeMap<&'static str, Person<'a>>,
}

impl<'a> Cast<'a> {
    pub(crate) async fn of(api: &'a Api) -> Self {
        let mut by_kind = BTreeMap::new();
        for kind in ["owner", "admin", "developer", "user", "former", "outsider", "target"] {
            let person = api.user(&format!("{kind}@example.com")).await;
            person.get("/api/bucket").await.ok();
            by_kind.insert(kind, person);
        }
        by_kind.insert("bad token", api.bearer("not.a.token"));
        Self { api, by_kind }
    }

    /// A bucket with one of each, and with the target that `function` needs.
    pub(crate) async fn bucket_for(&self, function: &str) -> Value {
        let owner = &self.by_kind["owner"];
        let bucket = owner.creates_bucket("Servers").await;
        owner.invites(&bucket, "former@example.com", "admin").await.ok();
        owner.removes(&bucket, "former@example.com").await.ok();
        for role in ["user", "developer", "admin"] {
            owner.invites(&bucket, &format!("{role}@example.com"), role).await.ok();
        }
        match function {
            "invite_user" => {}
            "server_delete_server" => {
                servers::links(self.api, &bucket, "web-1").await.ok();
            }
            "get_subscription" => self.api.put_row(&subscription(&bucket)).await,
            "remove_invitation" => drop(owner.invites(&bucket, "invited@example.com", "user").await.ok()),
            _ => drop(owner.invites(&bucket, "target@example.com", "user").await.ok()),
        }
        bucket
    }
}

#[track_caller]
fn check(function: &str, kind: &str, who: Who, answer: &Answer) {
    let known = !matches!(kind, "no token" | "bad token");
    let expected = match who {
        // Without an account at Stripe there is no such route.
        Who::Anybody if matches!(function, "not_found" | "stripe_webhook") => 404,
        // It wants other proof than a token.
        Who::Anybody if function == "node_verify" => 400,
        Who::Anybody => 200,
        _ if !known => 401,
        Who::SignedIn => 200,
        Who::Members(roles) if roles.contains(&kind) => 200,
        Who::Members(_) if matches!(kind, "former" | "outsider") => 404,
        Who::Members(_) => 403,
    };
    assert_eq!(answer.status, expected, "{function} called by {kind}: {}", answer.body);
    if expected == 403 {
        answer.is_problem(403, "role_too_low");
    }
}

#[tokio::test]
async fn each_route_lets_through_whom_it_should_and_nobody_else() {
    let api = Api::with_parameters(&[("BucketsPerOwner", "1000")]).await;
    let cast = Cast::of(&api).await;
    let kinds = ["no token", "bad token", "outsider", "former", "user", "developer", "admin", "owner"];
    for function in &api.stack.template().functions {
        for route in &function.routes {
            let (who, body) = row(&function.name);
            for kind in kinds {
                let bucket = cast.bucket_for(&function.name).await;
                let (method, path) = match route {
                    Route::Path { method, path } => (method.as_str(), path.as_str()),
                    Route::Default => ("PATCH", "/nowhere"),
                };
                let path = path
                    .replace("{id}", bucket["_id"].as_str().unwrap())
                    .replace("{email}", "invited@example.com")
                    .replace("{proxy+}", "");
                let token = cast.by_kind.get(kind).map(|person| person.token.as_str());

                let answer = api.send(method, &path, token, Some(&body.to_string())).await;

                check(&function.name, kind, who, &answer);
            }
        }
    }
}
