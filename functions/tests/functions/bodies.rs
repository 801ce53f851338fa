//! Bodies that nobody means well with, beside those of `every_route`: each is the client's fault, and changes
//! nothing.

use serde_json::Value;

use super::{
    api::{Answer, Api, path},
    every_route::{Call, UNKNOWN, calls},
    matrix::{Cast, good_body},
};

const JSON: &str = "application/json";

/// Calls `call` with a body of `content_type`.
async fn sends(api: &Api, call: &Call, token: &str, content_type: &str, body: &[u8]) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("content-type", content_type), ("authorization", authorization.as_str())];
    api.send_with(&call.method, &call.path, &headers, body).await
}

/// `body` with the JSON text `value` for its field `name`.
fn with(body: &Value, name: &str, value: &str) -> String {
    let mut body = body.clone();
    body[name] = "{value}".into();
    body.to_string().replace("\"{value}\"", value)
}

#[tokio::test]
async fn a_hostile_body_is_the_clients_fault_on_every_route_that_takes_one() {
    let api = Api::with_parameters(&[("BucketsPerOwner", "1000")]).await;
    let cast = Cast::of(&api).await;
    let token = &cast.by_kind["owner"].token;
    let deep =
        |open: &str, levels: usize, close: &str| format!("{}1{}", open.repeat(levels), close.repeat(levels));
    let raw: [(&str, &[u8]); 12] = [
        ("not UTF-8", b"{\"name\":\"\xff\"}"),
        ("not UTF-8 in a name", b"{\"\xc3\x28\":1}"),
        ("half a letter", b"{\"name\":\"\xe2\x82\"}"),
        ("an encoded surrogate", b"{\"name\":\"\xed\xa0\x80\"}"),
        ("UTF-16", b"{\0}\0"),
        ("a mark of byte order", b"\xef\xbb\xbf{}"),
        ("compressed", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"),
        ("NUL", b"\0"),
        ("an object in an array", b"[{\"name\":\"a\"}]"),
        ("a text", b"\"{}\""),
        ("a number", b"1"),
        ("a comment", b"/**/{}"),
    ];

    for mut call in calls(&api, UNKNOWN).into_iter().filter(Call::takes_a_body) {
        let bucket = cast.bucket_for(&call.function).await;
        call.path = call.path.replace(UNKNOWN, bucket["_id"].as_str().unwrap());
        let rows = api.rows().await;
        let good = good_body(&call.function);
        let function = &call.function;

        for (what, body) in raw {
            let answer = sends(&api, &call, token, JSON, body).await;
            assert_eq!(
                (answer.status, answer.body["code"].as_str()),
                (400, Some("invalid_input")),
                "{function}: {what}"
            );
        }
        let text = good.to_string();
        for end in 1..text.len() {
            let answer = sends(&api, &call, token, JSON, &text.as_bytes()[..end]).await;
            answer.is_problem(400, "invalid_input");
        }
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for (levels, status, code) in [(1_000, 400, "invalid_input"), (100_000, 413, "body_too_large")] {
                let body = deep(open, levels, close);
                let body = if open == "[" { body } else { format!("{{\"a\":{body}}}") };
                sends(&api, &call, token, JSON, body.as_bytes()).await.is_problem(status, code);
            }
        }
        sends(&api, &call, token, JSON, "{\"a\":[".repeat(10_000).as_bytes())
            .await
            .is_problem(400, "invalid_input");

        for name in good.as_object().unwrap().keys() {
            for value in [
                "1e400",
                "-1e400",
                "-0",
                "184467440737095516160",
                "true",
                "null",
                "[]",
                "[\"a\"]",
                "\"\\ud800\"",
                "\"\\udc00\\ud800\"",
                "\"\\u\"",
                "\"\n\"",
                "'a'",
                &deep("[", 1_000, "]"),
                &deep("{\"a\":", 1_000, "}"),
            ] {
                let body = with(&good, name, value);
                let answer = sends(&api, &call, token, JSON, body.as_bytes()).await;
                assert_eq!(
                    (answer.status, answer.body["code"].as_str()),
                    (400, Some("invalid_input")),
                    "{function}: {body}"
                );
            }
            let value = good[name].to_string();
            let twice = with(&good, name, &format!("{value},\"{name}\":{value}"));
            sends(&api, &call, token, JSON, twice.as_bytes()).await.blames(&[name]);
        }

        for content_type in [
            "multipart/form-data; boundary=a",
            "application/xml",
            "application/octet-stream",
            "application/jsonp",
            "application/json, text/plain",
            "text/json",
            "json",
        ] {
            let answer = sends(&api, &call, token, content_type, text.as_bytes()).await;
            answer.is_problem(415, "unsupported_media_type");
        }

        assert_eq!(api.rows().await, rows, "{function}");
        assert_eq!(api.stack.instances_started(function), 1, "{function}");
        // It was not for another reason.
        sends(&api, &call, token, JSON, text.as_bytes()).await.ok();
    }
}

#[tokio::test]
async fn a_body_that_is_not_read_does_no_harm() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let rows = api.rows().await;
    let deep = "[".repeat(100_000);
    let large = "a".repeat(1_000_000);

    // Each is refused for what it lacks, whatever the body.
    for call in calls(&api, bucket["_id"].as_str().unwrap()) {
        for body in [&deep, &large, "\0", "{"] {
            let answer = api.send(&call.method, &call.path, None, Some(body)).await;
            let is_refused = (400..500).contains(&answer.status);
            assert!(is_refused || call.function == "misc_plans", "{}: {}", call.function, answer.body);
        }
    }
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn what_is_kept_as_it_came_comes_back_however_odd() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let authorization = format!("Bearer {}", owner.token);
    let headers = [("content-type", JSON), ("authorization", authorization.as_str())];

    for value in [
        r#"{"a":"\ud800"}"#,
        r#"{"a":"\u0000"}"#,
        r#"{"a":1e400}"#,
        r#"{"a":-0.0e-0}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"__proto__":{"a":1}}"#,
        r#"{"":[]}"#,
    ] {
        for (route, name) in [("", "configuration"), ("/user_options", "options")] {
            let body = format!("{{\"{name}\":{value}}}");
            let answer = api.send_with("PUT", &path(&bucket, route), &headers, &body).await;
            assert_eq!(answer.status, 200, "{body}: {}", answer.body);
        }
        let answer = owner.get(&path(&bucket, "")).await;
        assert_eq!(answer.status, 200);
        // Not every reader takes such an answer for JSON.
        let text = answer.body.as_str().map_or_else(|| answer.body.to_string(), ToOwned::to_owned);
        assert!(text.contains("\"configuration\":{") && text.contains("\"user_options\":{"), "{text}");
    }
}
