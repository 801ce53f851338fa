//! `POST /api/bucket/{id}/upgrade`: put a bucket on a plan. Deprecated in the reference, and working.
//!
//! Caller: the owner. Body: [`Upgrade`]. Where the deployment takes no money, plans are switched freely.
//! Where it does, a plan with a price is subscribed to with the card that `stripe_token` brings or that is
//! known already; a plan without one lets the subscription end with the period that is paid for, until
//! when the bucket keeps its plan. Nobody is thrown out by a smaller plan; nobody more fits in.
//! Answers 200 with `{ bucket, subscription }`; `subscription` is null where nothing is paid.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | `plan` is missing or no plan, or the token or the coupon is none that can be used |
//! | 401 | `missing_token`, `invalid_token`, `expired_token` | the caller is not known |
//! | 403 | `role_too_low` | the caller is not the owner |
//! | 403 | `plan_not_allowed` | the plan cannot be chosen by oneself |
//! | 403 | `card_required` | the plan costs money, and there is no card |
//! | 403 | `card_declined` | the card was not accepted |
//! | 404 | `bucket_not_found` | there is no such bucket, or the caller is not a member |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |
//! | 500 | `stripe_error` | Stripe fails; the same request, sent again, goes on and charges nothing twice |
//! | 503 | `plan_changing` | another change of what pays for the bucket is under way |

use billing::{Cashier, PlanChange};
use shared::{
    domain::{PlanName, Right},
    http::{Answer, FieldError, Problem, Request, SubscriptionView, Upgrade, Upgraded, json},
    serve_deprecated,
};

async fn handle(cashier: &Cashier, request: &Request) -> Result<Answer, Problem> {
    let app = &cashier.app;
    let access = app.access(request).await?;
    let Upgrade { plan: name, stripe_token, coupon_id } = request.json_body()?;
    let plan = app.config.plans.get(&name).ok_or_else(|| {
        let known: Vec<_> = app.config.plans.names().map(PlanName::as_str).collect();
        let detail = format!("is not a plan; there are {}", known.join(", "));
        Problem::invalid_input(vec![FieldError::new("plan", detail)])
    })?;
    access.require(Right::ChangePlan)?;
    if !plan.self_service {
        return Err(Problem::plan_not_allowed());
    }
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let wanted = PlanChange { plan: name, card: given(stripe_token), coupon: given(coupon_id) };
    let (bucket, subscription) = cashier.change_plan(&access, &wanted).await?;
    json(&Upgraded {
        bucket: app.view(&bucket, &access.member, request),
        subscription: subscription.as_ref().map(SubscriptionView::from),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve_deprecated(handle).await
}
