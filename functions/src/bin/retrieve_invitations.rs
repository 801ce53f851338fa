//! `GET /api/bucket/{id}/invitations`: retrieve the invitations still open.
//!
//! Caller: an admin or the owner. Answers 200 with `{ "invitations": … }`, oldest first.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller may not invite |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |

use shared::{
    App,
    domain::{BucketId, Right},
    http::{Answer, InvitationsView, Problem, Request, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let read = async |bucket: &BucketId| app.store.invitations(bucket, app.now()).await;
    let (access, invitations) = app.access_with(request, read).await?;
    access.require(Right::Invite)?;
    json(&InvitationsView::from(&*invitations))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
