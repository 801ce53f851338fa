//! WebSocket APIs: an `AWS::ApiGatewayV2::Api` and the resources that belong to it.
//!
//! Source: "Amazon API Gateway V2 resource type reference" and `AWS::Lambda::Permission` in the AWS
//! `CloudFormation` user guide, and "Develop WebSocket APIs in API Gateway" in the API Gateway developer
//! guide.

use std::collections::BTreeMap;
use std::time::Duration;

use super::evaluate::Value;
use super::yaml::{Content, Node};
use super::{ACCOUNT, Function, Properties, REGION, Route, TemplateError};

/// The longest that API Gateway waits for a function; also what it waits unless an integration says
/// otherwise. Source: "Quotas for configuring and running a WebSocket API" in the API Gateway developer
/// guide.
const LONGEST_INTEGRATION: u32 = 29_000;

/// A WebSocket API with its one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketApi {
    /// The resource's name in the template; locally also the API's id.
    pub id: String,
    /// `StageName`: the API is served below this path.
    pub stage: String,
    /// What decides on a connection (`$connect`). Without it, every connection is accepted.
    pub connect: Option<Integration>,
    /// What is told of the end of a connection (`$disconnect`).
    pub disconnect: Option<Integration>,
    /// Whether a `$default` route takes messages. Its integration is a mock: nothing comes of them.
    pub takes_messages: bool,
}

/// A function behind a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integration {
    /// The name of the function's binary.
    pub function: String,
    /// How long API Gateway waits for its answer.
    pub timeout: Duration,
}

impl WebSocketApi {
    /// Where it is served, below the local stack's origin: on AWS, too, the stage is the path.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}", self.stage)
    }
}

/// A resource of the template whose condition holds.
pub(super) struct Resource<'a> {
    pub(super) name: &'a str,
    pub(super) kind: &'a str,
    pub(super) node: &'a Node,
    pub(super) properties: Properties<'a>,
}

/// What stands behind an integration of the template.
enum Backend {
    Mock,
    Function { logical_id: String, integration: Integration },
}

/// The WebSocket API among `resources`, if there is one. What belongs to another API is not looked at.
pub(super) fn read(
    resources: &[Resource<'_>],
    functions: &[Function],
) -> Result<Option<WebSocketApi>, TemplateError> {
    let mut apis = of_kind(resources, "Api");
    let Some(api) = apis.next() else { return Ok(None) };
    if let Some(second) = apis.next() {
        let reason = format!("`{}` is a WebSocket API already: the local stack plays one", api.name);
        return Err(second.node.error(&format!("Resources.{}", second.name), reason));
    }
    let properties = &api.properties;
    if properties.get("ProtocolType")?.text() != Some("WEBSOCKET") {
        let reason =
            "the local stack plays WEBSOCKET only: declare an HTTP API as `AWS::Serverless::HttpApi`";
        return Err(properties.error("ProtocolType", reason));
    }
    if properties.get("RouteSelectionExpression")?.text().is_none_or(str::is_empty) {
        return Err(properties
            .error("RouteSelectionExpression", "a WebSocket API needs it, such as `$request.body.action`"));
    }
    let unplayed = ["Body", "BodyS3Location", "CredentialsArn", "RouteKey", "Target"];
    refuse(properties, &unplayed)?;
    refuse_unless(properties, "DisableExecuteApiEndpoint", "false")?;

    let own = own(resources, api.name)?;
    let stage = stage(&own, api, functions)?;
    let mut integrations = BTreeMap::new();
    for resource in of_kind(own.iter().copied(), "Integration") {
        integrations.insert(resource.name, backend(resource, functions)?);
    }
    let mut result = WebSocketApi {
        id: api.name.to_owned(),
        stage,
        connect: None,
        disconnect: None,
        takes_messages: false,
    };
    let mut routes = BTreeMap::new();
    for resource in of_kind(own.iter().copied(), "Route") {
        let (key, backend) = route(resource, &integrations)?;
        if let Some(first) = routes.insert(key.clone(), resource.name) {
            let reason = format!("`{first}` is the route `{key}` already");
            return Err(resource.properties.error("RouteKey", reason));
        }
        if let Backend::Function { logical_id, .. } = backend {
            check_permission(resources, resource, logical_id, &result, &key)?;
        }
        let refuse = |reason: &str| Err(resource.properties.error("Target", reason));
        match (key.as_str(), backend) {
            ("$connect", Backend::Function { integration, .. }) => result.connect = Some(integration.clone()),
            ("$connect", Backend::Mock) => {
                return refuse(
                    "the local stack plays no MOCK of `$connect`: without the route, every connection is accepted",
                );
            }
            ("$disconnect", Backend::Function { integration, .. }) => {
                result.disconnect = Some(integration.clone());
            }
            ("$disconnect", Backend::Mock) => {}
            ("$default", Backend::Mock) => result.takes_messages = true,
            ("$default", Backend::Function { .. }) => {
                return refuse(
                    "the local stack plays no function behind `$default`: give it a MOCK integration",
                );
            }
            _ => {
                let reason = "the local stack plays `$connect`, `$disconnect` and `$default`";
                return Err(resource.properties.error("RouteKey", reason));
            }
        }
    }
    check_deployment(&own, &routes)?;
    Ok(Some(result))
}

fn of_kind<'r, 'a: 'r>(
    resources: impl IntoIterator<Item = &'r Resource<'a>>,
    kind: &str,
) -> impl Iterator<Item = &'r Resource<'a>> {
    resources.into_iter().filter(move |resource| {
        resource.kind.strip_prefix("AWS::ApiGatewayV2::").is_some_and(|found| found == kind)
    })
}

