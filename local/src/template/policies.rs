//! `Policies` of a function: what it may do with the services that the local stack plays.
//!
//! Read are inline statements that allow something. What cannot matter is left aside: statements, SAM policy
//! templates and managed policies about other services alone. What could matter and is not played is refused,
//! so that nobody takes a function for working that would be refused on AWS, or the other way round.
//!
//! Source: `Policies` of `AWS::Serverless::Function` and "AWS SAM policy templates" in the AWS SAM developer
//! guide.

use super::evaluate::Value;
use super::{Properties, TemplateError, texts};
use crate::iam::{FROM_ADDRESS, SERVICES, Statement};

/// The managed policies that are about logs, traces and networks alone.
const ABOUT_OTHERS: [&str; 3] =
    ["AWSLambdaBasicExecutionRole", "AWSLambdaVPCAccessExecutionRole", "AWSXRayDaemonWriteAccess"];

/// What the policies of a function allow.
pub(super) fn statements(properties: &Properties<'_>) -> Result<Vec<Statement>, TemplateError> {
    for name in ["PermissionsBoundary", "Role"] {
        if properties.get(name)? != Value::Absent {
            return Err(properties.error(name, "is not played: give the function `Policies` alone"));
        }
    }
    let refused = |reason: String| properties.error("Policies", reason);
    let mut statements = Vec::new();
    for policy in list(properties.get("Policies")?) {
        match &policy {
            Value::Text(name) => managed(name).map_err(refused)?,
            Value::Map(entries) => match (policy.get("Statement"), entries.as_slice()) {
                (Some(document), _) => {
                    for value in list(document.clone()) {
                        statements.extend(statement(&value).map_err(refused)?);
                    }
                }
                (None, [(name, _)]) => template(name).map_err(refused)?,
                (None, _) => return Err(refused("a policy needs a `Statement`".to_owned())),
            },
            Value::Absent | Value::List(_) => {
                return Err(refused("must be policies, each with a `Statement`".to_owned()));
            }
        }
    }
    Ok(statements)
}

/// The items of a list; anything else stands for a list of it.
fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Absent => Vec::new(),
        Value::List(items) => items,
        Value::Text(_) | Value::Map(_) => vec![value],
    }
}

fn managed(name: &str) -> Result<(), String> {
    if ABOUT_OTHERS.contains(&name.rsplit('/').next().unwrap_or(name)) {
        return Ok(());
    }
    Err(format!("the managed policy `{name}` is not played: write its statements out"))
}

fn template(name: &str) -> Result<(), String> {
    let matters = name.contains("DynamoDB") || name.contains("SecretsManager") || name.starts_with("SES");
    if !matters {
        return Ok(());
    }
    Err(format!("the SAM policy template `{name}` is not played: write its statements out"))
}

/// The statement, if it is about a service that is played.
fn statement(value: &Value) -> Result<Option<Statement>, String> {
    let Value::Map(entries) = value else { return Err("a statement must be a map".to_owned()) };
    let needed = |name: &str| {
        let found = value.get(name).and_then(texts).filter(|found| !found.is_empty());
        found.ok_or_else(|| format!("`{name}` of a statement must be a text or a list of texts"))
    };
    let unplayed = |(name, _): &&(String, Value)| {
        !["Action", "Condition", "Effect", "Resource", "Sid"].contains(&name.as_str())
    };
    if let Some((name, _)) = entries.iter().find(unplayed) {
        return Err(format!("`{name}` of a statement is not played"));
    }
    let actions = needed("Action")?;
    if !actions.iter().any(|action| is_about_played(action)) {
        return Ok(None);
    }
    if value.get("Effect").and_then(Value::text) != Some("Allow") {
        return Err("a statement must have the `Effect` Allow: nothing else is played".to_owned());
    }
    let from_addresses = value.get("Condition").map(condition).transpose()?;
    Ok(Some(Statement { actions, resources: needed("Resource")?, from_addresses }))
}

fn is_about_played(action: &str) -> bool {
    let service = action.split(':').next().unwrap_or(action);
    service.contains(['*', '?']) || SERVICES.iter().any(|played| service.eq_ignore_ascii_case(played))
}

/// The addresses that a condition names.
fn condition(value: &Value) -> Result<Vec<String>, String> {
    if let Value::Map(operators) = value
        && let [(operator, Value::Map(keys))] = operators.as_slice()
        && operator == "StringEquals"
        && let [(key, values)] = keys.as_slice()
        && key.eq_ignore_ascii_case(FROM_ADDRESS)
        && let Some(values) = texts(values)
    {
        return Ok(values);
    }
    Err(format!("of the conditions only `StringEquals` on `{FROM_ADDRESS}` is played"))
}
