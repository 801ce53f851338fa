//! What Stripe shows today, made of what localstripe shows: the fields that API version 2026-09-30.endive
//! requires, and those that billing reads. What is not here, Stripe's answer has and the rig's has not.

use serde_json::{Map, Value, json};

/// A refusal, in the form of Stripe's error bodies.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Refusal {
    fn new(status: u16, error: &Value) -> Self {
        Self { status, body: json!({ "error": error }) }
    }

    /// The request cannot be served as it is.
    pub(super) fn invalid(param: Option<&str>, message: &str) -> Self {
        let mut error = json!({ "type": "invalid_request_error", "message": message });
        if let Some(param) = param {
            error["param"] = json!(param);
        }
        Self::new(400, &error)
    }

    /// The same, with one of Stripe's error codes.
    pub(super) fn coded(status: u16, code: &str, param: Option<&str>, message: &str) -> Self {
        let mut refusal = Self::invalid(param, message);
        refusal.status = status;
        refusal.body["error"]["code"] = json!(code);
        refusal
    }

    /// The path names an object that is not there.
    pub(super) fn missing(kind: &str, id: &str) -> Self {
        Self::coded(404, "resource_missing", Some("id"), &format!("No such {kind}: '{id}'"))
    }

    /// A parameter names an object that is not there.
    pub(super) fn no_such(kind: &str, id: &str, param: &str) -> Self {
        Self::coded(400, "resource_missing", Some(param), &format!("No such {kind}: '{id}'"))
    }

    /// The card's bank says no, to attaching it or to a charge.
    pub(super) fn card_declined() -> Self {
        Self::new(
            402,
            &json!({
                "type": "card_error", "code": "card_declined", "decline_code": "generic_decline",
                "message": "Your card was declined.",
                "doc_url": "https://docs.stripe.com/error-codes/card-declined",
            }),
        )
    }

    /// Not authenticated.
    pub(super) fn unauthorized() -> Self {
        Self::new(401, &json!({ "type": "invalid_request_error", "message": "Invalid API Key provided" }))
    }

    /// What Stripe's own failures look like.
    pub(super) fn made_up(status: u16) -> Self {
        let error = match status {
            429 => {
                json!({ "type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests" })
            }
            500.. => json!({ "type": "api_error", "message": "An unknown error occurred" }),
            _ => json!({ "type": "invalid_request_error", "message": "Made up by the test" }),
        };
        Self::new(status, &error)
    }

    /// The key is of another request.
    pub(super) fn other_request(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used with the same parameters they were first used \
             with. Try using a key other than '{key}' if you meant to execute a different request."
        );
        Self::new(400, &json!({ "type": "idempotency_error", "message": message }))
    }

    /// The first request with the key is still at work.
    pub(super) fn still_running(key: &str) -> Self {
        let message =
            format!("There is currently another in-progress request using this Idempotent Key: {key}");
        Self::coded(409, "idempotency_key_in_use", None, &message)
    }

    /// Stripe's form of what localstripe refused at `path`.
    pub(super) fn of_localstripe(status: u16, body: &Value, path: &str) -> Self {
        let mut segments = path.trim_start_matches("/v1/").split('/');
        let kind = segments.next().unwrap_or_default().trim_end_matches('s');
        match (status, segments.next()) {
            (402, _) => Self::card_declined(),
            (404, Some(id)) => Self::missing(kind, id),
            _ => {
                let mut refusal =
                    Self::invalid(None, body["error"]["message"].as_str().unwrap_or("localstripe failed"));
                refusal.status = status;
                if status >= 500 {
                    refusal.body["error"]["type"] = json!("api_error");
                }
                refusal
            }
        }
    }
}

/// What the rig knows of a subscription beyond localstripe.
#[derive(Clone, Debug, Default)]
pub(super) struct Beyond {
    /// The id that its one item was first shown with; localstripe makes a new item for each price.
    pub(super) item: Option<String>,
    /// The current period, once it is not the first.
    pub(super) period: Option<(i64, i64)>,
    /// Start and end of the trial, and whether it runs.
    pub(super) trial: Option<(i64, i64)>,
    pub(super) in_trial: bool,
    /// Its newest invoice could not be paid, though an earlier one was.
    pub(super) past_due: bool,
    pub(super) cancel_at: Option<i64>,
    pub(super) canceled_at: Option<i64>,
    pub(super) discounts: Vec<Value>,
    /// All of it, since localstripe's stays what it was at the start.
    pub(super) metadata: Option<Map<String, Value>>,
}

