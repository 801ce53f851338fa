//! `GET /api/bucket/{id}/subscription`: what pays for a bucket. Deprecated in the reference, and working.
//!
//! Caller: an admin or the owner. Answers 200 with the subscription in Stripe's words, times in seconds
//! since 1970; while a trial lasts and nothing is paid yet, with the trial in the same form.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is neither an admin nor the owner |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 404 | `subscription_not_found` | nothing is paid or tried |

use shared::{
    App,
    domain::Right,
    http::{Answer, Problem, Request, SubscriptionView, json},
    serve_deprecated,
};

async fn handle(app: &App, request: &Request) -> Result<Answer, Problem> {
    let (access, billing) = app.access_with(request, async |bucket| app.store.billing(bucket).await).await?;
    access.require(Right::SeeBilling)?;
    let tried = access.bucket.trial.as_ref().filter(|trial| trial.is_active(app.now()));
    match (billing.not_over(), tried) {
        (Some(subscription), _) => json(&SubscriptionView::from(subscription)),
        (None, Some(trial)) => json(&SubscriptionView::from(trial)),
        (None, None) => Err(Problem::subscription_not_found()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve_deprecated(handle).await
}
