//! The Lambda Runtime API, as one instance sees it. Whoever serves [`router`] is told of each [`Call`], and decides
//! when there is an event: the stack's own pools do, and so does the benchmark, which takes the time.
//!
//! Source: "Using the Lambda runtime API for custom runtimes" in the AWS Lambda developer guide.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::MAX_PAYLOAD;
use crate::http;

/// What an instance asks of the Runtime API.
#[derive(Debug)]
pub enum Call {
    /// For its next event, which may take long.
    Next(oneshot::Sender<Delivery>),
    /// To take what became of the event `id`, or of its own start.
    Report {
        /// The id of the invocation; none for the start.
        id: Option<String>,
        /// What became of it.
        outcome: Outcome,
        /// Whether it was the answer that was waited for.
        accepted: oneshot::Sender<bool>,
    },
}

/// What became of an event.
#[derive(Debug)]
pub enum Outcome {
    /// The function answered.
    Response(Bytes),
    /// It answered with more bytes than Lambda takes.
    ResponseTooLarge,
    /// It reported an error.
    Error(ErrorReport),
}

/// The error that a function reports.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorReport {
    /// The kind of error, as the function calls it.
    pub error_type: String,
    /// What it says about it.
    pub error_message: String,
}

impl Default for ErrorReport {
    fn default() -> Self {
        Self { error_type: "Runtime.Unknown".to_owned(), error_message: "no message".to_owned() }
    }
}

/// An event, as it is handed out.
#[derive(Debug)]
pub struct Delivery {
    /// The event: JSON.
    pub event: Bytes,
    /// The id of the invocation.
    pub id: String,
    /// When the function must have answered, in milliseconds since 1970.
    pub deadline: u128,
    /// The function's ARN.
    pub arn: String,
    /// The trace header of X-Ray.
    pub trace: String,
}

/// The API of one instance, whose calls go to `calls`.
pub fn router(calls: mpsc::Sender<Call>) -> Router {
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(init_error))
        .with_state(calls)
}

type Calls = State<mpsc::Sender<Call>>;

async fn next(State(calls): Calls) -> Response {
    let (sender, delivery) = oneshot::channel();
    // Both fail only when the instance is being ended.
    if calls.send(Call::Next(sender)).await.is_err() {
        return gone();
    }
    let Ok(Delivery { event, id, deadline, arn, trace }) = delivery.await else { return gone() };
    let mut response = Response::new(Body::from(event));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in [
        ("lambda-runtime-aws-request-id", id),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        ("lambda-runtime-invoked-function-arn", arn),
        ("lambda-runtime-trace-id", trace),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

async fn response(calls: Calls, Path(id): Path<String>, body: Body) -> Response {
    if let Ok(body) = http::read_body(body, MAX_PAYLOAD).await {
        return report(calls, Some(id), Outcome::Response(body)).await;
    }
    report(calls, Some(id), Outcome::ResponseTooLarge).await;
    let message = format!("Exceeded maximum allowed payload size ({MAX_PAYLOAD} bytes).");
    refusal(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
}

async fn error(calls: Calls, Path(id): Path<String>, body: Body) -> Response {
    report(calls, Some(id), Outcome::Error(error_report(body).await)).await
}

async fn init_error(calls: Calls, body: Body) -> Response {
    report(calls, None, Outcome::Error(error_report(body).await)).await
}

async fn error_report(body: Body) -> ErrorReport {
    let body = http::read_body(body, MAX_PAYLOAD).await.unwrap_or_default();
    serde_json::from_slice(&body).unwrap_or_default()
}

async fn report(State(calls): Calls, id: Option<String>, outcome: Outcome) -> Response {
    let (accepted, answer) = oneshot::channel();
    if calls.send(Call::Report { id, outcome, accepted }).await.is_err() {
        return gone();
    }
    match answer.await {
        Ok(true) => http::json(StatusCode::ACCEPTED, &json!({ "status": "OK" })),
        Ok(false) => refusal(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID"),
        Err(_) => gone(),
    }
}

/// The answer to an instance that is being ended.
fn gone() -> Response {
    refusal(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalServerError",
        "The execution environment is being ended",
    )
}

fn refusal(status: StatusCode, kind: &str, message: &str) -> Response {
    http::json(status, &json!({ "errorType": kind, "errorMessage": message }))
}