/// What belongs to the API `api`.
fn own<'r, 'a>(resources: &'r [Resource<'a>], api: &str) -> Result<Vec<&'r Resource<'a>>, TemplateError> {
    let mut own = Vec::new();
    for resource in resources {
        let kind = resource.kind.strip_prefix("AWS::ApiGatewayV2::");
        if !matches!(kind, Some("Deployment" | "Integration" | "Route" | "Stage")) {
            continue;
        }
        match resource.properties.get("ApiId")?.text() {
            Some(id) if id == api => own.push(resource),
            Some(_) => {}
            None => return Err(resource.properties.error("ApiId", "must be the `Ref` of an API")),
        }
    }
    Ok(own)
}

/// The name of the one stage.
fn stage(own: &[&Resource<'_>], api: &Resource<'_>, functions: &[Function]) -> Result<String, TemplateError> {
    let mut stages = of_kind(own.iter().copied(), "Stage");
    let path = format!("Resources.{}", api.name);
    let Some(stage) = stages.next() else {
        return Err(api.node.error(&path, "it needs an `AWS::ApiGatewayV2::Stage`, or nobody can reach it"));
    };
    if let Some(second) = stages.next() {
        let reason = format!("`{}` is a stage already: the local stack plays one", stage.name);
        return Err(second.node.error(&format!("Resources.{}", second.name), reason));
    }
    let properties = &stage.properties;
    refuse(properties, &["StageVariables"])?;
    let name = properties.get("StageName")?;
    let valid = |name: &&str| {
        (1..=128).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    let name = name.text().filter(valid).ok_or_else(|| {
        properties.error("StageName", "must have 1 to 128 letters, digits, hyphens and underscores")
    })?;
    for function in functions {
        let same = |route: &&Route| matches!(route, Route::Path { path, .. } if path.strip_prefix('/') == Some(name));
        if let Some(route) = function.routes.iter().find(same) {
            let reason = format!(
                "`{}` has the route `{route}`, and the local stack serves the WebSocket API at `/{name}` of the \
                 same origin: choose another name",
                function.logical_id
            );
            return Err(properties.error("StageName", reason));
        }
    }
    Ok(name.to_owned())
}

/// Holds that the stage serves the routes: by itself, or by a deployment that is made after them.
fn check_deployment(own: &[&Resource<'_>], routes: &BTreeMap<String, &str>) -> Result<(), TemplateError> {
    let Some(stage) = of_kind(own.iter().copied(), "Stage").next() else { return Ok(()) };
    if stage.properties.get("AutoDeploy")?.text() == Some("true") {
        return Ok(());
    }
    let id = stage.properties.get("DeploymentId")?;
    let Some(id) = id.text() else {
        let reason = "must be true, or a `DeploymentId` be given: nothing is deployed else";
        return Err(stage.properties.error("AutoDeploy", reason));
    };
    let deployment = of_kind(own.iter().copied(), "Deployment").find(|resource| resource.name == id);
    let deployment = deployment.ok_or_else(|| {
        stage.properties.error("DeploymentId", "must be the `Ref` of a deployment of the same API")
    })?;
    let depends_on = |name: &str| match deployment.node.get("DependsOn").map(|node| &node.content) {
        Some(Content::Text(text)) => text == name,
        Some(Content::List(items)) => items.iter().any(|item| item.text() == Some(name)),
        Some(Content::Null | Content::Map(_)) | None => false,
    };
    match routes.values().find(|route| !depends_on(route)) {
        None => Ok(()),
        Some(route) => {
            let path = format!("Resources.{}.DependsOn", deployment.name);
            let reason = format!("`{route}` is missing: a deployment holds only what is there before it");
            Err(deployment.node.error(&path, reason))
        }
    }
}

fn backend(resource: &Resource<'_>, functions: &[Function]) -> Result<Backend, TemplateError> {
    let properties = &resource.properties;
    match properties.get("IntegrationType")?.text() {
        Some("AWS_PROXY") => {}
        Some("MOCK") => {
            check_mock(properties)?;
            return Ok(Backend::Mock);
        }
        _ => return Err(properties.error("IntegrationType", "the local stack plays AWS_PROXY and MOCK")),
    }
    // With a role of its own, API Gateway needs no permission: the one that is checked would be the wrong one.
    refuse(properties, &["ConnectionId", "CredentialsArn", "RequestParameters"])?;
    refuse_unless(properties, "ConnectionType", "INTERNET")?;
    refuse_unless(properties, "IntegrationMethod", "POST")?;
    refuse_unless(properties, "PayloadFormatVersion", "1.0")?;
    let uri = properties.get("IntegrationUri")?;
    let logical_id = uri.text().and_then(function_of);
    let function =
        logical_id.and_then(|id| functions.iter().find(|function| function.logical_id == id)).ok_or_else(
            || {
                let form = "must be `!Sub arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${F.Arn}/invocations`, \
                            F being a function of the template";
                properties.error("IntegrationUri", form)
            },
        )?;
    let timeout = properties.number("TimeoutInMillis", 50..=LONGEST_INTEGRATION)?;
    Ok(Backend::Function {
        logical_id: function.logical_id.clone(),
        integration: Integration {
            function: function.name.clone(),
            timeout: Duration::from_millis(timeout.unwrap_or(LONGEST_INTEGRATION).into()),
        },
    })
}

/// The logical id of the function that a URI of API Gateway invokes.
fn function_of(uri: &str) -> Option<&str> {
    let path = uri.strip_prefix("arn:aws:apigateway:")?.strip_prefix(REGION)?;
    let arn = path.strip_prefix(":lambda:path/2015-03-31/functions/")?.strip_suffix("/invocations")?;
    arn.strip_prefix(&format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:"))
}

/// A mock takes its status from its template. Without one, it fails, which API Gateway tells the client in a
/// message for each of the client's.
fn check_mock(properties: &Properties<'_>) -> Result<(), TemplateError> {
    let templates = properties.get("RequestTemplates")?;
    let succeeds = |template: &Value| {
        let template = template.text().and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        template.is_some_and(|template| template.get("statusCode").is_some_and(|status| *status == 200))
    };
    if matches!(&templates, Value::Map(entries) if entries.iter().any(|(_, template)| succeeds(template))) {
        return Ok(());
    }
    let reason = r#"a MOCK integration needs a template such as `$default: '{"statusCode":200}'`, or it answers each message with an error"#;
    Err(properties.error("RequestTemplates", reason))
}

/// The key of a route, and what stands behind it.
fn route<'i>(
    resource: &Resource<'_>,
    integrations: &'i BTreeMap<&str, Backend>,
) -> Result<(String, &'i Backend), TemplateError> {
    let properties = &resource.properties;
    let key = properties.get("RouteKey")?;
    let key = key.text().ok_or_else(|| properties.error("RouteKey", "is missing"))?;
    let unplayed = ["AuthorizerId", "RequestModels", "RequestParameters", "RouteResponseSelectionExpression"];
    refuse(properties, &unplayed)?;
    refuse_unless(properties, "AuthorizationType", "NONE")?;
    refuse_unless(properties, "ApiKeyRequired", "false")?;
    let target = properties.get("Target")?;
    let backend = target
        .text()
        .and_then(|target| target.strip_prefix("integrations/"))
        .and_then(|integration| integrations.get(integration));
    let backend = backend.ok_or_else(|| {
        properties.error("Target", "must be `integrations/` and the `Ref` of an integration of the same API")
    })?;
    Ok((key.to_owned(), backend))
}

/// Holds that API Gateway may invoke the function `logical_id` for the route `key`. On AWS it is the function's
/// policy that says so, and a connection fails without.
fn check_permission(
    resources: &[Resource<'_>],
    route: &Resource<'_>,
    logical_id: &str,
    api: &WebSocketApi,
    key: &str,
) -> Result<(), TemplateError> {
    let source = format!("arn:aws:execute-api:{REGION}:{ACCOUNT}:{}/{}/{key}", api.id, api.stage);
    for resource in resources.iter().filter(|resource| resource.kind == "AWS::Lambda::Permission") {
        let text = |name: &str| Ok(resource.properties.get(name)?.text().map(str::to_owned));
        let function = text("FunctionName")?.unwrap_or_default();
        let invokes = matches!(text("Action")?.as_deref(), Some("lambda:InvokeFunction" | "lambda:*"));
        if function.rsplit(':').next() == Some(logical_id)
            && invokes
            && text("Principal")?.as_deref() == Some("apigateway.amazonaws.com")
            && text("SourceArn")?.is_none_or(|pattern| matches(&pattern, &source))
            && text("SourceAccount")?.is_none_or(|account| account == ACCOUNT)
        {
            return Ok(());
        }
    }
    let reason = format!(
        "API Gateway may not invoke `{logical_id}`: the template has no `AWS::Lambda::Permission` with this \
         FunctionName, the Action lambda:InvokeFunction, the Principal apigateway.amazonaws.com, and no SourceArn \
         but one that takes {source}"
    );
    Err(route.properties.error("Target", reason))
}

/// Whether `text` is as `pattern` says, in which `*` stands for any text and `?` for any character.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    // Where the last star was, and how much of the text it stands for so far.
    let (mut at, mut position, mut star) = (0, 0, None);
    while position < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(byte) if *byte == b'?' || text.get(position) == Some(byte) => {
                at += 1;
                position += 1;
            }
            Some(_) | None => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                at = after + 1;
                position = taken + 1;
            }
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// Refuses the properties that change what an API does and are not played.
fn refuse(properties: &Properties<'_>, names: &[&str]) -> Result<(), TemplateError> {
    for name in names {
        if properties.get(name)? != Value::Absent {
            return Err(properties.error(name, "is not played by the local stack"));
        }
    }
    Ok(())
}

/// Refuses the property `name` with any value but `played`.
fn refuse_unless(properties: &Properties<'_>, name: &str, played: &str) -> Result<(), TemplateError> {
    match properties.get(name)? {
        Value::Absent => Ok(()),
        Value::Text(text) if text == played => Ok(()),
        Value::Text(_) | Value::List(_) | Value::Map(_) => {
            Err(properties.error(name, format!("the local stack plays `{played}` only")))
        }
    }
}

#[cfg(test)]
mod tests;
