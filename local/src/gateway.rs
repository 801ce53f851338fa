//! An API Gateway HTTP API: routes, CORS, limits, and the way from a request to an event and from a
//! function's answer back to a response. Beside it, a WebSocket API.

mod cors;
mod event;
mod response;
mod routes;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::{Extension, Router};
use bytes::Bytes;
use serde_json::json;
use time::OffsetDateTime;

use self::event::{Arrival, Event};
pub(crate) use self::routes::Pattern;
use self::routes::Routes;
pub use self::websocket::WebSocketLimits;
pub(crate) use self::websocket::{Sockets, connection_without_stack, handshake_without_stack};
use crate::http::{self, Peer, Unreadable};
use crate::ids;
use crate::lambda::{InvokeError, Lambda};
use crate::stack::LogSink;
use crate::template::{Cors, Template};

// Source: "Quotas for configuring and running an HTTP API" in the API Gateway developer guide.

/// Bytes of a request's body.
const MAX_BODY: usize = 10 * 1024 * 1024;
/// Bytes of the request line and the headers' values together.
const MAX_HEAD: usize = 10_240;
/// How long a function may take to answer a request.
pub(crate) const INTEGRATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The API.
pub(crate) struct Gateway {
    routes: Routes,
    cors: Option<Cors>,
    lambda: Arc<Lambda>,
    logs: LogSink,
    address: SocketAddr,
    timeout: Duration,
}

impl Gateway {
    /// The API of `template`, which listens on `address` and waits `timeout` for a function.
    pub(crate) fn new(
        template: &Template,
        lambda: Arc<Lambda>,
        logs: LogSink,
        address: SocketAddr,
        timeout: Duration,
    ) -> Self {
        Self {
            routes: Routes::new(&template.functions),
            cors: template.cors.clone(),
            lambda,
            logs,
            address,
            timeout,
        }
    }

    /// The API, which takes whatever no other route of a router takes.
    pub(crate) fn router(self) -> Router {
        Router::new().fallback(Self::handle).with_state(Arc::new(self))
    }

