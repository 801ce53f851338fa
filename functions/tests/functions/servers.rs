//! Servers and their agents: `node_verify`, `agent_connect`, `agent_disconnect`, `retrieve_servers`,
//! `server_delete_server`, `rotate_secret`.

use futures_util::{SinkExt, StreamExt, future::join_all};
use serde_json::{Value, json};
use shared::{
    domain::{BucketId, Report, Right, ServerName, Timestamp, UserId},
    store::{AgentError, AgentKeys, PeopleError, ServerError},
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::{
    api::{Answer, Api, Person, path},
    invariants,
    meanwhile::{self, Edit},
};

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap()
}

/// What the agent of the server `name` sends.
pub(crate) fn message(bucket: &Value, name: &str) -> Value {
    json!({
        "public_id": bucket["public_id"], "private_id": bucket["secret_id"],
        "data": {
            "MACHINE_NAME": name, "PUBLIC_KEY": bucket["public_id"], "RECYCLE": false, "PM2_VERSION": "7.0.4",
            "MEMORY": 16_000.5, "HOSTNAME": "vm", "CPUS": [{ "model": "a" }, { "model": "b" }],
        },
    })
}

async fn verifies(api: &Api, message: &Value) -> Answer {
    api.send("POST", "/api/node/verifyPM2", None, Some(&message.to_string())).await
}

/// Links the server `name` to `bucket`.
pub(crate) async fn links(api: &Api, bucket: &Value, name: &str) -> Answer {
    verifies(api, &message(bucket, name)).await
}

/// A call of `node_verify` from another address.
async fn verifies_from(api: &Api, address: &str, message: &Value) -> (u64, Value) {
    let event = json!({
        "version": "2.0", "routeKey": "POST /api/node/verifyPM2", "rawPath": "/api/node/verifyPM2",
        "rawQueryString": "", "headers": {}, "isBase64Encoded": false, "body": message.to_string(),
        "requestContext": {
            "http": { "method": "POST", "path": "/api/node/verifyPM2", "protocol": "HTTP/1.1", "sourceIp": address },
            "requestId": "1", "routeKey": "POST /api/node/verifyPM2", "stage": "$default", "timeEpoch": 1,
        },
    });
    answered(api, "node_verify", &event).await
}

