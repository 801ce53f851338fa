//! The event that an HTTP API sends to a function, payload format version 2.0.
//!
//! Source: "Create AWS Lambda proxy integrations for HTTP APIs" in the API Gateway developer guide.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::http::header::{
    CONNECTION, CONTENT_TYPE, COOKIE, EXPECT, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use url::form_urlencoded;

use super::routes::{Match, decode};
use crate::{ids, template};

/// Headers that concern one connection, and so end at the gateway.
pub(super) const HOP_BY_HOP: [HeaderName; 6] = [CONNECTION, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The event, as it is serialised.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event<'a> {
    version: &'static str,
    route_key: &'a str,
    raw_path: String,
    raw_query_string: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<String>,
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    query_string_parameters: BTreeMap<String, String>,
    request_context: RequestContext<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    path_parameters: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    is_base64_encoded: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    account_id: &'static str,
    api_id: &'static str,
    domain_name: String,
    domain_prefix: String,
    http: Http<'a>,
    request_id: &'a str,
    route_key: &'a str,
    stage: &'static str,
    time: String,
    time_epoch: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Http<'a> {
    method: &'a str,
    path: String,
    protocol: String,
    source_ip: String,
    user_agent: String,
}

/// What the gateway knows of a request beyond its head and body.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    pub(super) route: &'a Match<'a>,
    pub(super) request_id: &'a str,
    /// The host and port that the client asked for.
    pub(super) authority: &'a Authority,
    /// The client.
    pub(super) peer: SocketAddr,
    /// The port that the gateway listens on.
    pub(super) port: u16,
    pub(super) time: OffsetDateTime,
}

impl<'a> Event<'a> {
    pub(super) fn new(request: &'a Parts, body: &Bytes, arrival: &'a Arrival<'a>) -> Self {
        let raw_path = decode(request.uri.path());
        let domain = arrival.authority.host();
        let (body, is_base64_encoded) = encode_body(request.headers.get(CONTENT_TYPE), body);
        Self {
            version: "2.0",
            route_key: arrival.route.route_key,
            raw_path: raw_path.clone(),
            raw_query_string: request.uri.query().unwrap_or_default(),
            cookies: cookies(&request.headers),
            headers: headers(&request.headers, arrival),
            query_string_parameters: query(request.uri.query().unwrap_or_default()),
            request_context: RequestContext {
                account_id: template::ACCOUNT,
                api_id: "local",
                domain_name: domain.to_owned(),
                domain_prefix: domain.split('.').next().unwrap_or_default().to_owned(),
                http: Http {
                    method: request.method.as_str(),
                    path: raw_path,
                    protocol: format!("{:?}", request.version),
                    source_ip: arrival.peer.ip().to_string(),
                    user_agent: request.headers.get(USER_AGENT).map(text).unwrap_or_default(),
                },
                request_id: arrival.request_id,
                route_key: arrival.route.route_key,
                stage: "$default",
                time: common_log_format(arrival.time),
                time_epoch: milliseconds(arrival.time),
            },
            path_parameters: &arrival.route.parameters,
            body,
            is_base64_encoded,
        }
    }
}

/// All headers but cookies, in lower case, repeated ones joined, with those that the gateway sets.
fn headers(sent: &HeaderMap, arrival: &Arrival<'_>) -> BTreeMap<String, String> {
    let names = sent.keys().filter(|name| **name != COOKIE && !HOP_BY_HOP.contains(name));
    let mut headers: BTreeMap<_, _> = names
        .map(|name| {
            let values: Vec<_> = sent.get_all(name).iter().map(text).collect();
            (name.as_str().to_owned(), values.join(","))
        })
        .collect();
    headers.extend([
        ("host".to_owned(), arrival.authority.as_str().to_owned()),
        ("x-amzn-trace-id".to_owned(), ids::trace(arrival.time)),
        ("x-forwarded-for".to_owned(), arrival.peer.ip().to_string()),
        ("x-forwarded-port".to_owned(), arrival.port.to_string()),
        ("x-forwarded-proto".to_owned(), "http".to_owned()),
    ]);
    headers
}

fn cookies(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(COOKIE).iter().map(text);
    values
        .flat_map(|value| value.split(';').map(|cookie| cookie.trim().to_owned()).collect::<Vec<_>>())
        .collect()
}

/// The decoded parameters, repeated ones joined.
fn query(raw: &str) -> BTreeMap<String, String> {
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
        parameters
            .entry(name.into_owned())
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    parameters
}

/// The body as a JSON string can carry it, and whether that is base64.
fn encode_body(content_type: Option<&HeaderValue>, body: &Bytes) -> (Option<String>, bool) {
    if body.is_empty() {
        return (None, false);
    }
    let is_text = content_type.is_none_or(|value| is_text(&text(value)));
    match std::str::from_utf8(body) {
        Ok(text) if is_text => (Some(text.to_owned()), false),
        Ok(_) | Err(_) => (Some(BASE64_STANDARD.encode(body)), true),
    }
}

/// Whether an HTTP API takes this media type for text. Forms it does not.
fn is_text(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.split_once('/') {
        Some(("text", _)) => true,
        Some(("application", kind)) => {
            matches!(kind, "json" | "xml" | "javascript") || kind.ends_with("+json") || kind.ends_with("+xml")
        }
        _ => false,
    }
}

/// A header's value. What is not UTF-8 cannot be carried by JSON.
pub(super) fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Since the epoch.
pub(super) fn milliseconds(time: OffsetDateTime) -> i64 {
    time.unix_timestamp() * 1000 + i64::from(time.millisecond())
}