    async fn handle(
        State(gateway): State<Arc<Self>>,
        Extension(Peer(peer)): Extension<Peer>,
        request: Request,
    ) -> Response {
        let request_id = ids::request();
        let (request, body) = request.into_parts();
        let mut response = match &gateway.cors {
            Some(rules) if cors::is_preflight(&request.method, &request.headers) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                *response.headers_mut() = cors::preflight_headers(rules, &request.headers);
                response
            }
            rules => {
                let mut response = gateway.answer(&request, body, peer, &request_id).await;
                if let Some(rules) = rules {
                    cors::apply(rules, &request.headers, response.headers_mut());
                }
                response
            }
        };
        if let Ok(request_id) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(HeaderName::from_static("apigw-requestid"), request_id);
        }
        response
    }

    async fn answer(&self, request: &Parts, body: Body, peer: SocketAddr, request_id: &str) -> Response {
        let Some(authority) = http::authority(request, self.address) else {
            return message(StatusCode::BAD_REQUEST, "Bad Request");
        };
        if head_size(request) > MAX_HEAD {
            return message(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large");
        }
        let body = match http::read_body(body, MAX_BODY).await {
            Ok(body) => body,
            Err(Unreadable::TooLong) => {
                return message(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large");
            }
            Err(Unreadable::Broken) => return message(StatusCode::BAD_REQUEST, "Bad Request"),
        };
        match event_for(&self.routes, request, &body, &authority, (peer, self.address.port()), request_id) {
            Ok((function, event)) => self.invoke(function, event).await,
            Err(status) => message(status, status.canonical_reason().unwrap_or_default()),
        }
    }

    /// The function's answer to `event`, or that of the gateway in its place.
    async fn invoke(&self, function: String, event: Vec<u8>) -> Response {
        // A task of its own: a client that hangs up does not stop the function.
        let invocation = tokio::spawn({
            let (lambda, logs, function) =
                (Arc::clone(&self.lambda), Arc::clone(&self.logs), function.clone());
            async move {
                let failure = match lambda.invoke(&function, event.into()).await {
                    Ok(payload) => match response::from_function(payload) {
                        Ok(response) => return response,
                        Err(reason) => reason,
                    },
                    Err(InvokeError::RequestTooLarge { .. }) => {
                        return message(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long");
                    }
                    Err(error) => error.to_string(),
                };
                logs(&function, &failure);
                message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
            }
        });
        match tokio::time::timeout(self.timeout, invocation).await {
            Ok(Ok(response)) => response,
            // The task was cancelled with the stack.
            Ok(Err(_)) => message(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
            Err(_) => {
                let seconds = self.timeout.as_secs_f64();
                (self.logs)(
                    &function,
                    &format!("no answer within {seconds} seconds, which is all that the gateway waits"),
                );
                message(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
            }
        }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The function that `request` goes to, and the event for it. `peer` is the client, and the port that it has
/// reached.
fn event_for(
    routes: &Routes,
    request: &Parts,
    body: &Bytes,
    authority: &Authority,
    (peer, port): (SocketAddr, u16),
    request_id: &str,
) -> Result<(String, Vec<u8>), StatusCode> {
    let route = routes.find(request.method.as_str(), request.uri.path()).ok_or(StatusCode::NOT_FOUND)?;
    let time = OffsetDateTime::now_utc();
    let arrival = Arrival { route: &route, request_id, authority, peer, port, time };
    // Maps with text as keys always serialise.
    let event = serde_json::to_vec(&Event::new(request, body, &arrival))
        .map_err(|_never| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((route.function.to_owned(), event))
}

/// The same for an API of `template` that nobody runs, if it takes the request at all.
pub(crate) fn event_without_stack(
    template: &Template,
    request: &Parts,
    body: &Bytes,
) -> Option<(String, Vec<u8>)> {
    let address = SocketAddr::from(([127, 0, 0, 1], 3000));
    let authority = http::authority(request, address).filter(|_| head_size(request) <= MAX_HEAD)?;
    let routes = Routes::new(&template.functions);
    event_for(&routes, request, body, &authority, (address, address.port()), "request").ok()
}

/// An answer of the gateway itself.
fn message(status: StatusCode, message: &str) -> Response {
    http::json(status, &json!({ "message": message }))
}

/// Bytes that count towards [`MAX_HEAD`].
fn head_size(request: &Parts) -> usize {
    let line = request.method.as_str().len() + request.uri.to_string().len() + " HTTP/1.1 ".len();
    line + request.headers.values().map(HeaderValue::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::lambda::Limits;
    use crate::lambda::tests::examples;
    use crate::template::Source;

    #[tokio::test]
    async fn a_function_that_takes_longer_than_the_gateway_waits_is_503_and_logged_once() {
        let template = "Resources:\n  F:\n    Type: AWS::Serverless::Function\n    Properties: { CodeUri: a/misbehaving }";
        let template = Source::parse(template).unwrap().evaluate(&BTreeMap::new()).unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let logs: LogSink = {
            let lines = Arc::clone(&lines);
            Arc::new(move |function, line| lines.lock().unwrap().push(format!("{function} | {line}")))
        };
        let lambda =
            Lambda::new(&template.functions, &examples(), &BTreeMap::new(), &logs, Limits::default());
        let address = "127.0.0.1:3000".parse().unwrap();
        let gateway = Gateway::new(&template, Arc::new(lambda), logs, address, Duration::from_millis(500));

        let response = gateway.invoke("misbehaving".to_owned(), br#"{"do":"sleep:60000"}"#.to_vec()).await;

        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = http::read_body(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body, r#"{"message":"Service Unavailable"}"#);
        let expected = "misbehaving | no answer within 0.5 seconds, which is all that the gateway waits";
        assert_eq!(*lines.lock().unwrap(), [expected]);
    }
}
