//! What holds for every route of `template.yaml`, so that a new one without it fails.

use local::template::Route;
use serde_json::{Value, json};

use super::{api::Api, get_subscription::subscription};

/// The functions that ask for no token; Stripe shows a signature, and agents the bucket's keys.
const PUBLIC: [&str; 5] = ["misc_plans", "node_verify", "not_found", "oauth_token", "stripe_webhook"];

/// The functions that take no body, or one that is not a client's.
const WITHOUT_BODY: [&str; 4] = ["claim_trial", "node_verify", "rotate_secret", "stripe_webhook"];

pub(crate) struct Call {
    pub(crate) function: String,
    pub(crate) method: String,
    pub(crate) path: String,
}

impl Call {
    pub(crate) fn is_public(&self) -> bool {
        PUBLIC.contains(&self.function.as_str())
    }

    pub(crate) fn takes_a_body(&self) -> bool {
        matches!(self.method.as_str(), "POST" | "PUT") && !WITHOUT_BODY.contains(&self.function.as_str())
    }
}

/// A call of every route, about the bucket `id`.
pub(crate) fn calls(api: &Api, id: &str) -> Vec<Call> {
    let mut calls = vec![];
    for function in &api.stack.template().functions {
        for route in &function.routes {
            let (method, path) = match route {
                Route::Path { method, path } => {
                    (method.clone(), path.replace("{id}", id).replace("{proxy+}", ""))
                }
                Route::Default => ("PATCH".to_owned(), "/nowhere".to_owned()),
            };
            calls.push(Call { function: function.name.clone(), method, path });
        }
    }
    assert!(calls.len() >= 10, "the template has routes");
    calls
}

/// The id of no bucket.
pub(crate) const UNKNOWN: &str = "0123456789abcdef01234567";

#[tokio::test]
async fn without_a_good_token_nobody_gets_past_401() {
    let api = Api::start().await;
    let expired = api.user("a@example.com#ttl=-120").await.token;
    let good = api.user("a@example.com").await.token;
    let tampered = format!("{}A{}", &good[..good.len() - 5], &good[good.len() - 4..]);
    let other_key = Api::start().await.user("a@example.com").await.token;
    let basic = format!("Basic {good}");
    let bearer = |token: &str| format!("Bearer {token}");
    let with = |claims: Value| bearer(&api.user_with_claims(&claims).token);

    for call in calls(&api, UNKNOWN).iter().filter(|call| !call.is_public()) {
        for (authorization, code) in [
            (None, "missing_token"),
            (Some(basic.clone()), "missing_token"),
            (Some("Bearer".to_owned()), "missing_token"),
            (Some(bearer("null")), "invalid_token"),
            (Some(bearer(&expired)), "expired_token"),
            (Some(bearer(&tampered)), "invalid_token"),
            (Some(bearer(&other_key)), "invalid_token"),
            (Some(with(json!({ "sub": "a", "aud": "other" }))), "invalid_token"),
            (Some(with(json!({ "sub": "a", "iss": "https://other.example" }))), "invalid_token"),
        ] {
            let mut headers = vec![("content-type", "application/json")];
            headers.extend(authorization.as_deref().map(|value| ("authorization", value)));

            let answer = api.send_with(&call.method, &call.path, &headers, "{}").await;

            answer.is_problem(401, code);
        }
    }
    assert!(api.rows().await.is_empty());
}

