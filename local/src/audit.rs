//! The audit trail of a bucket, for the local page.
//!
//! No route of the API shows it. This is the one place of this crate that knows keys of the product's table;
//! a test of the functions (`local_page.rs`) holds them to what the functions write.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use dynoxide::Database as Engine;
use dynoxide::actions::get_item::GetItemRequest;
use dynoxide::actions::query::QueryRequest;
use dynoxide::errors::DynoxideError;
use dynoxide::types::{AttributeValue, Item};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::database::Handle;
use crate::http;

/// Entries of one answer.
const PAGE: usize = 50;

/// Digits of a bucket's id.
const ID_LENGTH: usize = 24;
/// Characters of a ULID, which the id of an entry is.
const ULID_LENGTH: usize = 26;

/// What is asked, and of which table.
#[derive(Debug, Clone)]
pub(crate) struct Trails {
    database: Handle,
    table: String,
}

/// A part of a trail, newest first.
struct Part {
    rows: Vec<Item>,
    /// Whether there are older ones.
    more: bool,
    /// The addresses of those who are named in it, by id.
    people: BTreeMap<String, String>,
}

impl Trails {
    /// The trails in `table` of `database`.
    pub(crate) fn new(database: Handle, table: String) -> Self {
        Self { database, table }
    }

    /// `GET /_local/audit/{bucket}`: `entries`, newest first, at most 50 and with `?before=ID` the ones before
    /// that; whether there are `more`; and the addresses of `people` by id, as they are now.
    pub(crate) fn router(self) -> Router {
        Router::new().route("/_local/audit/{bucket}", get(Self::handle)).with_state(self)
    }

    async fn handle(State(trails): State<Self>, Path(bucket): Path<String>, request: Request) -> Response {
        if bucket.len() != ID_LENGTH || !bucket.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return refused(StatusCode::BAD_REQUEST, "The id of a bucket is 24 hexadecimal digits.");
        }
        let query = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
        let before =
            query.into_iter().find(|(name, _)| name == "before").map(|(_, value)| value.into_owned());
        if before.as_ref().is_some_and(|id| {
            id.len() != ULID_LENGTH
                || !id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        }) {
            return refused(StatusCode::BAD_REQUEST, "`before` is the id of an entry.");
        }
        let is_first = before.is_none();
        let Self { database, table } = trails;
        match database.call(move |engine| read(engine, &table, &bucket, before)).await {
            None => refused(StatusCode::SERVICE_UNAVAILABLE, "The stack is being stopped."),
            Some(Err(error)) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            // The first thing that a bucket has is the entry of its creation.
            Some(Ok(Part { rows, .. })) if rows.is_empty() && is_first => {
                refused(StatusCode::NOT_FOUND, "No bucket has this id.")
            }
            Some(Ok(Part { rows, more, people })) => {
                let entries: Vec<_> = rows.into_iter().map(entry).collect();
                http::json(StatusCode::OK, &json!({ "entries": entries, "more": more, "people": people }))
            }
        }
    }
}

fn refused(status: StatusCode, message: &str) -> Response {
    http::json(status, &json!({ "message": message }))
}

fn read(engine: &Engine, table: &str, bucket: &str, before: Option<String>) -> Result<Part, DynoxideError> {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    let key = |pk: &str, sk: &str| HashMap::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))]);
    let pk = format!("BUCKET#{bucket}");
    let found = engine.query(QueryRequest {
        table_name: table.to_owned(),
        key_condition_expression: Some("pk = :pk AND begins_with(sk, :prefix)".to_owned()),
        expression_attribute_values: Some(HashMap::from([
            (":pk".to_owned(), text(&pk)),
            (":prefix".to_owned(), text("AUDIT#")),
        ])),
        exclusive_start_key: before.map(|id| key(&pk, &format!("AUDIT#{id}"))),
        scan_index_forward: false,
        // One more says whether there are more.
        limit: Some(PAGE + 1),
        ..QueryRequest::default()
    })?;
    let mut rows = found.items.unwrap_or_default();
    let more = rows.len() > PAGE;
    rows.truncate(PAGE);

    let ids: BTreeSet<_> = rows
        .iter()
        .flat_map(|row| ["actor_id", "target_id"].map(|name| row.get(name)))
        .filter_map(|id| if let Some(AttributeValue::S(id)) = id { Some(id.clone()) } else { None })
        .collect();
    let mut people = BTreeMap::new();
    for id in ids {
        let user = engine.get_item(GetItemRequest {
            table_name: table.to_owned(),
            key: key(&format!("USER#{id}"), "USER"),
            ..GetItemRequest::default()
        })?;
        if let Some(AttributeValue::S(email)) = user.item.and_then(|mut user| user.remove("email")) {
            people.insert(id, email);
        }
    }
    Ok(Part { rows, more, people })
}

/// A row as it stands, without its key. Entries hold texts and numbers alone.
fn entry(row: Item) -> Value {
    let told = row.into_iter().filter(|(name, _)| !matches!(&**name, "pk" | "sk" | "type"));
    let fields = told.map(|(name, value)| {
        let value = match value {
            AttributeValue::S(text) => Value::String(text),
            AttributeValue::N(number) => serde_json::from_str(&number).unwrap_or(Value::String(number)),
            AttributeValue::B(_)
            | AttributeValue::BOOL(_)
            | AttributeValue::NULL(_)
            | AttributeValue::SS(_)
            | AttributeValue::NS(_)
            | AttributeValue::BS(_)
            | AttributeValue::L(_)
            | AttributeValue::M(_) => json!(value),
        };
        (name, value)
    });
    Value::Object(fields.collect())
}
