//! `$connect` of the agents' WebSocket API: an agent opens its connection.
//!
//! Caller: an agent whose server is linked, with the bucket's keys in the headers `X-KM-PUBLIC` and
//! `X-KM-SECRET` and the server's name in `X-KM-SERVER`. From then on the server is active. Answers 200,
//! which accepts; anything else refuses the connection.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | a header is missing, or the name is none that a server can have |
//! | 403 | `wrong_keys` | no live bucket has these keys |
//! | 403 | `server_not_linked` | no server of this name is linked: agents link it within a minute |
//! | 413 | `agent_oversized` | the last connection was closed for the size of what the agent sends, within ten minutes |
//! | 429 | `too_many_attempts` | the keys are wrong, and twenty others were tried from this address within ten minutes |

use shared::{
    Agents, SocketEvent,
    domain::ServerName,
    http::{FieldError, Problem},
    serve_sockets,
    store::AgentKeys,
};

async fn handle(agents: &Agents, socket: &SocketEvent) -> Result<(), Problem> {
    let header = |name| {
        let missing = || Problem::invalid_input(vec![FieldError::new(name, "the header is missing")]);
        socket.header(name).ok_or_else(missing)
    };
    let keys = AgentKeys {
        public_id: header("X-KM-PUBLIC")?,
        secret_id: header("X-KM-SECRET")?,
        address: socket.address(),
    };
    let name = ServerName::try_from(header("X-KM-SERVER")?.to_owned())
        .map_err(|error| Problem::invalid_input(vec![FieldError::new("X-KM-SERVER", error.to_string())]))?;
    let agent = agents.store.agent(&keys, &name, agents.now()).await?;
    Ok(agents.store.connect_server(&agent, socket.connection(), agents.now()).await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve_sockets(handle).await
}
