//! An API Gateway WebSocket API: one path of the stack's origin, whose connections are opened and closed
//! with the consent and the knowledge of functions.
//!
//! `$connect` is asked before a connection is accepted, and `$disconnect` is told of the end of each one that
//! was. In between, messages go to a `$default` route, which is a mock: nothing is invoked.
//!
//! Source: "Develop WebSocket APIs in API Gateway" in the API Gateway developer guide.

mod connection;
mod event;
mod handshake;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::any;
use axum::{Extension, Router};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use self::connection::End;
use self::event::Connection;
use super::{MAX_HEAD, head_size, response};
use crate::http::{self, Peer};
use crate::ids;
use crate::lambda::{InvokeError, Lambda, Limits};
use crate::stack::LogSink;
use crate::template::{Integration, WebSocketApi};

/// How far a WebSocket API goes.
///
/// The defaults are those of "Quotas for configuring and running a WebSocket API" in the API Gateway developer
/// guide, as far as it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebSocketLimits {
    /// Connections at a time; further ones are refused. AWS bounds only how fast they come. One process
    /// usually may have 1,024 files open, and half of them are left to everything else.
    pub connections: usize,
    /// How long a connection without a frame from the client is kept.
    pub idle: Duration,
    /// How long a connection is kept at most.
    pub duration: Duration,
    /// How long a client may take to close its end, once the gateway has closed.
    pub closing: Duration,
    /// How long a stop of the stack waits until the functions have been told of every connection.
    pub stopping: Duration,
}

impl Default for WebSocketLimits {
    fn default() -> Self {
        Self {
            connections: 500,
            idle: Duration::from_mins(10),
            duration: Duration::from_hours(2),
            closing: Duration::from_secs(1),
            stopping: Duration::from_secs(5),
        }
    }
}

/// The API with its connections, which end when this is dropped; [`Sockets::stop`] also tells everybody.
pub(crate) struct Sockets {
    shared: Arc<Shared>,
    /// One task for each, from the request until `$disconnect` has been handled.
    connections: Mutex<JoinSet<()>>,
}

/// What the tasks of the connections share. They must not hold the set that they are in.
struct Shared {
    api: WebSocketApi,
    limits: WebSocketLimits,
    lambda: Arc<Lambda>,
    logs: LogSink,
    /// Where the gateway listens.
    address: SocketAddr,
    /// One permit for each further connection.
    free: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
    /// How many connections have ended whose `$disconnect` has not been handled.
    ending: watch::Sender<usize>,
}

/// Why a connection is not accepted.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: &str) -> Self {
        Self { status, message: message.to_owned() }
    }

    /// With the words that HTTP has for the status.
    fn status(status: StatusCode) -> Self {
        Self::new(status, status.canonical_reason().unwrap_or_default())
    }
}

impl Sockets {
    /// Plays `api` for a gateway that listens on `address`.
    pub(crate) fn new(
        api: WebSocketApi,
        limits: WebSocketLimits,
        lambda: Arc<Lambda>,
        logs: LogSink,
        address: SocketAddr,
    ) -> Arc<Self> {
        let shared = Shared {
            api,
            limits,
            lambda,
            logs,
            address,
            free: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            stopping: watch::Sender::new(false),
            ending: watch::Sender::new(0),
        };
        Arc::new(Self { shared: Arc::new(shared), connections: Mutex::default() })
    }

    /// The path that clients connect to. AWS takes it with a slash at its end as well.
    pub(crate) fn router(self: &Arc<Self>) -> Router {
        let path = self.shared.api.path();
        Router::new()
            .route(&path, any(Self::handle))
            .route(&format!("{path}/"), any(Self::handle))
            .with_state(Arc::clone(self))
    }

    /// Returns when `$disconnect` has been handled for every connection that has ended by now.
    pub(crate) async fn settled(&self) {
        // The sender is there as long as `self` is.
        let _ = self.shared.ending.subscribe().wait_for(|ending| *ending == 0).await;
    }

