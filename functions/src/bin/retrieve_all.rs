//! `GET /api/bucket` and `GET /api/bucket/`: retrieve the buckets that the caller is a member of.
//!
//! Caller: anybody; the published clients call it after every sign-in and wait for a 2xx, so a
//! person without a verified address gets an empty list. Answers 200 with an array of buckets,
//! oldest first.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 404 | `route_not_found` | something follows the last `/` |

use shared::{
    App,
    http::{Answer, Problem, Request, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    if request.path_parameter("proxy").is_some_and(|remainder| !remainder.is_empty()) {
        return Err(Problem::route_not_found());
    }
    let caller = app.caller(request).await?;
    let (_, memberships) = app.memberships(&caller).await?;
    let buckets: Vec<_> =
        memberships.iter().map(|(bucket, member)| app.view(bucket, member, request)).collect();
    json(&buckets)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
