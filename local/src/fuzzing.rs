//! What the fuzz targets call of what is otherwise nobody's: the gateway, without a stack around it.

use axum::http::Request;
use bytes::Bytes;

use crate::gateway;
use crate::template::Template;

/// The function that the HTTP API of `template` sends `request` to, and the event that it is given. None if the
/// gateway refuses the request by itself.
#[must_use]
pub fn event(template: &Template, request: Request<Vec<u8>>) -> Option<(String, Vec<u8>)> {
    let (parts, body) = request.into_parts();
    gateway::event_without_stack(template, &parts, &Bytes::from(body))
}

/// The proof by which a WebSocket API accepts `request`, and the headers that `$connect` is told. None if it is
/// no handshake.
pub async fn handshake(request: Request<()>) -> Option<(String, Vec<(String, String)>)> {
    let (parts, ()) = request.into_parts();
    let (response, headers) = gateway::handshake_without_stack(&parts).await?;
    let proof = response.headers().get("sec-websocket-accept")?.to_str().ok()?;
    Some((proof.to_owned(), headers))
}

/// What becomes of a connection of a WebSocket API on which the client sends `sent` and nothing more: the code and
/// the reason of its end, and what the client receives.
pub async fn connection(sent: &[u8]) -> (u16, String, Vec<u8>) {
    gateway::connection_without_stack(sent).await
}