    /// Closes every connection, and returns when the functions have been told, or it has taken too long.
    pub(crate) async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        let mut connections =
            std::mem::take(&mut *self.connections.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.shared.limits.stopping, all).await.is_err()
            && let Some(Integration { function, .. }) = &self.shared.api.disconnect
        {
            let line = format!("{} connections ended with the stack, untold", connections.len());
            (self.shared.logs)(function, &line);
        }
    }

    async fn handle(
        State(sockets): State<Arc<Self>>,
        Extension(Peer(peer)): Extension<Peer>,
        mut request: Request,
    ) -> Response {
        let upgrade = hyper::upgrade::on(&mut request);
        let (request, _) = request.into_parts();
        let (connection_id, request_id) = (ids::request(), ids::request());
        match sockets.open(request, upgrade, peer, &connection_id, &request_id).await {
            Ok(response) => response,
            Err(Refusal { status, message }) => {
                // The form of a WebSocket API's own answers.
                let body =
                    json!({ "message": message, "connectionId": connection_id, "requestId": request_id });
                let mut response = http::json(status, &body);
                if status == StatusCode::UPGRADE_REQUIRED {
                    let headers = [
                        ("connection", "upgrade"),
                        ("upgrade", "websocket"),
                        ("sec-websocket-version", "13"),
                    ];
                    response.headers_mut().extend(headers.map(|(name, value)| {
                        (HeaderName::from_static(name), HeaderValue::from_static(value))
                    }));
                }
                response
            }
        }
    }

    /// The answer that makes a connection of `request`, once the function has accepted it.
    async fn open(
        &self,
        request: Parts,
        upgrade: OnUpgrade,
        peer: SocketAddr,
        connection_id: &str,
        request_id: &str,
    ) -> Result<Response, Refusal> {
        let shared = &self.shared;
        let authority = http::authority(&request, shared.address)
            .ok_or_else(|| Refusal::status(StatusCode::BAD_REQUEST))?;
        if head_size(&request) > MAX_HEAD {
            return Err(Refusal::status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        }
        let key = handshake::key(&request)?;
        let permit = Arc::clone(&shared.free).try_acquire_owned().map_err(|_none_left| {
            let message = format!(
                "{} connections are open, and the local stack plays no more at a time",
                shared.limits.connections
            );
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, &message)
        })?;

        let time = OffsetDateTime::now_utc();
        let connection = Connection::new(connection_id, time, &authority, peer, &request);
        let headers = handshake::headers_as_sent(&request).await;
        let event = event::connect(&connection, shared, request_id, headers, request.uri.query());
        // A task of its own: a client that hangs up does not stop the function.
        let (answer, answered) = oneshot::channel();
        {
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            if *shared.stopping.borrow() {
                return Err(Refusal::status(StatusCode::SERVICE_UNAVAILABLE));
            }
            // Those that have ended are forgotten here, since nothing else looks at them.
            while connections.try_join_next().is_some() {}
            let shared = Arc::clone(shared);
            connections.spawn(async move {
                shared.live(connection, event, upgrade, answer).await;
                drop(permit);
            });
        }
        // Dropped unanswered only when the stack stops.
        let protocol =
            answered.await.unwrap_or_else(|_| Err(Refusal::status(StatusCode::SERVICE_UNAVAILABLE)))?;
        Ok(handshake::accept(&key, protocol))
    }
}

/// What a client that asks for a WebSocket with `request` is answered, and its headers as `$connect` is told them.
/// None if it does not ask as it must.
pub(crate) async fn handshake_without_stack(request: &Parts) -> Option<(Response, Vec<(String, String)>)> {
    let key = handshake::key(request).ok()?;
    Some((handshake::accept(&key, None), handshake::headers_as_sent(request).await))
}

/// What becomes of a connection on which the client sends `sent` and nothing more: the code and the reason that
/// `$disconnect` is told, and what the client receives.
pub(crate) async fn connection_without_stack(sent: &[u8]) -> (u16, String, Vec<u8>) {
    let logs: LogSink = Arc::new(|_, _| {});
    let lambda = Lambda::new(&[], Path::new(""), &BTreeMap::new(), &logs, Limits::default());
    let api = WebSocketApi {
        id: String::new(),
        stage: String::new(),
        connect: None,
        disconnect: None,
        takes_messages: true,
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 3000));
    let sockets = Sockets::new(api, WebSocketLimits::default(), Arc::new(lambda), logs, address);
    let (request, ()) = Request::new(()).into_parts();
    let authority = Authority::from_static("localhost");
    let connection = Connection::new("connection", OffsetDateTime::now_utc(), &authority, address, &request);

    let (client, server) = duplex(64 * 1024);
    let (mut from_gateway, mut to_gateway) = split(client);
    let client = async {
        // The gateway may have closed before.
        let _ = to_gateway.write_all(sent).await;
        let _ = to_gateway.shutdown().await;
    };
    let mut received = Vec::new();
    let ((End { code, reason }, _), (), _) = tokio::join!(
        connection::run(server, &connection, &sockets.shared),
        client,
        from_gateway.read_to_end(&mut received)
    );
    (code, reason, received)
}

