//! The whole stack over HTTP, with the example `misbehaving` for a function.
#![expect(clippy::panic, clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

mod page;
mod permissions;
mod stream;
mod websocket;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use local::{Data, Options, Stack, StartError, client};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long what follows a request may take.
const LIMIT: Duration = Duration::from_secs(20);

const TEMPLATE: &str = r#"
Transform: AWS::Serverless-2016-10-31
Parameters:
  OidcIssuer: { Type: String }
  OidcAudience: { Type: String }
  OidcClientId: { Type: String }
  Timeout: { Type: Number, Default: 3 }
Resources:
  Api:
    Type: AWS::Serverless::HttpApi
    Properties:
      CorsConfiguration:
        AllowOrigins: [https://app.example]
        AllowMethods: [GET, POST]
        AllowHeaders: [authorization]
        ExposeHeaders: [date, etag]
        MaxAge: 60
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{ AttributeName: pk, AttributeType: S }]
      KeySchema: [{ AttributeName: pk, KeyType: HASH }]
  MisbehavingFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: target/lambda/misbehaving/
      Timeout: !Ref Timeout
      Environment:
        Variables:
          OIDC_ISSUER: !Ref OidcIssuer
          TABLE_NAME: !Ref Table
      Events:
        One: { Type: HttpApi, Properties: { Method: ANY, Path: "/things/{id}" } }
        All: { Type: HttpApi, Properties: { Method: GET, Path: "/files/{proxy+}" } }
"#;

/// A stack in a folder of its own, and what it logged.
struct Local {
    stack: Stack,
    lines: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

/// The folder of the examples, which `cargo test` builds unless it is asked for less.
fn examples() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap().parent().unwrap().join("examples");
    assert!(folder.join("misbehaving").is_file(), "run `cargo build -p local --examples` first");
    folder
}

fn options(folder: &Path, lines: &Arc<Mutex<Vec<String>>>) -> Options {
    let template = folder.join("template.yaml");
    std::fs::write(&template, TEMPLATE).unwrap();
    let lines = Arc::clone(lines);
    Options {
        template,
        binaries: examples(),
        data: Data::Memory,
        address: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
        dynamodb_port: 0,
        parameters: BTreeMap::new(),
        secrets: BTreeMap::new(),
        logs: Arc::new(move |function, line| lines.lock().unwrap().push(format!("{function} | {line}"))),
        functions_dynamodb: None,
    }
}

