//! What each route asks of the table: how often, and for how many units.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::proxy::Proxy;
use crate::stage::{Case, ENDPOINT};
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
    let proxy = Proxy::before(stage.stack.dynamodb_endpoint(), Duration::ZERO).await?;
    let mut instances = BTreeMap::new();
    let mut costs = Vec::new();
    for case in stage.cases() {
        let function = &case.function;
        if !functions.is_empty() && !functions.contains(function) {
            continue;
        }
        if !instances.contains_key(function) {
            let mut bootstrap = stage.bootstrap(function)?;
            bootstrap.environment.insert(ENDPOINT.to_owned(), proxy.endpoint.clone());
            instances.insert(function.clone(), Instance::start(&bootstrap).await?);
        }
        let Some(instance) = instances.get_mut(function) else { continue };
        let (mut calls, mut said) = (Vec::new(), Said::default());
        for _ in 0..2 {
            stage.restore().await?;
            proxy.take();
            let answer = instance.invoke(&case.event()).await?.answer;
            calls = proxy.take();
            said = said_of(instance, case, calls.len()).await?;
            let status = serde_json::from_slice::<Value>(&answer).unwrap_or_default();
            let status = status.get("statusCode").and_then(Value::as_u64);
            if status != case.status {
                let what = format!("answers the event `{}` with {status:?}", case.name);
                return Err(Failure::function(function, what));
            }
        }
        if said.calls != calls.len() {
            let what = format!("says {said:?} of the event `{}`, which took {calls:?}", case.name);
            return Err(Failure::function(function, what));
        }
        costs.push(RouteCost {
            route: case.route().to_owned(),
            function: function.clone(),
            case: case.name.clone(),
            changes: case.changes(),
            calls,
            read_units: said.read_units,
            write_units: said.write_units,
        });
    }
    stage.restore().await?;
    for (_, instance) in instances {
        instance.end().await?;
    }
    Ok(costs)
}

/// What log lines say of the table.
#[derive(Debug, Default)]
struct Said {
    calls: usize,
    read_units: f64,
    write_units: f64,
}

/// What the lines of one event say: one of a request, one for each record of the stream that something was done for.
async fn said_of(instance: &mut Instance, case: &Case, calls: usize) -> Result<Said, Failure> {
    let mut said = Said::default();
    let mut is_missing = case.status.is_some();
    while is_missing || said.calls < calls {
        let line = instance.line().await?;
        let number = |name| line.get(name).and_then(Value::as_f64).unwrap_or_default();
        let counted = line.get("table_calls").and_then(Value::as_u64).unwrap_or_default();
        said.calls += usize::try_from(counted).unwrap_or(usize::MAX);
        said.read_units += number("read_units");
        said.write_units += number("write_units");
        is_missing = false;
    }
    Ok(said)
}
