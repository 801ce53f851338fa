//! The table, as whoever sets the scene sees it: rows are those of `events/table.json`.

use std::collections::BTreeMap;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value, json};

use crate::Failure;

/// Signatures have to be there, and are not verified.
const AUTHORIZED: &str = "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/dynamodb/aws4_request, \
                          SignedHeaders=host, Signature=0";

/// What one `BatchWriteItem` takes.
const BATCH: usize = 25;

/// Attributes that are sets, which JSON does not have.
const SETS: [&str; 2] = ["connections", "tried"];

/// Rows in the form of `DynamoDB`, by their keys.
pub(crate) type Rows = BTreeMap<(String, String), Value>;

pub(crate) struct Table {
    endpoint: String,
    name: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Table {
    pub(crate) fn new(endpoint: &str, name: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { endpoint: endpoint.to_owned(), name: name.to_owned(), client }
    }

    async fn call(&self, operation: &str, body: &Value) -> Result<Value, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Table(format!("{operation}: {error}"));
        let request = Request::post(format!("{}/", self.endpoint))
            .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
            .header(CONTENT_TYPE, "application/x-amz-json-1.0")
            .header("x-amz-date", "20260101T000000Z")
            .header(AUTHORIZATION, AUTHORIZED)
            .body(Full::from(body.to_string()))
            .map_err(|error| failed(&error))?;
        let answer = self.client.request(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let answer = answer.into_body().collect().await.map_err(|error| failed(&error))?.to_bytes();
        if !status.is_success() {
            return Err(failed(&String::from_utf8_lossy(&answer)));
        }
        serde_json::from_slice(&answer).map_err(|error| failed(&error))
    }

    /// Puts and deletes, many at a time.
    pub(crate) async fn write(&self, requests: Vec<Value>) -> Result<(), Failure> {
        for batch in requests.chunks(BATCH) {
            let mut request = Map::new();
            request.insert(self.name.clone(), batch.into());
            let answer = self.call("BatchWriteItem", &json!({ "RequestItems": request })).await?;
            let undone = answer.get("UnprocessedItems").and_then(Value::as_object);
            if undone.is_some_and(|undone| !undone.is_empty()) {
                return Err(Failure::Table("it left part of a batch undone".to_owned()));
            }
        }
        Ok(())
    }

    async fn rows(&self) -> Result<Rows, Failure> {
        let mut rows = Rows::new();
        let mut start = Value::Null;
        loop {
            let mut request = json!({ "TableName": self.name, "ConsistentRead": true });
            if let (Some(request), false) = (request.as_object_mut(), start.is_null()) {
                request.insert("ExclusiveStartKey".to_owned(), start);
            }
            let mut answer = self.call("Scan", &request).await?;
            let items = answer.get_mut("Items").map(Value::take);
            for item in items.as_ref().and_then(Value::as_array).into_iter().flatten() {
                rows.insert(key(item), item.clone());
            }
            start = answer.get_mut("LastEvaluatedKey").map(Value::take).unwrap_or_default();
            if start.is_null() {
                return Ok(rows);
            }
        }
    }

    /// Makes the table what `wanted` says.
    pub(crate) async fn restore(&self, wanted: &Rows) -> Result<(), Failure> {
        let there = self.rows().await?;
        let others = there.iter().filter(|(key, _)| !wanted.contains_key(*key));
        let missing = wanted.iter().filter(|(key, row)| there.get(*key) != Some(row));
        let requests = others.map(|((pk, sk), _)| delete(pk, sk)).chain(missing.map(|(_, row)| put(row)));
        self.write(requests.collect()).await
    }
}

/// Puts `row`, which is in the form of `DynamoDB`.
pub(crate) fn put(row: &Value) -> Value {
    json!({ "PutRequest": { "Item": row } })
}

/// Deletes the row with this key.
pub(crate) fn delete(pk: &str, sk: &str) -> Value {
    json!({ "DeleteRequest": { "Key": { "pk": { "S": pk }, "sk": { "S": sk } } } })
}

fn key(item: &Value) -> (String, String) {
    let text = |name| item.pointer(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/pk/S"), text("/sk/S"))
}

/// `rows`, which are as in `events/table.json`, in the form of `DynamoDB`.
pub(crate) fn rows(rows: &[Value]) -> Rows {
    rows.iter().map(item).map(|item| (key(&item), item)).collect()
}

/// `row`, which is as in `events/table.json`, in the form of `DynamoDB`.
pub(crate) fn item(row: &Value) -> Value {
    let members = row.as_object().into_iter().flatten();
    let attributes = members.map(|(name, value)| {
        let is_set = SETS.contains(&name.as_str()) && value.is_array();
        (name.clone(), if is_set { json!({ "SS": value }) } else { attribute(value) })
    });
    attributes.collect::<Map<_, _>>().into()
}

fn attribute(value: &Value) -> Value {
    match value {
        Value::Null => json!({ "NULL": true }),
        Value::Bool(is) => json!({ "BOOL": is }),
        Value::Number(number) => json!({ "N": number.to_string() }),
        Value::String(text) => json!({ "S": text }),
        Value::Array(items) => json!({ "L": items.iter().map(attribute).collect::<Vec<_>>() }),
        Value::Object(_) => json!({ "M": item(value) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_as_the_table_has_it() {
        let row = json!({ "pk": "a", "sk": "b", "n": 1, "former": [], "tried": ["x"], "in": { "is": true } });

        let rows = rows(&[row]);

        let expected = json!({
            "pk": { "S": "a" }, "sk": { "S": "b" }, "n": { "N": "1" }, "former": { "L": [] },
            "tried": { "SS": ["x"] }, "in": { "M": { "is": { "BOOL": true } } },
        });
        assert_eq!(rows, Rows::from([(("a".to_owned(), "b".to_owned()), expected)]));
    }
}
