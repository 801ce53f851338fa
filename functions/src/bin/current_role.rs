//! `GET /api/bucket/{id}/current_role`: retrieve the caller's role.
//!
//! Caller: any member. Answers 200 with `{ "role": … }`: `user`, `developer`, `admin` or `owner`.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |

use shared::{
    App,
    http::{Answer, CurrentRole, Problem, Request, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    json(&CurrentRole { role: access.member.role })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
