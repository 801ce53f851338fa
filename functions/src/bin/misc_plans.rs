//! `GET /api/misc/plans`: the plans that there are.
//!
//! Caller: anybody, without a token. Answers 200 with an object keyed by the plans' names, as clients
//! look up a bucket's `credits.offer_type` in it:
//! `{ "free": { "seats": …, "servers": …, "trial_days": …, "price_lookup_key": …, "self_service": … }, … }`.

use shared::{
    Config, Context, StartError,
    domain::Plans,
    http::{Answer, Problem, Request, json},
    serve,
};

struct Offer(Plans);

impl Context for Offer {
    async fn start() -> Result<Self, StartError> {
        Ok(Self(Config::from_environment()?.plans))
    }
}

async fn handle(Offer(plans): &Offer, _: &Request) -> Result<Answer, Problem> {
    json(plans)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
