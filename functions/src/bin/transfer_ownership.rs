//! `POST /api/bucket/{id}/transfer_ownership`: hand a bucket over.
//!
//! Caller: the owner, who becomes an admin. Body: [`TransferOwnership`]. The new owner is mailed.
//! Answers 200 with the bucket.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | `new_owner` is missing, no address, or the owner's |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is not the owner |
//! | 403 | `bucket_limit` | the new owner owns as many buckets as one person may |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 404 | `user_not_found` | no member has the address |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |

use serde::Deserialize;
use shared::{
    Access, App,
    domain::{Email, Member, Right, Role},
    http::{Answer, Problem, Request, json},
    serve,
};

/// The body.
#[derive(Deserialize)]
struct TransferOwnership {
    /// The member to hand the bucket to.
    new_owner: Email,
}

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    let TransferOwnership { new_owner } = request.json_body()?;
    access.require(Right::Transfer)?;
    let target = access.user_at(app, &new_owner).await?;
    let Access { caller, bucket, member } = access;
    let limit = app.config.buckets_per_owner;
    let bucket = app.store.transfer(bucket, &caller.user_id, &target, limit, app.now()).await?;
    let member = Member { role: Role::Admin, ..member };
    json(&app.view(&bucket, &member, request))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
