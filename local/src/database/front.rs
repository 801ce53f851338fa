//! What stands before the database: it refuses the functions what their policies do not allow, and passes
//! everything else on.
//!
//! A server of its own, because the engine's takes a listener and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, TRANSFER_ENCODING};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::net::TcpListener;

use crate::http::{self, Server};
use crate::iam::{Asked, Permissions, arn};

/// Bytes of a request that `DynamoDB` takes.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// Where the engine answers, and how it is reached.
struct Engine {
    authority: String,
    client: Client<HttpConnector, Full<Bytes>>,
    permissions: Arc<Permissions>,
}

/// Serves on `listener` what the engine at `endpoint` answers, as far as `permissions` go.
///
/// # Errors
/// The listener does not know its own address.
pub(crate) fn spawn(
    listener: TcpListener,
    endpoint: &str,
    permissions: Arc<Permissions>,
) -> io::Result<Server> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let engine = Engine {
        authority: endpoint.trim_start_matches("http://").to_owned(),
        client: Client::builder(TokioExecutor::new()).build(connector),
        permissions,
    };
    let router = Router::new().fallback(answer).with_state(Arc::new(engine));
    let guard = from_fn_with_state(listener.local_addr()?, http::for_this_machine);
    Ok(Server::spawn(listener, router.layer(guard)))
}

async fn answer(State(engine): State<Arc<Engine>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = http::read_body(body, MAX_REQUEST).await else {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, "SerializationException", "");
    };
    if let Some(caller) = engine.permissions.caller(&parts.headers) {
        let Ok(asked) = asked(&parts.headers, &body) else {
            return refused(StatusCode::BAD_REQUEST, "SerializationException", "");
        };
        if let Err(denied) = caller.may(&asked) {
            return refused(StatusCode::BAD_REQUEST, "AccessDeniedException", &denied.to_string());
        }
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("http").authority(&*engine.authority).path_and_query(path).build();
    let Ok(uri) = uri else { return refused(StatusCode::BAD_REQUEST, "UnknownOperationException", "") };
    parts.uri = uri;
    for hop_by_hop in [CONNECTION, TRANSFER_ENCODING] {
        parts.headers.remove(hop_by_hop);
    }
    match engine.client.request(Request::from_parts(parts, Full::new(body))).await {
        Ok(answer) => {
            let mut answer = answer.map(Body::new);
            answer.headers_mut().remove(CONNECTION);
            answer
        }
        // The stack is being stopped.
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", &error.to_string()),
    }
}

/// An error that is not `DynamoDB`'s own but that of every service of its kind.
fn refused(status: StatusCode, kind: &str, message: &str) -> Response {
    let kind = format!("com.amazon.coral.service#{kind}");
    let body = if message.is_empty() {
        json!({ "__type": kind })
    } else {
        json!({ "__type": kind, "Message": message })
    };
    http::typed(status, "application/x-amz-json-1.0", body.to_string())
}

/// What of a request says which permissions it takes. Anything else may be in it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Names {
    table_name: Option<String>,
    index_name: Option<String>,
    resource_arn: Option<String>,
    stream_arn: Option<String>,
    /// Of batches, by table.
    #[expect(clippy::zero_sized_map_values, reason = "the set of a map's keys")]
    request_items: BTreeMap<String, IgnoredAny>,
    /// Of transactions; each part by its kind.
    transact_items: Vec<BTreeMap<String, Part>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    table_name: String,
}

/// What a request asks for; nothing where it names no operation, which the engine refuses.
///
/// The parts of a transaction take the permissions of the operations that they are like, and
/// `ConditionCheckItem`; there are none for transactions as such. A query of an index is about the index.
/// Statements in `PartiQL` are not read, so they take all permissions of `PartiQL` on all tables.
///
/// Source: "Using IAM with `DynamoDB` transactions" in the Amazon `DynamoDB` developer guide, and "Actions,
/// resources, and condition keys for Amazon `DynamoDB`" in the Service Authorization Reference.
fn asked(headers: &HeaderMap, body: &[u8]) -> serde_json::Result<Vec<Asked>> {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let Some((_, operation)) = target.split_once('.') else { return Ok(Vec::new()) };
    let names: Names = serde_json::from_slice(body)?;
    let of = |action: &str, table: &str| Asked::new("dynamodb", action, table_arn(table));
    Ok(match operation {
        "TransactGetItems" | "TransactWriteItems" => {
            let parts = names.transact_items.iter().flatten();
            parts.map(|(kind, part)| of(&format!("{kind}Item"), &part.table_name)).collect()
        }
        "BatchGetItem" | "BatchWriteItem" => {
            names.request_items.keys().map(|table| of(operation, table)).collect()
        }
        "ExecuteStatement" | "BatchExecuteStatement" | "ExecuteTransaction" => {
            let actions = ["PartiQLDelete", "PartiQLInsert", "PartiQLSelect", "PartiQLUpdate"];
            actions.map(|action| Asked::new("dynamodb", action, "*")).into()
        }
        _ => {
            let table = names.table_name.map(|table| match &names.index_name {
                Some(index) => format!("{}/index/{index}", table_arn(&table)),
                None => table_arn(&table),
            });
            let resource = table.or(names.stream_arn).or(names.resource_arn);
            vec![Asked::new("dynamodb", operation, resource.unwrap_or_else(|| "*".to_owned()))]
        }
    })
}

