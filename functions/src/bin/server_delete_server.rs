//! `POST /api/bucket/{id}/data/deleteServer`: delete a server, which frees its place in the plan.
//!
//! Caller: an admin or the owner. Body: [`DeleteServer`]. Answers 200 with `{ success, msg }`.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | `server_name` is missing, or no server of the bucket has it |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is neither an admin nor the owner |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 406 | `server_connected` | the server's agent is connected, and would link it again |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |

use shared::{
    App,
    domain::Right,
    http::{Answer, DeleteServer, Deleted, Problem, Request, json},
    serve,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    let DeleteServer { server_name } = request.json_body()?;
    access.require(Right::DeleteServer)?;
    let (bucket, actor) = (&access.bucket.id, &access.caller.user_id);
    app.store.delete_server(bucket, actor, &server_name, app.now()).await?;
    json(&Deleted { success: true, msg: "the server is deleted" })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
