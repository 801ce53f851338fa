//! Template parameters: defaults, overrides and the constraints on both.
//!
//! Source: "Parameters" in the AWS `CloudFormation` user guide.

use std::collections::BTreeMap;

use regex_lite::Regex;

use super::TemplateError;
use super::evaluate::Value;
use super::yaml::{Content, Node};

/// The value of each parameter that `declarations` declares: the override, or else the default.
pub(super) fn resolve(
    declarations: Option<&Node>,
    overrides: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Value>, TemplateError> {
    let declarations = declarations.map(Node::entries).unwrap_or_default();
    if let Some(unknown) =
        overrides.keys().find(|name| !declarations.iter().any(|(declared, _)| declared == *name))
    {
        let known: Vec<_> = declarations.iter().map(|(name, _)| name.as_str()).collect();
        return Err(invalid(unknown, format!("is not one of this template's ({})", known.join(", "))));
    }
    declarations
        .iter()
        .map(|(name, declaration)| {
            let given = overrides.get(name).map(String::as_str);
            let Some(text) = given.or_else(|| default(declaration)) else {
                return Err(invalid(name, "has no default: set it with --parameter-overrides".to_owned()));
            };
            value(name, declaration, text).map(|value| (name.clone(), value))
        })
        .collect()
}

/// The default as text; the empty text may be written as a null.
fn default(declaration: &Node) -> Option<&str> {
    let node = declaration.get("Default")?;
    match &node.content {
        Content::Null => Some(""),
        Content::Text(text) => Some(text),
        Content::List(_) | Content::Map(_) => None,
    }
}

fn value(name: &str, declaration: &Node, text: &str) -> Result<Value, TemplateError> {
    let kind = declaration.get("Type").and_then(Node::text);
    let kind =
        kind.ok_or_else(|| declaration.error(&format!("Parameters.{name}"), "the `Type` is missing"))?;
    if kind == "CommaDelimitedList" || kind.starts_with("List<") {
        let items: Vec<_> = text.split(',').map(str::trim).collect();
        for item in &items {
            check(name, declaration, item, kind == "List<Number>")?;
        }
        return Ok(Value::List(items.into_iter().map(|item| Value::Text(item.to_owned())).collect()));
    }
    check(name, declaration, text, kind == "Number")?;
    Ok(Value::Text(text.to_owned()))
}

/// Holds one value against the constraints that the declaration states.
fn check(name: &str, declaration: &Node, text: &str, number: bool) -> Result<(), TemplateError> {
    let path = format!("Parameters.{name}");
    // A secret is not repeated in a message.
    let secret = declaration.get("NoEcho").and_then(Node::text) == Some("true");
    let shown = if secret { "the given value".to_owned() } else { format!("`{text}`") };
    let refuse = |reason: String| {
        let described = declaration.get("ConstraintDescription").and_then(Node::text);
        Err(invalid(name, format!("{}, and {shown} is not", described.unwrap_or(&reason))))
    };

    if number {
        let Some(value) = parse_number(text) else { return refuse("must be a number".to_owned()) };
        if let Some(minimum) = limit(declaration, "MinValue", &path)?
            && value < minimum
        {
            return refuse(format!("must be at least {minimum}"));
        }
        if let Some(maximum) = limit(declaration, "MaxValue", &path)?
            && value > maximum
        {
            return refuse(format!("must be at most {maximum}"));
        }
    }
    // Unlike numbers, which may be written in several ways, lengths apply to text only.
    let length = f64::from(u32::try_from(text.chars().count()).unwrap_or(u32::MAX));
    if let Some(minimum) = limit(declaration, "MinLength", &path)?
        && length < minimum
    {
        return refuse(format!("must have at least {minimum} characters"));
    }
    if let Some(maximum) = limit(declaration, "MaxLength", &path)?
        && length > maximum
    {
        return refuse(format!("must have at most {maximum} characters"));
    }
    if let Some(allowed) = declaration.get("AllowedValues") {
        let Content::List(allowed) = &allowed.content else {
            return Err(allowed.error(&path, "`AllowedValues` must be a list"));
        };
        // An empty item in the list of a block style reads as a null.
        let allowed: Vec<_> = allowed.iter().map(|value| value.text().unwrap_or_default()).collect();
        if !allowed.contains(&text) {
            return refuse(format!("must be one of {}", allowed.join(", ")));
        }
    }
    if let Some(node) = declaration.get("AllowedPattern") {
        let pattern = node.text().unwrap_or_default();
        // The pattern must match the whole value.
        let regex = Regex::new(&format!("^(?:{pattern})$"));
        let regex =
            regex.map_err(|error| node.error(&path, format!("`AllowedPattern` is not valid: {error}")))?;
        if !regex.is_match(text) {
            return refuse(format!("must match {pattern}"));
        }
    }
    Ok(())
}

/// A constraint that is a number.
fn limit(declaration: &Node, name: &str, path: &str) -> Result<Option<f64>, TemplateError> {
    let Some(node) = declaration.get(name) else { return Ok(None) };
    let number = node.text().and_then(parse_number);
    number.map(Some).ok_or_else(|| node.error(path, format!("`{name}` must be a number")))
}

fn parse_number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn invalid(name: &str, reason: String) -> TemplateError {
    TemplateError::Parameter { name: name.to_owned(), reason }
}
