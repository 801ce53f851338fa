//! What each route asks of the table: how often, and for how many units.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::proxy::Proxy;
use crate::{Failure, Instance, Stage};

/// What one event costs at the table, the instance being warm.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteCost {
    /// Method and path.
    pub route: String,
    /// The function.
    pub function: String,
    /// The recorded event.
    pub case: String,
    /// Whether the route may change something.
    pub changes: bool,
    /// The calls, as they passed the proxy.
    pub calls: Vec<String>,
    /// Read units, as the function's log line has them.
    pub read_units: f64,
    /// Write units, as the function's log line has them.
    pub write_units: f64,
}

/// Hands each recorded event that something is done for to its function, of `functions` (all, if there are none),
/// twice, and counts the calls of the second time. What the function's own log line says must be the same.
pub async fn count(
    stage: &Stage,
    functions: &[String],
    told: &(dyn Fn(&str) + Sync),
) -> Result<Vec<RouteCost>, Failure> {
    told("routes: calls and units");
    let proxy = Proxy::before(stage.stack.dynamodb_endpoint()).await?;
    let mut instances = BTreeMap::new();
    let mut costs = Vec::new();
    for case in stage.cases() {
        let function = &case.function;
        if !functions.is_empty() && !functions.contains(function) {
            continue;
        }
        if !instances.contains_key(function) {
            let mut bootstrap = stage.bootstrap(function)?;
            bootstrap.environment.insert("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), proxy.endpoint.clone());
            instances.insert(function.clone(), Instance::start(&bootstrap).await?);
        }
        let Some(instance) = instances.get_mut(function) else { continue };
        let (mut calls, mut line) = (Vec::new(), Value::Null);
        for _ in 0..2 {
            stage.restore().await?;
            proxy.take();
            let answer = instance.invoke(&case.event()).await?.answer;
            line = instance.line().await?;
            calls = proxy.take();
            let status = serde_json::from_slice::<Value>(&answer).unwrap_or_default();
            let status = status.get("statusCode").and_then(Value::as_u64);
            if status != case.status {
                let what = format!("answers the event `{}` with {status:?}", case.name);
                return Err(Failure::function(function, what));
            }
        }
        let number = |name| line.get(name).and_then(Value::as_f64).unwrap_or_default();
        let counted = u32::try_from(calls.len()).map_or(f64::INFINITY, f64::from);
        if (number("table_calls") - counted).abs() > 0.5 {
            let what = format!("says {line} of the event `{}`, which took {calls:?}", case.name);
            return Err(Failure::function(function, what));
        }
        costs.push(RouteCost {
            route: case.route().to_owned(),
            function: function.clone(),
            case: case.name.clone(),
            changes: case.changes(),
            calls,
            read_units: number("read_units"),
            write_units: number("write_units"),
        });
    }
    stage.restore().await?;
    for (_, instance) in instances {
        instance.end().await?;
    }
    Ok(costs)
}
