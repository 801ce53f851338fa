//! From what a function returns to an HTTP response, payload format version 2.0.
//!
//! Source: "Lambda function response for format 2.0" in the API Gateway developer guide.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE, TRANSFER_ENCODING};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

/// A response in the form that names a status.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Structured {
    status_code: u16,
    #[serde(default)]
    headers: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    cookies: Option<Vec<String>>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// The response that `payload` stands for. The error says why it stands for none.
pub(super) fn from_function(payload: Bytes) -> Result<Response, String> {
    let value: Value =
        serde_json::from_slice(&payload).map_err(|error| format!("the response is not JSON: {error}"))?;
    if value.get("statusCode").is_none() {
        // Anything else is the body of a success.
        let mut response = Response::new(Body::from(payload));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(response);
    }

    structured(value)
}

/// The response that `payload` stands for in a WebSocket API, which takes only the form that names a status.
pub(super) fn with_status(payload: &[u8]) -> Result<Response, String> {
    let value: Value =
        serde_json::from_slice(payload).map_err(|error| format!("the response is not JSON: {error}"))?;
    structured(value)
}

fn structured(value: Value) -> Result<Response, String> {
    let structured: Structured =
        serde_json::from_value(value).map_err(|error| format!("the response is malformed: {error}"))?;
    let Structured { status_code, headers, cookies, body, is_base64_encoded } = structured;
    let body = body.unwrap_or_default();
    let body = if is_base64_encoded {
        BASE64_STANDARD
            .decode(body)
            .map_err(|error| format!("the body of the response is not base64: {error}"))?
    } else {
        body.into_bytes()
    };

    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status_code)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
        .ok_or_else(|| format!("the response has the status {status_code}"))?;
    let map = response.headers_mut();
    // As an HTTP API does for a function that names no type.
    map.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    for (name, value) in headers.unwrap_or_default() {
        let value = match value {
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(format!("the header `{name}` of the response is not text"));
            }
        };
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) else {
            return Err(format!("the header `{name}` of the response is not valid"));
        };
        // The gateway frames the message itself.
        if ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
            map.insert(name, value);
        }
    }
    for cookie in cookies.unwrap_or_default() {
        let cookie =
            HeaderValue::from_str(&cookie).map_err(|error| format!("a cookie of the response: {error}"))?;
        map.append(SET_COOKIE, cookie);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn respond(payload: &Value) -> (StatusCode, axum::http::HeaderMap, Bytes) {
        let response = from_function(payload.to_string().into()).unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, axum::body::to_bytes(body, usize::MAX).await.unwrap())
    }

    #[tokio::test]
    async fn a_structured_response_is_taken_over() {
        let (status, headers, body) = respond(&json!({
            "statusCode": 201,
            "headers": { "Content-Type": "application/json", "x-count": 3, "content-length": "999" },
            "multiValueHeaders": {},
            "cookies": ["a=1; HttpOnly", "b=2"],
            "body": "{}",
            "isBase64Encoded": false,
        }))
        .await;

        assert_eq!(status, StatusCode::CREATED);
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-count"], "3");
        assert!(!headers.contains_key("content-length"));
        assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1; HttpOnly", "b=2"]);
        assert_eq!(body, "{}");
    }

    #[tokio::test]
    async fn a_base64_body_is_decoded() {
        let (_, _, body) =
            respond(&json!({ "statusCode": 200, "body": "/w==", "isBase64Encoded": true })).await;
        assert_eq!(body, &b"\xff"[..]);
    }

    #[tokio::test]
    async fn json_without_a_status_is_the_body_of_a_success() {
        for payload in [json!({ "message": "hello" }), json!("hello"), json!([1])] {
            let (status, headers, body) = respond(&payload).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(headers["content-type"], "application/json");
            assert_eq!(body, payload.to_string());
        }
    }

    #[test]
    fn a_malformed_response_is_none() {
        for payload in [
            "",
            "no json",
            r#"{"statusCode":"x"}"#,
            r#"{"statusCode":null}"#,
            r#"{"statusCode":99}"#,
            r#"{"statusCode":101}"#,
            r#"{"statusCode":700}"#,
            r#"{"statusCode":200,"body":{}}"#,
            r#"{"statusCode":200,"body":"?","isBase64Encoded":true}"#,
            r#"{"statusCode":200,"headers":{"a b":"c"}}"#,
            r#"{"statusCode":200,"headers":{"a":"b\nc"}}"#,
            r#"{"statusCode":200,"headers":{"a":["b"]}}"#,
            r#"{"statusCode":200,"cookies":["a\n"]}"#,
        ] {
            assert!(from_function(Bytes::from(payload)).is_err(), "{payload}");
        }
    }
}
