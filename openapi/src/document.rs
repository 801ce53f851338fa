//! Puts the description together.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use local::template::{Function, Route, Source, Template, TemplateError};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use shared::{
    domain::{BucketId, Email},
    http::Problem,
};

use crate::{
    Error, Page,
    events::{Example, examples},
    operations::{Operation, TAGS, operations},
};

const ABOUT: &str = "\
A backend that you host yourself for buckets: workspaces that group a team's servers and the people who watch \
them. It speaks the wire format of the published npm client `@pm2/js-api` and of the `pm2` CLI.

Refusals are `application/problem+json` (RFC 9457). Program against their `code`: it stays the same, and \
docs/problems.md says what each means and what to do. Fields that are not known are ignored. A response may \
gain fields.

What API Gateway itself refuses says `{ \"message\": … }` as `application/json`.";

/// The statuses that API Gateway may give of itself, before or in the place of a function's.
const GATEWAY: [u16; 4] = [413, 429, 500, 503];

/// Where schemas go.
const SCHEMAS: &str = "/components/schemas";

/// The text of `openapi.json` for what is below `workspace`.
///
/// # Errors
/// A source is missing or not in the form that it should have, or says what the others do not know.
pub fn document(workspace: &Path) -> Result<String, Error> {
    let template = template(workspace)?;
    let mut operations = operations();
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for function in &template.functions {
        let routes = routes(function);
        if routes.is_empty() {
            continue;
        }
        let operation = operations
            .remove(function.name.as_str())
            .ok_or_else(|| Error::UnknownOperation(function.name.clone()))?;
        let source = Described {
            page: Page::read(workspace, &function.name)?,
            examples: examples(workspace, &function.name)?,
            operation,
            function: &function.name,
        };
        for (index, (method, path)) in routes.iter().enumerate() {
            let item = paths.entry(path.clone()).or_insert_with(|| json!({}));
            let described = source.at(path, index > 0, &mut schemas);
            set(item, &method.to_lowercase(), described);
        }
    }
    if let Some(left) = operations.into_keys().next() {
        return Err(Error::NoRoute(left.to_owned()));
    }
    let links = of_created_buckets(&paths);
    let create = paths.get_mut("/api/bucket/create_classic");
    if let Some(created) = create.and_then(|path| path.pointer_mut("/post/responses/200")) {
        set(created, "links", links);
    }
    let tags = TAGS.map(|(name, description)| json!({ "name": name, "description": description }));
    let document = json!({
        "openapi": "3.1.1",
        "info": {
            "title": "bucket-api",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "MIT or Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [
            { "url": "http://127.0.0.1:3000", "description": "`cargo run`" },
            {
                "url": "https://{domain}",
                "description": "A deployment",
                "variables": { "domain": { "default": "api.example.com" } },
            },
        ],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.into_definitions()?,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An access token of the deployment's OpenID provider.",
                },
                "stripe": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "stripe-signature",
                    "description": "Stripe's signature over the body.",
                },
            },
        },
    });
    Ok(format!("{document:#}\n"))
}

/// The template below `workspace`, with something for the parameters that have no default: no route depends on one.
///
/// # Errors
/// It is not there, or cannot be understood.
pub fn template(workspace: &Path) -> Result<Template, TemplateError> {
    let parameters = [
        ("OidcIssuer", "https://identity.example.com"),
        ("OidcAudience", "bucket-api"),
        ("OidcClientId", "bucket-api"),
        ("MailFrom", "buckets@example.com"),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Source::read(&workspace.join("template.yaml"))?.evaluate(&BTreeMap::from(parameters))
}

/// Gives `object` the member `name`.
fn set(object: &mut Value, name: &str, member: impl Into<Value>) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), member.into());
    }
}

/// The one header that a response has.
fn header(name: &str, description: &str) -> Value {
    json!({ name: { "description": description, "schema": { "type": "string" } } })
}