/// The ARN of a table, by which it may be named as well.
fn table_arn(table: &str) -> String {
    if table.starts_with("arn:") { table.to_owned() } else { arn("dynamodb", &format!("table/{table}")) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Actions and resources of a request, without what is the same in all of them.
    fn of(operation: &str, body: &Value) -> Vec<(String, String)> {
        let target = format!("DynamoDB_20120810.{operation}");
        let headers = HeaderMap::from_iter([("x-amz-target".parse().unwrap(), target.parse().unwrap())]);
        let short = |text: String, prefix: &str| text.strip_prefix(prefix).map(str::to_owned).unwrap_or(text);
        asked(&headers, body.to_string().as_bytes())
            .unwrap()
            .into_iter()
            .map(|asked| {
                let resource = short(asked.resource, "arn:aws:dynamodb:us-east-1:000000000000:table/");
                (asked.action.strip_prefix("dynamodb:").unwrap().to_owned(), resource)
            })
            .collect()
    }

    #[track_caller]
    fn takes(operation: &str, body: &Value, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(action, resource)| ((*action).to_owned(), (*resource).to_owned()))
            .collect();
        assert_eq!(of(operation, body), expected);
    }

    #[test]
    fn an_operation_takes_the_permission_of_its_name_on_what_it_names() {
        for operation in ["GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan", "DescribeTable"]
        {
            takes(operation, &json!({ "TableName": "T", "Key": {} }), &[(operation, "T")]);
        }
        takes("Query", &json!({ "TableName": "T", "IndexName": "I" }), &[("Query", "T/index/I")]);
        takes("ListTables", &json!({}), &[("ListTables", "*")]);
        let arn = "arn:aws:dynamodb:us-east-1:000000000000:table/T";
        takes("GetItem", &json!({ "TableName": arn }), &[("GetItem", "T")]);
        takes("TagResource", &json!({ "ResourceArn": arn }), &[("TagResource", "T")]);
        let stream = format!("{arn}/stream/1");
        takes("DescribeStream", &json!({ "StreamArn": stream }), &[("DescribeStream", "T/stream/1")]);
    }

    #[test]
    fn a_batch_takes_its_own_permission_on_each_table() {
        let body = json!({ "RequestItems": { "A": { "Keys": [] }, "B": { "Keys": [] } } });
        takes("BatchGetItem", &body, &[("BatchGetItem", "A"), ("BatchGetItem", "B")]);
        takes("BatchWriteItem", &body, &[("BatchWriteItem", "A"), ("BatchWriteItem", "B")]);
    }

    #[test]
    fn a_transaction_takes_the_permissions_of_its_parts() {
        let part = |kind: &str, table: &str| json!({ kind: { "TableName": table, "Key": {} } });
        let body = json!({ "TransactItems": [
            part("Put", "A"), part("Update", "A"), part("Delete", "B"), part("ConditionCheck", "B"),
        ] });
        takes(
            "TransactWriteItems",
            &body,
            &[("PutItem", "A"), ("UpdateItem", "A"), ("DeleteItem", "B"), ("ConditionCheckItem", "B")],
        );
        let body = json!({ "TransactItems": [part("Get", "A"), part("Get", "B")] });
        takes("TransactGetItems", &body, &[("GetItem", "A"), ("GetItem", "B")]);
    }

    #[test]
    fn statements_in_partiql_take_everything_that_they_might_do() {
        let body = json!({ "Statement": "SELECT * FROM \"T\"" });
        let all = ["PartiQLDelete", "PartiQLInsert", "PartiQLSelect", "PartiQLUpdate"].map(|all| (all, "*"));
        for operation in ["ExecuteStatement", "BatchExecuteStatement", "ExecuteTransaction"] {
            takes(operation, &body, &all);
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_let_through_and_nesting_does_not_matter() {
        let headers = HeaderMap::from_iter([(
            "x-amz-target".parse().unwrap(),
            "DynamoDB_20120810.PutItem".parse().unwrap(),
        )]);
        for body in ["", "{", "[1]", r#"{"TableName":1}"#, r#"{"TableName":"A","TableName":"B"}"#] {
            assert!(asked(&headers, body.as_bytes()).is_err(), "{body}");
        }
        let deep = format!(r#"{{"Item":{}1{},"TableName":"T"}}"#, "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(asked(&headers, deep.as_bytes()).unwrap().len(), 1);
        assert_eq!(asked(&HeaderMap::new(), b"").unwrap(), []);
    }
}