async fn answered(api: &Api, function: &str, event: &Value) -> (u64, Value) {
    let answer = api.stack.invoke(function, event.to_string().into_bytes()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let body = answer["body"].as_str().map_or(Value::Null, |body| serde_json::from_str(body).unwrap());
    (answer["statusCode"].as_u64().unwrap(), body)
}

/// The event of the connection `id` being opened for the server `name` of `bucket`, as API Gateway tells it.
pub(crate) fn connected(bucket: &Value, name: &str, id: &str) -> Value {
    json!({
        "headers": {
            "X-KM-PUBLIC": bucket["public_id"], "X-KM-SECRET": bucket["secret_id"], "X-KM-SERVER": name,
        },
        "requestContext": {
            "routeKey": "$connect", "eventType": "CONNECT", "connectionId": id, "stage": "agents",
            "connectedAt": 1_795_507_200_000_u64, "requestTimeEpoch": 1_795_507_200_000_u64,
            "identity": { "sourceIp": "127.0.0.1" },
        },
        "isBase64Encoded": false,
    })
}

/// Opens the connection `id` for the server `name` of `bucket`.
pub(crate) async fn connects(api: &Api, bucket: &Value, name: &str, id: &str) -> (u64, Value) {
    answered(api, "agent_connect", &connected(bucket, name, id)).await
}

async fn disconnects(api: &Api, id: &str) {
    disconnects_with(api, id, 1000).await;
}

/// The event of the connection `id` having ended with the close code `code`.
pub(crate) fn disconnected(id: &str, code: u16) -> Value {
    json!({
        "requestContext": {
            "routeKey": "$disconnect", "eventType": "DISCONNECT", "connectionId": id, "stage": "agents",
            "disconnectStatusCode": code,
            "connectedAt": 1_795_507_200_000_u64, "requestTimeEpoch": 1_795_507_200_000_u64,
        },
        "isBase64Encoded": false,
    })
}

/// The connection `id` has ended with the close code `code`.
async fn disconnects_with(api: &Api, id: &str, code: u16) {
    assert_eq!(answered(api, "agent_disconnect", &disconnected(id, code)).await.0, 200);
}

async fn servers(person: &Person<'_>, bucket: &Value) -> Vec<Value> {
    person.get(&path(bucket, "/meta_servers")).await.ok().as_array().unwrap().clone()
}

/// Names of the servers, and whether they are active.
async fn active(person: &Person<'_>, bucket: &Value) -> Vec<(String, bool)> {
    let all = servers(person, bucket).await;
    all.iter().map(|server| (text(server, "name").to_owned(), server["active"].as_bool().unwrap())).collect()
}

async fn deletes(person: &Person<'_>, bucket: &Value, name: &str) -> Answer {
    person.post(&path(bucket, "/data/deleteServer"), &json!({ "server_name": name })).await
}

#[tokio::test]
async fn an_agent_links_its_server_and_is_told_where_to_connect_to() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let ws = api.stack.websocket_url().unwrap();

    let answer = links(&api, &bucket, "web-1").await.ok();

    let origin = &api.origin;
    assert_eq!(
        answer,
        json!({
            "endpoints": { "web": origin, "ws": ws, "push": ws, "reverse": ws, "realtime": ws },
            "active": true, "pending": false, "disabled": false, "new": true, "name": "web-1",
        })
    );
    let mut listed = servers(&owner, &bucket).await;
    assert!(listed[0]["last_seen"].take().is_string());
    assert_eq!(
        listed,
        [json!({
            "name": "web-1", "hostname": "vm", "ip": "127.0.0.1", "cpus": 2, "memory": 16_000,
            "pm2_version": "7.0.4", "active": false, "last_seen": null,
        })]
    );
    let row = api.rows_of("audit").await.into_iter().find(|row| row["action"] == "link_server").unwrap();
    assert_eq!((&row["server"], &row["actor_id"]), (&json!("web-1"), &Value::Null));
    invariants::hold(&api).await;

    // Under its name it is the same server, wherever it is now and whatever it has become.
    let mut moved = message(&bucket, "web-1");
    moved["data"]["HOSTNAME"] = json!("bigger");
    moved["data"]["CPUS"] = json!(64);
    let again = verifies(&api, &moved).await.ok();
    assert_eq!((&again["new"], &again["active"]), (&json!(false), &json!(true)));
    let listed = servers(&owner, &bucket).await;
    assert_eq!((listed.len(), &listed[0]["hostname"], &listed[0]["cpus"]), (1, &json!("bigger"), &json!(64)));
    assert_eq!(api.rows_of("bucket").await[0]["servers_used"], 1);
    invariants::hold(&api).await;
}

#[tokio::test]
async fn the_same_report_is_noted_now_and_then() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    links(&api, &bucket, "web-1").await.ok();
    let rows = api.rows().await;

    links(&api, &bucket, "web-1").await.ok();
    assert_eq!(api.rows().await, rows);

    let mut row = api.rows_of("server").await.remove(0);
    row["last_seen"] = json!(Timestamp::now().as_millis() - 101_000);
    api.put_row(&row).await;
    links(&api, &bucket, "web-1").await.ok();
    assert!(api.rows_of("server").await[0]["last_seen"].as_i64() > row["last_seen"].as_i64());
}

#[tokio::test]
async fn wrong_keys_are_refused_in_the_agents_form_and_never_say_which_half() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let (bucket, gone) = (owner.creates_bucket("Servers").await, owner.creates_bucket("Gone").await);
    owner.delete(&path(&gone, "")).await.ok();
    let rows = api.rows_of("bucket").await;
    let with = |public: &str, private: &str| {
        let mut message = message(&bucket, "web-1");
        message["public_id"] = json!(public);
        message["private_id"] = json!(private);
        message
    };
    let (public, secret) = (text(&bucket, "public_id"), text(&bucket, "secret_id"));

    let mut told = Vec::new();
    for (public, private) in [
        (public, "wrongwrongwrong"),
        (public, ""),
        ("wrongwrongwrong", secret),
        ("not a key", secret),
        ("", ""),
        (secret, public),
        (text(&gone, "public_id"), text(&gone, "secret_id")),
    ] {
        let answer = verifies(&api, &with(public, private)).await;
        answer.is_problem(403, "wrong_keys");
        assert_eq!((&answer.body["error"], &answer.body["active"]), (&json!(true), &json!(false)));
        let mut body = answer.body;
        body.as_object_mut().unwrap().remove("request_id");
        told.push(body);
    }
    assert!(told.iter().all(|body| *body == told[0]), "{told:?}");
    assert_eq!(api.rows_of("bucket").await, rows);
    assert!(api.rows_of("server").await.is_empty());
}

