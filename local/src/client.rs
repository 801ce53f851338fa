//! The smallest HTTP client that serves: one request, one connection, plain HTTP.

use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Request, Response, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot connect to {authority}: {source}")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("no answer from {authority}: {source}")]
    Broken {
        /// Host and port.
        authority: String,
        /// What went wrong.
        source: hyper::Error,
    },
}

/// Sends `request`, whose URI is absolute (`http://127.0.0.1:3000/path`), and reads the whole answer.
pub async fn send(request: Request<impl Into<Bytes>>) -> Result<Response<Bytes>, ClientError> {
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
    if let Ok(host) = HeaderValue::from_str(&authority) {
        parts.headers.entry(header::HOST).or_insert(host);
    }
    let path = parts.uri.path_and_query().cloned();
    parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));

    let stream = TcpStream::connect(&authority).await;
    let stream = stream.map_err(|source| ClientError::Connect { authority: authority.clone(), source })?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when the sender is dropped, at the end of this exchange.
        tokio::spawn(connection);
        let response = sender.send_request(Request::from_parts(parts, Full::new(body.into()))).await?;
        let (parts, body) = response.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    };
    exchange.await.map_err(|source| ClientError::Broken { authority: authority.clone(), source })
}
