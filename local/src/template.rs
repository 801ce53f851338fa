//! Reads `template.yaml`, the one list of routes: functions, their environment and events, the CORS
//! rules of the HTTP API, the WebSocket API, the tables.
//!
//! Only what the local stack plays is evaluated, so that a template may use anything of
//! `CloudFormation` elsewhere (outputs, alarms).

mod evaluate;
mod parameters;
mod policies;
mod streams;
mod websocket;
mod yaml;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, json};

use self::evaluate::{Scope, Value};
pub use self::streams::{StartingPosition, StreamTrigger};
use self::websocket::Resource;
pub use self::websocket::{Integration, WebSocketApi};
use self::yaml::Node;
use crate::gateway::Pattern;
pub use crate::iam::Statement;

/// The account that everything local belongs to.
pub(crate) const ACCOUNT: &str = "000000000000";
/// The region that everything local is in.
pub(crate) const REGION: &str = "us-east-1";
/// The name of the one stack, as in `samconfig.toml`.
pub(crate) const STACK_NAME: &str = "bucket-api";

/// Larger templates are refused, as `CloudFormation` does.
const MAX_SIZE: usize = 1024 * 1024;

/// A template that has been read but not evaluated: its parameters have no values yet.
#[derive(Debug)]
pub struct Source {
    root: Node,
}

/// What the local stack plays of a template.
#[derive(Debug, Clone)]
pub struct Template {
    /// The value of each parameter, lists joined by commas.
    pub parameters: BTreeMap<String, String>,
    /// The functions, in the order of the template.
    pub functions: Vec<Function>,
    /// `CorsConfiguration` of the HTTP API, if it has one.
    pub cors: Option<Cors>,
    /// The WebSocket API, if there is one.
    pub websocket: Option<WebSocketApi>,
    /// The `DynamoDB` tables, in the order of the template.
    pub tables: Vec<Table>,
}

/// An `AWS::Serverless::Function`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The resource's name in the template; locally also the function's name.
    pub logical_id: String,
    /// The binary's name: the last folder of `CodeUri`.
    pub name: String,
    /// How long one event may take.
    pub timeout: Duration,
    /// `MemorySize`, in MB. Told to the function, not enforced.
    pub memory_size: u32,
    /// `Environment.Variables`, those of `Globals` included.
    pub environment: BTreeMap<String, String>,
    /// What the HTTP API sends to it.
    pub routes: Vec<Route>,
    /// The streams that invoke it.
    pub streams: Vec<StreamTrigger>,
    /// What its `Policies` allow, as far as they are about what the local stack plays.
    pub permissions: Vec<Statement>,
}

impl Function {
    /// The actions that its policies allow, as they name them: a wildcard stays one.
    #[must_use]
    pub fn actions_allowed(&self) -> BTreeSet<String> {
        self.permissions.iter().flat_map(|statement| &statement.actions).cloned().collect()
    }
}

/// A route of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// A method (`ANY` for all) and a path such as `/api/bucket/{id}`.
    Path {
        /// In capital letters.
        method: String,
        /// Begins with a slash.
        path: String,
    },
    /// `$default`: what no other route takes.
    Default,
}

/// `CorsConfiguration` of an HTTP API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// `*`, origins, or prefixes of them that end in `*`.
    pub allow_origins: Vec<String>,
    /// Methods that a preflight allows.
    pub allow_methods: Vec<String>,
    /// Request headers that a preflight allows.
    pub allow_headers: Vec<String>,
    /// Response headers that pages may read.
    pub expose_headers: Vec<String>,
    /// How long a browser may keep a preflight's answer.
    pub max_age: Option<Duration>,
    /// Whether pages may send credentials.
    pub allow_credentials: bool,
}

/// An `AWS::DynamoDB::Table`. Its name is its logical id, as `Ref` gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Name of the table.
    pub name: String,
    /// The body of `CreateTable`.
    pub create_table: serde_json::Value,
    /// The attribute that holds the time of expiry, if the table expires items.
    pub time_to_live: Option<String>,
}

impl Table {
    /// Whether it tells its changes in a stream.
    #[must_use]
    pub fn has_stream(&self) -> bool {
        self.stream_specification().is_some()
    }

    /// `StreamSpecification` of `CreateTable`, if the table tells its changes.
    pub(crate) fn stream_specification(&self) -> Option<&serde_json::Value> {
        self.create_table.get("StreamSpecification")
    }
}

