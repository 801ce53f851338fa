//! The Stripe of the recorded events: always the same answers, told apart by the ids in the events. What
//! Stripe really does is for the tests against `stripe`'s real parts.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{OriginalUri, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Where the deployment of the events finds its keys.
pub(crate) const SECRET_NAME: &str = "stripe";

/// Signs the recorded events.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_events";

/// The bucket of `events/table.json` whose change of plan is under way.
const CHANGING: &str = "5f1d2c3b4a5968778695a4b7";

pub(crate) fn secrets() -> BTreeMap<String, String> {
    let keys = json!({ "secret_key": "sk_test_events", "webhook_secret": WEBHOOK_SECRET });
    BTreeMap::from([(SECRET_NAME.to_owned(), keys.to_string())])
}

/// Starts it, until the end of the test, and gives its URL.
pub(crate) async fn start() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn subscription(id: &str) -> Value {
    let bucket = if id == "sub_changing" { CHANGING } else { "0123456789abcdef01234567" };
    json!({
        "id": id, "object": "subscription", "customer": "cus_grace", "status": "active",
        "items": { "object": "list", "data": [{
            "id": "si_1", "price": { "id": "price_1", "lookup_key": "bucket_plus" },
            "current_period_start": 1_767_225_600, "current_period_end": 1_769_904_000,
        }] },
        "cancel_at": null, "canceled_at": null, "trial_end": null, "metadata": { "bucket_id": bucket },
    })
}

fn invoice() -> Value {
    json!({
        "id": "in_1", "object": "invoice", "number": "A-0001", "status": "paid", "currency": "eur",
        "total": 3900, "amount_due": 3900, "amount_paid": 3900, "created": 1_767_225_600,
        "period_start": 1_767_225_600, "period_end": 1_769_904_000,
        "hosted_invoice_url": "https://invoice.example.com/i/1", "invoice_pdf": "https://invoice.example.com/i/1/pdf",
    })
}

fn customer(id: &str, has_card: bool) -> Value {
    let source = has_card.then_some("card_1");
    json!({ "id": id, "object": "customer", "default_source": source, "invoice_settings": {} })
}

fn error(status: u16, kind: &str, code: &str, param: Option<&str>, message: &str) -> (u16, Value) {
    (status, json!({ "error": { "type": kind, "code": code, "param": param, "message": message } }))
}

async fn answer(
    State(()): State<()>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    body: Bytes,
) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    let said = format!("{uri} {body}");
    let path: Vec<_> = uri.path().split('/').skip(2).collect();
    let (status, answer) = match (method.as_str(), path.as_slice()) {
        _ if said.contains("_down") => error(500, "api_error", "", None, "down"),
        (_, ["customers", ..]) if said.contains("tok_unknown") => error(
            400,
            "invalid_request_error",
            "resource_missing",
            Some("source"),
            "No such token: 'tok_unknown'",
        ),
        ("POST", ["customers", ..]) if said.contains("tok_declined") => {
            error(402, "card_error", "card_declined", None, "Your card was declined.")
        }
        ("POST", ["customers"]) => (200, customer("cus_new", false)),
        ("POST", ["customers", id]) => (200, customer(id, true)),
        ("GET", ["customers", id]) => (200, customer(id, *id == "cus_declined")),
        ("GET", ["prices"]) => (200, json!({ "data": [{ "id": "price_1", "lookup_key": "bucket_plus" }] })),
        ("POST", ["subscriptions"]) if said.contains("cus_declined") => {
            error(402, "card_error", "card_declined", None, "Your card was declined.")
        }
        ("POST", ["subscriptions"]) => (200, subscription("sub_new")),
        ("GET", ["subscriptions", "sub_unknown"]) => {
            error(404, "invalid_request_error", "resource_missing", Some("id"), "No such subscription")
        }
        (_, ["subscriptions", id]) => (200, subscription(id)),
        ("GET", ["invoices"]) => (200, json!({ "data": [invoice()] })),
        _ => error(404, "invalid_request_error", "", None, "Unrecognized request URL"),
    };
    (StatusCode::from_u16(status).unwrap(), Json(answer)).into_response()
}
