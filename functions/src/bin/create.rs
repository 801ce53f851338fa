//! `POST /api/bucket/create_classic`: create a bucket.
//!
//! Caller: anybody with a verified e-mail address, who becomes the owner. Body: [`Create`].
//! Answers 200 with `{ "bucket": … }`.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | `name` is missing or blank, or a field is too long or of the wrong type |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `email_unverified` | the caller's address is not verified |
//! | 403 | `email_taken` | the caller's address belongs to another account |
//! | 403 | `bucket_limit` | the caller owns as many buckets as one person may |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |

use shared::{
    App,
    domain::NewBucket,
    http::{Answer, BucketAnswer, Create, Problem, Request, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let caller = app.caller(request).await?;
    let Create { name, comment, app_url } = request.json_body()?;
    let owner = app.user(&caller).await?;
    let new = NewBucket { name, comment: comment.unwrap_or_default(), app_url: app_url.unwrap_or_default() };
    let (bucket, member) =
        app.store.create_bucket(new, &owner, app.config.buckets_per_owner, app.now()).await?;
    json(&BucketAnswer { bucket: app.view(&bucket, &member, request) })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