/// Why a template is not usable.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The file cannot be read.
    #[error("cannot read the template {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not YAML, or not the YAML that `CloudFormation` takes.
    #[error("the template is not valid YAML: line {line}: {reason}")]
    Yaml {
        /// Counted from 1.
        line: usize,
        /// What the parser expected.
        reason: String,
    },
    /// A parameter is unknown, missing or against its constraints.
    #[error("the template parameter `{name}` {reason}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A property is missing or not what the local stack can use.
    #[error("the template's `{path}` (line {line}): {reason}")]
    Property {
        /// Where it stands, such as `Resources.CreateFunction.Properties.Timeout`.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl Source {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, TemplateError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| TemplateError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Parses the text of a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > MAX_SIZE {
            return Err(TemplateError::Yaml { line: 1, reason: format!("larger than {MAX_SIZE} bytes") });
        }
        yaml::parse(text).map(|root| Self { root })
    }

    /// Whether the template declares the parameter `name`.
    #[must_use]
    pub fn declares(&self, name: &str) -> bool {
        self.root.get("Parameters").is_some_and(|parameters| parameters.get(name).is_some())
    }

    /// The whole template as JSON, what the local stack does not play included: every scalar is text, and an
    /// intrinsic function has its long form. Nothing is evaluated.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.root.to_json()
    }

    /// Evaluates the template. `overrides` are values of parameters by name.
    pub fn evaluate(&self, overrides: &BTreeMap<String, String>) -> Result<Template, TemplateError> {
        let parameters = parameters::resolve(self.root.get("Parameters"), overrides)?;
        let resources =
            self.root.get("Resources").ok_or_else(|| self.root.error("Resources", "is missing"))?;
        let types = resources.entries().iter().filter_map(|(name, resource)| {
            let kind = resource.get("Type").and_then(Node::text)?;
            Some((name.clone(), kind.to_owned()))
        });
        let types: BTreeMap<String, String> = types.collect();
        let mut scope = Scope {
            parameters: &parameters,
            resources: &types,
            stages: BTreeMap::new(),
            mappings: self.root.get("Mappings"),
            conditions: self.root.get("Conditions"),
            known: RefCell::default(),
            pending: RefCell::default(),
        };
        scope.stages = stage_names(&scope, resources)?;

        let mut template = Template {
            parameters: parameters
                .iter()
                .map(|(name, value)| (name.clone(), parameter_text(value)))
                .collect(),
            functions: Vec::new(),
            cors: None,
            websocket: None,
            tables: Vec::new(),
        };
        let globals =
            Properties::of(&scope, self.root.get("Globals").and_then(|globals| globals.get("Function")));
        let mut api = None;
        let mut others = Vec::new();
        for (name, resource) in resources.entries() {
            let path = format!("Resources.{name}");
            let kind = types.get(name).map(String::as_str);
            let kind = kind.ok_or_else(|| resource.error(&path, "the `Type` is missing"))?;
            if !is_there(&scope, resource, &path)? {
                continue;
            }
            let properties = Properties::of_resource(&scope, name, resource);
            match kind {
                "AWS::Serverless::Function" => {
                    template.functions.push(function(name, &properties, globals.as_ref())?);
                }
                "AWS::Serverless::HttpApi" => {
                    if let Some(first) = api.replace(name) {
                        let reason = format!("`{first}` is an HTTP API already: the local stack plays one");
                        return Err(resource.error(&path, reason));
                    }
                    template.cors = cors(&properties)?;
                }
                "AWS::DynamoDB::Table" => template.tables.push(table(name, &properties)?),
                _ => others.push(Resource { name, kind, node: resource, properties }),
            }
        }
        unique(&template.functions, resources)?;
        streams::check(&template.functions, &template.tables, resources)?;
        template.websocket = websocket::read(&others, &template.functions)?;
        Ok(template)
    }
}

/// Whether the condition of `resource`, if it has one, holds.
fn is_there(scope: &Scope<'_>, resource: &Node, path: &str) -> Result<bool, TemplateError> {
    match resource.get("Condition") {
        Some(condition) => scope.condition(condition.text().unwrap_or_default(), condition, path),
        None => Ok(true),
    }
}

/// The name of each stage of an API, which is what its `Ref` gives.
fn stage_names(scope: &Scope<'_>, resources: &Node) -> Result<BTreeMap<String, Value>, TemplateError> {
    let mut names = BTreeMap::new();
    for (name, resource) in resources.entries() {
        let path = format!("Resources.{name}");
        if resource.get("Type").and_then(Node::text) == Some(evaluate::STAGE)
            && is_there(scope, resource, &path)?
        {
            let properties = Properties::of_resource(scope, name, resource);
            let stage = properties.get("StageName")?;
            if stage.text().is_none() {
                return Err(properties.error("StageName", "must be text"));
            }
            names.insert(name.clone(), stage);
        }
    }
    Ok(names)
}

/// The properties of one resource, evaluated one by one as they are asked for.
struct Properties<'a> {
    scope: &'a Scope<'a>,
    node: &'a Node,
    path: String,
}

