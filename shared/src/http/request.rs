//! Requests, taken from the events of an API Gateway HTTP API (payload format 2.0).

use std::{borrow::Cow, fmt, net::IpAddr};

use base64::Engine;
use lambda_http::{
    aws_lambda_events::apigw::ApiGatewayV2httpRequest,
    http::{HeaderMap, header::CONTENT_TYPE},
};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{FieldError, Problem};

/// A request as API Gateway hands it over. Its `Debug` shows no header, path, query or body: they
/// hold tokens and addresses.
pub struct Request {
    headers: HeaderMap,
    path_parameters: Vec<(String, String)>,
    query: String,
    route: String,
    domain: Option<String>,
    address: Option<IpAddr>,
    body: Option<String>,
    body_is_base64: bool,
}

impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Request").field("route", &self.route).finish_non_exhaustive()
    }
}

impl From<ApiGatewayV2httpRequest> for Request {
    fn from(event: ApiGatewayV2httpRequest) -> Self {
        Self {
            headers: event.headers,
            path_parameters: event.path_parameters.into_iter().collect(),
            query: event.raw_query_string.unwrap_or_default(),
            route: event.route_key.unwrap_or_default(),
            domain: event.request_context.domain_name,
            address: event.request_context.http.source_ip.and_then(|address| address.parse().ok()),
            body: event.body,
            body_is_base64: event.is_base64_encoded,
        }
    }
}

impl Request {
    /// The largest body that is read, in bytes: nothing that a route takes comes near it.
    pub const MAX_BODY_BYTES: usize = 64 * 1024;

    /// The route that matched, such as `GET /api/bucket/{id}`.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.route
    }

    /// The domain that the request was sent to.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// The address that the request came from, as API Gateway saw it.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The origin that clients reach this API at: `configured`, or the domain that the request was sent
    /// to, since API Gateway speaks HTTPS alone and routes by it.
    #[must_use]
    pub fn origin(&self, configured: Option<&str>) -> String {
        match (configured, self.domain()) {
            (Some(origin), _) => origin.to_owned(),
            (None, domain) => format!("https://{}", domain.unwrap_or("localhost")),
        }
    }

    /// The decoded value of `{name}` in the route's path.
    #[must_use]
    pub fn path_parameter(&self, name: &str) -> Option<&str> {
        self.path_parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The decoded value of `name` in the query, the first where it is repeated.
    #[must_use]
    pub fn query_parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// The value of the header `name`; where it was repeated, API Gateway has joined the values.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body, to the byte as it was sent.
    ///
    /// # Errors
    /// 413 over `max` bytes, 400 where the gateway's base64 is none.
    pub fn bytes(&self, max: usize) -> Result<Cow<'_, [u8]>, Problem> {
        let body = self.body.as_deref().unwrap_or_default();
        if body.len() > if self.body_is_base64 { max.div_ceil(3).saturating_mul(4) } else { max } {
            return Err(Problem::body_too_large(max));
        }
        let bytes: Cow<'_, [u8]> = if self.body_is_base64 {
            base64::engine::general_purpose::STANDARD
                .decode(body)
                .map_err(|_undecodable| Problem::invalid_body("the body is not valid base64"))?
                .into()
        } else {
            body.as_bytes().into()
        };
        if bytes.len() > max { Err(Problem::body_too_large(max)) } else { Ok(bytes) }
    }

    /// The JSON body.
    ///
    /// Only routes that need a body ask for it: the published clients send one (`{}`) with every
    /// `GET` and `DELETE` too. Unknown fields are ignored.
    ///
    /// # Errors
    /// 413 over [`Self::MAX_BODY_BYTES`], 415 for another content type than JSON (a charset or a
    /// structured suffix is fine), 400 naming the field for anything that is not a `T`.
    pub fn json_body<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let bytes = self.bytes(Self::MAX_BODY_BYTES);
        if let (Ok(_), Some(content_type)) = (&bytes, self.headers.get(CONTENT_TYPE))
            && !content_type.to_str().is_ok_and(is_json)
        {
            return Err(Problem::unsupported_media_type());
        }
        parse(&bytes?)
    }
}

/// `application/json` or a type with its suffix (RFC 6839 3.1), with any parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {}
        Some(_) => return Err(Problem::invalid_body("the body must be a JSON object")),
        None => {
            return Err(Problem::invalid_body("the body is empty: send a JSON object"));
        }
    }
    // Well-formed or not is one question, as it must be another: serde_json asks both at once, and calls
    // a number in the place of a name a syntax error.
    serde_json::from_slice::<IgnoredAny>(body)
        .map_err(|error| Problem::invalid_body(&format!("the body is not valid JSON: {error}")))?;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let message = without_position(&error.into_inner().to_string());
        let message = if message == "expected value" { "is of the wrong type".to_owned() } else { message };
        let (field, detail) = of_parent(&message).unwrap_or((path, message));
        Problem::invalid_input(vec![FieldError::new(field, detail)])
    })
}

/// `message` without the place that `serde_json` appends, which says nothing to who sent a field.
fn without_position(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(before, _)| before).to_owned()
}