/// A page of a list.
pub(super) fn list(url: &str, data: &[Value], has_more: bool) -> Value {
    json!({ "object": "list", "url": url, "has_more": has_more, "data": data })
}

/// An empty value deletes a key at Stripe; localstripe keeps it.
pub(super) fn without_empty(metadata: &Value) -> Value {
    let kept = metadata.as_object().into_iter().flatten().filter(|(_, value)| *value != "");
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
}

pub(super) fn customer(raw: &Value) -> Value {
    let balance = raw["account_balance"].as_i64().unwrap_or_default();
    let mut form = picked(
        raw,
        "id object address created currency default_source delinquent description discount email livemode name \
         phone shipping",
    );
    let more = json!({
        "balance": -balance, "invoice_prefix": null, "preferred_locales": raw["preferred_locales"].as_array().cloned().unwrap_or_default(),
        "invoice_settings": {
            "custom_fields": null, "footer": null, "rendering_options": null,
            "default_payment_method": raw["invoice_settings"]["default_payment_method"],
        },
        "metadata": without_empty(&raw["metadata"]), "tax_exempt": "none", "test_clock": null,
    });
    form.extend(more.as_object().unwrap().clone());
    Value::Object(form)
}

/// The price that stands for localstripe's plan, under an id that is not its lookup key.
pub(super) fn price(plan: &Value) -> Value {
    let key = plan["id"].as_str().unwrap();
    json!({
        "id": price_id(key), "object": "price", "active": plan["active"], "billing_scheme": "per_unit",
        "created": plan["created"], "currency": plan["currency"], "custom_unit_amount": null, "livemode": false,
        "lookup_key": key, "metadata": plan["metadata"], "nickname": plan["nickname"],
        "product": plan["product"],
        "recurring": {
            "interval": plan["interval"], "interval_count": plan["interval_count"], "meter": null,
            "usage_type": "licensed",
        },
        "tax_behavior": "unspecified", "tiers_mode": null, "transform_quantity": null, "type": "recurring",
        "unit_amount": plan["amount"], "unit_amount_decimal": plan["amount"].to_string(),
    })
}

/// The id of the price with a lookup key.
pub(super) fn price_id(lookup_key: &str) -> String {
    format!("price_{lookup_key}")
}

/// The lookup key, which is localstripe's plan, of a price id.
pub(super) fn lookup_key(price: &str) -> Option<&str> {
    price.strip_prefix("price_")
}

/// The current period of a subscription.
pub(super) fn period(raw: &Value, beyond: &Beyond) -> (i64, i64) {
    let first =
        || (raw["current_period_start"].as_i64().unwrap(), raw["current_period_end"].as_i64().unwrap());
    beyond.period.unwrap_or_else(first)
}

pub(super) fn subscription(raw: &Value, beyond: &Beyond) -> Value {
    let item = &raw["items"]["data"][0];
    let (start, end) = period(raw, beyond);
    let ends_with_period = raw["cancel_at_period_end"] == true;
    let status = match raw["status"].as_str().unwrap() {
        ended @ ("canceled" | "incomplete_expired") => ended,
        _ if beyond.in_trial => "trialing",
        _ if beyond.past_due => "past_due",
        status => status,
    };
    let canceled_at = beyond.canceled_at.or(raw["ended_at"].as_i64());
    let reason = canceled_at.map(|_| "cancellation_requested");
    let discount_ids: Vec<&Value> = beyond.discounts.iter().map(|discount| &discount["id"]).collect();
    let url = format!("/v1/subscription_items?subscription={}", raw["id"].as_str().unwrap());
    let shown_item = json!({
        "id": beyond.item.as_deref().or(item["id"].as_str()), "object": "subscription_item",
        "billing_thresholds": null, "created": raw["created"], "current_period_start": start,
        "current_period_end": end, "discounts": [], "metadata": item["metadata"], "price": price(&item["plan"]),
        "quantity": item["quantity"], "subscription": raw["id"], "tax_rates": [],
    });
    let mut form = picked(
        raw,
        "id object cancel_at_period_end created customer ended_at latest_invoice livemode start_date",
    );
    let more = json!({
        "application": null, "application_fee_percent": null,
        "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null },
        "billing_cycle_anchor": beyond.trial.map_or(raw["start_date"].as_i64(), |(_, end)| Some(end)),
        "billing_mode": { "type": "classic", "flexible": null }, "billing_schedules": [],
        "cancel_at": if ends_with_period { Some(end) } else { beyond.cancel_at }, "canceled_at": canceled_at,
        "cancellation_details": { "comment": null, "feedback": null, "reason": reason },
        "collection_method": "charge_automatically", "currency": item["plan"]["currency"],
        "days_until_due": null, "default_payment_method": null, "default_source": null,
        "default_tax_rates": [], "description": null, "discounts": discount_ids,
        "invoice_settings": { "account_tax_ids": null, "issuer": { "type": "self" } },
        "items": list(&url, &[shown_item], false),
        "metadata": beyond.metadata.clone().map_or_else(|| without_empty(&raw["metadata"]), Value::Object),
        "pause_collection": null, "pending_setup_intent": null, "pending_update": null, "schedule": null,
        "status": status, "test_clock": null, "trial_end": beyond.trial.map(|(_, end)| end),
        "trial_start": beyond.trial.map(|(start, _)| start),
    });
    form.extend(more.as_object().unwrap().clone());
    Value::Object(form)
}

