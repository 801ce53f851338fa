//! `GET /api/bucket/{id}/meta_servers`: the servers of a bucket.
//!
//! Caller: a member. Answers 200 with the servers by name, as a bare array.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |

use shared::{
    App,
    http::{Answer, Problem, Request, ServerView, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let (_, servers) = app.access_with(request, async |bucket| app.store.servers(bucket).await).await?;
    let now = app.now();
    json(&servers.iter().map(|server| ServerView::new(server, now)).collect::<Vec<_>>())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