#[tokio::test]
async fn a_bucket_that_one_is_not_in_is_404_whatever_the_body() {
    let api = Api::start().await;
    let bucket = api.user("owner@example.com").await.creates_bucket("Servers").await;
    let outsider = api.user("outsider@example.com").await;
    outsider.get("/api/bucket").await.ok();
    let rows = api.rows().await;

    for id in [bucket["_id"].as_str().unwrap(), UNKNOWN, "%2e%2e", "a%00b", "%ff", "{id}", "' OR 1=1"] {
        let encoded = id.replace(' ', "%20").replace('{', "%7B").replace('}', "%7D");
        for call in calls(&api, &encoded).iter().filter(|call| call.path.contains(&encoded)) {
            for body in ["{}", "", "[", "{\"name\":1}"] {
                let answer = api.send(&call.method, &call.path, Some(&outsider.token), Some(body)).await;

                answer.is_problem(404, "bucket_not_found");
            }
        }
    }
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn a_bad_body_is_a_4xx_that_changes_nothing_and_costs_no_instance() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let rows = api.rows().await;
    let deep = format!("{{\"name\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let large = format!("{{\"name\":\"{}\"}}", "a".repeat(70_000));
    let json = "application/json";

    for call in calls(&api, bucket["_id"].as_str().unwrap()).iter().filter(|call| call.takes_a_body()) {
        for (content_type, body, status, code) in [
            (json, "", 400, "invalid_input"),
            (json, "null", 400, "invalid_input"),
            (json, "[]", 400, "invalid_input"),
            (json, "{", 400, "invalid_input"),
            (json, "{}}", 400, "invalid_input"),
            (json, "{\"name\":\"\u{0}\"}", 400, "invalid_input"),
            (json, deep.as_str(), 400, "invalid_input"),
            (json, large.as_str(), 413, "body_too_large"),
            ("text/plain", "{}", 415, "unsupported_media_type"),
            ("application/x-www-form-urlencoded", "name=a", 415, "unsupported_media_type"),
        ] {
            let authorization = format!("Bearer {}", owner.token);
            let headers = [("content-type", content_type), ("authorization", authorization.as_str())];

            let answer = api.send_with(&call.method, &call.path, &headers, body).await;

            answer.is_problem(status, code);
        }
        assert_eq!(api.stack.instances_started(&call.function), 1, "{}", call.function);
    }
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn get_and_delete_ignore_the_body_that_clients_send_along() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.put(&super::api::path(&bucket, "/start_trial"), &json!({})).await.ok();
    let authorization = format!("Bearer {}", owner.token);

    for call in calls(&api, bucket["_id"].as_str().unwrap()).iter().filter(|call| call.method == "GET") {
        for (content_type, body) in
            [("application/json", "{}"), ("application/json;charset=utf-8", "{}"), ("text/plain", "junk")]
        {
            let headers = [("content-type", content_type), ("authorization", authorization.as_str())];

            api.send_with("GET", &call.path, &headers, body).await.ok();
        }
    }
    owner.delete(&super::api::path(&bucket, "")).await.ok();
}

#[tokio::test]
async fn a_warm_instance_serves_the_next_request() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;

    for _ in 0..5 {
        owner.get(&super::api::path(&bucket, "")).await.ok();
    }

    assert_eq!(api.stack.instances_started("retrieve"), 1);
}

#[tokio::test]
async fn pages_of_other_origins_may_call_and_see_errors_too() {
    let api = Api::start().await;
    let page = ("origin", "https://page.example");
    let wanted = "authorization,content-type,x-js-api-version";

    for call in calls(&api, UNKNOWN) {
        let preflight = api
            .send_with(
                "OPTIONS",
                &call.path,
                &[page, ("access-control-request-method", "PUT"), ("access-control-request-headers", wanted)],
                "",
            )
            .await;
        assert_eq!(preflight.status, 204);
        assert_eq!(preflight.headers["access-control-allow-origin"], "*");
        let allowed = preflight.headers["access-control-allow-headers"].to_str().unwrap();
        assert!(wanted.split(',').all(|header| allowed.contains(header)), "{allowed}");

        let answer = api.send_with(&call.method, &call.path, &[page], "").await;
        assert_eq!(answer.status >= 400, call.function != "misc_plans");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        let exposed = answer.headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("date") && answer.headers.contains_key("date"), "{exposed}");
    }
}

/// The routes that the reference calls deprecated.
const DEPRECATED: [&str; 4] = ["claim_trial", "get_subscription", "retrieve_charges", "upgrade"];

#[tokio::test]
async fn a_deprecated_route_says_so_in_answers_and_refusals() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    api.put_row(&subscription(&bucket)).await;

    for call in calls(&api, bucket["_id"].as_str().unwrap()) {
        let body = Some("{\"plan\":\"free\"}").filter(|_| call.method != "GET");
        for token in [Some(owner.token.as_str()), None] {
            if call.function == "destroy" && token.is_some() {
                continue;
            }
            let answer = api.send(&call.method, &call.path, token, body).await;

            let deprecation = answer.headers.get("deprecation").map(|value| value.to_str().unwrap());
            let expected = DEPRECATED.contains(&&*call.function).then_some("@1563408000");
            assert_eq!(deprecation, expected, "{}: {}", call.function, answer.body);
        }
    }
}

#[tokio::test]
async fn the_type_of_a_refusal_leads_to_where_the_operator_has_the_document() {
    let api = Api::with_parameters(&[("ProblemTypes", "https://docs.example.com/problems.md#")]).await;

    let refused = api.bearer("not.a.token").get("/api/bucket").await;

    assert_eq!(refused.body["code"], "invalid_token");
    assert_eq!(refused.body["type"], "https://docs.example.com/problems.md#invalid_token");
}