/// The discount that a coupon makes of itself at a subscription.
pub(super) fn discount(coupon: &Value, customer: &str, subscription: &str, start: i64) -> Value {
    json!({
        "id": format!("di_{}_{}", coupon["id"].as_str().unwrap(), subscription.trim_start_matches("sub_")),
        "object": "discount", "checkout_session": null, "customer": customer, "end": null, "invoice": null,
        "invoice_item": null, "promotion_code": null,
        "source": { "type": "coupon", "coupon": coupon["id"] }, "start": start, "subscription": subscription,
        "subscription_item": null,
    })
}

/// An invoice; `reason` is why it was made.
pub(super) fn invoice(raw: &Value, reason: Option<&str>) -> Value {
    let id = raw["id"].as_str().unwrap();
    let secret = id.trim_start_matches("in_");
    let amount = |name: &str| raw[name].as_i64().unwrap_or_default();
    let finalized = raw["status"] != "draft";
    let page = format!("https://invoice.stripe.com/i/acct_rig/test_{secret}");
    let lines: Vec<Value> = raw["lines"]["data"].as_array().into_iter().flatten().map(line).collect();
    let mut form = picked(
        raw,
        "id object amount_due amount_paid attempt_count attempted collection_method created currency customer \
         customer_email description livemode metadata next_payment_attempt parent period_start period_end \
         receipt_number starting_balance status subtotal total",
    );
    let more = json!({
        "amount_overpaid": 0, "amount_paid_off_stripe": 0, "amount_shipping": 0,
        "amount_remaining": amount("amount_due") - amount("amount_paid"), "auto_advance": raw["status"] == "open",
        "automatic_tax": {
            "disabled_reason": null, "enabled": false, "liability": null, "provider": null, "status": null,
        },
        "billing_reason": reason, "default_tax_rates": [], "discounts": [], "due_date": null,
        "ending_balance": raw["ending_balance"],
        "hosted_invoice_url": finalized.then_some(&page), "invoice_pdf": finalized.then(|| format!("{page}/pdf")),
        "issuer": { "type": "self" },
        "lines": list(&format!("/v1/invoices/{id}/lines"), &lines, false),
        "number": finalized.then(|| format!("{}-0001", secret.to_uppercase())),
        "payment_settings": {
            "default_mandate": null, "payment_method_options": null, "payment_method_types": null,
        },
        "post_payment_credit_notes_amount": 0, "pre_payment_credit_notes_amount": 0,
        "status_transitions": {
            "finalized_at": raw["status_transitions"]["finalized_at"], "marked_uncollectible_at": null,
            "paid_at": raw["status_transitions"]["paid_at"], "voided_at": raw["status_transitions"]["voided_at"],
        },
        "total_discount_amounts": [], "total_taxes": [],
    });
    form.extend(more.as_object().unwrap().clone());
    Value::Object(form)
}

fn line(raw: &Value) -> Value {
    let mut form =
        picked(raw, "id object amount currency description invoice livemode metadata period quantity");
    let more = json!({
        "discount_amounts": [], "discountable": raw["amount"].as_i64().is_some_and(|amount| amount > 0),
        "discounts": [], "subscription": raw["subscription"], "subtotal": raw["amount"], "taxes": [],
    });
    form.extend(more.as_object().unwrap().clone());
    Value::Object(form)
}

/// The named fields, which localstripe shows as Stripe does.
fn picked(raw: &Value, names: &str) -> Map<String, Value> {
    names.split_whitespace().map(|name| (name.to_owned(), raw[name].clone())).collect()
}
