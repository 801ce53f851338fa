//! `DELETE /api/bucket/{id}/invitation` and `DELETE /api/bucket/{id}/invitation/{email}`: remove an
//! invitation.
//!
//! Caller: an admin or the owner. The address stands in the query (`?email=`), or as older clients have
//! it in the path or in the body ([`RemoveInvitation`]). Answers 200 with the invitations still open.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | no address is given, or what is given is none |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller may not invite |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 404 | `invitation_not_found` | the address is not invited |

use shared::{
    App,
    domain::{Email, Right},
    http::{Answer, FieldError, InvitationsView, Problem, RemoveInvitation, Request, json},
    serve,
};

/// The address that `request` names.
fn invited(request: &Request) -> Result<Email, Problem> {
    let bad = |detail: String| Problem::invalid_input(vec![FieldError::new("email", detail)]);
    let in_path = || request.path_parameter("email").map(ToOwned::to_owned);
    let in_body = || request.json_body::<RemoveInvitation>().ok().map(|older| older.params.email);
    let given = request.query_parameter("email").or_else(in_path).or_else(in_body);
    let given = given.ok_or_else(|| bad("is missing".to_owned()))?;
    Email::parse(&given).map_err(|error| bad(error.to_string()))
}

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    let email = invited(request)?;
    access.require(Right::Invite)?;
    let (bucket, now) = (&access.bucket.id, app.now());
    app.store.remove_invitation(bucket, &access.caller.user_id, &email, now).await?;
    json(&InvitationsView::from(&*app.store.invitations(bucket, now).await?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