/// `24/Nov/2026:07:50:46 +0000`.
pub(super) fn common_log_format(time: OffsetDateTime) -> String {
    let month = MONTHS.get(usize::from(u8::from(time.month())) - 1).copied().unwrap_or_default();
    let (hour, minute, second) = time.to_hms();
    format!("{:02}/{month}/{:04}:{hour:02}:{minute:02}:{second:02} +0000", time.day(), time.year())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use serde_json::{Value, json};

    use super::*;
    use crate::http;

    /// Where the gateway listens.
    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 3000);

    /// The event for a request whose route has `parameters`.
    fn event(
        request: axum::http::request::Builder,
        body: &'static [u8],
        parameters: &[(&str, &str)],
    ) -> Value {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let route = Match {
            function: "retrieve",
            route_key: "GET /api/bucket/{id}",
            parameters: parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let authority =
            http::authority(&parts, ADDRESS).unwrap_or_else(|| Authority::from_static("127.0.0.1:3000"));
        let arrival = Arrival {
            route: &route,
            request_id: "cHJldHR5cmFuZG9t",
            authority: &authority,
            peer: "127.0.0.1:50000".parse().unwrap(),
            port: 3000,
            time: OffsetDateTime::from_unix_timestamp(1_795_506_646).unwrap()
                + time::Duration::milliseconds(7),
        };
        serde_json::to_value(Event::new(&parts, &Bytes::from_static(body), &arrival)).unwrap()
    }

    #[test]
    fn an_event_has_the_fields_of_format_2_0() {
        let request = Request::get("/api/bucket/a%20b?q=1%202&q=3&empty")
            .header("Host", "api.example.com:3000")
            .header("User-Agent", "curl/8")
            .header("X-Twice", "1")
            .header("X-Twice", "2")
            .header("X-Forwarded-For", "6.6.6.6")
            .header("Connection", "keep-alive")
            .header("Cookie", "a=1; b=2")
            .header("Content-Type", "application/json; charset=utf-8");

        let mut event = event(request, b"{}", &[("id", "a b")]);

        let trace = event["headers"].as_object_mut().unwrap().remove("x-amzn-trace-id").unwrap();
        assert!(trace.as_str().unwrap().starts_with("Root=1-6b0541d6-"), "{trace}");
        assert_eq!(
            event,
            json!({
                "version": "2.0",
                "routeKey": "GET /api/bucket/{id}",
                "rawPath": "/api/bucket/a b",
                "rawQueryString": "q=1%202&q=3&empty",
                "cookies": ["a=1", "b=2"],
                "headers": {
                    "content-type": "application/json; charset=utf-8",
                    "host": "api.example.com:3000",
                    "user-agent": "curl/8",
                    "x-twice": "1,2",
                    "x-forwarded-for": "127.0.0.1",
                    "x-forwarded-port": "3000",
                    "x-forwarded-proto": "http",
                },
                "queryStringParameters": { "q": "1 2,3", "empty": "" },
                "requestContext": {
                    "accountId": "000000000000",
                    "apiId": "local",
                    "domainName": "api.example.com",
                    "domainPrefix": "api",
                    "http": {
                        "method": "GET",
                        "path": "/api/bucket/a b",
                        "protocol": "HTTP/1.1",
                        "sourceIp": "127.0.0.1",
                        "userAgent": "curl/8",
                    },
                    "requestId": "cHJldHR5cmFuZG9t",
                    "routeKey": "GET /api/bucket/{id}",
                    "stage": "$default",
                    "time": "24/Nov/2026:07:50:46 +0000",
                    "timeEpoch": 1_795_506_646_007_i64,
                },
                "pathParameters": { "id": "a b" },
                "body": "{}",
                "isBase64Encoded": false,
            })
        );
    }

    #[test]
    fn what_a_request_does_not_have_is_absent() {
        let event = event(Request::get("/"), b"", &[]);
        for field in ["cookies", "queryStringParameters", "pathParameters", "body"] {
            assert!(event.get(field).is_none(), "{field}");
        }
        assert_eq!(event["rawQueryString"], "");
    }

    #[test]
    fn only_text_travels_as_text() {
        for (content_type, body, expected) in [
            (Some("application/json"), &b"{}"[..], "{}"),
            (Some("application/problem+json"), b"{}", "{}"),
            (Some("TEXT/plain; charset=utf-8"), b"a", "a"),
            (Some("application/xml"), b"a", "a"),
            (Some("application/javascript"), b"a", "a"),
            (None, b"a", "a"),
            (Some("application/x-www-form-urlencoded"), b"a=b", "YT1i"),
            (Some("application/octet-stream"), b"a", "YQ=="),
            (Some("application/json"), b"\xff", "/w=="),
            (None, b"\xff", "/w=="),
        ] {
            let mut request = Request::post("/");
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let event = event(request, body, &[]);
            assert_eq!(event["body"], expected, "{content_type:?}");
            assert_eq!(event["isBase64Encoded"], expected.as_bytes() != body, "{content_type:?}");
        }
    }

    #[test]
    fn a_target_in_absolute_form_names_the_host() {
        let event = event(Request::get("http://api.example.com/a?b=c").header("Host", "other"), b"", &[]);
        assert_eq!(event["headers"]["host"], "api.example.com");
        assert_eq!(event["requestContext"]["domainName"], "api.example.com");
        assert_eq!(event["rawPath"], "/a");
        assert_eq!(event["rawQueryString"], "b=c");
    }

    #[test]
    fn an_invalid_escape_stays_as_it_is() {
        let event = event(Request::get("/%zz/%?%=%ff"), b"", &[]);
        assert_eq!(event["rawPath"], "/%zz/%");
        assert_eq!(event["queryStringParameters"], json!({ "%": "\u{fffd}" }));
    }
}