impl Local {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let folder = TempDir::new().unwrap();
        let lines = Arc::default();
        let mut options = options(folder.path(), &lines);
        change(&mut options);
        Self { stack: Stack::start(options).await.unwrap(), lines, folder }
    }

    async fn send(&self, request: axum::http::request::Builder, body: impl Into<Bytes>) -> Response<Bytes> {
        let request = request.body(body.into()).unwrap();
        let (mut parts, body) = request.into_parts();
        parts.uri = format!("{}{}", self.stack.origin(), parts.uri).parse().unwrap();
        client::send(Request::from_parts(parts, body)).await.unwrap()
    }

    async fn get(&self, path: &str) -> Response<Bytes> {
        self.send(Request::get(path), "").await
    }

    /// Sends exactly `bytes`, and reads until the stack closes.
    async fn send_raw(&self, bytes: &[u8]) -> String {
        Self::send_raw_to(self.stack.origin(), bytes).await
    }

    /// The same, to the server at another `origin` of the stack.
    async fn send_raw_to(origin: &str, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(origin.trim_start_matches("http://")).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn logged(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

fn body(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_else(|_| panic!("{response:?}"))
}

/// The events that the function has had.
fn events(local: &Local) -> Vec<Value> {
    let lines = local.logged();
    let events = lines.iter().filter_map(|line| line.strip_prefix("misbehaving | event "));
    events.map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// The lines that say `what`.
fn told(local: &Local, what: &str) -> Vec<String> {
    local.logged().into_iter().filter(|line| line.contains(what)).collect()
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to be");
}

#[tokio::test]
async fn a_request_reaches_the_function_as_an_event() {
    let local = Local::start().await;

    let response = local
        .send(
            Request::post("/things/a%20b?tag=x&tag=y")
                .header("Cookie", "s=1")
                .header("content-type", "text/plain"),
            "hello",
        )
        .await;

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["apigw-requestid"].len(), 16);
    assert!(response.headers().contains_key("date"));
    let event = body(&response);
    assert_eq!(event["version"], "2.0");
    assert_eq!(event["routeKey"], "ANY /things/{id}");
    assert_eq!(event["rawPath"], "/things/a b");
    assert_eq!(event["pathParameters"], json!({ "id": "a b" }));
    assert_eq!(event["queryStringParameters"], json!({ "tag": "x,y" }));
    assert_eq!(event["cookies"], json!(["s=1"]));
    assert_eq!(event["body"], "hello");
    assert_eq!(event["isBase64Encoded"], false);
    assert_eq!(event["requestContext"]["http"]["method"], "POST");
    assert_eq!(event["requestContext"]["http"]["sourceIp"], "127.0.0.1");
    let port = local.stack.origin().rsplit(':').next().unwrap();
    assert_eq!(event["headers"]["x-forwarded-port"], port);
    assert_eq!(event["requestContext"]["requestId"], response.headers()["apigw-requestid"].to_str().unwrap());
}

#[tokio::test]
async fn a_target_in_absolute_form_is_routed_like_any_other() {
    let local = Local::start().await;

    let answer = local
        .send_raw(
            b"GET http://api.example.com/things/7?a=b HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n",
        )
        .await;

    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let event: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(event["pathParameters"], json!({ "id": "7" }));
    assert_eq!(event["requestContext"]["domainName"], "api.example.com");
    assert_eq!(event["rawQueryString"], "a=b");
}

#[tokio::test]
async fn a_path_without_a_route_is_404_of_the_gateway() {
    let local = Local::start().await;
    for path in ["/", "/things", "/things/", "/things/1/2", "/_local/unknown"] {
        let response = local.get(path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(body(&response), json!({ "message": "Not Found" }));
        assert!(response.headers().contains_key("apigw-requestid"));
    }
    assert_eq!(body(&local.get("/files/").await)["pathParameters"], json!({ "proxy": "" }));
    assert_eq!(local.stack.instances_started("misbehaving"), 1);
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    let local = Local::start().await;
    let response = local.send(Request::head("/things/1"), "").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.body().is_empty());
}

#[tokio::test]
async fn a_structured_response_decides_status_headers_cookies_and_body() {
    let local = Local::start().await;
    let payload = json!({
        "statusCode": 418,
        "headers": { "content-type": "text/plain", "etag": "\"1\"" },
        "cookies": ["a=1", "b=2"],
        "body": "aGk=",
        "isBase64Encoded": true,
    });
    let response = local.get(&format!("/things/1?do=return:{}", encode(&payload))).await;

    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.headers()["etag"], "\"1\"");
    assert_eq!(response.headers().get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(response.body(), "hi");
}

/// JSON as the value of a query parameter.
fn encode(value: &Value) -> String {
    value.to_string().bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"))
}

#[tokio::test]
async fn every_failure_of_a_function_is_500_and_logged_once() {
    let malformed = encode(&json!({ "statusCode": "many" }));
    for (action, reason) in [
        ("fail:no%20bucket".to_owned(), "no bucket"),
        ("exit:7".to_owned(), "Runtime.ExitError: the process ended before it answered (exit status: 7)"),
        ("sleep:60000".to_owned(), "Task timed out after 1.00 seconds"),
        ("large:7000000".to_owned(), "Function.ResponseSizeTooLarge"),
        (format!("return:{malformed}"), "the response is malformed"),
    ] {
        let one_second = BTreeMap::from([("Timeout".to_owned(), "1".to_owned())]);
        let local = Local::start_with(|options| options.parameters = one_second).await;

        let response = local.get(&format!("/things/1?do={action}")).await;

        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{action}");
        assert_eq!(body(&response), json!({ "message": "Internal Server Error" }));
        let logged = local.logged();
        // The runtime of the function may have written about its error as well.
        let gateway: Vec<_> = logged
            .iter()
            .filter(|line| line.starts_with("misbehaving | ") && line.contains(reason))
            .collect();
        assert_eq!(gateway.len(), 1, "{action}: {logged:?}");
        assert_eq!(local.get("/things/1").await.status(), StatusCode::OK, "{action}: it recovers");
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_reaches_no_function() {
    let local = Local::start().await;

    let response = local.send(Request::post("/things/1"), vec![b'x'; 10 * 1024 * 1024 + 1]).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(body(&response), json!({ "message": "Request Entity Too Large" }));

    // Within the gateway's limit, beyond that of Lambda.
    let response = local.send(Request::post("/things/1"), vec![b'x'; 7_000_000]).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(body(&response), json!({ "message": "Request Too Long" }));

    let response = local.send(Request::get("/things/1").header("x-long", "x".repeat(10_240)), "").await;
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);

    assert_eq!(local.stack.instances_started("misbehaving"), 0);
    let response = local.send(Request::get("/things/1").header("x-long", "x".repeat(10_000)), "").await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_without_a_host_or_with_one_that_cannot_be_is_refused() {
    let local = Local::start().await;
    for head in ["", "Host: a b\r\n", "Host: a\r\nHost: a\r\n"] {
        let request = format!("GET /things/1 HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
        let answer = local.send_raw(request.as_bytes()).await;
        assert!(answer.contains(" 400 Bad Request"), "{head}: {answer}");
    }
    assert_eq!(local.stack.instances_started("misbehaving"), 0);

    // Odd, and yet one.
    let answer =
        local.send_raw(b"GET /things/1 HTTP/1.1\r\nHost: 1.2.3.4.5\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains(r#""domainName":"1.2.3.4.5""#), "{answer}");
    // HTTP/1.0 demands none.
    let answer = local.send_raw(b"GET /things/1 HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains(r#""domainName":"127.0.0.1""#), "{answer}");
}

#[tokio::test]
async fn invalid_escapes_reach_the_function_as_they_are() {
    let local = Local::start().await;
    let event = body(&local.get("/things/%zz%?a=%").await);
    assert_eq!(event["pathParameters"], json!({ "id": "%zz%" }));
    assert_eq!(event["queryStringParameters"], json!({ "a": "%" }));
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_function() {
    let local = Local::start().await;
    let preflight = || {
        Request::builder()
            .method(Method::OPTIONS)
            .uri("/things/1")
            .header("access-control-request-method", "POST")
    };

    let allowed = local.send(preflight().header("origin", "https://app.example"), "").await;
    assert_eq!(allowed.status(), StatusCode::NO_CONTENT);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://app.example");
    assert_eq!(allowed.headers()["access-control-allow-methods"], "GET,POST");
    assert_eq!(allowed.headers()["access-control-allow-headers"], "authorization");
    assert_eq!(allowed.headers()["access-control-max-age"], "60");

    let other = local.send(preflight().header("origin", "https://other.example"), "").await;
    assert_eq!(other.status(), StatusCode::NO_CONTENT);
    assert!(!other.headers().contains_key("access-control-allow-origin"));
    assert_eq!(local.stack.instances_started("misbehaving"), 0);

    // Without both headers it is a request like any other.
    let options = local.send(Request::builder().method(Method::OPTIONS).uri("/things/1"), "").await;
    assert_eq!(options.status(), StatusCode::OK);
}

#[tokio::test]
async fn every_answer_to_an_allowed_origin_may_be_read() {
    let local = Local::start().await;
    let own = encode(
        &json!({ "statusCode": 200, "headers": { "access-control-allow-origin": "https://mine.example" } }),
    );
    for path in ["/things/1", "/nowhere", "/things/1?do=exit:1", &format!("/things/1?do=return:{own}")] {
        let response = local.send(Request::get(path).header("origin", "https://app.example"), "").await;
        assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example", "{path}");
        assert_eq!(response.headers()["access-control-expose-headers"], "date,etag", "{path}");

        let response = local.send(Request::get(path).header("origin", "https://other.example"), "").await;
        assert!(!response.headers().contains_key("access-control-allow-origin"), "{path}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_the_function() {
    let local = Local::start().await;
    local.get("/things/1").await;
    let mut stream = TcpStream::connect(local.stack.origin().trim_start_matches("http://")).await.unwrap();
    stream.write_all(b"GET /things/1?do=sleep:300 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(400)).await;

    local.get("/things/1").await;

    assert_eq!(local.stack.instances_started("misbehaving"), 1, "the same instance went on");
    assert_eq!(local.logged(), [""; 0]);
}

#[tokio::test]
async fn a_body_that_is_not_as_http_has_it_is_a_bad_request() {
    let local = Local::start().await;
    let head = "POST /things HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";

    let answer = local.send_raw(format!("{head}nonsense\r\n").as_bytes()).await;

    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn the_stack_says_that_it_is_ready() {
    let local = Local::start().await;
    let response = local.get("/_local/health").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(body(&response), json!({ "status": "ready" }));
}

#[tokio::test]
async fn the_endpoints_in_the_environment_are_those_of_the_stack() {
    let local = Local::start().await;

    let answer = local.stack.invoke("misbehaving", br#"{"do":"context"}"#.to_vec()).await.unwrap();

    let environment = serde_json::from_slice::<Value>(&answer).unwrap()["environment"].take();
    assert_eq!(environment["AWS_ENDPOINT_URL_DYNAMODB"], local.stack.dynamodb_endpoint());
    assert_eq!(environment["TABLE_NAME"], local.stack.table_name());
    assert_eq!(environment["OIDC_ISSUER"], local.stack.identity().issuer());
    let mail = environment["AWS_ENDPOINT_URL_SESV2"].as_str().unwrap();
    let request = Request::post(format!("{mail}/v2/email/outbound-emails")).body("{}").unwrap();
    assert_eq!(client::send(request).await.unwrap().status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn parameters_that_stand_for_the_stack_have_its_values_unless_they_are_given() {
    let declared = TEMPLATE.replace(
        "  Timeout: {",
        "  PublicOrigin: { Type: String }\n  MailFrom: { Type: String }\n  MailLinkBase: { Type: String, Default: \"\" }\n  Timeout: {",
    );
    let start = async |given: &[(&str, &str)]| {
        Local::start_with(|options| {
            std::fs::write(&options.template, &declared).unwrap();
            let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            options.parameters = given.collect();
        })
        .await
    };

    let local = start(&[]).await;
    let parameters = &local.stack.template().parameters;
    assert_eq!(parameters["OidcIssuer"], local.stack.identity().issuer());
    assert_eq!(parameters["PublicOrigin"], local.stack.origin());
    assert_eq!(parameters["MailFrom"], "bucket-api@example.com");
    assert_eq!(parameters["MailLinkBase"], local.stack.page());
    assert_eq!(local.stack.page(), format!("{}/_local/", local.stack.origin()));

    let local = start(&[("MailFrom", "me@example.com"), ("MailLinkBase", "")]).await;
    let parameters = &local.stack.template().parameters;
    assert_eq!(parameters["MailFrom"], "me@example.com");
    assert_eq!(parameters["MailLinkBase"], "");
}

#[tokio::test]
async fn two_stacks_live_side_by_side() {
    let (one, two) = (Local::start().await, Local::start().await);
    assert_ne!(one.stack.origin(), two.stack.origin());
    one.stack.stop().await;
    assert_eq!(two.get("/things/1").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn nothing_of_a_stack_is_left_after_a_stop() {
    let local = Local::start().await;
    let context = local.stack.invoke("misbehaving", br#"{"do":"context"}"#.to_vec()).await.unwrap();
    let process = serde_json::from_slice::<Value>(&context).unwrap()["pid"].clone();
    let (origin, database) = (local.stack.origin().to_owned(), local.stack.dynamodb_endpoint().to_owned());

    local.stack.stop().await;

    assert!(!Path::new(&format!("/proc/{process}")).exists());
    for url in [origin, database] {
        assert!(TcpStream::connect(url.trim_start_matches("http://")).await.is_err(), "{url}");
    }
}

#[tokio::test]
async fn a_stack_that_is_dropped_leaves_no_process() {
    let local = Local::start().await;
    let context = local.stack.invoke("misbehaving", br#"{"do":"context"}"#.to_vec()).await.unwrap();
    let process = serde_json::from_slice::<Value>(&context).unwrap()["pid"].clone();
    drop(local.stack);
    for _ in 0..500 {
        if !Path::new(&format!("/proc/{process}")).exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {process} is still there");
}

#[tokio::test]
async fn data_and_key_survive_a_restart_and_are_one_stacks_at_a_time() {
    let data = TempDir::new().unwrap();
    let directory = Data::Directory(data.path().join("made"));
    let local = Local::start_with(|options| options.data = directory.clone()).await;
    let (status, _) =
        dynamodb(&local, "PutItem", &json!({ "TableName": "Table", "Item": { "pk": { "S": "a" } } })).await;
    assert_eq!(status, StatusCode::OK);
    let keys = local.get("/_local/oidc/jwks").await;

    let mut second = options(local.folder.path(), &Arc::default());
    second.data = directory.clone();
    let refused = Stack::start(second).await.unwrap_err();
    assert!(matches!(refused, StartError::DataInUse { .. }), "{refused}");

    local.stack.stop().await;
    let local = Local::start_with(|options| options.data = directory).await;
    let (_, answer) =
        dynamodb(&local, "GetItem", &json!({ "TableName": "Table", "Key": { "pk": { "S": "a" } } })).await;
    assert_eq!(answer["Item"], json!({ "pk": { "S": "a" } }));
    assert_eq!(local.get("/_local/oidc/jwks").await.body(), keys.body());
}

async fn dynamodb(local: &Local, operation: &str, request: &Value) -> (StatusCode, Value) {
    let target = format!("DynamoDB_20120810.{operation}");
    call(local.stack.dynamodb_endpoint(), "local", &target, request).await
}

/// Sends `request` to `url` as the AWS SDK does with the credentials `key`.
async fn call(url: &str, key: &str, target: &str, request: &Value) -> (StatusCode, Value) {
    let request = Request::post(url)
        .header("x-amz-target", target)
        .header("content-type", "application/x-amz-json-1.0")
        .header("authorization", format!("AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/any/aws4_request, SignedHeaders=host, Signature=0"))
        .header("x-amz-date", "20260101T000000Z")
        .body(request.to_string())
        .unwrap();
    let response = client::send(request).await.unwrap();
    (response.status(), body(&response))
}

#[tokio::test]
async fn what_keeps_a_stack_from_starting_is_said_in_one_line() {
    let folder = TempDir::new().unwrap();
    let start = async |change: &dyn Fn(&mut Options)| {
        let mut options = options(folder.path(), &Arc::default());
        change(&mut options);
        Stack::start(options).await.unwrap_err().to_string()
    };

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    assert_eq!(
        start(&|options| options.address.set_port(port)).await,
        format!("port {port} is in use: stop what listens there or choose another with --port")
    );

    let error = start(&|options| options.template = "/nowhere.yaml".into()).await;
    assert!(error.starts_with("cannot read the template /nowhere.yaml: "), "{error}");

    let error = start(&|options| options.binaries = "/nowhere".into()).await;
    assert_eq!(
        error,
        "the function `MisbehavingFunction` of the template has no binary /nowhere/misbehaving: build it, or \
         correct its CodeUri"
    );

    let error = start(&|options| options.data = Data::Directory("/dev/null/x".into())).await;
    assert!(error.starts_with("cannot keep data in /dev/null/x: "), "{error}");
}
