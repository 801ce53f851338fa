//! `POST /api/bucket/{id}/promote_user`: set the role of a member.
//!
//! Caller: the owner. Body: [`SetUserRole`]. Answers 200 with the members.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | `email` is missing or no address, or `role` is missing or none that can be given |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is not the owner |
//! | 403 | `owner_role_fixed` | the address is the owner's |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 404 | `user_not_found` | no member has the address |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |

use shared::{
    App,
    domain::Right,
    http::{Answer, MemberView, Problem, Request, SetUserRole, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    let SetUserRole { email, role } = request.json_body()?;
    access.require(Right::SetRole)?;
    let target = access.user_at(app, email).await?;
    let bucket = &access.bucket.id;
    app.store.set_role(bucket, &access.caller.user_id, &target, role, app.now()).await?;
    let members = app.store.members(bucket).await?;
    json(&members.iter().map(MemberView::from).collect::<Vec<_>>())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