/// Where a bucket can go once it is created: every operation of a bucket, with its id.
fn of_created_buckets(paths: &Map<String, Value>) -> Value {
    let of_buckets = paths.iter().filter(|(path, _)| path.contains("{id}") && !path.contains("{email}"));
    let operations = of_buckets.filter_map(|(_, item)| item.as_object()).flat_map(Map::values);
    let ids = operations.filter_map(|operation| operation.get("operationId")?.as_str());
    let link = |id: &str| {
        let parameters = json!({ "id": "$response.body#/bucket/_id" });
        (id.to_owned(), json!({ "operationId": id, "parameters": parameters }))
    };
    ids.map(link).collect::<Map<_, _>>().into()
}

/// The methods and paths of `function`. One that ends in `{proxy+}` is there for its slash alone.
fn routes(function: &Function) -> Vec<(String, String)> {
    let path = |route: &Route| match route {
        Route::Path { method, path } => Some((method.clone(), path.replace("{proxy+}", ""))),
        Route::Default => None,
    };
    function.routes.iter().filter_map(path).collect()
}

/// The schemas that were named so far: requests are read and answers are written, which may differ in
/// what must be there.
struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = SCHEMAS.into();
                settings.meta_schema = None;
            })
        };
        Self {
            read: settings().for_deserialize().into_generator(),
            written: settings().for_serialize().into_generator(),
        }
    }

    /// Both kinds by name, with what API Gateway says.
    fn into_definitions(mut self) -> Result<Map<String, Value>, Error> {
        let mut all = self.read.take_definitions(true);
        for (name, schema) in self.written.take_definitions(true) {
            if all.get(&name).is_some_and(|other| *other != schema) {
                return Err(Error::SameName(name));
            }
            all.insert(name, schema);
        }
        let message = json!({
            "description": "What API Gateway refuses of itself.",
            "type": "object",
            "required": ["message"],
            "properties": { "message": { "type": "string" } },
        });
        all.insert("GatewayMessage".to_owned(), message);
        Ok(all)
    }
}

/// What the sources say of one function.
struct Described<'a> {
    function: &'a str,
    page: Page,
    operation: Operation,
    examples: Vec<Example>,
}

