//! `POST /api/bucket/{id}/add_user`: invite a person into a bucket.
//!
//! Caller: an admin or the owner. Body: [`InviteUser`]. A person who has signed in with that verified
//! address becomes a member at once; any other address is invited, for as long as the deployment says,
//! and becomes a member at its first verified sign-in. Inviting again renews the invitation. Either is
//! mailed. Answers 200 with the invitations still open.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | `email` is missing or no address, or `role` is none that can be given |
//! | 400 | `already_member` | the person is in the bucket |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller may not invite |
//! | 403 | `seat_limit` | all seats of the plan are taken |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |

use shared::{
    App,
    domain::Right,
    http::{Answer, InvitationsView, InviteUser, Problem, Request, json},
    serve,
    store::Invite,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    let InviteUser { email, role } = request.json_body()?;
    access.require(Right::Invite)?;
    let (bucket, now) = (access.bucket.id.clone(), app.now());
    let invite = Invite {
        actor: &access.caller.user_id,
        email: &email,
        role: role.unwrap_or_default(),
        lifetime: app.config.invitation_days,
        now,
    };
    app.store.invite(access.bucket, &invite).await?;
    json(&InvitationsView::from(&*app.store.invitations(&bucket, now).await?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
