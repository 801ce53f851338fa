//! What the parts of the stack need of HTTP: a server that ends with its connections, bounded bodies,
//! JSON answers.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tower_service::Service;

/// The client's address, an extension of each request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// A running HTTP/1.1 server. Dropping it closes the listener and every connection, which
/// `axum::serve` leaves to run on.
#[derive(Debug)]
pub(crate) struct Server {
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `router` on `listener`.
    pub(crate) fn spawn(listener: TcpListener, router: Router) -> Self {
        Self { task: tokio::spawn(accept(listener, router)) }
    }

    /// Returns when the port is free again.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        // The only outcome is that it was cancelled.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, router: Router) {
    // Dropped with this future, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(serve(stream, peer, router.clone()));
                }
                // Out of file descriptors, most likely: some come free as connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router) {
    // Without it, an answer in two segments may wait for a delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.clone().call(request)
    });
    // An error means that the client broke off or did not speak HTTP; it has been told by then.
    let _ = http1::Builder::new()
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

/// Why a body could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is longer than allowed.
    TooLong,
    /// It broke off, or is not as HTTP has it.
    Broken,
}

/// The whole body, if it has at most `limit` bytes.
///
/// A longer one is read to its end and dropped: a client that is still sending would otherwise lose
/// the answer to a connection reset.
pub(crate) async fn read_body(mut body: Body, limit: usize) -> Result<Bytes, Unreadable> {
    let mut read = Some(BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Unreadable::Broken) };
        if let (Some(data), Some(buffer)) = (frame.data_ref(), &mut read) {
            if buffer.len() + data.len() > limit {
                read = None;
            } else {
                buffer.extend_from_slice(data);
            }
        }
    }
    read.map(BytesMut::freeze).ok_or(Unreadable::TooLong)
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    typed(status, "application/json", body.to_string())
}

/// An answer with a body of the given media type.
pub(crate) fn typed(status: StatusCode, media_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
