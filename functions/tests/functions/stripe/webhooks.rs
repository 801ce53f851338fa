//! Events as Stripe delivers them.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU32, Ordering},
};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::played::now;

/// What API version the events are of; that of the crate that the functions use.
const API_VERSION: &str = "2026-09-30.endive";

static EVENTS: AtomicU32 = AtomicU32::new(1);

/// The payload of an event of the type `kind` that shows `object`.
pub(super) fn event(kind: &str, object: &Value) -> String {
    let number = EVENTS.fetch_add(1, Ordering::Relaxed);
    let event = json!({
        "id": format!("evt_rig{number}x{}", now()), "object": "event", "api_version": API_VERSION,
        "created": now(), "data": { "object": object }, "livemode": false, "pending_webhooks": 1,
        "request": null, "type": kind,
    });
    serde_json::to_string_pretty(&event).unwrap()
}

/// The `Stripe-Signature` of `payload`, as if sent at `timestamp_seconds`.
pub(crate) fn sign(payload: &str, secret: &str, timestamp_seconds: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{timestamp_seconds}.{payload}").as_bytes());
    let mut signature = format!("t={timestamp_seconds},v1=");
    for byte in tag.as_ref() {
        write!(signature, "{byte:02x}").unwrap();
    }
    signature
}
