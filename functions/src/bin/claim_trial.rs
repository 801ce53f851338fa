//! `PUT /api/bucket/{id}/start_trial`: try a bigger plan. Deprecated in the reference, and working.
//!
//! Caller: the owner. The trial is of the plan that has one, once per bucket and once per owner. Answers
//! 200 with `{ duration, plan }`, such as `{ "duration": "14 days", "plan": "plus" }`.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `trial_unavailable` | the bucket or its owner has had a trial, or the bucket is on a plan |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is not the owner |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |

use shared::{
    App,
    domain::Right,
    http::{Answer, Claimed, Problem, Request, json},
    serve_deprecated,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let access = app.access(request).await?;
    access.require(Right::ChangePlan)?;
    let (plan, days) = app.config.plans.trial().ok_or_else(Problem::no_trial)?;
    app.store.claim_trial(&access.bucket, &access.caller.user_id, plan, days, app.now()).await?;
    let unit = if days == 1 { "day" } else { "days" };
    json(&Claimed { duration: format!("{days} {unit}"), plan })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve_deprecated(handle).await
}
