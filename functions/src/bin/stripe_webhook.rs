//! `POST /api/webhooks/stripe`: what happens at Stripe.
//!
//! Caller: Stripe, known by its signature over the body as it came. An event only tells which subscription
//! to look at: that is fetched anew, so events may come late, twice and in any order.
//! Answers 200 with `{ received: true }`; Stripe sends again what is answered otherwise.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_signature` | it is not from Stripe, or more than five minutes old |
//! | 400 | `invalid_input` | the body is no event |
//! | 404 | `route_not_found` | this deployment has no account at Stripe |
//! | 413 | `body_too_large` | the body has more than 256 KiB |
//! | 500 | `stripe_error` | Stripe fails |
//! | 503 | `plan_changing` | a change is under way that this may be about |

use billing::Cashier;
use shared::{
    http::{Answer, Problem, Received, Request, json},
    serve,
};

/// The largest event that is read, in bytes: one holds an object with its lines, and may hold it twice.
const MAX_BYTES: usize = 256 * 1024;

async fn handle(cashier: &Cashier, request: &Request) -> Result<Answer, Problem> {
    let payload = request.bytes(MAX_BYTES)?;
    cashier.take_event(request.header("stripe-signature"), &payload).await?;
    json(&Received { received: true })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
