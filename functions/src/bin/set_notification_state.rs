//! `POST /api/bucket/{id}/manage_notif`: set how a member is notified.
//!
//! Caller: any member for their own state, an admin or the owner for others'. Body:
//! [`SetNotificationState`]. Answers 200 with an array of `{ _id, email, username, state }`, one for
//! each member.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | `email` is missing or no address, or `state` is neither `email` nor `none` |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the address is somebody else's and the caller is not an admin |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 404 | `user_not_found` | no member has the address |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |

use shared::{
    App,
    domain::Right,
    http::{Answer, NotificationView, Problem, Request, SetNotificationState, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    let SetNotificationState { email, state } = request.json_body()?;
    if email != access.member.email {
        access.require(Right::ManageNotifications)?;
    }
    let target = access.user_at(app, email).await?;
    let bucket = &access.bucket.id;
    app.store.set_notification_state(bucket, &access.caller.user_id, &target, state, app.now()).await?;
    let members = app.store.members(bucket).await?;
    json(&members.iter().map(NotificationView::from).collect::<Vec<_>>())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
