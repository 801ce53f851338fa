//! The table that everything runs against: embedded in this process, or behind an endpoint.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, stalled_stream_protection::StalledStreamProtectionConfig,
};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_smithy_runtime_api::{
    client::{
        http::{
            HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
            SharedHttpConnector, http_client_fn,
        },
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::{RuntimeComponents, RuntimeComponentsBuilder},
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use dynoxide::{Database, errors::DynoxideError};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

/// The table's name.
pub const TABLE: &str = "Table";

/// A row as it is on the wire: each attribute with its type.
pub type Item = Map<String, Value>;

/// What a run cannot go on after: the table does not do what it is asked to.
#[derive(Debug, thiserror::Error)]
#[error("the table fails: {0}")]
pub struct EngineError(String);

/// Where the table is.
#[derive(Clone)]
pub struct Engine(Place);

#[derive(Clone)]
enum Place {
    /// An engine in this process, asked without a network, and replaced by an empty one at each reset.
    Embedded(Embedded),
    /// Another engine that speaks DynamoDB's protocol.
    Endpoint { url: String, connector: SharedHttpConnector },
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Embedded(_) => formatter.write_str("the embedded engine"),
            Place::Endpoint { url, .. } => write!(formatter, "the engine at {url}"),
        }
    }
}

fn failed(error: impl fmt::Display) -> EngineError {
    EngineError(error.to_string())
}

impl Engine {
    /// An engine in this process, in memory.
    ///
    /// # Errors
    /// The engine does not start.
    pub fn embedded() -> Result<Self, EngineError> {
        let database = Database::memory().map_err(failed)?;
        Ok(Self(Place::Embedded(Embedded(Arc::new(Mutex::new(database))))))
    }

    /// The engine at `url`, whose table is deleted at each reset.
    ///
    /// # Errors
    /// No client can be made.
    pub fn at(url: &str) -> Result<Self, EngineError> {
        let http = aws_smithy_http_client::Builder::new().build_http();
        let clock = SharedTimeSource::new(SystemTimeSource::new());
        let components = RuntimeComponentsBuilder::for_tests().with_time_source(Some(clock));
        let components = components.build().map_err(failed)?;
        let connector = http.http_connector(&HttpConnectorSettings::default(), &components);
        Ok(Self(Place::Endpoint { url: url.to_owned(), connector }))
    }

    /// A runtime of one thread, for one run. With an engine in this process nothing happens by itself, so
    /// that its clock is paused: who waits for a moment takes none.
    ///
    /// # Errors
    /// The operating system has no more to give.
    pub fn runtime(&self) -> std::io::Result<Runtime> {
        let is_embedded = matches!(self.0, Place::Embedded(_));
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(is_embedded).build()
    }

    /// What a store over the table is configured with, each of whose calls goes the way that `wrap` makes.
    pub fn aws(
        &self,
        wrap: impl Fn(SharedHttpConnector) -> SharedHttpConnector + Send + Sync + 'static,
    ) -> SdkConfig {
        match &self.0 {
            Place::Embedded(embedded) => {
                let connector = wrap(SharedHttpConnector::new(embedded.clone()));
                sdk(&http_client_fn(move |_, _| connector.clone()), "http://localhost")
            }
            Place::Endpoint { url, .. } => {
                let http = aws_smithy_http_client::Builder::new().build_http();
                let wrapped = http_client_fn(
                    move |settings: &HttpConnectorSettings, components: &RuntimeComponents| {
                        wrap(http.http_connector(settings, components))
                    },
                );
                sdk(&wrapped, url)
            }
        }
    }