#[tokio::test]
async fn an_address_that_guesses_is_told_to_wait_and_nobody_else_is() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let guess = |number: usize| {
        let mut message = message(&bucket, "web-1");
        message["private_id"] = json!(format!("guess{number:010}"));
        message
    };
    let (guesser, other) = ("192.0.2.1", "192.0.2.2");

    // An agent that goes on showing what was right once is no guesser.
    for _ in 0..30 {
        assert_eq!(verifies_from(&api, guesser, &guess(0)).await.0, 403);
    }
    for number in 1..20 {
        assert_eq!(verifies_from(&api, guesser, &guess(number)).await.0, 403, "{number}");
    }
    let (status, body) = verifies_from(&api, guesser, &guess(20)).await;
    assert_eq!((status, &body["code"]), (429, &json!("too_many_attempts")));
    assert_eq!((&body["error"], &body["active"]), (&json!(true), &json!(false)));
    assert_eq!(verifies_from(&api, other, &guess(20)).await.0, 403);
    // Who shares the address with a guesser goes on.
    assert_eq!(verifies_from(&api, guesser, &message(&bucket, "web-1")).await.0, 200);

    let attempts = async || {
        let rows = api.rows_of("agent_attempts").await;
        rows.into_iter().find(|row| row["subnet"] == guesser).unwrap()
    };
    let row = attempts().await;
    assert_eq!(row["tried"].as_array().unwrap().len(), 20);
    assert!(!row.to_string().contains("guess"), "{row}");
    // Once the time is over it begins anew. A set, which JSON does not have, so only the time is changed.
    api.table().set(&row, "until", 1).await;
    assert_eq!(verifies_from(&api, guesser, &guess(99)).await.0, 403);
    assert_eq!(attempts().await["tried"].as_array().unwrap().len(), 1);

    // A connection is no way round.
    let mut guessing = bucket.clone();
    for number in 0..20 {
        guessing["secret_id"] = json!(format!("guess{number:010}"));
        assert_eq!(connects(&api, &guessing, "web-1", "c").await.0, 403);
    }
    guessing["secret_id"] = json!("guess0000000020");
    let (status, body) = connects(&api, &guessing, "web-1", "c").await;
    assert_eq!((status, &body["code"]), (429, &json!("too_many_attempts")));
    assert_eq!(connects(&api, &bucket, "web-1", "c").await.0, 200);
}

#[tokio::test]
async fn what_is_no_message_of_an_agent_is_said_to_be_none() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let rows = api.rows().await;
    let whole = message(&bucket, "größe").to_string();
    // As the agent cuts it off: by as many bytes as the encoding has more than letters.
    let cut_off = whole.get(..whole.len() - "größe".len() + "größe".chars().count()).unwrap();
    let old = json!({ "public_id": bucket["public_id"], "data": "5f4dcc3b5aa765d61d8327deb882cf99" });
    let named = |name: Value| {
        let mut message = message(&bucket, "");
        message["data"]["MACHINE_NAME"] = name;
        message.to_string()
    };
    let large = format!("{{\"filler\":\"{}\"}}", "x".repeat(300 * 1024));

    for (body, status, code, said) in [
        (cut_off, 400, "invalid_input", "must be ASCII"),
        (&old.to_string(), 400, "invalid_input", "pm2 older than 3"),
        (&named(json!("größe")), 400, "invalid_input", "ASCII"),
        (&named(json!("a\nb")), 400, "invalid_input", "ASCII"),
        (&named(json!("")), 400, "invalid_input", "1 to 128"),
        (&named(json!("x".repeat(129))), 400, "invalid_input", "1 to 128"),
        (&named(json!(1)), 400, "invalid_input", "1 to 128"),
        ("", 400, "invalid_input", "cut off"),
        ("[]", 400, "invalid_input", "is not understood"),
        ("{}", 400, "invalid_input", "is not understood"),
        ("{", 400, "invalid_input", "cut off"),
        ("nothing", 400, "invalid_input", "is not JSON"),
        (&large, 413, "body_too_large", "bytes"),
    ] {
        let answer = api.send("POST", "/api/node/verifyPM2", None, Some(body)).await;

        let detail = answer.is_problem(status, code);
        assert!(detail.contains(said), "{body}: {detail}");
        assert_eq!((&answer.body["error"], &answer.body["active"]), (&json!(true), &json!(false)));
    }
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn a_plan_has_so_many_servers_and_a_smaller_one_keeps_them() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    for name in ["web-1", "web-2"] {
        links(&api, &bucket, name).await.ok();
    }

    let answer = links(&api, &bucket, "web-3").await;
    let detail = answer.is_problem(403, "server_limit");
    assert!(detail.contains("all 2 servers"), "{detail}");
    assert_eq!((&answer.body["error"], &answer.body["active"]), (&json!(true), &json!(false)));
    links(&api, &bucket, "web-1").await.ok();
    invariants::hold(&api).await;

    owner.put(&path(&bucket, "/start_trial"), &json!({})).await.ok();
    links(&api, &bucket, "web-3").await.ok();
    let mut row = api.rows_of("bucket").await.remove(0);
    row["trial_ends_at"] = json!(1_000);
    api.put_row(&row).await;
    links(&api, &bucket, "web-3").await.ok();
    links(&api, &bucket, "web-4").await.is_problem(403, "server_limit");
    assert_eq!(servers(&owner, &bucket).await.len(), 3);

    // Two must go before one fits.
    for name in ["web-1", "web-2"] {
        links(&api, &bucket, "web-4").await.is_problem(403, "server_limit");
        deletes(&owner, &bucket, name).await.ok();
    }
    links(&api, &bucket, "web-4").await.ok();
    invariants::hold(&api).await;
}

