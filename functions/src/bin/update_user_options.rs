//! `PUT /api/bucket/{id}/user_options`: set one's own options for a bucket.
//!
//! Caller: any member. Body: [`UpdateUserOptions`]. Answers 200 with `{ "bucket": … }`, whose
//! `user_options` are the new ones.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | `options` is missing, no object, over 8 KiB, or nested over 16 levels |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |

use shared::{
    App,
    domain::Member,
    http::{Answer, BucketAnswer, Problem, Request, UpdateUserOptions, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    let UpdateUserOptions { options } = request.json_body()?;
    app.store.set_options(&access.bucket.id, &access.caller.user_id, &options, app.now()).await?;
    let member = Member { options, ..access.member };
    json(&BucketAnswer { bucket: app.view(&access.bucket, &member, request) })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
