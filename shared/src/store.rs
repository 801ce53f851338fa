//! The one table: keys, rows, reads and guarded transactions. One public method per access pattern,
//! see `docs/data-model.md`.

mod audit;
mod buckets;
mod clearing;
mod invitations;
mod items;
mod keys;
mod members;
mod plans;
mod reads;
#[cfg(test)]
mod scripted;
mod servers;
mod subscriptions;
mod transaction;
mod usage;
mod users;

use std::sync::Arc;

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
};

use crate::{cause::chain, domain::Plans};

pub use audit::{Action, AuditEntry, Lease};
pub use buckets::{CHANGE_ATTEMPTS, CreateError, DeleteError, UpdateError, before_attempt};
pub use invitations::Invite;
pub use members::PeopleError;
pub use plans::{PlanError, TrialError};
pub use servers::{Agent, AgentError, AgentKeys, ServerError};
pub use subscriptions::{
    Billing, BillingCall, BillingChange, BillingError, ChangeEnd, Kept, KeptSubscription, NewChange,
};
#[cfg(debug_assertions)]
pub use transaction::{Guard, Guards};
pub use usage::{Usage, measured};
pub use users::RegisterError;

/// Access to the table. Cheap to clone; connections are shared.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    table: String,
    plans: Arc<Plans>,
    #[cfg(debug_assertions)]
    guards: Option<Arc<Guards>>,
}

/// Why the table could not be read or written. A guard that refused is not among them: each method
/// has its own error for those.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer, too much contention or throttling, after all retries: the same call may succeed in
    /// a moment.
    #[error("the table is not available: {0}")]
    Unavailable(String),
    /// The table refuses the call itself: a wrong deployment, or a defect.
    #[error("the table refuses the call: {0}")]
    Refused(String),
    /// A row is not what was once written.
    #[error("a row cannot be read or written: {0}")]
    Row(String),
    /// The operating system's random source failed.
    #[error("the random source failed: {0}")]
    Random(#[from] getrandom::Error),
}

impl Store {
    /// A store over the table that is called `table`, reached as `aws` says, in which `plans` hold.
    #[must_use]
    pub fn new(aws: &aws_config::SdkConfig, table: &str, plans: &Plans) -> Self {
        Self {
            client: Client::new(aws),
            table: table.to_owned(),
            plans: Arc::new(plans.clone()),
            #[cfg(debug_assertions)]
            guards: None,
        }
    }
}

/// Sorts an SDK error into one to retry and one to report.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else may happen on the way may pass")]
fn store_error<E>(error: &SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let text = format!(
                "{}: {}",
                service.err().code().unwrap_or("unknown"),
                service.err().message().unwrap_or_default()
            );
            let retryable = service.raw().status().is_server_error()
                || service.err().code().is_some_and(transaction::is_transient);
            if retryable { StoreError::Unavailable(text) } else { StoreError::Refused(text) }
        }
        SdkError::TimeoutError(_) => StoreError::Unavailable("it does not answer in time".to_owned()),
        // Without credentials no waiting helps. A connection that is closed before its answer is of this kind
        // too, but known to pass.
        SdkError::DispatchFailure(failure) if failure.is_other() && failure.as_other().is_none() => {
            StoreError::Refused(chain(error))
        }
        SdkError::ConstructionFailure(_) => StoreError::Refused(chain(error)),
        _ => StoreError::Unavailable(chain(error)),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::operation::get_item::GetItemError;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::retry::ErrorKind;

    use super::*;

    #[test]
    fn a_connection_that_is_closed_may_be_there_in_a_moment_and_credentials_may_not() {
        for (kind, may_pass) in [(Some(ErrorKind::TransientError), true), (None, false)] {
            let failure = ConnectorError::other("it did not work".into(), kind);

            let error = store_error(&SdkError::<GetItemError>::dispatch_failure(failure));

            assert_eq!(matches!(error, StoreError::Unavailable(_)), may_pass, "{error:?}");
        }
    }
}
