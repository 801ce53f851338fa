//! `POST /api/bucket/{id}/rotate_secret`: give a bucket another secret.
//!
//! Caller: the owner. Agents that show the old secret are turned away from then on: link them again with
//! the new one. A connection that is open is closed by its agent at the next report, within a minute. Answers
//! 200 with `{ bucket }`, the new secret in it.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is not the owner |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |

use shared::{
    Access, App,
    domain::Right,
    http::{Answer, BucketAnswer, Problem, Request, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    access.require(Right::RotateSecret)?;
    let Access { caller, bucket, member } = access;
    let bucket = app.store.rotate_secret(bucket, &caller.user_id, app.now()).await?;
    json(&BucketAnswer { bucket: app.view(&bucket, &member, request) })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