impl Described<'_> {
    /// The operation at `path`; an `alias` is another way to the same.
    fn at(&self, path: &str, alias: bool, schemas: &mut Schemas) -> Value {
        let mut operation = json!({
            "operationId": if alias { format!("{}_alias", self.function) } else { self.function.to_owned() },
            "tags": [self.operation.tag],
            "summary": self.page.summary,
            "description": self.page.description,
            "security": self.security(),
            "responses": self.responses(schemas),
        });
        let parameters = self.parameters(path, schemas);
        if !parameters.is_empty() {
            set(&mut operation, "parameters", parameters);
        }
        if self.page.is_deprecated {
            set(&mut operation, "deprecated", true);
        }
        if let Some(body) = self.operation.body {
            let content = json!({
                "required": true,
                "content": { "application/json": self.with_examples(body(&mut schemas.read), |example| {
                    if example.status == 200 { example.body.as_ref() } else { None }
                }) },
            });
            set(&mut operation, "requestBody", content);
        }
        operation
    }

    fn security(&self) -> Value {
        let has =
            |code: &str| self.page.refusals.iter().any(|refusal| refusal.codes.iter().any(|c| c == code));
        match (has("missing_token"), has("invalid_signature")) {
            (true, _) => json!([{ "token": [] }]),
            (false, true) => json!([{ "stripe": [] }]),
            (false, false) => json!([]),
        }
    }

    fn parameters(&self, path: &str, schemas: &mut Schemas) -> Vec<Value> {
        let parameter = |name: &str, place: &str, description: &str, schema: Schema| json!({ "name": name, "in": place, "required": true, "description": description, "schema": schema });
        let mut parameters = Vec::new();
        if path.contains("{id}") {
            let schema = schemas.read.subschema_for::<BucketId>();
            parameters.push(parameter("id", "path", "The bucket.", schema));
        }
        if path.contains("{email}") {
            let schema = schemas.read.subschema_for::<Email>();
            parameters.push(parameter("email", "path", "Whose.", schema));
        } else if let Some((name, schema)) = self.operation.query {
            parameters.push(parameter(name, "query", "Whose.", schema(&mut schemas.read)));
        }
        parameters
    }

    fn responses(&self, schemas: &mut Schemas) -> Value {
        let answer = (self.operation.answer)(&mut schemas.written);
        let answer = self.with_examples(answer, |example| (example.status == 200).then_some(&example.answer));
        let mut done = json!({ "description": "Done.", "content": { "application/json": answer } });
        if self.page.is_deprecated {
            let description = "Since when the route is deprecated (RFC 9745).";
            set(&mut done, "headers", header("Deprecation", description));
        }
        let mut responses = Map::from_iter([("200".to_owned(), done)]);
        let documented = self.page.refusals.iter().map(|refusal| refusal.status);
        let statuses: BTreeSet<u16> = documented.chain([429, 500, 503]).collect();
        responses
            .extend(statuses.into_iter().map(|status| (status.to_string(), self.refusal(status, schemas))));
        responses.into()
    }

    /// What is answered with `status`.
    fn refusal(&self, status: u16, schemas: &mut Schemas) -> Value {
        let any = match status {
            500 => Some(("internal", "a defect, or a wrong deployment")),
            503 => Some(("unavailable", "the table or the identity provider does not answer")),
            _ => None,
        };
        let of_this = self.page.refusals.iter().filter(|refusal| refusal.status == status);
        let reasons: Vec<(&str, &str)> = of_this
            .flat_map(|refusal| refusal.codes.iter().map(|code| (&**code, &*refusal.when)))
            .chain(any)
            .collect();
        let mut description: Vec<_> =
            reasons.iter().map(|(code, when)| format!("- `{code}`: {when}")).collect();
        let mut content = Map::new();
        if !reasons.is_empty() {
            let codes: BTreeSet<&str> = reasons.iter().map(|(code, _)| *code).collect();
            let schema = json!({
                "allOf": [schemas.written.subschema_for::<Problem>()],
                "properties": { "status": { "const": status }, "code": { "enum": codes } },
            });
            let mut seen = BTreeSet::new();
            let body = self.with_examples(schema, |example| {
                let is_new = example.status == status && seen.insert(example.answer.get("code")?.to_string());
                is_new.then_some(&example.answer)
            });
            content.insert("application/problem+json".to_owned(), body);
        }
        if GATEWAY.contains(&status) {
            let reference = json!({ "$ref": format!("#{SCHEMAS}/GatewayMessage") });
            content.insert("application/json".to_owned(), json!({ "schema": reference }));
        }
        if status == 429 {
            description.push("- API Gateway takes no more requests for now".to_owned());
        }
        let mut response = json!({ "description": description.join("\n"), "content": content });
        let needed = match status {
            401 => Some(("WWW-Authenticate", "How to authenticate (RFC 6750).")),
            429 | 503 => Some(("Retry-After", "Seconds after which to try again, if it is known.")),
            _ => None,
        };
        if let Some((name, description)) = needed {
            set(&mut response, "headers", header(name, description));
        }
        response
    }

    /// The media type of `schema` with what `part` takes of the examples.
    fn with_examples<'a>(
        &'a self,
        schema: impl Into<Value>,
        mut part: impl FnMut(&'a Example) -> Option<&'a Value>,
    ) -> Value {
        let examples: Map<_, _> = self
            .examples
            .iter()
            .filter_map(|example| Some((example.case.clone(), json!({ "value": part(example)? }))))
            .collect();
        let mut media = json!({ "schema": schema.into() });
        if !examples.is_empty() {
            set(&mut media, "examples", examples);
        }
        media
    }
}
