//! The intrinsic functions of `CloudFormation`, as far as they can be answered without AWS.
//!
//! Source: "Intrinsic function reference" and "Pseudo parameters reference" of the AWS
//! `CloudFormation` user guide.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::yaml::{Content, Node};
use super::{ACCOUNT, REGION, STACK_NAME, TemplateError};

/// Longer text is refused: nested substitutions could grow without bound.
const MAX_TEXT: usize = 64 * 1024;

/// The one type whose `Ref` gives something else than an id: the name of the stage.
pub(super) const STAGE: &str = "AWS::ApiGatewayV2::Stage";

/// An evaluated value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// `AWS::NoValue` or an explicit null: the property counts as absent.
    Absent,
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            Self::Absent | Self::Text(_) | Self::List(_) => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::List(_) | Self::Map(_) => None,
        }
    }
}

/// What references and conditions are answered from.
pub(super) struct Scope<'a> {
    /// Evaluated parameters: text or lists.
    pub(super) parameters: &'a BTreeMap<String, Value>,
    /// Logical id to type.
    pub(super) resources: &'a BTreeMap<String, String>,
    /// Logical id to name of the stages. Empty while the names themselves are evaluated.
    pub(super) stages: BTreeMap<String, Value>,
    pub(super) mappings: Option<&'a Node>,
    pub(super) conditions: Option<&'a Node>,
    /// Conditions found so far: without it, conditions that name others twice take exponential time.
    pub(super) known: RefCell<BTreeMap<String, bool>>,
    /// Conditions under evaluation: one that depends on itself is an error, not endless recursion.
    pub(super) pending: RefCell<BTreeSet<String>>,
}

