//! The opening handshake, the part of a WebSocket that is HTTP.
//!
//! Source: RFC 6455, section 4.2.

use aws_lc_rs::digest;
use axum::body::Body;
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::Refusal;
use crate::gateway::event::text;

/// Appended to a client's key to prove that the answer is to a WebSocket handshake.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The client's key, if `request` asks for a WebSocket.
pub(super) fn key(request: &Parts) -> Result<HeaderValue, Refusal> {
    let headers = &request.headers;
    let asks = request.method == Method::GET
        && request.version == Version::HTTP_11
        && has_token(headers, &UPGRADE, "websocket")
        && has_token(headers, &CONNECTION, "upgrade")
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if !asks {
        return Err(Refusal::status(StatusCode::UPGRADE_REQUIRED));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if BASE64_STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) => {
            Ok(key.clone())
        }
        _ => Err(Refusal::status(StatusCode::BAD_REQUEST)),
    }
}

/// The answer after which both sides speak in frames.
pub(super) fn accept(key: &HeaderValue, protocol: Option<HeaderValue>) -> Response {
    let proof =
        digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID.as_bytes()].concat());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(proof) = HeaderValue::from_str(&BASE64_STANDARD.encode(proof)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, proof);
    }
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// Whether the list in the header `name` has `token`, in whatever case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The headers with their names as the client wrote them, which is how a WebSocket API passes them on.
///
/// hyper keeps the case of names to itself, for its own client to write the same: so that writes the
/// request once more, and the names are read there.
pub(super) async fn headers_as_sent(request: &Parts) -> Vec<(String, String)> {
    if let Some(headers) = written_again(request).await {
        return headers;
    }
    let headers = request.headers.iter();
    headers.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

async fn written_again(request: &Parts) -> Option<Vec<(String, String)>> {
    let mut copy = axum::http::Request::new(Empty::<Bytes>::new());
    *copy.headers_mut() = request.headers.clone();
    *copy.extensions_mut() = request.extensions.clone();
    // The copy has no body.
    copy.headers_mut().remove(CONTENT_LENGTH);
    copy.headers_mut().remove(TRANSFER_ENCODING);

    let (near, far) = duplex(16 * 1024);
    let (mut sender, connection) =
        http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(near)).await.ok()?;
    tokio::select! {
        head = head(far) => head?.lines().skip(1).map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        }).collect(),
        // Nobody answers.
        _ = sender.send_request(copy) => None,
        _ = connection => None,
    }
}

/// What comes up to the first empty line.
async fn head(mut stream: DuplexStream) -> Option<String> {
    let mut head = Vec::new();
    loop {
        stream.read_buf(&mut head).await.ok().filter(|read| *read > 0)?;
        if let Some(head) = head.strip_suffix(b"\r\n\r\n") {
            return Some(String::from_utf8_lossy(head).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn request(change: impl FnOnce(&mut Request<()>)) -> Parts {
        let mut request = Request::get("/agents")
            .header("Connection", "keep-alive, Upgrade")
            .header("Upgrade", "WebSocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap();
        change(&mut request);
        request.into_parts().0
    }

    fn without(name: &'static str) -> Parts {
        request(|request| drop(request.headers_mut().remove(name)))
    }

    fn with(name: &'static str, value: &'static str) -> Parts {
        request(|request| drop(request.headers_mut().insert(name, HeaderValue::from_static(value))))
    }

    #[test]
    fn the_sample_of_the_rfc_is_answered_as_there() {
        let key = key(&request(|_| {})).unwrap();
        let response = accept(&key, None);
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn what_asks_for_no_websocket_is_told_to_upgrade() {
        for parts in [
            without("upgrade"),
            without("connection"),
            without("sec-websocket-version"),
            with("upgrade", "h2c"),
            with("connection", "close"),
            with("sec-websocket-version", "8"),
            request(|request| *request.method_mut() = Method::POST),
            request(|request| *request.version_mut() = Version::HTTP_10),
        ] {
            assert_eq!(key(&parts).unwrap_err().status, StatusCode::UPGRADE_REQUIRED, "{parts:?}");
        }
    }

    #[test]
    fn a_key_that_is_none_is_a_bad_request() {
        let twice = request(|request| {
            request.headers_mut().append("sec-websocket-key", HeaderValue::from_static("a"));
        });
        for parts in [
            without("sec-websocket-key"),
            with("sec-websocket-key", ""),
            with("sec-websocket-key", "dGhlIHNhbXBsZQ=="),
            with("sec-websocket-key", "not base64 not base64 no"),
            twice,
        ] {
            assert_eq!(key(&parts).unwrap_err().status, StatusCode::BAD_REQUEST, "{parts:?}");
        }
    }
}
