//! Events of `Type: DynamoDB`: which streams invoke a function, and how.
//!
//! Source: "DynamoDB" (event source) in the AWS SAM developer guide; defaults and ranges of
//! `AWS::Lambda::EventSourceMapping`.

use std::time::Duration;

use super::evaluate::Value;
use super::yaml::Node;
use super::{Properties, Table, TemplateError};
use crate::stream::Filter;

/// An event source mapping: the stream of a table invokes a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTrigger {
    /// The logical id that SAM gives the mapping: the function's and the event's names together.
    pub id: String,
    /// `Stream`, as functions see it.
    pub arn: String,
    /// The table whose stream it is.
    pub table: String,
    /// Where the very first start begins to read.
    pub starting_position: StartingPosition,
    /// The most records that an event has.
    pub batch_size: usize,
    /// How long a batch that is not full waits for more.
    pub batching_window: Duration,
    /// How often a batch is tried again; for ever if `None`.
    pub maximum_retry_attempts: Option<u32>,
    /// Whether a batch that failed is tried again in two halves.
    pub bisect: bool,
    /// Whether the function says which records failed (`ReportBatchItemFailures`).
    pub reports_item_failures: bool,
    /// A record must match one of them, if there are any.
    pub filters: Vec<Filter>,
    /// ARN of what gets the dead letters, if anything.
    pub on_failure: Option<String>,
}

/// Where a new trigger begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartingPosition {
    /// With the oldest record there is.
    TrimHorizon,
    /// With the first that comes after its start.
    Latest,
}

/// The stream triggers of the function `logical_id`.
pub(super) fn triggers(
    logical_id: &str,
    properties: &Properties<'_>,
) -> Result<Vec<StreamTrigger>, TemplateError> {
    let events = properties.node.get("Events").map(Node::entries).unwrap_or_default();
    let mut triggers = Vec::new();
    for (name, event) in events {
        if event.get("Type").and_then(Node::text) != Some("DynamoDB") {
            continue;
        }
        let event = Properties {
            scope: properties.scope,
            node: event.get("Properties").unwrap_or(event),
            path: event_path(&properties.path, name),
        };
        if event.get("Enabled")?.text() != Some("false") {
            triggers.push(trigger(format!("{logical_id}{name}"), &event)?);
        }
    }
    Ok(triggers)
}

fn event_path(function: &str, event: &str) -> String {
    format!("{function}.Events.{event}.Properties")
}

fn trigger(id: String, event: &Properties<'_>) -> Result<StreamTrigger, TemplateError> {
    let stream = event.get("Stream")?;
    let stream = stream.text().and_then(|arn| Some((arn, table_of(arn)?)));
    let (arn, table) =
        stream.ok_or_else(|| event.error("Stream", "must be the `StreamArn` of a table of the template"))?;
    let starting_position = match event.get("StartingPosition")?.text() {
        Some("TRIM_HORIZON") => StartingPosition::TrimHorizon,
        Some("LATEST") => StartingPosition::Latest,
        _ => return Err(event.error("StartingPosition", "must be TRIM_HORIZON or LATEST")),
    };
    let batch_size = event.number("BatchSize", 1..=10_000)?.unwrap_or(100);
    let window = event.number("MaximumBatchingWindowInSeconds", 0..=300)?.unwrap_or(0);
    let maximum_retry_attempts = match event.get("MaximumRetryAttempts")?.text() {
        Some("-1") => None,
        _ => event.number("MaximumRetryAttempts", 0..=10_000)?,
    };
    Ok(StreamTrigger {
        id,
        arn: arn.to_owned(),
        table: table.to_owned(),
        starting_position,
        batch_size: usize::try_from(batch_size).unwrap_or(usize::MAX),
        batching_window: Duration::from_secs(window.into()),
        maximum_retry_attempts,
        bisect: event.get("BisectBatchOnFunctionError")?.text() == Some("true"),
        reports_item_failures: reports_item_failures(event)?,
        filters: filters(event)?,
        on_failure: on_failure(event)?,
    })
}

/// The table in the ARN of a stream.
fn table_of(arn: &str) -> Option<&str> {
    let (_, path) = arn.split_once(":table/")?;
    let (table, _) = path.split_once("/stream/")?;
    Some(table)
}

fn reports_item_failures(event: &Properties<'_>) -> Result<bool, TemplateError> {
    let name = "FunctionResponseTypes";
    match event.get(name)? {
        Value::Absent => Ok(false),
        Value::List(items) if items.iter().all(|item| item.text() == Some("ReportBatchItemFailures")) => {
            Ok(!items.is_empty())
        }
        Value::Text(_) | Value::List(_) | Value::Map(_) => {
            Err(event.error(name, "must be a list of `ReportBatchItemFailures`"))
        }
    }
}

fn filters(event: &Properties<'_>) -> Result<Vec<Filter>, TemplateError> {
    let name = "FilterCriteria";
    let criteria = event.get(name)?;
    if criteria == Value::Absent {
        return Ok(Vec::new());
    }
    let Some(Value::List(filters)) = criteria.get("Filters") else {
        return Err(event.error(name, "`Filters` must be a list"));
    };
    let filters = filters.iter().map(|filter| {
        let pattern = filter.get("Pattern").and_then(Value::text);
        let pattern =
            pattern.ok_or_else(|| event.error(name, "each filter needs a `Pattern`, JSON as text"))?;
        Filter::parse(pattern).map_err(|reason| event.error(name, format!("the pattern {reason}")))
    });
    filters.collect()
}

fn on_failure(event: &Properties<'_>) -> Result<Option<String>, TemplateError> {
    let name = "DestinationConfig";
    let destination = event.get(name)?;
    let Some(on_failure) = destination.get("OnFailure") else { return Ok(None) };
    match on_failure.get("Destination").and_then(Value::text) {
        Some(arn) => Ok(Some(arn.to_owned())),
        None => Err(event.error(name, "`OnFailure` needs a `Destination`")),
    }
}

/// Holds that the tables whose streams invoke functions have streams. `resources` are for the place of an
/// error.
pub(super) fn check(
    functions: &[super::Function],
    tables: &[Table],
    resources: &Node,
) -> Result<(), TemplateError> {
    for function in functions {
        for trigger in &function.streams {
            let table = tables.iter().find(|table| table.name == trigger.table);
            if table.is_some_and(Table::has_stream) {
                continue;
            }
            let event = trigger.id.strip_prefix(&function.logical_id).unwrap_or_default();
            let path = event_path(&format!("Resources.{}.Properties", function.logical_id), event);
            let node = resources.get(&function.logical_id).unwrap_or(resources);
            let reason =
                format!("the template has no table `{}` with a `StreamSpecification`", trigger.table);
            return Err(node.error(&format!("{path}.Stream"), reason));
        }
    }
    Ok(())
}