impl Scope<'_> {
    /// Evaluates `node`, which stands at `path` in the template (for messages).
    pub(super) fn evaluate(&self, node: &Node, path: &str) -> Result<Value, TemplateError> {
        if let [(name, argument)] = node.entries() {
            if name == "Ref" {
                return self.call("Ref", argument, path);
            }
            if let Some(function) = name.strip_prefix("Fn::") {
                return self.call(function, argument, path);
            }
        }
        Ok(match &node.content {
            Content::Null => Value::Absent,
            Content::Text(text) => Value::Text(text.clone()),
            Content::List(items) => {
                let mut values = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let value = self.evaluate(item, &format!("{path}[{index}]"))?;
                    if value != Value::Absent {
                        values.push(value);
                    }
                }
                Value::List(values)
            }
            Content::Map(entries) => {
                let mut values = Vec::with_capacity(entries.len());
                for (key, item) in entries {
                    let value = self.evaluate(item, &format!("{path}.{key}"))?;
                    if value != Value::Absent {
                        values.push((key.clone(), value));
                    }
                }
                Value::Map(values)
            }
        })
    }

    /// Whether the condition `name` of the template holds. `at` is where it is asked for.
    pub(super) fn condition(&self, name: &str, at: &Node, path: &str) -> Result<bool, TemplateError> {
        if let Some(known) = self.known.borrow().get(name) {
            return Ok(*known);
        }
        let Some(definition) = self.conditions.and_then(|conditions| conditions.get(name)) else {
            return Err(at.error(path, format!("there is no condition `{name}`")));
        };
        if !self.pending.borrow_mut().insert(name.to_owned()) {
            return Err(at.error(path, format!("the condition `{name}` depends on itself")));
        }
        let holds = self.boolean(definition, &format!("Conditions.{name}"));
        self.pending.borrow_mut().remove(name);
        let holds = holds?;
        self.known.borrow_mut().insert(name.to_owned(), holds);
        Ok(holds)
    }

    fn call(&self, function: &str, argument: &Node, path: &str) -> Result<Value, TemplateError> {
        match function {
            "Ref" => {
                let name = self.text(argument, path, "`Ref` takes a name")?;
                self.reference(&name)
                    .ok_or_else(|| argument.error(path, format!("there is no `{name}` to refer to")))
            }
            "GetAtt" => self.get_att(argument, path),
            "Sub" => self.sub(argument, path),
            "Join" => {
                let [separator, list] = arguments(argument, path, "`Join` takes a separator and a list")?;
                let separator = self.text(separator, path, "the separator of `Join` must be text")?;
                let texts = self.list(list, path, "`Join` joins a list of texts")?;
                let texts: Option<Vec<&str>> = texts.iter().map(Value::text).collect();
                let texts = texts.ok_or_else(|| list.error(path, "`Join` joins a list of texts"))?;
                bounded(texts.join(&separator), argument, path)
            }
            "Split" => {
                let [separator, text] = arguments(argument, path, "`Split` takes a separator and a text")?;
                let separator = self.text(separator, path, "the separator of `Split` must be text")?;
                let text = self.text(text, path, "`Split` splits a text")?;
                if separator.is_empty() {
                    return Err(argument.error(path, "the separator of `Split` must not be empty"));
                }
                Ok(Value::List(text.split(&separator).map(|part| Value::Text(part.to_owned())).collect()))
            }
            "Select" => {
                let [index, list] = arguments(argument, path, "`Select` takes an index and a list")?;
                let index = self.text(index, path, "the index of `Select` must be a number")?;
                let list = self.list(list, path, "`Select` selects from a list")?;
                index.parse().ok().and_then(|index: usize| list.get(index).cloned()).ok_or_else(|| {
                    argument
                        .error(path, format!("`Select` finds no item `{index}` in a list of {}", list.len()))
                })
            }
            "FindInMap" => self.find_in_map(argument, path),
            "If" => {
                let form = "`If` takes the name of a condition and two values";
                let [name, then, otherwise] = arguments(argument, path, form)?;
                let condition = self.text(name, path, form)?;
                let chosen = if self.condition(&condition, name, path)? { then } else { otherwise };
                self.evaluate(chosen, path)
            }
            unknown => Err(argument
                .error(path, format!("the local stack does not know the intrinsic function `{unknown}`"))),
        }
    }

    /// A condition expression: `Equals`, `Not`, `And`, `Or` or the name of another condition.
    fn boolean(&self, node: &Node, path: &str) -> Result<bool, TemplateError> {
        let [(name, argument)] = node.entries() else {
            return Err(
                node.error(path, "a condition is one of `Equals`, `Not`, `And`, `Or` and `Condition`")
            );
        };
        match name.as_str() {
            "Fn::Equals" => {
                let [left, right] = arguments(argument, path, "`Equals` takes two values")?;
                Ok(self.evaluate(left, path)? == self.evaluate(right, path)?)
            }
            "Fn::Not" => {
                let [operand] = arguments(argument, path, "`Not` takes a list of one condition")?;
                Ok(!self.boolean(operand, path)?)
            }
            "Fn::And" => Ok(self.booleans(argument, path)?.iter().all(|holds| *holds)),
            "Fn::Or" => Ok(self.booleans(argument, path)?.iter().any(|holds| *holds)),
            "Condition" => match argument.text() {
                Some(name) => self.condition(name, argument, path),
                None => Err(argument.error(path, "`Condition` takes the name of a condition")),
            },
            unknown => Err(argument.error(path, format!("`{unknown}` is not a condition function"))),
        }
    }

    fn booleans(&self, argument: &Node, path: &str) -> Result<Vec<bool>, TemplateError> {
        match &argument.content {
            Content::List(operands) if (2..=10).contains(&operands.len()) => {
                operands.iter().map(|operand| self.boolean(operand, path)).collect()
            }
            Content::Null | Content::Text(_) | Content::List(_) | Content::Map(_) => {
                Err(argument.error(path, "`And` and `Or` take two to ten conditions"))
            }
        }
    }

    /// What `Ref` gives: a parameter's value, a stage's name, any other resource's logical id (locally its
    /// physical one as well) or a pseudo parameter.
    fn reference(&self, name: &str) -> Option<Value> {
        if let Some(value) = self.parameters.get(name) {
            return Some(value.clone());
        }
        match self.resources.get(name).map(String::as_str) {
            Some(STAGE) => return self.stages.get(name).cloned(),
            Some(_) => return Some(Value::Text(name.to_owned())),
            None => {}
        }
        let text = match name {
            "AWS::AccountId" => ACCOUNT,
            "AWS::NoValue" => return Some(Value::Absent),
            "AWS::Partition" => "aws",
            "AWS::Region" => REGION,
            "AWS::StackName" => STACK_NAME,
            "AWS::URLSuffix" => "amazonaws.com",
            _ => return None,
        };
        Some(Value::Text(text.to_owned()))
    }

    fn get_att(&self, argument: &Node, path: &str) -> Result<Value, TemplateError> {
        let form = "`GetAtt` takes a resource and an attribute";
        let (resource, attribute) = if let Some(text) = argument.text() {
            let (resource, attribute) = text.split_once('.').ok_or_else(|| argument.error(path, form))?;
            (resource.to_owned(), attribute.to_owned())
        } else {
            let [resource, attribute] = arguments(argument, path, form)?;
            (self.text(resource, path, form)?, self.text(attribute, path, form)?)
        };
        self.attribute(&resource, &attribute).map(Value::Text).map_err(|reason| argument.error(path, reason))
    }

    /// An ARN of the shape that AWS would give. Other attributes have no meaning on one machine.
    fn attribute(&self, resource: &str, attribute: &str) -> Result<String, String> {
        let kind =
            self.resources.get(resource).ok_or_else(|| format!("there is no resource `{resource}`"))?;
        let arn = match kind.as_str() {
            "AWS::DynamoDB::Table" => format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{resource}"),
            "AWS::Serverless::Function" => format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{resource}"),
            "AWS::Logs::LogGroup" => format!("arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{resource}"),
            "AWS::IAM::Role" => format!("arn:aws:iam::{ACCOUNT}:role/{resource}"),
            other => {
                let service = other.split("::").nth(1).unwrap_or(other).to_ascii_lowercase();
                format!("arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}")
            }
        };
        match (kind.as_str(), attribute) {
            (_, "Arn") => Ok(arn),
            ("AWS::DynamoDB::Table", "StreamArn") => Ok(format!("{arn}/stream/local")),
            ("AWS::ApiGatewayV2::Api", "ApiEndpoint") => {
                Ok(format!("wss://{resource}.execute-api.{REGION}.amazonaws.com"))
            }
            ("AWS::ApiGatewayV2::Api", "ApiId") | ("AWS::SQS::Queue", "QueueName") => Ok(resource.to_owned()),
            _ => Err(format!("the local stack does not know the attribute `{attribute}` of `{resource}`")),
        }
    }

    /// `Fn::Sub`: `${Name}`, `${Resource.Attribute}`, `${!literal}`, with or without variables.
    fn sub(&self, argument: &Node, path: &str) -> Result<Value, TemplateError> {
        let form = "`Sub` takes a text, or a text and a map of variables";
        let mut variables = BTreeMap::new();
        let template = if let Some(text) = argument.text() {
            text
        } else {
            let [text, map] = arguments(argument, path, form)?;
            for (name, node) in map.entries() {
                variables.insert(name.as_str(), self.text(node, path, "a variable of `Sub` must be text")?);
            }
            text.text().ok_or_else(|| text.error(path, form))?
        };

        let mut result = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("${") {
            result.push_str(before);
            // Checked on the way as well: every variable may be as long as the limit.
            if result.len() > MAX_TEXT {
                break;
            }
            let (name, after) =
                after.split_once('}').ok_or_else(|| argument.error(path, "`${` without `}` in `Sub`"))?;
            rest = after;
            let name = name.trim();
            if let Some(literal) = name.strip_prefix('!') {
                result.push_str("${");
                result.push_str(literal);
                result.push('}');
            } else if let Some(value) = variables.get(name) {
                result.push_str(value);
            } else if let Some((resource, attribute)) = name.split_once('.') {
                let value =
                    self.attribute(resource, attribute).map_err(|reason| argument.error(path, reason))?;
                result.push_str(&value);
            } else {
                match self.reference(name) {
                    Some(Value::Text(text)) => result.push_str(&text),
                    Some(Value::Absent | Value::List(_) | Value::Map(_)) => {
                        return Err(argument.error(path, format!("`{name}` is not text, which `Sub` needs")));
                    }
                    None => return Err(argument.error(path, format!("there is no `{name}` to refer to"))),
                }
            }
        }
        result.push_str(rest);
        bounded(result, argument, path)
    }

    fn find_in_map(&self, argument: &Node, path: &str) -> Result<Value, TemplateError> {
        let form = "`FindInMap` takes a map, a first and a second key";
        let [map, first, second] = arguments(argument, path, form)?;
        let keys =
            [self.text(map, path, form)?, self.text(first, path, form)?, self.text(second, path, form)?];
        let found =
            self.mappings.and_then(|mappings| keys.iter().try_fold(mappings, |node, key| node.get(key)));
        let found =
            found.ok_or_else(|| argument.error(path, format!("there is no mapping `{}`", keys.join("."))))?;
        self.evaluate(found, path)
    }

    /// The value of `node`, which must be text.
    fn text(&self, node: &Node, path: &str, expected: &str) -> Result<String, TemplateError> {
        match self.evaluate(node, path)? {
            Value::Text(text) => Ok(text),
            Value::Absent | Value::List(_) | Value::Map(_) => Err(node.error(path, expected)),
        }
    }

    /// The value of `node`, which must be a list.
    fn list(&self, node: &Node, path: &str, expected: &str) -> Result<Vec<Value>, TemplateError> {
        match self.evaluate(node, path)? {
            Value::List(items) => Ok(items),
            Value::Absent | Value::Text(_) | Value::Map(_) => Err(node.error(path, expected)),
        }
    }
}

/// The arguments of a function that takes a list of `N`.
fn arguments<'a, const N: usize>(
    node: &'a Node,
    path: &str,
    expected: &str,
) -> Result<[&'a Node; N], TemplateError> {
    match &node.content {
        Content::List(items) => items.iter().collect::<Vec<_>>().try_into().ok(),
        Content::Null | Content::Text(_) | Content::Map(_) => None,
    }
    .ok_or_else(|| node.error(path, expected))
}

fn bounded(text: String, at: &Node, path: &str) -> Result<Value, TemplateError> {
    if text.len() > MAX_TEXT {
        return Err(at.error(path, format!("the text is longer than {MAX_TEXT} bytes")));
    }
    Ok(Value::Text(text))
}
