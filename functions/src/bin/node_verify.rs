//! `POST /api/node/verifyPM2`: an agent of pm2 links its server, and reports every 60 seconds.
//!
//! Caller: an agent that shows the bucket's keys. Body: [`VerifyPm2`]. Answers 200 with where to connect to.
//! A server of a new name takes a place of the plan; one of a known name is that server. Agents look at no
//! status: refusals that last carry `error: true` and `active: false`, at which they stop and print `msg`;
//! from the others they try again.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | the body is cut off, or of an agent of another time, or the name is not ASCII |
//! | 403 | `wrong_keys` | no live bucket has these keys |
//! | 403 | `server_limit` | all servers of the bucket's plan are linked |
//! | 413 | `body_too_large` | the body has more than 256 KiB |
//! | 429 | `too_many_attempts` | the keys are wrong, and twenty others were tried from this address within ten minutes |

use serde_json::Value;
use shared::{
    Agents, Context, StartError,
    config::required,
    domain::{Report, ServerName},
    http::{Answer, FieldError, Linked, Problem, Request, VerifyPm2, json},
    serve,
    store::AgentKeys,
};

/// The largest body that is read, in bytes: it describes each processor.
const MAX_BYTES: usize = 256 * 1024;

/// What an agent says, or why it cannot be understood, in words that help who links it.
fn read(body: &[u8]) -> Result<VerifyPm2, Problem> {
    let bad = |field: &str, detail: String| Problem::invalid_input(vec![FieldError::new(field, detail)]);
    let message: Value = serde_json::from_slice(body).map_err(|error| {
        if error.is_eof() {
            // Agents count letters where they should count bytes.
            bad("data.MACHINE_NAME", "must be ASCII: the message was cut off".to_owned())
        } else {
            bad("body", format!("is not JSON: {error}"))
        }
    })?;
    if message.get("data").is_some_and(Value::is_string) {
        return Err(bad("data", "is of a pm2 older than 3, which cannot be linked; update it".to_owned()));
    }
    serde_json::from_value(message).map_err(|error| bad("body", format!("is not understood: {error}")))
}

struct Node {
    agents: Agents,
    /// Where agents connect to.
    endpoint: String,
}

impl Context for Node {
    async fn start() -> Result<Self, StartError> {
        Ok(Self { agents: Agents::start().await?, endpoint: required("AGENT_ENDPOINT")? })
    }
}

async fn verify(node: &Node, request: &Request) -> Result<Answer, Problem> {
    let Node { agents, endpoint } = node;
    let VerifyPm2 { public_id, private_id, data } = read(&request.bytes(MAX_BYTES)?)?;
    let name = data.get("MACHINE_NAME").and_then(Value::as_str).unwrap_or_default();
    let name = ServerName::try_from(name.to_owned()).map_err(|error| {
        Problem::invalid_input(vec![FieldError::new("data.MACHINE_NAME", error.to_string())])
    })?;
    let secret_id = private_id.as_deref().unwrap_or_default();
    let keys = AgentKeys { public_id: &public_id, secret_id, address: request.address() };
    let now = agents.now();
    let agent = agents.store.agent(&keys, &name, now).await?;
    let new = agents.store.link_server(&keys, agent, &name, &Report::of_agent(&data), now).await?;
    let web = request.origin(agents.config.public_origin.as_deref());
    json(&Linked::new(&name, new, &web, endpoint))
}

async fn handle(node: &Node, request: &Request) -> Result<Answer, Problem> {
    verify(node, request).await.map_err(Problem::for_agents)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