impl<'a> Properties<'a> {
    /// Those of the resource `name`.
    fn of_resource(scope: &'a Scope<'a>, name: &str, resource: &'a Node) -> Self {
        let node = resource.get("Properties").unwrap_or(resource);
        Self { scope, node, path: format!("Resources.{name}.Properties") }
    }

    /// `Globals.Function`.
    fn of(scope: &'a Scope<'a>, globals: Option<&'a Node>) -> Option<Self> {
        globals.map(|node| Self { scope, node, path: "Globals.Function".to_owned() })
    }

    fn get(&self, name: &str) -> Result<Value, TemplateError> {
        match self.node.get(name) {
            Some(node) => self.scope.evaluate(node, &format!("{}.{name}", self.path)),
            None => Ok(Value::Absent),
        }
    }

    /// What is wrong with the property `name`.
    fn error(&self, name: &str, reason: impl Into<String>) -> TemplateError {
        self.node.get(name).unwrap_or(self.node).error(&format!("{}.{name}", self.path), reason)
    }

    /// A number within `range`, if there is one.
    fn number(&self, name: &str, range: std::ops::RangeInclusive<u32>) -> Result<Option<u32>, TemplateError> {
        let value = self.get(name)?;
        if value == Value::Absent {
            return Ok(None);
        }
        let number = value.text().and_then(|text| text.parse().ok()).filter(|number| range.contains(number));
        let expected = || format!("must be a number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| self.error(name, expected()))
    }
}

fn function(
    logical_id: &str,
    properties: &Properties<'_>,
    globals: Option<&Properties<'_>>,
) -> Result<Function, TemplateError> {
    let code = properties.get("CodeUri")?;
    let name = code.text().and_then(|code| code.split('/').rfind(|folder| !folder.is_empty()));
    let name = name
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')));
    let name = name.ok_or_else(|| {
        properties.error("CodeUri", "must be a folder named as the binary, such as target/lambda/create/")
    })?;

    let number =
        |name, range: std::ops::RangeInclusive<u32>, default| match properties.number(name, range.clone())? {
            Some(own) => Ok(own),
            None => Ok(globals.map_or(Ok(None), |globals| globals.number(name, range))?.unwrap_or(default)),
        };
    let mut environment = BTreeMap::new();
    for layer in globals.into_iter().chain([properties]) {
        environment.extend(variables(layer)?);
    }
    Ok(Function {
        logical_id: logical_id.to_owned(),
        name: name.to_owned(),
        // Defaults of AWS Lambda.
        timeout: Duration::from_secs(number("Timeout", 1..=900, 3)?.into()),
        memory_size: number("MemorySize", 128..=10_240, 128)?,
        environment,
        routes: routes(properties)?,
        streams: streams::triggers(logical_id, properties)?,
        permissions: policies::statements(properties)?,
    })
}

fn variables(properties: &Properties<'_>) -> Result<BTreeMap<String, String>, TemplateError> {
    let environment = properties.get("Environment")?;
    let Some(variables) = environment.get("Variables") else { return Ok(BTreeMap::new()) };
    let Value::Map(variables) = variables else {
        return Err(properties.error("Environment", "`Variables` must be a map"));
    };
    let variables = variables.iter().map(|(name, value)| {
        let text =
            value.text().ok_or_else(|| properties.error("Environment", format!("`{name}` must be text")))?;
        // The process could not be started with such a name or value.
        if name.is_empty() || name.contains(['=', '\0']) || text.contains('\0') {
            return Err(
                properties.error("Environment", format!("`{name}` cannot be an environment variable"))
            );
        }
        Ok((name.clone(), text.to_owned()))
    });
    variables.collect()
}

fn routes(properties: &Properties<'_>) -> Result<Vec<Route>, TemplateError> {
    let Some(events) = properties.node.get("Events") else { return Ok(Vec::new()) };
    let mut routes = Vec::new();
    for (name, event) in events.entries() {
        if event.get("Type").and_then(Node::text) != Some("HttpApi") {
            continue;
        }
        let path = format!("{}.Events.{name}", properties.path);
        let value = match event.get("Properties") {
            Some(node) => properties.scope.evaluate(node, &path)?,
            None => Value::Absent,
        };
        let text = |name: &str| value.get(name).and_then(Value::text);
        routes.push(match (text("Method"), text("Path")) {
            (None, None) => Route::Default,
            (Some(method), Some(route)) => {
                Pattern::parse(route).map_err(|reason| event.error(&path, format!("`Path` {reason}")))?;
                let method = if method == "*" { "ANY".to_owned() } else { method.to_ascii_uppercase() };
                Route::Path { method, path: route.to_owned() }
            }
            _ => return Err(event.error(&path, "an HttpApi event has `Method` and `Path`, or neither")),
        });
    }
    Ok(routes)
}

fn cors(properties: &Properties<'_>) -> Result<Option<Cors>, TemplateError> {
    let name = "CorsConfiguration";
    match properties.get(name)? {
        Value::Absent => Ok(None),
        Value::Text(text) if text == "true" => {
            Ok(Some(Cors { allow_origins: vec!["*".to_owned()], ..Cors::default() }))
        }
        Value::Text(_) | Value::List(_) => Err(properties.error(name, "must be a map or `true`")),
        Value::Map(entries) => {
            let mut cors = Cors::default();
            for (key, value) in &entries {
                let expected = |what: &str| properties.error(name, format!("`{key}` must be {what}"));
                let texts = || texts(value).ok_or_else(|| expected("a list of texts"));
                match key.as_str() {
                    "AllowOrigins" => cors.allow_origins = texts()?,
                    "AllowMethods" => cors.allow_methods = texts()?,
                    "AllowHeaders" => cors.allow_headers = texts()?,
                    "ExposeHeaders" => cors.expose_headers = texts()?,
                    "MaxAge" => {
                        let seconds = value.text().and_then(|text| text.parse().ok());
                        cors.max_age =
                            Some(seconds.map(Duration::from_secs).ok_or_else(|| expected("in seconds"))?);
                    }
                    "AllowCredentials" => cors.allow_credentials = value.text() == Some("true"),
                    _ => return Err(expected("one of the properties of `CorsConfiguration`")),
                }
            }
            Ok(Some(cors))
        }
    }
}

/// The texts of a list; one text stands for a list of it.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Text(text) => Some(vec![text.clone()]),
        Value::List(items) => items.iter().map(|item| item.text().map(str::to_owned)).collect(),
        Value::Absent | Value::Map(_) => None,
    }
}

