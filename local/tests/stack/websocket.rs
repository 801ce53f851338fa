//! The WebSocket API: connections as an agent makes them, and the function behind them.

use futures_util::{SinkExt, StreamExt};
use lambda_http::aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use local::WebSocketLimits;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;

const API: &str = r#"
  AgentApi:
    Type: AWS::ApiGatewayV2::Api
    Properties:
      Name: agents
      ProtocolType: WEBSOCKET
      RouteSelectionExpression: $request.body.action
  Integration:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref AgentApi
      IntegrationType: AWS_PROXY
      IntegrationUri: !Sub arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${MisbehavingFunction.Arn}/invocations
  Nothing:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref AgentApi
      IntegrationType: MOCK
      TemplateSelectionExpression: \$default
      RequestTemplates: { $default: '{"statusCode":200}' }
  ConnectRoute:
    Type: AWS::ApiGatewayV2::Route
    Properties: { ApiId: !Ref AgentApi, RouteKey: $connect, Target: !Join ["/", [integrations, !Ref Integration]] }
  DisconnectRoute:
    Type: AWS::ApiGatewayV2::Route
    Properties: { ApiId: !Ref AgentApi, RouteKey: $disconnect, Target: !Sub "integrations/${Integration}" }
  DefaultRoute:
    Type: AWS::ApiGatewayV2::Route
    Properties: { ApiId: !Ref AgentApi, RouteKey: $default, Target: !Sub "integrations/${Nothing}" }
  AgentStage:
    Type: AWS::ApiGatewayV2::Stage
    Properties: { ApiId: !Ref AgentApi, StageName: agents, AutoDeploy: true }
  Permission:
    Type: AWS::Lambda::Permission
    Properties:
      FunctionName: !Ref MisbehavingFunction
      Action: lambda:InvokeFunction
      Principal: apigateway.amazonaws.com
"#;

/// A stack with the WebSocket API, its template changed by `change`.
async fn start_changed(limits: WebSocketLimits, change: impl FnOnce(String) -> String) -> Local {
    let folder = TempDir::new().unwrap();
    let lines = Arc::default();
    let options = options(folder.path(), &lines);
    std::fs::write(&options.template, change(format!("{TEMPLATE}{API}"))).unwrap();
    Local { stack: Stack::start_limited(options, limits).await.unwrap(), lines, folder }
}

async fn start() -> Local {
    start_limited(WebSocketLimits::default()).await
}

async fn start_limited(limits: WebSocketLimits) -> Local {
    start_changed(limits, |template| template).await
}

/// A stack whose function does `action` at `$disconnect`.
async fn start_disconnecting(limits: WebSocketLimits, action: &str) -> Local {
    start_changed(limits, |template| {
        template.replace("TABLE_NAME: !Ref Table", &format!("DISCONNECT: '{action}'"))
    })
    .await
}

type Client = WebSocketStream<TcpStream>;

/// An answer that made no connection.
#[derive(Debug)]
struct Refused {
    status: u16,
    body: Value,
}

/// What an agent asks with: the `ws` library's headers and its own.
fn asking(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nX-KM-PUBLIC: public\r\nX-KM-SECRET: secret\r\nX-KM-SERVER: server-1\r\n\
         X-PM2-VERSION: 7.0.0\r\nX-PROTOCOL-VERSION: 1\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nHost: localhost:3000\r\n\r\n"
    )
}

async fn tcp(local: &Local) -> TcpStream {
    TcpStream::connect(local.stack.origin().trim_start_matches("http://")).await.unwrap()
}

