//! The events of `$connect` and `$disconnect`.
//!
//! Source: "Using AWS Lambda with Amazon API Gateway" and "Set up a `$connect` route" in the developer guides of
//! AWS Lambda and API Gateway, as recorded in the fixtures of the crate `aws_lambda_events`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use url::form_urlencoded;

use super::Shared;
use super::connection::End;
use crate::gateway::event::{HOP_BY_HOP, common_log_format, milliseconds, text};
use crate::ids;

/// What the gateway knows of a connection for as long as there is one.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) id: String,
    connected_at: OffsetDateTime,
    /// The host and port that the client asked for.
    authority: Authority,
    peer: SocketAddr,
    user_agent: Option<String>,
}

impl Connection {
    pub(super) fn new(
        id: &str,
        connected_at: OffsetDateTime,
        authority: &Authority,
        peer: SocketAddr,
        request: &Parts,
    ) -> Self {
        Self {
            id: id.to_owned(),
            connected_at,
            authority: authority.clone(),
            peer,
            user_agent: request.headers.get(USER_AGENT).map(text),
        }
    }
}

/// The event, as it is serialised.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    /// The last value of each.
    headers: BTreeMap<&'a str, &'a str>,
    multi_value_headers: &'a Values,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    query_string_parameters: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    multi_value_query_string_parameters: &'a Values,
    request_context: RequestContext<'a>,
    is_base64_encoded: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    route_key: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_status_code: Option<u16>,
    event_type: &'static str,
    extended_request_id: &'a str,
    request_time: String,
    message_direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'a str>,
    stage: &'a str,
    connected_at: i64,
    request_time_epoch: i64,
    identity: Identity<'a>,
    request_id: &'a str,
    domain_name: &'a str,
    connection_id: &'a str,
    api_id: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    source_ip: String,
}

type Values = BTreeMap<String, Vec<String>>;

/// The event of `$connect`. `sent` are the headers with their names as the client wrote them.
pub(super) fn connect(
    connection: &Connection,
    shared: &Shared,
    request_id: &str,
    sent: Vec<(String, String)>,
    query: Option<&str>,
) -> Bytes {
    let time = connection.connected_at;
    let own = [
        ("Host", connection.authority.as_str().to_owned()),
        ("X-Amzn-Trace-Id", ids::trace(time)),
        ("X-Forwarded-For", connection.peer.ip().to_string()),
        ("X-Forwarded-Port", shared.address.port().to_string()),
        ("X-Forwarded-Proto", "http".to_owned()),
    ];
    let mut headers = Values::new();
    for (name, value) in sent {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let ends_here = HOP_BY_HOP.iter().chain([&CONTENT_LENGTH, &HOST]).any(|header| is(header.as_str()));
        if !ends_here && !own.iter().any(|(header, _)| is(header)) {
            headers.entry(name).or_default().push(value);
        }
    }
    headers.extend(own.map(|(name, value)| (name.to_owned(), vec![value])));
    let mut parameters = Values::new();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        parameters.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    let context = context(connection, shared, request_id, time, None);
    serialised(&headers, &parameters, context)
}

/// The event of `$disconnect`, whose headers are those that AWS makes up.
pub(super) fn disconnect(connection: &Connection, shared: &Shared, end: &End) -> Bytes {
    let headers = [
        ("Host", connection.authority.as_str()),
        ("x-api-key", ""),
        ("X-Forwarded-For", ""),
        ("x-restapi", ""),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), vec![value.to_owned()]));
    let request_id = ids::request();
    let context = context(connection, shared, &request_id, OffsetDateTime::now_utc(), Some(end));
    serialised(&Values::from(headers), &Values::new(), context)
}

fn context<'a>(
    connection: &'a Connection,
    shared: &'a Shared,
    request_id: &'a str,
    time: OffsetDateTime,
    end: Option<&'a End>,
) -> RequestContext<'a> {
    let (route_key, event_type) =
        if end.is_some() { ("$disconnect", "DISCONNECT") } else { ("$connect", "CONNECT") };
    RequestContext {
        route_key,
        disconnect_status_code: end.map(|end| end.code),
        event_type,
        extended_request_id: request_id,
        request_time: common_log_format(time),
        message_direction: "IN",
        disconnect_reason: end.map(|end| end.reason.as_str()),
        stage: &shared.api.stage,
        connected_at: milliseconds(connection.connected_at),
        request_time_epoch: milliseconds(time),
        identity: Identity {
            user_agent: connection.user_agent.as_deref(),
            source_ip: connection.peer.ip().to_string(),
        },
        request_id,
        domain_name: connection.authority.host(),
        connection_id: &connection.id,
        api_id: &shared.api.id,
    }
}

fn serialised(headers: &Values, parameters: &Values, request_context: RequestContext<'_>) -> Bytes {
    let event = Event {
        headers: last(headers),
        multi_value_headers: headers,
        query_string_parameters: last(parameters),
        multi_value_query_string_parameters: parameters,
        request_context,
        is_base64_encoded: false,
    };
    // Maps with text as keys always serialise.
    serde_json::to_vec(&event).unwrap_or_default().into()
}

/// The last value of each.
fn last(values: &Values) -> BTreeMap<&str, &str> {
    let last = values.iter().filter_map(|(name, values)| Some((name.as_str(), values.last()?.as_str())));
    last.collect()
}
