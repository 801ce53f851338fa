//! `GET /api/bucket/{id}/users_authorized`: retrieve the members of a bucket.
//!
//! Caller: any member. Answers 200 with an array of `{ _id, email, username, role }`, the owner
//! included, in the order in which they came.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |

use shared::{
    App,
    http::{Answer, MemberView, Problem, Request, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let (_, members) = app.access_with(request, async |bucket| app.store.members(bucket).await).await?;
    json(&members.iter().map(MemberView::from).collect::<Vec<_>>())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
