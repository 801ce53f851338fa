//! `DELETE /api/bucket/{id}`: delete a bucket.
//!
//! Caller: the owner. A subscription is cancelled first; where that fails, nothing is deleted. Answers 200
//! with the deleted bucket, which nobody reaches any more.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is not the owner |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 500 | `stripe_error` | Stripe does not cancel the subscription |
//! | 503 | `plan_changing` | a change of what pays for the bucket is under way |

use billing::Cashier;
use shared::{
    domain::Right,
    http::{Answer, Problem, Request, json},
    serve,
};

async fn handle(cashier: &Cashier, request: &Request) -> Result<Answer, Problem> {
    let access = cashier.app.access(request).await?;
    access.require(Right::Delete)?;
    cashier.destroy(&access).await?;
    json(&cashier.app.view(&access.bucket, &access.member, request))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
