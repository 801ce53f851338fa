//! What stands between a function and the table, and counts the calls that pass.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::Failure;

/// Bytes of a request that `DynamoDB` takes.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// Gone with the value.
pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    seen: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Way {
    /// Where the table is: host and port.
    authority: String,
    client: Client<HttpConnector, Full<Bytes>>,
    seen: Arc<Mutex<Vec<String>>>,
    delay: Duration,
}

impl Proxy {
    /// Stands before the table at `endpoint`, as far away as `delay` says: so much later it passes calls on.
    pub(crate) async fn before(endpoint: &str, delay: Duration) -> Result<Self, Failure> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let own = format!("http://{}", listener.local_addr()?);
        let seen = Arc::default();
        let way = Way {
            authority: endpoint.trim_start_matches("http://").to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            seen: Arc::clone(&seen),
            delay,
        };
        let mut tasks = JoinSet::new();
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        tasks.spawn(async move {
            // Runs until the task is dropped.
            let _never = axum::serve(listener, Router::new().fallback(pass).with_state(way)).await;
        });
        Ok(Self { endpoint: own, seen, _tasks: tasks })
    }

    /// The operations that have passed since this was last asked, in order.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn pass(State(way): State<Way>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_REQUEST).await else { return StatusCode::BAD_REQUEST.into_response() };
    let target =
        parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    way.seen.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    let uri = Uri::builder().scheme("http").authority(way.authority).path_and_query("/").build();
    let Ok(uri) = uri else { return StatusCode::BAD_REQUEST.into_response() };
    parts.uri = uri;
    for of_the_connection in [CONNECTION, HOST, TRANSFER_ENCODING] {
        parts.headers.remove(of_the_connection);
    }
    if !way.delay.is_zero() {
        tokio::time::sleep(way.delay).await;
    }
    match way.client.request(Request::from_parts(parts, Full::new(body))).await {
        Ok(answer) => answer.map(Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
