//! The frame around a function of the table's stream.

use std::convert::Infallible;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::{Deserialize, Serialize};

use crate::{
    cause::chain,
    runtime::{Context, log_as_json, start},
    store::{AuditEntry, StoreError, measured},
};

/// Why a record could not be followed up; it is delivered again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StreamError(String);

impl StreamError {
    /// For the reason of `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// `text`, because of `error`.
    #[must_use]
    pub fn of(text: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self(format!("{text}: {}", chain(error)))
    }
}

impl From<StoreError> for StreamError {
    fn from(error: StoreError) -> Self {
        Self::of("the table", &error)
    }
}

/// What is read of a batch of stream records ("Using AWS Lambda with Amazon DynamoDB").
#[derive(Debug, Deserialize)]
struct Batch {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
struct Record {
    #[serde(rename = "eventName")]
    event_name: String,
    dynamodb: Images,
}

#[derive(Debug, Deserialize)]
struct Images {
    #[serde(rename = "SequenceNumber")]
    sequence_number: String,
    #[serde(rename = "NewImage")]
    new_image: Option<serde_dynamo::Item>,
}

/// Which records to deliver again (partial batch response).
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    batch_item_failures: Vec<Failure>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
}

/// Runs `handle` for each new audit row that the stream brings. Records are followed up in their order;
/// at the first that fails, the rest of the batch is left to be delivered again with it.
///
/// # Errors
/// The Lambda Runtime API is gone.
pub async fn serve_stream<C, H>(handle: H) -> Result<(), Error>
where
    C: Context,
    H: AsyncFn(&C, AuditEntry) -> Result<(), StreamError>,
{
    log_as_json();
    let context = start::<C>().await;
    let (context, handle) = (&context, &handle);
    let run = lambda_runtime::run(service_fn(async move |event: LambdaEvent<Batch>| {
        let request_id = event.context.request_id;
        let mut outcome = Outcome::default();
        for record in event.payload.records {
            let identifier = record.dynamodb.sequence_number.clone();
            if follow_up(context, handle, record, &request_id).await.is_err() {
                outcome.batch_item_failures.push(Failure { item_identifier: identifier });
                break;
            }
        }
        Ok::<_, Infallible>(outcome)
    }));
    Box::pin(run).await
}

async fn follow_up<C>(
    context: &C,
    handle: &impl AsyncFn(&C, AuditEntry) -> Result<(), StreamError>,
    record: Record,
    request_id: &str,
) -> Result<(), StreamError> {
    let Some(entry) = audit_entry(record)? else {
        return Ok(());
    };
    let (action, id) = (entry.action, entry.id.clone());
    let (outcome, usage) = measured(handle(context, entry)).await;
    let error = outcome.as_ref().err().map(ToString::to_string);
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                $level,
                request_id,
                audit_id = id,
                action = ?action,
                error,
                table_calls = usage.calls,
                read_units = usage.read_units,
                write_units = usage.write_units,
                "record"
            );
        };
    }
    if error.is_some() {
        line!(tracing::Level::ERROR);
    } else {
        line!(tracing::Level::INFO);
    }
    outcome
}

/// The audit row that `record` brings, if it brings a new one.
fn audit_entry(record: Record) -> Result<Option<AuditEntry>, StreamError> {
    let Some(image) = record.dynamodb.new_image.filter(|_| record.event_name == "INSERT") else {
        return Ok(None);
    };
    AuditEntry::from_image(image).map_err(|error| {
        tracing::error!(error = %error, "a record cannot be read");
        error.into()
    })
}
