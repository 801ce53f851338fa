//! `$disconnect` of the agents' WebSocket API: a connection has ended.
//!
//! Caller: API Gateway, as well as it can: an end that it never tells is noticed by the silence that
//! follows. The server is inactive when the last connection of its name has ended. Answers 200, which
//! nobody reads.

use shared::{Agents, SocketEvent, http::Problem, serve_sockets};

async fn handle(agents: &Agents, socket: &SocketEvent) -> Result<(), Problem> {
    Ok(agents.store.disconnect_server(socket.connection(), agents.now()).await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve_sockets(handle).await
}
