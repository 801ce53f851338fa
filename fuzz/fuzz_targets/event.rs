//! Requests on their way to a function. An input that begins with `{` is the event of a gateway; any other is a
//! request in HTTP's own words, which the local gateway makes an event of.

#![no_main]

use std::{collections::BTreeMap, sync::LazyLock};

use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use libfuzzer_sys::fuzz_target;
use local::template::{Source, Template};
use serde_json::{Map, Value};
use shared::{
    domain::{BucketId, Email},
    http::Request,
};

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let source = Source::parse(include_str!("../../template.yaml")).expect("a template");
    let parameters = [
        ("OidcIssuer", "http://127.0.0.1"),
        ("OidcAudience", "a"),
        ("OidcClientId", "a"),
        ("MailFrom", "a@example.com"),
        ("AgentOrigin", "ws://127.0.0.1/agents"),
    ];
    let parameters: BTreeMap<_, _> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    source.evaluate(&parameters).expect("the template is good")
});

/// Reads `request` as the functions do.
fn read(request: &Request) {
    let id = request.path_parameter("id");
    if let Some(id) = id
        && let Ok(parsed) = BucketId::try_from(id.to_owned())
    {
        assert_eq!(parsed.as_str(), id);
        assert!(id.len() == 24 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    }
    for name in ["email", "bucket", ""] {
        let _ = request.query_parameter(name).map(|email| Email::parse(&email));
        let _ = request.path_parameter(name).map(Email::parse);
    }
    assert!(request.origin(None).starts_with("https://"));
    assert_eq!(request.origin(Some("https://api.example.com")), "https://api.example.com");
    for name in ["authorization", "content-type", "stripe-signature"] {
        let _ = request.header(name);
    }
    let _ = (request.address(), request.domain(), request.route());
    let is_small = match request.bytes(Request::MAX_BODY_BYTES) {
        Ok(bytes) => {
            assert!(bytes.len() <= Request::MAX_BODY_BYTES);
            true
        }
        Err(problem) => {
            assert!(matches!(problem.status().as_u16(), 400 | 413), "{problem:?}");
            false
        }
    };
    match request.json_body::<Map<String, Value>>() {
        Ok(_) => assert!(is_small),
        Err(problem) => assert!(matches!(problem.status().as_u16(), 400 | 413 | 415), "{problem:?}"),
    }
}

fuzz_target!(|input: &[u8]| {
    if input.starts_with(b"{") {
        if let Ok(event) = serde_json::from_slice::<ApiGatewayV2httpRequest>(input) {
            read(&Request::from(event));
        }
        return;
    }
    let Some(sent) = fuzz::request(input) else { return };
    let (head, body) = (sent.headers().clone(), sent.body().clone());
    let query = sent.uri().query().unwrap_or_default().to_owned();
    let Some((function, event)) = local::fuzzing::event(&TEMPLATE, sent) else { return };

    let event: ApiGatewayV2httpRequest = serde_json::from_slice(&event).expect("a function can read it");
    let request = Request::from(event);
    read(&request);
    let routes = TEMPLATE.functions.iter().find(|known| known.name == function).map(|known| &known.routes);
    assert!(routes.is_some_and(|routes| routes.iter().any(|route| route.to_string() == request.route())));
    // It arrives as it was sent.
    assert_eq!(&*request.bytes(usize::MAX).ok().expect("a body"), &body[..]);
    for name in ["authorization", "content-type", "x-a"] {
        let mut sent = head.get_all(name).iter();
        if let (Some(value), None) = (sent.next(), sent.next())
            && let Ok(value) = value.to_str()
        {
            assert_eq!(request.header(name), Some(value));
        }
    }
    if let Some(value) = query.strip_prefix("email=")
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        assert_eq!(request.query_parameter("email").as_deref(), Some(value));
    }
});
