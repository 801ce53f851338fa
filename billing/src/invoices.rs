//! What was charged.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An invoice, in Stripe's words (<https://docs.stripe.com/api/invoices/object>): amounts in the smallest
/// unit of the currency, times in seconds since 1970.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "they are Stripe's")]
pub struct Invoice {
    id: Option<String>,
    number: Option<String>,
    status: Option<String>,
    currency: String,
    total: i64,
    amount_due: i64,
    amount_paid: i64,
    created: i64,
    period_start: Option<i64>,
    period_end: Option<i64>,
    hosted_invoice_url: Option<String>,
    invoice_pdf: Option<String>,
}

impl Invoice {
    /// When it was made, in seconds since 1970.
    pub(crate) fn created(&self) -> i64 {
        self.created
    }
}
