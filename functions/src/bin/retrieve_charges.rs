//! `GET /api/bucket/{id}/payment/charges`: the invoices of a bucket. Deprecated in the reference, and
//! working.
//!
//! Caller: an admin or the owner. Answers 200 with the invoices in Stripe's words, latest first: those
//! that the owner has had for this bucket, up to a hundred per subscription.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is neither an admin nor the owner |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 500 | `stripe_error` | Stripe fails |

use billing::Cashier;
use shared::{
    domain::Right,
    http::{Answer, Problem, Request, json},
    serve_deprecated,
};

async fn handle(cashier: &Cashier, request: &Request) -> Result<Answer, Problem> {
    let access = cashier.app.access(request).await?;
    access.require(Right::SeeBilling)?;
    json(&cashier.invoices(&access.bucket).await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve_deprecated(handle).await
}