#[tokio::test]
async fn a_server_is_active_while_a_connection_of_its_name_is_open() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let (status, body) = connects(&api, &bucket, "web-1", "c1").await;
    assert_eq!((status, &body["code"]), (403, &json!("server_not_linked")));
    links(&api, &bucket, "web-1").await.ok();
    let is = async |expected: bool| {
        assert_eq!(active(&owner, &bucket).await, [("web-1".to_owned(), expected)]);
    };

    is(false).await;
    assert_eq!(connects(&api, &bucket, "web-1", "c1").await.0, 200);
    is(true).await;
    assert_eq!(connects(&api, &bucket, "web-1", "c2").await.0, 200);
    disconnects(&api, "c1").await;
    is(true).await;
    disconnects(&api, "c2").await;
    is(false).await;
    // Told twice, or of nobody.
    disconnects(&api, "c2").await;
    disconnects(&api, "unknown").await;
    is(false).await;
    assert!(api.rows_of("agent_connection").await.is_empty());
    links(&api, &bucket, "web-1").await.ok();
    is(false).await;
}

#[tokio::test]
async fn an_end_that_was_never_told_is_noticed_by_the_silence_and_forgotten_with_the_next_connections() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    links(&api, &bucket, "web-1").await.ok();
    for number in 0..16 {
        assert_eq!(connects(&api, &bucket, "web-1", &format!("lost{number}")).await.0, 200);
    }
    let row = api.rows_of("server").await.remove(0);
    let silent = Timestamp::now().as_millis() - 300_000;
    api.table().set(&row, "last_seen", silent).await;

    assert_eq!(active(&owner, &bucket).await, [("web-1".to_owned(), false)]);

    // The agent comes back: it reports, and it connects.
    links(&api, &bucket, "web-1").await.ok();
    assert_eq!(connects(&api, &bucket, "web-1", "back").await.0, 200);
    assert_eq!(active(&owner, &bucket).await, [("web-1".to_owned(), true)]);
    assert_eq!(api.rows_of("server").await[0]["connections"], json!(["back"]));
    disconnects(&api, "lost3").await;
    assert_eq!(active(&owner, &bucket).await, [("web-1".to_owned(), true)]);
    disconnects(&api, "back").await;
    assert_eq!(active(&owner, &bucket).await, [("web-1".to_owned(), false)]);
}

#[tokio::test]
async fn an_agent_that_sends_too_much_is_there_while_it_reports_and_does_not_connect_every_second() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    links(&api, &bucket, "web-1").await.ok();
    let is = async |expected: bool| {
        assert_eq!(active(&owner, &bucket).await, [("web-1".to_owned(), expected)]);
    };
    assert_eq!(connects(&api, &bucket, "web-1", "c1").await.0, 200);

    disconnects_with(&api, "c1", 1009).await;
    is(true).await;
    assert!(api.rows_of("agent_connection").await.is_empty());
    let (status, body) = connects(&api, &bucket, "web-1", "c2").await;
    assert_eq!((status, &body["code"]), (413, &json!("agent_oversized")));
    links(&api, &bucket, "web-1").await.ok();
    is(true).await;
    // Silent, it is not there.
    let row = api.rows_of("server").await.remove(0);
    api.table().set(&row, "last_seen", Timestamp::now().as_millis() - 300_000).await;
    is(false).await;

    // After a while it may try again, and what was before is forgotten.
    api.table().set(&row, "oversized_at", Timestamp::now().as_millis() - 600_000).await;
    assert_eq!(connects(&api, &bucket, "web-1", "c3").await.0, 200);
    is(true).await;
    let row = api.rows_of("server").await.remove(0);
    assert_eq!((&row["connections"], &row["oversized_at"]), (&json!(["c3"]), &Value::Null));
    disconnects(&api, "c3").await;
    is(false).await;
}

