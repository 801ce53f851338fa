//! AWS Secrets Manager that knows what it was told at the start.
//!
//! Source: `GetSecretValue` in the AWS Secrets Manager API reference.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::json;

use crate::iam::{Asked, Permissions, arn};
use crate::{http, ids};

/// Below the stack's origin, before the part that nobody can guess.
const PATH: &str = "/_local/secrets";

/// Bytes of a request.
const MAX_REQUEST: usize = 16 * 1024;

/// The secrets by name.
#[derive(Clone)]
pub(crate) struct Secrets {
    values: Arc<BTreeMap<String, String>>,
    /// Where they are: other people of this machine reach the stack's port too, but not this path.
    path: String,
}

impl Secrets {
    pub(crate) fn new(values: BTreeMap<String, String>) -> Self {
        Self { values: Arc::new(values), path: format!("{PATH}/{}", ids::uuid()) }
    }

    /// Where the AWS SDK asks for them, below the stack's origin.
    pub(crate) fn endpoint(&self) -> &str {
        &self.path
    }

    /// The functions are told what `permissions` allow.
    pub(crate) fn router(&self, permissions: &Arc<Permissions>) -> Router {
        // The SDK asks for `/` below its endpoint.
        Router::new()
            .route(&format!("{}/", self.path), post(answer))
            .layer(Extension(Arc::clone(permissions)))
            .with_state(self.clone())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetSecretValue {
    secret_id: String,
}

async fn answer(
    State(secrets): State<Secrets>,
    Extension(permissions): Extension<Arc<Permissions>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    if target != Some("secretsmanager.GetSecretValue") {
        return refused("UnknownOperationException", "only GetSecretValue is played");
    }
    let Ok(body) = http::read_body(body, MAX_REQUEST).await else {
        return refused("InvalidRequestException", "the request is too long");
    };
    let Ok(GetSecretValue { secret_id }) = serde_json::from_slice(&body) else {
        return refused("InvalidParameterException", "SecretId is missing");
    };
    // The six characters that AWS appends to a secret's name.
    let arn = arn("secretsmanager", &format!("secret:{secret_id}-AbCdEf"));
    if let Some(caller) = permissions.caller(&headers)
        && let Err(denied) = caller.may(&[Asked::new("secretsmanager", "GetSecretValue", &*arn)])
    {
        return refused("AccessDeniedException", &denied.to_string());
    }
    match secrets.values.get(&secret_id) {
        Some(value) => {
            let answer = json!({ "ARN": arn, "Name": secret_id, "SecretString": value, "VersionStages": ["AWSCURRENT"] });
            http::json(StatusCode::OK, &answer)
        }
        None => refused("ResourceNotFoundException", "Secrets Manager can't find the specified secret."),
    }
}

fn refused(code: &str, message: &str) -> Response {
    http::json(StatusCode::BAD_REQUEST, &json!({ "__type": code, "Message": message }))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use tower_service::Service as _;

    use super::*;

    async fn ask(target: &str, body: &str) -> (StatusCode, serde_json::Value) {
        let secrets = Secrets::new(BTreeMap::from([("stripe".to_owned(), "value".to_owned())]));
        let request = Request::post(format!("{}/", secrets.endpoint())).header("x-amz-target", target);
        let response = secrets
            .router(&Arc::default())
            .call(request.body(Body::from(body.to_owned())).unwrap())
            .await
            .unwrap();
        let status = response.status();
        let body = http::read_body(response.into_body(), MAX_REQUEST).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_secret_is_told_by_its_name_and_no_other() {
        let get = "secretsmanager.GetSecretValue";

        let (status, answer) = ask(get, r#"{"SecretId":"stripe"}"#).await;
        assert_eq!((status, answer["SecretString"].as_str()), (StatusCode::OK, Some("value")));
        for (target, body, code) in [
            (get, r#"{"SecretId":"other"}"#, "ResourceNotFoundException"),
            (get, "{}", "InvalidParameterException"),
            ("secretsmanager.ListSecrets", "{}", "UnknownOperationException"),
        ] {
            let (status, answer) = ask(target, body).await;
            assert_eq!((status, answer["__type"].as_str()), (StatusCode::BAD_REQUEST, Some(code)));
        }
    }

    #[test]
    fn nobody_can_guess_where_they_are() {
        assert_ne!(Secrets::new(BTreeMap::new()).endpoint(), Secrets::new(BTreeMap::new()).endpoint());
    }
}
