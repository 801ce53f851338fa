//! `DELETE /api/bucket/{id}`: delete a bucket.
//!
//! Caller: the owner. Answers 200 with the deleted bucket, which nobody reaches any more.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is not the owner |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |

use shared::{
    App,
    domain::Right,
    http::{Answer, Problem, Request, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    access.require(Right::Delete)?;
    app.store.delete_bucket(&access.bucket, &access.caller.user_id, app.now()).await?;
    json(&app.view(&access.bucket, &access.member, request))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