#[tokio::test]
async fn a_connection_needs_all_three_headers_and_the_keys() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    links(&api, &bucket, "web-1").await.ok();
    let rows = api.rows().await;

    let context = json!({
        "routeKey": "$connect", "eventType": "CONNECT", "connectionId": "c",
        "connectedAt": 1_795_507_200_000_u64, "requestTimeEpoch": 1_795_507_200_000_u64,
    });
    for missing in ["X-KM-PUBLIC", "X-KM-SECRET", "X-KM-SERVER"] {
        let mut headers = json!({
            "x-km-public": bucket["public_id"], "X-KM-SECRET": bucket["secret_id"], "X-KM-SERVER": "web-1",
        });
        headers.as_object_mut().unwrap().retain(|name, _| !name.eq_ignore_ascii_case(missing));
        let (status, body) =
            answered(&api, "agent_connect", &json!({ "headers": headers, "requestContext": context })).await;
        assert_eq!((status, &body["fields"]), (400, &json!([missing])));
    }
    let (status, body) = connects(&api, &bucket, "gr\u{f6}\u{df}e", "c").await;
    assert_eq!((status, &body["code"]), (400, &json!("invalid_input")));
    let mut wrong = bucket.clone();
    wrong["secret_id"] = json!("wrongwrongwrong");
    let (status, body) = connects(&api, &wrong, "web-1", "c").await;
    assert_eq!((status, &body["code"]), (403, &json!("wrong_keys")));
    let now: Vec<_> = api.rows().await.into_iter().filter(|row| row["type"] != "agent_attempts").collect();
    assert_eq!(now, rows);
}

#[tokio::test]
async fn a_real_connection_makes_a_server_active_and_its_end_inactive() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let answer = links(&api, &bucket, "web-1").await.ok();
    let mut request = text(&answer["endpoints"], "ws").into_client_request().unwrap();
    for (name, value) in [
        ("X-KM-PUBLIC", text(&bucket, "public_id")),
        ("X-KM-SECRET", text(&bucket, "secret_id")),
        ("X-KM-SERVER", "web-1"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }

    let (mut socket, _) = connect_async(request.clone()).await.unwrap();
    assert_eq!(active(&owner, &bucket).await, [("web-1".to_owned(), true)]);
    socket.send(Message::text(r#"{"channel":"status","payload":{}}"#)).await.unwrap();
    // Too large: the gateway closes it, and the server is there all the same.
    let (mut large, _) = connect_async(request.clone()).await.unwrap();
    large.send(Message::text("x".repeat(40_000))).await.unwrap();
    while large.next().await.is_some_and(|message| message.is_ok()) {}
    assert!(api.stack.settled(std::time::Duration::from_secs(10)).await);
    assert!(api.rows_of("server").await[0]["oversized_at"].is_i64());
    let row = api.rows_of("server").await.remove(0);
    api.table().set(&row, "oversized_at", 1).await;
    drop(socket);
    let (socket, _) = connect_async(request.clone()).await.unwrap();
    drop(socket);
    for _ in 0..200 {
        if !active(&owner, &bucket).await[0].1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(active(&owner, &bucket).await, [("web-1".to_owned(), false)]);

    request.headers_mut().insert("X-KM-SECRET", "wrongwrongwrong".parse().unwrap());
    let refused = connect_async(request).await.unwrap_err().to_string();
    assert!(refused.contains("403"), "{refused}");
}

#[tokio::test]
async fn a_server_is_deleted_when_it_is_not_connected() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    links(&api, &bucket, "web-1").await.ok();
    connects(&api, &bucket, "web-1", "c1").await;

    let detail = deletes(&owner, &bucket, "web-1").await.is_problem(406, "server_connected");
    assert!(detail.contains("pm2 unlink"), "{detail}");
    deletes(&owner, &bucket, "web-2").await.blames(&["server_name"]);
    deletes(&owner, &bucket, "größe").await.blames(&["server_name"]);
    owner.post(&path(&bucket, "/data/deleteServer"), &json!({})).await.blames(&["server_name"]);
    assert_eq!(servers(&owner, &bucket).await.len(), 1);

    disconnects(&api, "c1").await;
    let deleted = deletes(&owner, &bucket, "web-1").await.ok();
    assert_eq!(deleted, json!({ "success": true, "msg": "the server is deleted" }));
    assert!(servers(&owner, &bucket).await.is_empty());
    assert_eq!(api.rows_of("bucket").await[0]["servers_used"], 0);
    let row = api.rows_of("audit").await.into_iter().find(|row| row["action"] == "delete_server").unwrap();
    assert_eq!(row["server"], "web-1");
    invariants::hold(&api).await;

    // The agent is still there: it links itself again.
    assert_eq!(links(&api, &bucket, "web-1").await.ok()["new"], true);
    invariants::hold(&api).await;
}

#[tokio::test]
async fn a_new_secret_shuts_out_who_has_the_old_one() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    links(&api, &bucket, "web-1").await.ok();

    let rotated = owner.post(&path(&bucket, "/rotate_secret"), &json!({})).await.ok()["bucket"].take();

    assert_ne!(rotated["secret_id"], bucket["secret_id"]);
    assert_eq!(rotated["public_id"], bucket["public_id"]);
    assert_eq!(rotated, owner.get(&path(&bucket, "")).await.ok());
    links(&api, &bucket, "web-1").await.is_problem(403, "wrong_keys");
    assert_eq!(connects(&api, &bucket, "web-1", "c").await.0, 403);
    links(&api, &rotated, "web-1").await.ok();
    assert_eq!(connects(&api, &rotated, "web-1", "c").await.0, 200);
    assert!(api.rows_of("audit").await.iter().any(|row| row["action"] == "rotate_secret"));
    let twice = owner.post(&path(&bucket, "/rotate_secret"), &json!({})).await.ok();
    assert_ne!(twice["bucket"]["secret_id"], rotated["secret_id"]);
}

#[tokio::test]
async fn what_hangs_under_a_deleted_bucket_takes_its_servers_along() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    links(&api, &bucket, "web-1").await.ok();
    connects(&api, &bucket, "web-1", "c1").await;

    owner.delete(&path(&bucket, "")).await.ok();

    links(&api, &bucket, "web-1").await.is_problem(403, "wrong_keys");
    assert!(api.stack.settled(std::time::Duration::from_secs(20)).await);
    assert!(api.rows_of("server").await.is_empty());
    disconnects(&api, "c1").await;
    assert!(api.rows_of("agent_connection").await.is_empty());
}

