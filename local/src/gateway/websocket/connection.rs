//! The frames of one connection, from the handshake to the end.
//!
//! Source: RFC 6455, and what of it "Quotas for configuring and running a WebSocket API" and "Binary media types
//! for WebSocket APIs" in the API Gateway developer guide bound.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::event::Connection;
use super::{Ending, Shared};
use crate::ids;

/// Bytes of a frame.
const MAX_FRAME: usize = 32 * 1024;
/// Bytes of a message, which may come in several frames.
const MAX_MESSAGE: usize = 128 * 1024;

/// How a connection ended: `disconnectStatusCode` and `disconnectReason`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: u16,
    pub(super) reason: String,
}

impl End {
    fn new(code: u16, reason: &str) -> Self {
        Self { code, reason: reason.to_owned() }
    }

    /// Without a close frame. The code is the one that RFC 6455 has for it; AWS documents no reason.
    pub(super) fn abnormal() -> Self {
        Self::new(1006, "Connection closed abnormally")
    }

    /// The gateway's time for the connection is over.
    fn going_away() -> Self {
        Self::new(1001, "Going away")
    }
}

/// What is to be done about the end of a connection.
enum Last {
    /// The client is gone.
    Nothing,
    /// The client has closed, and is to be answered.
    Answer,
    /// The gateway closes.
    Close,
    /// The gateway closes, and whatever the client sends makes no sense any more.
    Break,
}

/// Serves the connection to its end, which is counted before the client can see it.
pub(super) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: &Connection,
    shared: &Arc<Shared>,
) -> (End, Ending) {
    let config = WebSocketConfig::default()
        // Allocated for each connection.
        .read_buffer_size(4 * 1024)
        // Nothing is written that could wait for more.
        .write_buffer_size(0)
        .max_frame_size(Some(MAX_FRAME))
        .max_message_size(Some(MAX_MESSAGE));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let (end, last) = serve(&mut socket, connection, shared).await;
    let ending = shared.ending();
    // Whatever becomes of it, the connection is at its end.
    let _ = timeout(shared.limits.closing, close(socket, &end, last)).await;
    (end, ending)
}

/// Serves the connection until something ends it.
async fn serve(
    socket: &mut WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>,
    connection: &Connection,
    shared: &Shared,
) -> (End, Last) {
    let mut stopping = shared.stopping.subscribe();
    let expiry = sleep(shared.limits.duration);
    tokio::pin!(expiry);
    loop {
        let step = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return (End::going_away(), Last::Close),
            () = &mut expiry => return (End::going_away(), Last::Close),
            // AWS does not say what it takes for idle; here it is a connection without any frame, pings included.
            step = timeout(shared.limits.idle, step(socket, connection, shared)) => step,
        };
        match step {
            Ok(None) => {}
            Ok(Some(end)) => return end,
            Err(_) => return (End::going_away(), Last::Close),
        }
    }
}

/// Handles the next frame or message. Pings are answered on the way to the next one.
async fn step(
    socket: &mut WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>,
    connection: &Connection,
    shared: &Shared,
) -> Option<(End, Last)> {
    match socket.next().await {
        Some(Ok(Message::Text(_))) if shared.api.takes_messages => None,
        Some(Ok(Message::Text(_))) => {
            // What AWS sends to a client whose message has no route.
            let body =
                json!({ "message": "Forbidden", "connectionId": connection.id, "requestId": ids::request() });
            let sent = socket.send(Message::text(body.to_string())).await;
            sent.err().map(|_gone| (End::abnormal(), Last::Nothing))
        }
        Some(Ok(Message::Binary(_))) => {
            Some((End::new(1003, "Binary frames are not supported"), Last::Close))
        }
        Some(Ok(Message::Close(frame))) => {
            let end = match frame {
                Some(CloseFrame { code, reason }) => End::new(code.into(), &reason),
                None => End::new(1005, "Client-side close frame status not set"),
            };
            Some((end, Last::Answer))
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => None,
        Some(Err(error)) => Some(match violation(&error) {
            Some(end) => (end, Last::Break),
            None => (End::abnormal(), Last::Nothing),
        }),
        None => Some((End::abnormal(), Last::Nothing)),
    }
}

/// How a connection ends whose client does not keep to the protocol; `None` if it is just gone.
fn violation(error: &Error) -> Option<End> {
    if matches!(error, Error::Capacity(_)) {
        Some(End::new(1009, "Message too big"))
    } else if matches!(error, Error::Utf8(_)) {
        Some(End::new(1007, "Text that is not UTF-8"))
    } else if matches!(error, Error::Protocol(error) if *error != ProtocolError::ResetWithoutClosingHandshake)
    {
        Some(End::new(1002, "Protocol error"))
    } else {
        None
    }
}

/// Closes the gateway's end, and waits for the client's.
async fn close(
    mut socket: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>,
    end: &End,
    last: Last,
) -> Result<(), Error> {
    let frame = || Some(CloseFrame { code: end.code.into(), reason: end.reason.clone().into() });
    match last {
        Last::Nothing => {}
        // The answer is written on the way to what comes next, which is the end.
        Last::Answer => while let Some(Ok(_)) = socket.next().await {},
        Last::Close => {
            socket.close(frame()).await?;
            while let Some(Ok(_)) = socket.next().await {}
        }
        Last::Break => {
            socket.close(frame()).await?;
            let stream = socket.get_mut();
            stream.shutdown().await?;
            // Unread data would have the system reset the connection, and the client lose the close frame.
            while stream.read(&mut [0; 4096]).await? > 0 {}
        }
    }
    Ok(())
}