/// Field and detail of the messages of serde whose path is that of the field's parent.
fn of_parent(message: &str) -> Option<(String, String)> {
    [("missing field `", "is missing"), ("duplicate field `", "is given twice")].into_iter().find_map(
        |(prefix, detail)| {
            let field = message.strip_prefix(prefix)?.strip_suffix('`')?;
            Some((field.to_owned(), detail.to_owned()))
        },
    )
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::domain::{BucketName, Comment, Configuration, Role};

    #[derive(Debug, Deserialize)]
    struct Input {
        name: BucketName,
        comment: Option<Comment>,
        configuration: Option<Configuration>,
        role: Option<Role>,
    }

    fn request(content_type: Option<&str>, body: &str, base64: bool) -> Request {
        let mut headers = serde_json::Map::new();
        if let Some(content_type) = content_type {
            headers.insert("content-type".to_owned(), content_type.into());
        }
        let event: ApiGatewayV2httpRequest = serde_json::from_value(json!({
            "version": "2.0",
            "routeKey": "POST /things",
            "rawPath": "/things",
            "headers": headers,
            "requestContext": { "http": { "method": "POST" } },
            "body": body,
            "isBase64Encoded": base64,
        }))
        .unwrap();
        event.into()
    }

    fn read(body: &str) -> Result<Input, (u16, String, Vec<String>)> {
        request(Some("application/json"), body, false).json_body().map_err(|problem: Problem| {
            (problem.status().as_u16(), problem.detail().to_owned(), problem.fields())
        })
    }

    #[test]
    fn a_good_body_is_read_and_unknown_fields_are_ignored() {
        let input =
            read(r#" {"name":"a","comment":null,"configuration":{"b":1.0},"owner_id":"x"} "#).unwrap();

        assert_eq!(input.name.as_str(), "a");
        assert_eq!((input.comment, input.role), (None, None));
        assert_eq!(input.configuration.unwrap().as_json(), r#"{"b":1.0}"#);
    }

    #[test]
    fn a_bad_field_is_named() {
        for (body, field, detail) in [
            ("{}", "name", "`name`: is missing"),
            (r#"{"name":null}"#, "name", "`name`: invalid type: null, expected a string"),
            (r#"{"name":5}"#, "name", "`name`: invalid type: integer `5`, expected a string"),
            (r#"{"name":" "}"#, "name", "`name`: must not be blank"),
            (r#"{"name":"a","name":"b"}"#, "name", "`name`: is given twice"),
            (
                r#"{"name":"a","comment":[]}"#,
                "comment",
                "`comment`: invalid type: sequence, expected a string",
            ),
            (
                r#"{"name":"a","configuration":1}"#,
                "configuration",
                "`configuration`: must be a text or an object",
            ),
        ] {
            assert_eq!(read(body).unwrap_err(), (400, detail.to_owned(), vec![field.to_owned()]), "{body}");
        }
    }

    #[test]
    fn what_is_not_a_json_object_is_refused_with_a_reason() {
        for (body, detail) in [
            ("", "the body is empty: send a JSON object"),
            ("null", "the body must be a JSON object"),
            ("[]", "the body must be a JSON object"),
            (
                "{\"name\":\"a\"",
                "the body is not valid JSON: EOF while parsing an object at line 1 column 11",
            ),
            ("{\"name\":\"a\"} x", "the body is not valid JSON: trailing characters at line 1 column 14"),
        ] {
            assert_eq!(read(body).unwrap_err(), (400, detail.to_owned(), vec![]), "{body}");
        }
        let deep = format!("{{\"x\":{}", "[".repeat(10_000));
        assert_eq!(read(&deep).unwrap_err().0, 400);
    }

    #[test]
    fn json_may_come_with_a_charset_a_suffix_or_no_content_type() {
        for content_type in [
            None,
            Some("application/json"),
            Some("application/json;charset=utf-8"),
            Some("Application/JSON ; charset=UTF-8"),
            Some("application/merge-patch+json"),
        ] {
            assert!(
                request(content_type, r#"{"name":"a"}"#, false).json_body::<Input>().is_ok(),
                "{content_type:?}"
            );
        }
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            let problem = request(Some(content_type), "{}", false).json_body::<Input>().unwrap_err();
            assert_eq!(problem.status().as_u16(), 415, "{content_type:?}");
        }
    }

    #[test]
    fn a_body_of_64_kib_is_the_largest_in_either_encoding() {
        let body = |bytes: usize| format!("{{\"name\":\"a\",\"x\":\"{}\"}}", "x".repeat(bytes - 19));
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let status = |body: &str, encoded| {
            request(None, body, encoded)
                .json_body::<Input>()
                .map_or_else(|problem| problem.status().as_u16(), |_| 200)
        };

        assert_eq!(body(100).len(), 100);
        for (bytes, expected) in [(65_536, 200), (65_537, 413), (1_000_000, 413)] {
            assert_eq!(status(&body(bytes), false), expected);
            assert_eq!(status(&base64(&body(bytes)), true), expected);
        }
        assert_eq!(status("%%%", true), 400);
    }

    #[test]
    fn a_body_may_be_read_without_a_bound() {
        for (body, encoded) in [("alice", false), ("YWxpY2U=", true)] {
            assert_eq!(&*request(None, body, encoded).bytes(usize::MAX).unwrap(), b"alice");
        }
    }

    #[test]
    fn a_request_does_not_show_what_it_carries() {
        let shown = format!("{:?}", request(None, "alice@example.com", false));

        assert_eq!(shown, "Request { route: \"POST /things\", .. }");
    }
}