#[tokio::test]
async fn of_many_servers_at_the_last_place_one_gets_it() {
    for _ in 0..20 {
        let api = Api::start().await;
        let owner = api.user("owner@example.com").await;
        let bucket = owner.creates_bucket("Servers").await;
        links(&api, &bucket, "first").await.ok();
        let names: Vec<_> = (0..6).map(|number| format!("web-{number}")).collect();

        let answers = join_all(names.iter().map(|name| links(&api, &bucket, name))).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            answer.is_problem(403, "server_limit");
        }
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn servers_of_one_name_at_once_are_one_server() {
    for _ in 0..20 {
        let api = Api::start().await;
        let owner = api.user("owner@example.com").await;
        let bucket = owner.creates_bucket("Servers").await;

        let answers = join_all((0..6).map(|_| links(&api, &bucket, "web-1"))).await;

        let new = answers.into_iter().map(Answer::ok).filter(|answer| answer["new"] == true).count();
        assert_eq!((new, servers(&owner, &bucket).await.len()), (1, 1));
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn links_deletions_connections_and_new_secrets_at_once_leave_nothing_half_done() {
    for _ in 0..20 {
        let api = Api::start().await;
        let owner = api.user("owner@example.com").await;
        let bucket = owner.creates_bucket("Servers").await;
        links(&api, &bucket, "web-1").await.ok();

        let renew = async || owner.post(&path(&bucket, "/rotate_secret"), &json!({})).await;
        let (linked, deleted, connected, rotated, other) = tokio::join!(
            links(&api, &bucket, "web-2"),
            deletes(&owner, &bucket, "web-1"),
            connects(&api, &bucket, "web-1", "c1"),
            renew(),
            links(&api, &bucket, "web-1"),
        );

        assert!(matches!(linked.status, 200 | 403), "{}", linked.body);
        assert!(matches!(other.status, 200 | 403), "{}", other.body);
        assert!(matches!(deleted.status, 200 | 406), "{}", deleted.body);
        assert!(matches!(connected.0, 200 | 403), "{connected:?}");
        rotated.ok();
        invariants::hold(&api).await;
        if deleted.status == 200 && connected.0 == 200 && other.status != 200 {
            assert_eq!(api.rows_of("server").await.iter().filter(|row| row["name"] == "web-1").count(), 0);
        }
    }
}

/// A bucket with a linked server, and what its agent shows.
struct Scene {
    api: Api,
    bucket: Value,
    id: BucketId,
    owner: UserId,
}

impl Scene {
    async fn set() -> Self {
        let api = Api::start().await;
        let owner = api.user("owner@example.com").await;
        let bucket = owner.creates_bucket("Servers").await;
        links(&api, &bucket, "web-1").await.ok();
        let id = BucketId::try_from(text(&bucket, "_id").to_owned()).unwrap();
        let owner = UserId::try_from(text(&owner.self_view().await, "_id").to_owned()).unwrap();
        Self { api, bucket, id, owner }
    }

    fn keys(&self) -> AgentKeys<'_> {
        AgentKeys {
            public_id: text(&self.bucket, "public_id"),
            secret_id: text(&self.bucket, "secret_id"),
            address: None,
        }
    }

    /// The row of `kind` with these fields.
    async fn with(&self, kind: &str, fields: Value) -> Edit {
        let mut row = self.api.rows_of(kind).await.remove(0);
        row.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Edit::Put(row)
    }

    async fn gone(&self, kind: &str) -> Edit {
        Edit::Delete(self.api.rows_of(kind).await.remove(0))
    }

    /// Links `name` through a store in which `edits` come before the `nth` transaction.
    async fn links(&self, name: &str, edits: &[Edit]) -> Result<bool, AgentError> {
        let (store, now) = (meanwhile::store(&self.api, 1, edits), Timestamp::now());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let agent = store.agent(&self.keys(), &name, now).await?;
        let report = Report { cpus: Some(7), ..Report::default() };
        store.link_server(&self.keys(), agent, &name, &report, now).await
    }

    async fn connects(&self, edits: &[Edit]) -> Result<(), AgentError> {
        let (store, now) = (meanwhile::store(&self.api, 1, edits), Timestamp::now());
        let agent =
            store.agent(&self.keys(), &ServerName::try_from("web-1".to_owned()).unwrap(), now).await?;
        store.connect_server(&agent, "c1", now).await
    }

    async fn deletes(&self, edits: &[Edit]) -> Result<(), ServerError> {
        let (store, now) = (meanwhile::store(&self.api, 1, edits), Timestamp::now());
        let name = ServerName::try_from("web-1".to_owned()).unwrap();
        store.delete_server(&self.id, &self.owner, &name, now).await
    }

    async fn servers(&self) -> Vec<(Value, Value)> {
        let rows = self.api.rows_of("server").await;
        rows.into_iter().map(|row| (row["name"].clone(), row["cpus"].clone())).collect()
    }
}

#[tokio::test]
async fn a_link_rests_on_bucket_secret_plan_and_place() {
    for (kind, fields, name, expected) in [
        ("bucket", json!({ "deleted_at": 1 }), "web-2", "WrongKeys"),
        ("bucket", json!({ "secret_id": "another00000000" }), "web-2", "WrongKeys"),
        ("bucket", json!({ "servers_used": 2 }), "web-2", "ServerLimit { servers: 2 }"),
        ("bucket", json!({ "deleted_at": 1 }), "web-1", "WrongKeys"),
        ("bucket", json!({ "secret_id": "another00000000" }), "web-1", "WrongKeys"),
    ] {
        let scene = Scene::set().await;
        let edits = [scene.with(kind, fields.clone()).await];

        let outcome = scene.links(name, &edits).await;

        assert_eq!(format!("{:?}", outcome.unwrap_err()), expected, "{fields} {name}");
        assert_eq!(scene.servers().await, [(json!("web-1"), json!(2))], "{fields} {name}");
    }
    // The plan shrinks: the places are those of the plan then in force.
    let scene = Scene::set().await;
    let big = scene.with("bucket", json!({ "plan": "plus", "servers_used": 2 })).await;
    let Edit::Put(row) = &big else { panic!() };
    scene.api.put_row(row).await;
    let edits = [scene.with("bucket", json!({ "plan": "free" })).await];
    let outcome = scene.links("web-2", &edits).await;
    assert_eq!(format!("{:?}", outcome.unwrap_err()), "ServerLimit { servers: 2 }");
    // And the other way round.
    let scene = Scene::set().await;
    let full = scene.with("bucket", json!({ "servers_used": 2 })).await;
    let Edit::Put(row) = &full else { panic!() };
    scene.api.put_row(row).await;
    let edits = [scene.with("bucket", json!({ "plan": "plus" })).await];
    assert!(scene.links("web-2", &edits).await.unwrap());

    // Somebody else was first with the name, or has deleted the server: it is decided anew.
    let scene = Scene::set().await;
    let other = json!({ "name": "web-2", "sk": "SERVER#web-2" });
    let edits = [scene.with("server", other).await, scene.with("bucket", json!({ "servers_used": 2 })).await];
    assert!(!scene.links("web-2", &edits).await.unwrap());
    assert_eq!(scene.servers().await, [(json!("web-1"), json!(2)), (json!("web-2"), json!(7))]);
    let scene = Scene::set().await;
    let edits = [scene.gone("server").await, scene.with("bucket", json!({ "servers_used": 0 })).await];
    assert!(scene.links("web-1", &edits).await.unwrap());
    invariants::hold(&scene.api).await;
}

#[tokio::test]
async fn a_connection_rests_on_bucket_secret_and_server() {
    for (fields, expected) in
        [(json!({ "deleted_at": 1 }), "WrongKeys"), (json!({ "secret_id": "another00000000" }), "WrongKeys")]
    {
        let scene = Scene::set().await;
        let edits = [scene.with("bucket", fields.clone()).await];
        assert_eq!(format!("{:?}", scene.connects(&edits).await.unwrap_err()), expected, "{fields}");
        assert!(scene.api.rows_of("agent_connection").await.is_empty());
    }
    let scene = Scene::set().await;
    let edits = [scene.gone("server").await];
    assert!(matches!(scene.connects(&edits).await, Err(AgentError::NotLinked)));
    assert!(scene.api.rows_of("server").await.is_empty(), "half a row");
    assert!(scene.api.rows_of("agent_connection").await.is_empty());
}

#[tokio::test]
async fn a_deletion_rests_on_bucket_right_and_silence() {
    let scene = Scene::set().await;
    let edits = [scene.with("bucket", json!({ "deleted_at": 1 })).await];
    let outcome = scene.deletes(&edits).await;
    assert!(matches!(outcome, Err(ServerError::People(PeopleError::BucketNotFound))), "{outcome:?}");
    assert_eq!(scene.servers().await.len(), 1);

    let scene = Scene::set().await;
    let edits = [scene.with("member", json!({ "role": "developer" })).await];
    let outcome = scene.deletes(&edits).await;
    let too_low = ServerError::People(PeopleError::RoleTooLow(Right::DeleteServer));
    assert_eq!(format!("{:?}", outcome.unwrap_err()), format!("{too_low:?}"));
    assert_eq!(scene.servers().await.len(), 1);

    // Its agent connects: it is not deleted under its feet.
    let scene = Scene::set().await;
    let later = Timestamp::now().as_millis() + 1;
    let edits = [scene.with("server", json!({ "last_seen": later })).await];
    scene.deletes(&edits).await.unwrap();
    assert!(scene.servers().await.is_empty(), "decided anew, and still not connected");

    // Somebody else has deleted it.
    let scene = Scene::set().await;
    let edits = [scene.gone("server").await, scene.with("bucket", json!({ "servers_used": 0 })).await];
    assert!(matches!(scene.deletes(&edits).await, Err(ServerError::NotFound)));
    invariants::hold(&scene.api).await;
}

#[tokio::test]
async fn a_new_secret_rests_on_the_owner_and_is_decided_anew_after_a_change() {
    for (fields, expected) in [
        (json!({ "owner_id": "0123456789abcdef01234567" }), "RoleTooLow(RotateSecret)"),
        (json!({ "deleted_at": 1, "version": 99 }), "BucketNotFound"),
    ] {
        let scene = Scene::set().await;
        let edits = [scene.with("bucket", fields).await];
        let bucket = scene.api.store().bucket(&scene.id).await.unwrap().unwrap();
        let store = meanwhile::store(&scene.api, 1, &edits);

        let outcome = store.rotate_secret(bucket, &scene.owner, Timestamp::now()).await;

        assert_eq!(format!("{:?}", outcome.unwrap_err()), expected);
        assert_eq!(scene.api.rows_of("bucket").await[0]["secret_id"], scene.bucket["secret_id"]);
    }
    let scene = Scene::set().await;
    let edits = [scene.with("bucket", json!({ "name": "Renamed", "version": 7 })).await];
    let bucket = scene.api.store().bucket(&scene.id).await.unwrap().unwrap();
    let store = meanwhile::store(&scene.api, 1, &edits);
    let rotated = store.rotate_secret(bucket, &scene.owner, Timestamp::now()).await.unwrap();
    assert_eq!((rotated.name.as_str(), rotated.version), ("Renamed", 8));
    assert_eq!(scene.api.store().bucket(&scene.id).await.unwrap().unwrap(), rotated);
}
