//! `GET /api/misc/plans`: the plans that there are.
//!
//! Caller: anybody, without a token. Answers 200 with an object keyed by the plans' names, as clients
//! look up a bucket's `credits.offer_type` in it: `{ "free": { "seats": …, "servers": … }, … }`.

use shared::{
    domain::plans,
    http::{Answer, Problem, Request, json},
    serve,
};

async fn handle((): &(), _: &Request) -> Result<Answer, Problem> {
    json(plans())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
