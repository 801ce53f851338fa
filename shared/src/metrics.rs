//! Metrics, written as log lines that `CloudWatch` counts (its "embedded metric format").
//!
//! Source: "Specification: Embedded metric format" in the Amazon `CloudWatch` user guide.

use std::{
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{config::optional, http::Problem};

/// A line that counts one refusal. Only `code` is a dimension: each value of one is a metric that is paid for,
/// and there are as many codes as `docs/problems.md` lists. What else is there can be searched for.
#[derive(Serialize)]
struct Line<'a> {
    /// First, so that whoever reads lines knows at once which ones are metrics.
    #[serde(rename = "_aws")]
    metadata: Metadata<'a>,
    code: &'a str,
    route: &'a str,
    status: u16,
    #[serde(rename = "Refusals")]
    refusals: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata<'a> {
    /// In milliseconds.
    timestamp: u64,
    cloud_watch_metrics: [Directive<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive<'a> {
    namespace: &'a str,
    dimensions: [[&'static str; 1]; 1],
    metrics: [Metric; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metric {
    name: &'static str,
    unit: &'static str,
}

/// Counts `problem`, with which `route` has answered, in the namespace that `METRICS_NAMESPACE` names; nowhere,
/// if it names none.
pub(crate) fn count(problem: &Problem, route: &str) {
    let Some(namespace) = optional("METRICS_NAMESPACE") else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let line = Line {
        metadata: Metadata {
            timestamp: u64::try_from(now.as_millis()).unwrap_or_default(),
            cloud_watch_metrics: [Directive {
                namespace: &namespace,
                dimensions: [["code"]],
                metrics: [Metric { name: "Refusals", unit: "Count" }],
            }],
        },
        code: problem.code(),
        route,
        status: problem.status().as_u16(),
        refusals: 1,
    };
    // Past `tracing`, which would wrap it: CloudWatch wants `_aws` to be an object. A request is answered all
    // the same when nobody takes its lines.
    if let Ok(line) = serde_json::to_string(&line) {
        let _nobody_reads = writeln!(std::io::stdout().lock(), "{line}");
    }
}
