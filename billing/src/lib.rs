//! Plans that cost money: Stripe, and how it and the table are kept in step.
//!
//! A change at Stripe and one in the table cannot be one transaction. So each change of what pays for a
//! bucket is written down first, with an id and under a lease; every call that it makes carries that id,
//! as idempotency key and in the subscription's metadata; and what came of it is committed together with
//! the end of the change (`changes`). One that was cut off is resumed under the same id by whoever asks
//! for it again, or found at Stripe by the id. What happens at Stripe by itself, or after somebody gave up
//! waiting, comes by webhook, and is never taken from the event but fetched anew (`sync`).
//!
//! A deployment without Stripe has no money to take: plans are switched freely.

mod changes;
mod invoices;
mod secret;
mod signature;
mod stripe;
mod sync;

use shared::{App, Context, StartError};

pub use changes::PlanChange;
pub use invoices::Invoice;
pub use stripe::StripeError;
pub use sync::Event;

use stripe::Stripe;

/// What the functions need that deal with plans and money.
#[derive(Debug)]
pub struct Cashier {
    /// What all functions need.
    pub app: App,
    /// `None` where the deployment takes no money.
    stripe: Option<Stripe>,
}

impl Context for Cashier {
    async fn start() -> Result<Self, StartError> {
        let (app, stripe) = tokio::join!(App::start(), Stripe::from_environment());
        Ok(Self { app: app?, stripe: stripe? })
    }
}