impl Shared {
    /// A connection from the request to the end.
    async fn live(
        self: Arc<Self>,
        connection: Connection,
        event: Bytes,
        upgrade: OnUpgrade,
        answer: oneshot::Sender<Result<Option<HeaderValue>, Refusal>>,
    ) {
        let protocol = match self.connect(event).await {
            Ok(protocol) => protocol,
            Err(refusal) => {
                // A client that has hung up has no use for it.
                let _ = answer.send(Err(refusal));
                return;
            }
        };
        // From here on the function counts on the connection, so it is told of its end even if the client is
        // gone already.
        let upgraded = match answer.send(Ok(protocol)) {
            Ok(()) => upgrade.await.ok(),
            Err(_) => None,
        };
        let (end, ending) = match upgraded {
            Some(upgraded) => connection::run(TokioIo::new(upgraded), &connection, &self).await,
            None => (End::abnormal(), self.ending()),
        };
        self.disconnect(&connection, &end).await;
        drop(ending);
    }

    /// Whether the function of `$connect` accepts. If so, the subprotocol that it chooses, if it does.
    async fn connect(&self, event: Bytes) -> Result<Option<HeaderValue>, Refusal> {
        let Some(Integration { function, timeout }) = &self.api.connect else { return Ok(None) };
        let failed = |reason: &str, refusal: Refusal| {
            (self.logs)(function, reason);
            Err(refusal)
        };
        let unusable = || Refusal::new(StatusCode::BAD_GATEWAY, "Internal server error");
        let payload = match tokio::time::timeout(*timeout, self.lambda.invoke(function, event)).await {
            Ok(Ok(payload)) => payload,
            // What a function that failed returns is no answer either.
            Ok(Err(InvokeError::Stopped)) => return Err(Refusal::status(StatusCode::SERVICE_UNAVAILABLE)),
            Ok(Err(error)) => return failed(&error.to_string(), unusable()),
            Err(_) => {
                let seconds = timeout.as_secs_f64();
                let reason =
                    format!("no answer within {seconds} seconds, which is all that the gateway waits");
                let refusal = Refusal::new(StatusCode::GATEWAY_TIMEOUT, "Endpoint request timed out");
                return failed(&reason, refusal);
            }
        };
        match response::with_status(&payload) {
            Ok(response) if response.status().is_success() => {
                Ok(response.headers().get("sec-websocket-protocol").cloned())
            }
            Ok(response) => Err(Refusal::status(response.status())),
            Err(reason) => failed(&reason, unusable()),
        }
    }

    /// Tells the function of `$disconnect`. As on AWS, it is told once: nobody waits for its answer.
    async fn disconnect(&self, connection: &Connection, end: &End) {
        let Some(Integration { function, timeout }) = &self.api.disconnect else { return };
        let event = event::disconnect(connection, self, end);
        let answer = tokio::time::timeout(*timeout, self.lambda.invoke(function, event)).await;
        let reason = match answer {
            Ok(Ok(payload)) => match response::with_status(&payload) {
                Ok(response) if response.status().is_success() => return,
                Ok(response) => format!("the response has the status {}", response.status().as_u16()),
                Err(reason) => reason,
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} seconds", timeout.as_secs_f64()),
        };
        (self.logs)(function, &format!("$disconnect failed, and is not tried again: {reason}"));
    }

    /// Counts a connection as one that has ended, until the result is dropped.
    fn ending(self: &Arc<Self>) -> Ending {
        self.ending.send_modify(|ending| *ending += 1);
        Ending(Arc::clone(self))
    }
}

/// A connection has ended, and the function has not been told.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ending.send_modify(|ending| *ending -= 1);
    }
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sockets").field("api", &self.shared.api).finish_non_exhaustive()
    }
}
