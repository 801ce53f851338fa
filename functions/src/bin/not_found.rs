//! Every method and path that no route names.
//!
//! | status | code | when |
//! |---|---|---|
//! | 404 | `route_not_found` | always |

use shared::{
    http::{Answer, Problem, Request},
    serve,
};

async fn handle((): &(), _: &Request) -> Result<Answer, Problem> {
    Err(Problem::route_not_found())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
