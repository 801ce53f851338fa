//! `PUT /api/bucket/{id}`: change what a bucket says of itself.
//!
//! Caller: the owner. Body: [`Update`], at least one field of it. Answers 200 with the bucket.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | no field is given, or one is blank, too long or of the wrong type |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is not the owner |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |

use shared::{
    Access, App,
    domain::{BucketChanges, Right},
    http::{Answer, FieldError, Problem, Request, Update, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    let Update { name, comment, app_url, configuration } = request.json_body()?;
    let changes = BucketChanges { name, comment, app_url, configuration };
    if changes == BucketChanges::default() {
        let missing = |field| FieldError::new(field, "is missing: give at least one field to change");
        return Err(Problem::invalid_input(
            ["name", "comment", "app_url", "configuration"].map(missing).to_vec(),
        ));
    }
    access.require(Right::Update)?;
    let Access { caller, bucket, member } = access;
    let bucket = app.store.update_bucket(bucket, &caller.user_id, changes, app.now()).await?;
    json(&app.view(&bucket, &member, request))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