fn table(name: &str, properties: &Properties<'_>) -> Result<Table, TemplateError> {
    if properties.node.get("TableName").is_some() {
        let reason = "is not supported: let CloudFormation name the table, and refer to it with `!Ref`";
        return Err(properties.error("TableName", reason));
    }
    let mut request = Map::from_iter([("TableName".to_owned(), json!(name))]);
    for property in [
        "AttributeDefinitions",
        "KeySchema",
        "BillingMode",
        "ProvisionedThroughput",
        "GlobalSecondaryIndexes",
        "LocalSecondaryIndexes",
    ] {
        let value = properties.get(property)?;
        if value != Value::Absent {
            request.insert(property.to_owned(), to_json(&value));
        }
    }
    if let Some(view) = properties.get("StreamSpecification")?.get("StreamViewType").and_then(Value::text) {
        let stream = json!({ "StreamEnabled": true, "StreamViewType": view });
        request.insert("StreamSpecification".to_owned(), stream);
    }
    let time_to_live = properties.get("TimeToLiveSpecification")?;
    let enabled = time_to_live.get("Enabled").and_then(Value::text) == Some("true");
    let attribute = time_to_live.get("AttributeName").and_then(Value::text).map(str::to_owned);
    if enabled && attribute.is_none() {
        return Err(properties.error("TimeToLiveSpecification", "the `AttributeName` is missing"));
    }
    Ok(Table {
        name: name.to_owned(),
        create_table: request.into(),
        time_to_live: attribute.filter(|_| enabled),
    })
}

/// The value as JSON. Of what a table is made of, only capacities are numbers.
fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Absent => serde_json::Value::Null,
        Value::Text(text) => text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(name, value)| (name.clone(), to_json(value)));
            serde_json::Value::Object(entries.collect())
        }
    }
}

/// Holds that no binary and no route stands for two functions.
fn unique(functions: &[Function], resources: &Node) -> Result<(), TemplateError> {
    let mut names = BTreeSet::new();
    let mut routes = BTreeSet::new();
    for function in functions {
        let refuse = |reason: String| {
            let node = resources.get(&function.logical_id).unwrap_or(resources);
            Err(node.error(&format!("Resources.{}", function.logical_id), reason))
        };
        if !names.insert(&function.name) {
            return refuse(format!("another function has the binary `{}` too", function.name));
        }
        for route in &function.routes {
            if !routes.insert(route) {
                return refuse(format!("the route `{route}` stands in the template twice"));
            }
        }
    }
    Ok(())
}

fn parameter_text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::List(items) => items.iter().filter_map(Value::text).collect::<Vec<_>>().join(","),
        Value::Absent | Value::Map(_) => String::new(),
    }
}

impl std::fmt::Display for Route {
    /// The route key, as API Gateway writes it.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path { method, path } => write!(formatter, "{method} {path}"),
            Self::Default => formatter.write_str("$default"),
        }
    }
}

#[cfg(test)]
mod tests;
