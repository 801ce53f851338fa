//! `PUT /api/bucket/{id}/feedback`: send feedback.
//!
//! Caller: any member. Body: [`SendFeedback`]. It is kept, and answered as it came.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | `feedback` is missing, blank, over 10,000 characters, or no text |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |

use shared::{
    App,
    http::{Answer, Problem, Request, SendFeedback, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    let sent: SendFeedback = request.json_body()?;
    app.store.send_feedback(&access.bucket.id, &access.caller.user_id, &sent.feedback, app.now()).await?;
    json(&sent)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