    /// Makes the table, without rows.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn make_table(&self) -> Result<(), EngineError> {
        match &self.0 {
            Place::Embedded(Embedded(present)) => {
                let fresh = Database::memory().map_err(failed)?;
                *present.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
            }
            // It is not there the first time.
            Place::Endpoint { .. } => drop(self.ask("DeleteTable", &json!({ "TableName": TABLE })).await),
        }
        let table = json!({
            "TableName": TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                { "AttributeName": "pk", "AttributeType": "S" },
                { "AttributeName": "sk", "AttributeType": "S" },
            ],
            "KeySchema": [
                { "AttributeName": "pk", "KeyType": "HASH" },
                { "AttributeName": "sk", "KeyType": "RANGE" },
            ],
        });
        self.ask("CreateTable", &table).await.map(drop)
    }

    /// Has the table hold these rows and no others.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn reset(&self, rows: &[Item]) -> Result<(), EngineError> {
        let key = |row: &Item| [row.get("pk").cloned(), row.get("sk").cloned()];
        let present = self.rows().await?;
        let mut writes = Vec::new();
        for row in &present {
            if rows.iter().all(|kept| key(kept) != key(row)) {
                let [pk, sk] = key(row);
                writes.push(json!({ "DeleteRequest": { "Key": { "pk": pk, "sk": sk } } }));
            }
        }
        for row in rows.iter().filter(|row| !present.contains(row)) {
            writes.push(json!({ "PutRequest": { "Item": row } }));
        }
        for writes in writes.chunks(25) {
            let written = self.ask("BatchWriteItem", &json!({ "RequestItems": { TABLE: writes } })).await?;
            if written["UnprocessedItems"].as_object().is_some_and(|left| !left.is_empty()) {
                return Err(EngineError("rows were left unwritten".to_owned()));
            }
        }
        Ok(())
    }

    /// Every row of the table.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn rows(&self) -> Result<Vec<Item>, EngineError> {
        let found = self.ask("Scan", &json!({ "TableName": TABLE, "ConsistentRead": true })).await?;
        let rows = found["Items"].as_array().into_iter().flatten();
        Ok(rows.filter_map(Value::as_object).cloned().collect())
    }

    /// Puts a row as it is, behind everybody's back.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn put(&self, row: &Item) -> Result<(), EngineError> {
        self.ask("PutItem", &json!({ "TableName": TABLE, "Item": row })).await.map(drop)
    }

    /// Deletes the row that has the key `key`, behind everybody's back.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn delete(&self, key: &Item) -> Result<(), EngineError> {
        self.ask("DeleteItem", &json!({ "TableName": TABLE, "Key": key })).await.map(drop)
    }

    async fn ask(&self, operation: &str, body: &Value) -> Result<Value, EngineError> {
        let connector = match &self.0 {
            Place::Embedded(Embedded(database)) => {
                let database = database.lock().unwrap_or_else(PoisonError::into_inner).clone();
                return answer(&database, operation, &body.to_string()).map_err(failed);
            }
            Place::Endpoint { url, connector } => (url, connector),
        };
        let (url, connector) = connector;
        let mut request = HttpRequest::new(SdkBody::from(body.to_string()));
        request.set_uri(format!("{url}/")).map_err(failed)?;
        request.set_method("POST").map_err(failed)?;
        let headers = request.headers_mut();
        headers.insert("content-type", "application/x-amz-json-1.0");
        headers.insert("x-amz-target", format!("DynamoDB_20120810.{operation}"));
        // Which it asks for, and does not verify.
        headers.insert("authorization", UNSIGNED);
        headers.insert("x-amz-date", "20260101T000000Z");
        let response = connector.call(request).await.map_err(failed)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(failed)?.to_bytes();
        if !status.is_success() {
            return Err(EngineError(format!("{operation}: {}", String::from_utf8_lossy(&body))));
        }
        serde_json::from_slice(&body).map_err(failed)
    }
}

const UNSIGNED: &str = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/dynamodb/aws4_request, \
    SignedHeaders=host, Signature=0";

/// `row` without the types of its attributes.
///
/// # Errors
/// It has a type that no row has here.
pub fn plain(row: &Item) -> Result<Value, EngineError> {
    row.iter().map(|(name, value)| Ok((name.clone(), plain_value(value)?))).collect()
}

fn plain_value(typed: &Value) -> Result<Value, EngineError> {
    let unknown = || EngineError(format!("an attribute of an unknown type: {typed}"));
    let (kind, value) = typed.as_object().and_then(|typed| typed.iter().next()).ok_or_else(unknown)?;
    match (kind.as_str(), value) {
        ("S" | "BOOL" | "SS", value) => Ok(value.clone()),
        ("N", Value::String(number)) => serde_json::from_str(number).map_err(failed),
        ("NULL", _) => Ok(Value::Null),
        ("M", Value::Object(map)) => plain(map),
        ("L", Value::Array(list)) => list.iter().map(plain_value).collect(),
        _ => Err(unknown()),
    }
}

fn sdk(http: &SharedHttpClient, url: &str) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .http_client(http.clone())
        // Who waits for their turn has not stalled.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "key", "secret", None, None, "proof",
        )))
        .build()
}

/// The engine in this process, as the SDK sees a connection.
#[derive(Clone)]
struct Embedded(Arc<Mutex<Database>>);

impl fmt::Debug for Embedded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Embedded")
    }
}

impl HttpConnector for Embedded {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default());
        let (status, body) = match answer(&database, operation, &body) {
            Ok(answer) => (200, answer.to_string()),
            Err(error) => (error.status_code(), error.to_json()),
        };
        let response = StatusCode::try_from(status)
            .map(|status| HttpResponse::new(status, SdkBody::from(body)))
            .map_err(|error| ConnectorError::other(error.into(), None));
        HttpConnectorFuture::ready(response)
    }
}

/// What the engine answers to a call.
fn answer(database: &Database, operation: &str, body: &str) -> Result<Value, DynoxideError> {
    macro_rules! operations {
        ($($name:literal => $method:ident),* $(,)?) => {
            match operation {
                $($name => {
                    let request = serde_json::from_str(body).map_err(|error| unreadable(&error))?;
                    let answer = database.$method(request)?;
                    serde_json::to_value(answer).map_err(|error| unreadable(&error))
                })*
                other => Err(DynoxideError::ValidationException(format!("no operation {other}"))),
            }
        };
    }
    operations! {
        "BatchGetItem" => batch_get_item,
        "BatchWriteItem" => batch_write_item,
        "CreateTable" => create_table,
        "DeleteItem" => delete_item,
        "GetItem" => get_item,
        "PutItem" => put_item,
        "Query" => query,
        "Scan" => scan,
        "TransactWriteItems" => transact_write_items,
    }
}

fn unreadable(error: &serde_json::Error) -> DynoxideError {
    DynoxideError::ValidationException(error.to_string())
}
