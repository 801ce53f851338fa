//! `POST /api/bucket/{id}/transfer_ownership`: hand a bucket over.
//!
//! Caller: the owner, who becomes an admin. Body: [`TransferOwnership`]. The new owner is mailed. Where a
//! subscription pays for the bucket, the new owner's card goes on paying when the period is over that the
//! old one has paid for. Answers 200 with the bucket.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | `new_owner` is missing, no address, or the owner's |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is not the owner |
//! | 403 | `bucket_limit` | the new owner owns as many buckets as one person may |
//! | 403 | `card_required` | a subscription pays for the bucket, and the new owner has no card |
//! | 403 | `card_declined` | the new owner's card was not accepted |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 404 | `user_not_found` | no member has the address |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |
//! | 500 | `stripe_error` | Stripe fails; the same request, sent again, goes on |
//! | 503 | `plan_changing` | another change of what pays for the bucket is under way |

use billing::Cashier;
use shared::{
    domain::{Member, Right, Role},
    http::{Answer, Problem, Request, TransferOwnership, json},
    serve,
};

async fn handle(cashier: &Cashier, request: &Request) -> Result<Answer, Problem> {
    let app = &cashier.app;
    let access = app.access(request).await?;
    let TransferOwnership { new_owner } = request.json_body()?;
    access.require(Right::Transfer)?;
    let target = access.user_at(app, new_owner).await?;
    let bucket = cashier.transfer(&access, &target).await?;
    let member = Member { role: Role::Admin, ..access.member };
    json(&app.view(&bucket, &member, request))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