/// Sends the request, and returns what is a connection from then on, with the head of the answer.
async fn shake_hands(mut stream: TcpStream, request: &str) -> Result<(Client, String), Refused> {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if status == 101 {
        // Larger than anything that a test sends.
        let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        return Ok((WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await, head));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    Err(Refused { status, body: serde_json::from_slice(&body).unwrap() })
}

/// A connection whose `$connect` does as `action` says.
async fn try_told(local: &Local, action: &str) -> Result<Client, Refused> {
    let action = action.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"));
    Ok(shake_hands(tcp(local).await, &asking(&format!("/agents?do={action}"))).await?.0)
}

async fn connect(local: &Local) -> Client {
    shake_hands(tcp(local).await, &asking("/agents")).await.unwrap().0
}

/// The events of the kind that the function has had.
fn kind(local: &Local, kind: &str) -> Vec<Value> {
    let mut events = events(local);
    events.retain(|event| event.pointer("/requestContext/eventType").is_some_and(|found| found == kind));
    events
}

/// The code and the reason of each `$disconnect`, once there are `count`.
async fn ends(local: &Local, count: usize) -> Vec<(Value, Value)> {
    eventually(|| kind(local, "DISCONNECT").len() >= count).await;
    assert!(local.stack.settled(LIMIT).await);
    let ends = kind(local, "DISCONNECT");
    assert_eq!(ends.len(), count, "{ends:?}");
    let end = |event: &Value| {
        let context = &event["requestContext"];
        (context["disconnectStatusCode"].clone(), context["disconnectReason"].clone())
    };
    ends.iter().map(end).collect()
}

/// The close frame that comes next, and then nothing.
async fn closed(client: &mut Client) -> (u16, String) {
    let next = tokio::time::timeout(LIMIT, client.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) = next else { panic!("{next:?}") };
    // Answers, and reads to the end.
    let rest = tokio::time::timeout(LIMIT, client.next()).await.unwrap();
    assert!(matches!(rest, None | Some(Err(Error::ConnectionClosed))), "{rest:?}");
    (code.into(), reason.to_string())
}

/// Closes as a client does, and returns when the gateway has answered.
async fn close(mut client: Client, frame: Option<CloseFrame>) {
    client.close(frame).await.unwrap();
    loop {
        match tokio::time::timeout(LIMIT, client.next()).await.unwrap() {
            Some(Ok(Message::Close(_))) => return,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Sends a ping, and returns when it has been answered, the next frame of the gateway being the answer.
async fn ping(client: &mut Client) {
    client.send(Message::Ping("are you there".into())).await.unwrap();
    let next = tokio::time::timeout(LIMIT, client.next()).await.unwrap();
    assert!(matches!(&next, Some(Ok(Message::Pong(payload))) if payload == "are you there"), "{next:?}");
}

fn frame(code: u16, reason: &str) -> CloseFrame {
    CloseFrame { code: code.into(), reason: reason.to_owned().into() }
}

fn limits(change: impl FnOnce(&mut WebSocketLimits)) -> WebSocketLimits {
    let mut limits = WebSocketLimits::default();
    change(&mut limits);
    limits
}

/// Checks and removes what is another each time. Returns the ids of the connection and of the request.
fn take_what_varies(event: &mut Value) -> (Value, Value) {
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let context = event.get_mut("requestContext").and_then(Value::as_object_mut).unwrap();
    let mut taken = |name: &str| context.remove(name).unwrap();
    for time in ["connectedAt", "requestTimeEpoch"] {
        let time = taken(time).as_i64().unwrap();
        assert!((now - 60_000..=now).contains(&time), "{time}");
    }
    assert!(taken("requestTime").as_str().unwrap().ends_with(" +0000"));
    let (connection, request) = (taken("connectionId"), taken("requestId"));
    assert_eq!(taken("extendedRequestId"), request);
    for id in [&connection, &request] {
        assert_eq!(id.as_str().unwrap().len(), 16, "{id}");
    }
    (connection, request)
}

#[tokio::test]
async fn functions_can_read_the_events_with_the_type_that_there_is_for_them() {
    let local = start().await;
    let (client, _) = shake_hands(tcp(&local).await, &asking("/agents?a=1&a=2")).await.unwrap();
    close(client, Some(frame(4001, "that is it"))).await;
    ends(&local, 1).await;

    let read = |event: Value| serde_json::from_value::<ApiGatewayWebsocketProxyRequest>(event).unwrap();
    let connect = read(kind(&local, "CONNECT").remove(0));
    let disconnect = read(kind(&local, "DISCONNECT").remove(0));

    assert_eq!(connect.headers["x-km-secret"], "secret");
    assert_eq!(connect.multi_value_headers["x-km-secret"], "secret");
    assert_eq!(connect.multi_value_query_string_parameters.all("a").unwrap(), ["1", "2"]);
    let (connect, disconnect) = (connect.request_context, disconnect.request_context);
    assert_eq!(connect.route_key.as_deref(), Some("$connect"));
    assert_eq!(connect.event_type.as_deref(), Some("CONNECT"));
    assert_eq!(connect.disconnect_status_code, None);
    assert!(connect.connection_id.is_some());
    assert_eq!(connect.connection_id, disconnect.connection_id);
    assert_eq!(connect.connected_at, disconnect.connected_at);
    assert!(disconnect.request_time_epoch >= connect.request_time_epoch);
    assert_eq!(disconnect.event_type.as_deref(), Some("DISCONNECT"));
    assert_eq!(disconnect.disconnect_status_code, Some(4001));
    assert_eq!(disconnect.disconnect_reason.as_deref(), Some("that is it"));
}

#[tokio::test]
async fn connect_and_disconnect_reach_the_function_in_the_form_of_aws() {
    let local = start().await;
    let port = local.stack.origin().rsplit(':').next().unwrap().to_owned();
    let request = asking("/agents?a=1&a=2&b=%20").replace(
        "Host:",
        "User-Agent: agent/7\r\nX-Twice: 1\r\nX-Twice: 2\r\nx-forwarded-for: 6.6.6.6\r\nHost:",
    );

    let (client, head) = shake_hands(tcp(&local).await, &request).await.unwrap();
    assert!(head.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    close(client, Some(frame(4001, "that is it"))).await;
    assert_eq!(ends(&local, 1).await, [(json!(4001), json!("that is it"))]);

    let mut events = events(&local);
    let ids: Vec<_> = events.iter_mut().map(take_what_varies).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0].0, ids[1].0, "the same connection");
    assert_ne!(ids[0].1, ids[1].1, "another request");
    let trace = events[0]["headers"]["X-Amzn-Trace-Id"].take();
    assert!(trace.as_str().unwrap().starts_with("Root=1-"));
    assert_eq!(events[0]["multiValueHeaders"]["X-Amzn-Trace-Id"].take(), json!([trace]));
    assert_eq!(
        events[0],
        json!({
            "headers": {
                "Host": "localhost:3000",
                "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version": "13",
                "User-Agent": "agent/7",
                "X-Amzn-Trace-Id": null,
                "X-Forwarded-For": "127.0.0.1",
                "X-Forwarded-Port": port,
                "X-Forwarded-Proto": "http",
                "X-KM-PUBLIC": "public",
                "X-KM-SECRET": "secret",
                "X-KM-SERVER": "server-1",
                "X-PM2-VERSION": "7.0.0",
                "X-PROTOCOL-VERSION": "1",
                "X-Twice": "2",
            },
            "multiValueHeaders": {
                "Host": ["localhost:3000"],
                "Sec-WebSocket-Extensions": ["permessage-deflate; client_max_window_bits"],
                "Sec-WebSocket-Key": ["dGhlIHNhbXBsZSBub25jZQ=="],
                "Sec-WebSocket-Version": ["13"],
                "User-Agent": ["agent/7"],
                "X-Amzn-Trace-Id": null,
                "X-Forwarded-For": ["127.0.0.1"],
                "X-Forwarded-Port": [port],
                "X-Forwarded-Proto": ["http"],
                "X-KM-PUBLIC": ["public"],
                "X-KM-SECRET": ["secret"],
                "X-KM-SERVER": ["server-1"],
                "X-PM2-VERSION": ["7.0.0"],
                "X-PROTOCOL-VERSION": ["1"],
                "X-Twice": ["1", "2"],
            },
            "queryStringParameters": { "a": "2", "b": " " },
            "multiValueQueryStringParameters": { "a": ["1", "2"], "b": [" "] },
            "requestContext": {
                "routeKey": "$connect",
                "eventType": "CONNECT",
                "messageDirection": "IN",
                "stage": "agents",
                "identity": { "userAgent": "agent/7", "sourceIp": "127.0.0.1" },
                "domainName": "localhost",
                "apiId": "AgentApi",
            },
            "isBase64Encoded": false,
        })
    );
    assert_eq!(
        events[1],
        json!({
            "headers": { "Host": "localhost:3000", "x-api-key": "", "X-Forwarded-For": "", "x-restapi": "" },
            "multiValueHeaders": {
                "Host": ["localhost:3000"], "x-api-key": [""], "X-Forwarded-For": [""], "x-restapi": [""],
            },
            "requestContext": {
                "routeKey": "$disconnect",
                "disconnectStatusCode": 4001,
                "eventType": "DISCONNECT",
                "messageDirection": "IN",
                "disconnectReason": "that is it",
                "stage": "agents",
                "identity": { "userAgent": "agent/7", "sourceIp": "127.0.0.1" },
                "domainName": "localhost",
                "apiId": "AgentApi",
            },
            "isBase64Encoded": false,
        })
    );
}

#[tokio::test]
async fn a_request_without_query_and_user_agent_has_none_in_the_event() {
    let local = start().await;
    let _client = connect(&local).await;
    eventually(|| !events(&local).is_empty()).await;
    let event = &events(&local)[0];
    assert!(event.get("queryStringParameters").is_none(), "{event}");
    assert!(event.get("multiValueQueryStringParameters").is_none(), "{event}");
    assert_eq!(event["requestContext"]["identity"], json!({ "sourceIp": "127.0.0.1" }));
}

#[tokio::test]
async fn a_function_that_does_not_agree_makes_no_connection() {
    let local = start().await;
    for (status, message) in [
        (302, "Found"),
        (400, "Bad Request"),
        (401, "Unauthorized"),
        (403, "Forbidden"),
        (409, "Conflict"),
        (500, "Internal Server Error"),
        (503, "Service Unavailable"),
    ] {
        let refused = try_told(&local, &format!("status:{status}")).await.unwrap_err();
        assert_eq!(refused.status, status);
        assert_eq!(refused.body["message"], message);
        for id in ["connectionId", "requestId"] {
            assert_eq!(refused.body[id].as_str().unwrap().len(), 16, "{refused:?}");
        }
    }
    eventually(|| kind(&local, "CONNECT").len() == 7).await;
    assert!(local.stack.settled(LIMIT).await);
    assert_eq!(kind(&local, "DISCONNECT"), [json!(null); 0], "there was nothing to end");
    // Any success will do.
    try_told(&local, "status:204").await.unwrap();
}

#[tokio::test]
async fn a_function_that_fails_makes_no_connection_and_is_logged_once() {
    for (action, reason) in [
        ("fail:no table", "no table"),
        ("exit:7", "Runtime.ExitError: the process ended before it answered (exit status: 7)"),
        ("sleep:60000", "Task timed out after 1.00 seconds"),
        ("return:{}", "the response is malformed: missing field `statusCode`"),
        ("return:null", "the response is malformed"),
        ("status:101", "the response has the status 101"),
    ] {
        let local = start_changed(WebSocketLimits::default(), |template| {
            template.replace("Timeout: { Type: Number, Default: 3 }", "Timeout: { Type: Number, Default: 1 }")
        })
        .await;

        let refused = try_told(&local, action).await.unwrap_err();

        assert_eq!(
            (refused.status, &refused.body["message"]),
            (502, &json!("Internal server error")),
            "{action}"
        );
        // The runtime of the function may have written about its error as well.
        let told: Vec<_> = told(&local, reason)
            .into_iter()
            .filter(|line| line.starts_with("misbehaving | ") && !line.contains("event {"))
            .collect();
        assert_eq!(told.len(), 1, "{action}: {told:?}");
        assert!(local.stack.settled(LIMIT).await);
        assert_eq!(kind(&local, "DISCONNECT"), [json!(null); 0], "{action}");
    }
}

#[tokio::test]
async fn a_function_that_takes_longer_than_the_gateway_waits_makes_no_connection() {
    let local = start_changed(WebSocketLimits::default(), |template| {
        template
            .replace("IntegrationType: AWS_PROXY", "IntegrationType: AWS_PROXY\n      TimeoutInMillis: 300")
    })
    .await;

    let refused = try_told(&local, "sleep:1000").await.unwrap_err();

    assert_eq!(refused.status, 504);
    assert_eq!(refused.body["message"], "Endpoint request timed out");
    assert_eq!(told(&local, "no answer within 0.3 seconds").len(), 1, "{:?}", local.logged());
}

#[tokio::test]
async fn a_subprotocol_is_answered_only_if_the_function_chooses_it() {
    let local = start().await;
    let offer = |target: &str| asking(target).replace("Host:", "Sec-WebSocket-Protocol: a, b\r\nHost:");

    let (_client, head) = shake_hands(tcp(&local).await, &offer("/agents")).await.unwrap();
    assert!(!head.contains("sec-websocket-protocol"), "{head}");

    let chosen = json!({ "statusCode": 200, "headers": { "Sec-WebSocket-Protocol": "b", "x-other": "c" } });
    let target = format!("/agents?do=return:{}", encode(&chosen));
    let (_client, head) = shake_hands(tcp(&local).await, &offer(&target)).await.unwrap();
    assert!(head.contains("\r\nsec-websocket-protocol: b\r\n"), "{head}");
    assert!(!head.contains("x-other"), "{head}");
    // An extension is never agreed on.
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
}

#[tokio::test]
async fn a_request_that_is_no_handshake_reaches_no_function() {
    let local = start().await;
    for path in ["/agents", "/agents/", "/agents?a=b"] {
        let response = local.get(path).await;
        assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED, "{path}");
        assert_eq!(response.headers()["upgrade"], "websocket");
        assert_eq!(response.headers()["sec-websocket-version"], "13");
        assert_eq!(body(&response)["message"], "Upgrade Required");
    }
    let keyless = asking("/agents").replace("Sec-WebSocket-Key", "X-Key");
    let refused = shake_hands(tcp(&local).await, &keyless).await.unwrap_err();
    assert_eq!((refused.status, &refused.body["message"]), (400, &json!("Bad Request")));
    let hostless = asking("/agents").replace("Host:", "X-Host:");
    assert_eq!(shake_hands(tcp(&local).await, &hostless).await.unwrap_err().status, 400);
    let long = asking("/agents").replace("Host:", &format!("X-Long: {}\r\nHost:", "x".repeat(10_240)));
    assert_eq!(shake_hands(tcp(&local).await, &long).await.unwrap_err().status, 431);
    assert_eq!(local.stack.instances_started("misbehaving"), 0);
}

#[tokio::test]
async fn the_http_api_goes_on_beside_the_websocket_api() {
    let local = start_changed(WebSocketLimits::default(), |template| {
        template.replace("Path: \"/files/{proxy+}\"", "Path: \"/{proxy+}\"")
    })
    .await;
    let _client = connect(&local).await;

    assert_eq!(local.get("/things/1").await.status(), StatusCode::OK);
    assert_eq!(body(&local.get("/agents/1").await)["rawPath"], "/agents/1");
    assert_eq!(local.get("/agents").await.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(local.get("/_local/health").await.status(), StatusCode::OK);
    // A connection that has carried a request can become one of the WebSocket API.
    let mut stream = tcp(&local).await;
    stream.write_all(b"GET /_local/health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let (mut client, _) = shake_hands(stream, &asking("/agents/")).await.unwrap();
    ping(&mut client).await;
}

#[tokio::test]
async fn a_ping_is_answered_while_nothing_else_happens() {
    let local = start().await;
    let mut client = connect(&local).await;
    ping(&mut client).await;
    ping(&mut client).await;
    // Together with other frames as well.
    client.send(Message::text("{}")).await.unwrap();
    ping(&mut client).await;
}

#[tokio::test]
async fn messages_come_to_nothing_and_invoke_nothing() {
    let local = start().await;
    let mut client = connect(&local).await;
    for _ in 0..20 {
        client.send(Message::text(r#"{"channel":"status","payload":{}}"#)).await.unwrap();
    }
    client.send(Message::text("not JSON")).await.unwrap();
    // The next frame is the answer to this one, so none was to those.
    ping(&mut client).await;

    close(client, None).await;

    assert_eq!(ends(&local, 1).await, [(json!(1005), json!("Client-side close frame status not set"))]);
    assert_eq!(events(&local).len(), 2, "connect and disconnect");
}

#[tokio::test]
async fn without_a_default_route_a_message_is_forbidden() {
    let local = start_changed(WebSocketLimits::default(), |template| {
        let (before, rest) = template.split_once("  DefaultRoute:").unwrap();
        format!("{before}  AgentStage:{}", rest.split_once("  AgentStage:").unwrap().1)
    })
    .await;
    let mut client = connect(&local).await;

    client.send(Message::text("{}")).await.unwrap();

    let answer = client.next().await.unwrap().unwrap().into_text().unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["message"], "Forbidden");
    eventually(|| !events(&local).is_empty()).await;
    assert_eq!(answer["connectionId"], events(&local)[0]["requestContext"]["connectionId"]);
    ping(&mut client).await;
}

#[tokio::test]
async fn without_routes_connections_come_and_go_unasked_and_untold() {
    let local = start_changed(WebSocketLimits::default(), |template| {
        let (before, rest) = template.split_once("  ConnectRoute:").unwrap();
        format!("{before}  AgentStage:{}", rest.split_once("  AgentStage:").unwrap().1)
    })
    .await;
    let mut client = connect(&local).await;
    ping(&mut client).await;
    close(client, None).await;
    assert!(local.stack.settled(LIMIT).await);
    assert_eq!(local.stack.instances_started("misbehaving"), 0);
}

/// A message of `size` bytes in frames of at most `frame`.
async fn send_in_frames(client: &mut Client, size: usize, frame: usize) {
    let mut left = size;
    let mut kind = Data::Text;
    while left > 0 {
        let length = left.min(frame);
        left -= length;
        let frame = Frame::message("x".repeat(length), OpCode::Data(kind), left == 0);
        kind = Data::Continue;
        client.send(Message::Frame(frame)).await.unwrap();
    }
}

#[tokio::test]
async fn frames_and_messages_have_the_size_that_aws_takes_or_end_the_connection() {
    const FRAME: usize = 32 * 1024;
    let local = start().await;
    let mut client = connect(&local).await;
    send_in_frames(&mut client, FRAME, FRAME).await;
    ping(&mut client).await;
    send_in_frames(&mut client, 4 * FRAME, FRAME).await;
    ping(&mut client).await;

    send_in_frames(&mut client, 4 * FRAME + 1, FRAME).await;
    assert_eq!(closed(&mut client).await, (1009, "Message too big".to_owned()));

    let mut client = connect(&local).await;
    send_in_frames(&mut client, FRAME + 1, FRAME + 1).await;
    assert_eq!(closed(&mut client).await.0, 1009);

    // Far more than was read of it.
    let mut client = connect(&local).await;
    send_in_frames(&mut client, 1024 * 1024, 1024 * 1024).await;
    assert_eq!(closed(&mut client).await.0, 1009);

    let too_big = (json!(1009), json!("Message too big"));
    assert_eq!(ends(&local, 3).await, [too_big.clone(), too_big.clone(), too_big]);
}

#[tokio::test]
async fn a_client_that_does_not_keep_to_the_protocol_is_told_and_left() {
    let local = start().await;
    let mut client = connect(&local).await;
    client.send(Message::binary("x")).await.unwrap();
    assert_eq!(closed(&mut client).await.0, 1003);

    let mut client = connect(&local).await;
    client.send(Message::Frame(Frame::message(&b"\xff"[..], OpCode::Data(Data::Text), true))).await.unwrap();
    assert_eq!(closed(&mut client).await.0, 1007);

    // Without a mask.
    let mut client = connect(&local).await;
    client.get_mut().write_all(b"\x81\x01x").await.unwrap();
    assert_eq!(closed(&mut client).await.0, 1002);

    let mut codes: Vec<_> = ends(&local, 3).await.into_iter().map(|(code, _)| code.as_u64()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(1002), Some(1003), Some(1007)]);
}

#[tokio::test]
async fn a_client_that_dies_without_a_close_frame_has_ended_abnormally() {
    let local = start().await;
    let client = connect(&local).await;
    drop(client);
    let abnormal = || (json!(1006), json!("Connection closed abnormally"));
    assert_eq!(ends(&local, 1).await, [abnormal()]);

    let mut client = connect(&local).await;
    client.get_mut().set_zero_linger().unwrap();
    drop(client);
    assert_eq!(ends(&local, 2).await, [abnormal(), abnormal()]);

    // In the middle of a frame.
    let mut client = connect(&local).await;
    client.get_mut().write_all(b"\x81\xfe\x10").await.unwrap();
    drop(client);
    assert_eq!(ends(&local, 3).await, [abnormal(), abnormal(), abnormal()]);
}

#[tokio::test]
async fn a_client_that_hangs_up_while_the_function_decides_is_told_to_it_as_well() {
    let local = start().await;
    let mut stream = tcp(&local).await;
    stream.write_all(asking("/agents?do=sleep:500").as_bytes()).await.unwrap();
    eventually(|| kind(&local, "CONNECT").len() == 1).await;
    drop(stream);
    assert_eq!(ends(&local, 1).await, [(json!(1006), json!("Connection closed abnormally"))]);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_any_frame_keeps_it() {
    let idle = Duration::from_secs(1);
    let local = start_limited(limits(|limits| limits.idle = idle)).await;
    let mut client = connect(&local).await;
    let began = std::time::Instant::now();
    let mut last = began;
    for _ in 0..6 {
        tokio::time::sleep(idle / 4).await;
        last = std::time::Instant::now();
        ping(&mut client).await;
    }
    assert!(last - began > idle);

    assert_eq!(closed(&mut client).await, (1001, "Going away".to_owned()));

    assert!(last.elapsed() >= idle, "{:?}", last.elapsed());
    assert_eq!(ends(&local, 1).await, [(json!(1001), json!("Going away"))]);
}

#[tokio::test]
async fn a_connection_is_closed_at_the_end_of_its_time_however_busy_it_is() {
    let duration = Duration::from_millis(500);
    let local = start_limited(limits(|limits| limits.duration = duration)).await;
    let began = std::time::Instant::now();
    let client = connect(&local).await;
    let (mut sender, mut receiver) = client.split();
    // Fails when the connection has ended.
    let busy = tokio::spawn(async move { while sender.send(Message::text("{}")).await.is_ok() {} });

    let next = tokio::time::timeout(LIMIT, receiver.next()).await.unwrap();

    assert!(
        matches!(&next, Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == 1001),
        "{next:?}"
    );
    assert!(began.elapsed() >= duration, "{:?}", began.elapsed());
    busy.abort();
    assert_eq!(ends(&local, 1).await, [(json!(1001), json!("Going away"))]);
}

#[tokio::test]
async fn a_client_that_does_not_answer_a_close_is_left_all_the_same() {
    let local = start_limited(limits(|limits| {
        limits.idle = Duration::from_millis(100);
        limits.closing = Duration::from_millis(100);
    }))
    .await;
    let mut client = connect(&local).await;
    // Not read by the library, which would answer.
    let mut bytes = Vec::new();
    tokio::time::timeout(LIMIT, client.get_mut().read_to_end(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(bytes, b"\x88\x0c\x03\xe9Going away");
    assert_eq!(ends(&local, 1).await, [(json!(1001), json!("Going away"))]);
}

#[tokio::test]
async fn two_connections_have_nothing_to_do_with_each_other() {
    let local = start().await;
    let (one, mut two) = tokio::join!(connect(&local), connect(&local));
    eventually(|| kind(&local, "CONNECT").len() == 2).await;
    let ids = |kind_of: &str| -> Vec<_> {
        kind(&local, kind_of).iter().map(|event| event["requestContext"]["connectionId"].clone()).collect()
    };
    let connected = ids("CONNECT");
    assert_ne!(connected[0], connected[1]);

    close(one, Some(frame(1000, ""))).await;

    assert_eq!(ends(&local, 1).await, [(json!(1000), json!(""))]);
    ping(&mut two).await;
    close(two, Some(frame(1000, ""))).await;
    ends(&local, 2).await;
    let disconnected = ids("DISCONNECT");
    assert!(connected.iter().all(|id| disconnected.contains(id)), "{connected:?} {disconnected:?}");
}

#[tokio::test]
async fn a_connection_too_many_is_refused_until_another_ends() {
    let local = start_limited(limits(|limits| limits.connections = 2)).await;
    let (first, _second) = (connect(&local).await, connect(&local).await);

    let refused = try_told(&local, "").await.unwrap_err();
    assert_eq!(refused.status, 429);
    let message = "2 connections are open, and the local stack plays no more at a time";
    assert_eq!(refused.body["message"], message);

    // One that was refused takes no place.
    close(first, None).await;
    ends(&local, 1).await;
    eventually_open(&local).await;
    assert_eq!(kind(&local, "CONNECT").len(), 3);
}

/// A connection, as soon as there is room for one.
async fn eventually_open(local: &Local) -> Client {
    for _ in 0..1000 {
        if let Ok(client) = try_told(local, "").await {
            eventually(|| kind(local, "CONNECT").len() == 3).await;
            return client;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there never was room");
}

#[tokio::test]
async fn a_stack_has_settled_once_the_function_knows_of_the_end() {
    let local = start_disconnecting(WebSocketLimits::default(), "sleep:800").await;
    let client = connect(&local).await;
    assert!(local.stack.settled(LIMIT).await, "an open connection is nothing to wait for");

    close(client, None).await;

    assert!(!local.stack.settled(Duration::from_millis(200)).await, "it has not been told");
    assert!(local.stack.settled(LIMIT).await);
    eventually(|| kind(&local, "DISCONNECT").len() == 1).await;
}

#[tokio::test]
async fn a_stack_has_not_settled_while_a_client_is_yet_to_answer_a_close() {
    let local = start_limited(limits(|limits| {
        limits.idle = Duration::from_millis(100);
        limits.closing = Duration::from_mins(1);
    }))
    .await;
    let mut client = connect(&local).await;
    // Not read by the library, which would answer.
    let mut frame = [0; 14];
    client.get_mut().read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x88\x0c\x03\xe9Going away");

    assert!(!local.stack.settled(Duration::from_millis(200)).await, "it has not been told");
    drop(client);
    assert!(local.stack.settled(LIMIT).await);
}

#[tokio::test]
async fn a_disconnect_that_fails_is_logged_and_not_tried_again() {
    for (action, reason) in [
        ("fail:no table", "no table"),
        ("status:500", "the response has the status 500"),
        ("return:null", "the response is malformed"),
    ] {
        let local = start_disconnecting(WebSocketLimits::default(), action).await;
        close(connect(&local).await, None).await;
        ends(&local, 1).await;
        let lines = told(&local, "$disconnect failed, and is not tried again: ");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(reason), "{lines:?}");
    }
}

#[tokio::test]
async fn a_stop_closes_the_connections_and_tells_the_function() {
    let local = start_disconnecting(WebSocketLimits::default(), "sleep:300").await;
    let (mut one, mut two) = (connect(&local).await, connect(&local).await);
    let Local { stack, lines, folder: _folder } = local;
    let began = std::time::Instant::now();

    let ((), one, two) = tokio::join!(stack.stop(), closed(&mut one), closed(&mut two));

    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(one, (1001, "Going away".to_owned()));
    assert_eq!(two, one);
    let lines = lines.lock().unwrap().clone();
    let ended = lines.iter().filter(|line| line.contains(r#""disconnectReason":"Going away""#)).count();
    assert_eq!(ended, 2, "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("failed") || line.contains("untold")), "{lines:?}");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever_for_the_function() {
    let limits = limits(|limits| limits.stopping = Duration::from_millis(500));
    let local = start_disconnecting(limits, "sleep:2900").await;
    let mut client = connect(&local).await;
    let Local { stack, lines, folder: _folder } = local;
    let began = std::time::Instant::now();

    let ((), end) = tokio::join!(stack.stop(), closed(&mut client));

    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
    assert_eq!(end.0, 1001);
    let lines = lines.lock().unwrap().clone();
    let untold = lines.iter().filter(|line| line.contains("1 connections ended with the stack, untold"));
    assert_eq!(untold.count(), 1, "{lines:?}");
}

#[tokio::test]
async fn a_stack_that_is_dropped_drops_its_connections() {
    let local = start().await;
    let mut client = connect(&local).await;
    drop(local);
    let next = tokio::time::timeout(LIMIT, client.next()).await.unwrap();
    assert!(matches!(next, None | Some(Err(_))), "{next:?}");
}

#[tokio::test]
async fn the_parameter_for_the_origin_of_agents_has_the_url_of_the_api_unless_it_is_given() {
    const CONDITIONAL: &str = r#"TABLE_NAME: !If [HasAgentOrigin, !Ref AgentOrigin, !Sub "wss://${AgentApi}.execute-api.${AWS::Region}.${AWS::URLSuffix}/${AgentStage}"]"#;
    let start = async |given: Option<&str>, api: &str| {
        Local::start_with(|options| {
            let template = TEMPLATE
                .replace("  Timeout: {", "  AgentOrigin: { Type: String, Default: \"\" }\n  Timeout: {")
                .replace(
                    "Resources:",
                    "Conditions:\n  HasAgentOrigin: !Not [!Equals [!Ref AgentOrigin, \"\"]]\nResources:",
                );
            let template = if api.is_empty() {
                template
            } else {
                template.replace("TABLE_NAME: !Ref Table", CONDITIONAL)
            };
            std::fs::write(&options.template, format!("{template}{api}")).unwrap();
            options.parameters.extend(given.map(|given| ("AgentOrigin".to_owned(), given.to_owned())));
        })
        .await
    };
    let url = |local: &Local| local.stack.template().functions[0].environment["TABLE_NAME"].clone();

    let local = start(None, API).await;
    assert_eq!(local.stack.websocket_url(), Some(url(&local)));
    let port = local.stack.origin().rsplit(':').next().unwrap();
    assert_eq!(url(&local), format!("ws://127.0.0.1:{port}/agents"));
    assert_eq!(local.stack.template().parameters["AgentOrigin"], url(&local));

    assert_eq!(url(&start(Some("wss://agents.example.com"), API).await), "wss://agents.example.com");
    // The form that it has on AWS.
    assert_eq!(url(&start(Some(""), API).await), "wss://AgentApi.execute-api.us-east-1.amazonaws.com/agents");

    let local = start(None, "").await;
    assert_eq!(local.stack.template().parameters["AgentOrigin"], "");
    assert_eq!(local.stack.websocket_url(), None);
}
