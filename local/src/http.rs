//! What the parts of the stack need of HTTP: a server that ends with its connections, bounded bodies,
//! JSON answers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Request, StatusCode, Version};
use axum::middleware::Next;
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

/// The host that the client asked for: of the target in absolute form, or else of the `Host` header, or
/// else (before HTTP/1.1, which demands one) the `address` that it reached.
///
/// `None` if HTTP demands that the request be refused.
///
/// Source: RFC 9112, section 3.2.
pub(crate) fn authority(request: &Parts, address: SocketAddr) -> Option<Authority> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok()?,
        (None, _) if request.version < Version::HTTP_11 => Authority::try_from(address.to_string()).ok()?,
        (None, _) | (Some(_), Some(_)) => return None,
    };
    let authority = request.uri.authority().cloned().unwrap_or(host);
    // No user stands before a host.
    (!authority.as_str().contains('@')).then_some(authority)
}

/// The host, which is this machine, that a request below `/_local/` is for; an extension of each.
#[derive(Debug, Clone)]
pub(crate) struct AskedFor(pub(crate) Authority);

/// Refuses requests for other hosts than this machine, which is reached at `address`: a page whose own host has
/// been made to lead here could otherwise read what is for the people at this machine as of its own origin.
pub(crate) async fn for_this_machine(
    State(address): State<SocketAddr>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let is_known = |authority: &Authority| {
        let host = authority.host();
        // A number cannot be made to lead elsewhere, as a name can.
        is_loopback(host) || host == address.ip().to_string()
    };
    let Some(authority) = authority(&parts, address).filter(is_known) else {
        let message = "This answers to localhost and the address that it listens on alone.";
        return json(StatusCode::MISDIRECTED_REQUEST, &serde_json::json!({ "message": message }));
    };
    parts.extensions.insert(AskedFor(authority));
    next.run(Request::from_parts(parts, body)).await
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address: IpAddr| address.is_loopback())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_this_machine_are_few() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "0.0.0.0",
            "10.0.0.1",
            "[::]",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_request_has_the_host_that_http_demands_or_none() {
        let host = |request: axum::http::request::Builder| {
            let (parts, ()) = request.body(()).unwrap().into_parts();
            authority(&parts, SocketAddr::from(([127, 0, 0, 1], 3000))).map(|authority| authority.to_string())
        };
        for value in ["", "a b", "a:b:c", "user@host", "[::1", "ho/st"] {
            assert_eq!(host(Request::get("/").header("Host", value)), None, "{value}");
        }
        for value in ["localhost", "127.0.0.1:3000", "[::1]:3000", "api.example.com", "1.2.3.4.5"] {
            assert_eq!(host(Request::get("/").header("Host", value)).as_deref(), Some(value));
        }
        assert_eq!(host(Request::get("/")), None);
        assert_eq!(host(Request::get("http://a.example/")), None);
        assert_eq!(host(Request::get("/").header("Host", "a").header("Host", "a")), None);
        let old = Request::get("/").version(Version::HTTP_10);
        assert_eq!(host(old).as_deref(), Some("127.0.0.1:3000"));
    }
}
