//! `POST /api/oauth/token`

use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::api::Api;

const PATH: &str = "/api/oauth/token";

#[tokio::test]
async fn a_refresh_token_gives_what_the_published_clients_want() {
    let api = Api::start().await;
    let body =
        json!({ "client_id": "0943857435", "refresh_token": "a@example.com", "grant_type": "refresh_token" });

    // They send along whatever token they still have.
    for stale in [None, Some("null"), Some("a.b.c")] {
        let tokens = api.send("POST", PATH, stale, Some(&body.to_string())).await.ok();

        assert_eq!(tokens["refresh_token"], "a@example.com");
        assert_eq!(tokens["token_type"], "Bearer");
        let expire_at = OffsetDateTime::parse(tokens["expire_at"].as_str().unwrap(), &Rfc3339).unwrap();
        let lifetime = expire_at - OffsetDateTime::now_utc();
        assert!((3_500..=3_600).contains(&lifetime.whole_seconds()), "{lifetime}");
        let person = api.bearer(tokens["access_token"].as_str().unwrap());
        assert_eq!(person.get("/api/bucket").await.ok(), json!([]));
    }
}

#[tokio::test]
async fn what_the_provider_refuses_is_a_403_that_clients_can_print() {
    let api = Api::start().await;

    for refresh_token in ["nobody", "a@example.com, b@example.com", " "] {
        let body = json!({ "client_id": "x", "refresh_token": refresh_token, "grant_type": "refresh_token" });
        let answer = api.send("POST", PATH, None, Some(&body.to_string())).await;

        let detail = answer.is_problem(403, "invalid_grant");
        assert_eq!(answer.body["error"], "invalid_grant");
        assert_eq!(answer.body["error_description"], detail);
    }
}

#[tokio::test]
async fn no_other_grant_passes_through() {
    let api = Api::start().await;

    for grant_type in ["password", "authorization_code", "client_credentials", ""] {
        let body = json!({ "grant_type": grant_type, "refresh_token": "a@example.com", "password": "x" });
        let answer = api.send("POST", PATH, None, Some(&body.to_string())).await;

        answer.is_problem(400, "unsupported_grant_type");
        assert_eq!(answer.body["fields"], json!(["grant_type"]));
    }
}

#[tokio::test]
async fn a_missing_field_is_named() {
    let api = Api::start().await;

    for (body, field) in [
        (json!({ "grant_type": "refresh_token" }), "refresh_token"),
        (json!({ "grant_type": "refresh_token", "refresh_token": "" }), "refresh_token"),
        (json!({ "grant_type": "refresh_token", "refresh_token": 5 }), "refresh_token"),
        (json!({ "refresh_token": "a@example.com" }), "grant_type"),
    ] {
        api.send("POST", PATH, None, Some(&body.to_string())).await.blames(&[field]);
    }
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_a_503() {
    let api = Api::with_parameters(&[("OidcIssuer", "http://127.0.0.1:1")]).await;
    let body = json!({ "grant_type": "refresh_token", "refresh_token": "a@example.com" });

    api.send("POST", PATH, None, Some(&body.to_string())).await.is_problem(503, "unavailable");
}
