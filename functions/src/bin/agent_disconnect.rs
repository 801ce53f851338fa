//! `$disconnect` of the agents' WebSocket API: a connection has ended.
//!
//! Caller: API Gateway, as well as it can: an end that it never tells is noticed by the silence that
//! follows. The server is inactive when the last connection of its name has ended; unless it was closed for
//! the size of what the agent sends, who is still there and reports. Answers 200, which nobody reads.

use shared::{Agents, SocketEvent, http::Problem, serve_sockets};

/// "Message too big" (RFC 6455 7.4.1): API Gateway takes 32 KiB at once.
const TOO_BIG: i64 = 1009;

async fn handle(agents: &Agents, socket: &SocketEvent) -> Result<(), Problem> {
    let oversized = socket.close_code() == Some(TOO_BIG);
    Ok(agents.store.disconnect_server(socket.connection(), oversized, agents.now()).await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve_sockets(handle).await
}
