//! `GET /api/users/isLogged`: who the caller is.
//!
//! Caller: anybody. Answers 200 with `{ _id, username, email, email_token, authorized_bucket }`:
//! the `pm2` CLI reads `email_token` as "not validated yet" until it is `null`, and the array as the
//! ids of the caller's buckets.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |

use shared::{
    App, Sight,
    http::{Answer, LoggedIn, Problem, Request, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let caller = app.caller(request).await?;
    let (sight, memberships) = app.memberships(&caller).await?;
    let logged_in = match sight {
        Sight::Known(user) => LoggedIn {
            authorized_bucket: memberships.into_iter().map(|(bucket, _)| bucket.id).collect(),
            id: user.id,
            username: user.username,
            email: Some(user.email),
            email_token: None,
        },
        Sight::Unverified(profile) | Sight::EmailTaken(profile) => LoggedIn {
            id: caller.user_id,
            username: profile.username,
            email: profile.email,
            email_token: Some("unverified"),
            authorized_bucket: Vec::new(),
        },
    };
    json(&logged_in)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
