//! The local page, and what it alone reads.

use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use super::{Local, TEMPLATE, body, dynamodb};

const BUCKET: &str = "5f1d2c3b4a5968778695a4b3";
const ALICE: &str = "d57826d76e60a79d246862ae";

/// A stack with a table as the product has it.
async fn stack() -> Local {
    let template = TEMPLATE
        .replace(
            "[{ AttributeName: pk, AttributeType: S }]",
            "[{ AttributeName: pk, AttributeType: S }, { AttributeName: sk, AttributeType: S }]",
        )
        .replace(
            "[{ AttributeName: pk, KeyType: HASH }]",
            "[{ AttributeName: pk, KeyType: HASH }, { AttributeName: sk, KeyType: RANGE }]",
        );
    Local::start_with(|options| std::fs::write(&options.template, template).unwrap()).await
}

async fn put(local: &Local, item: Value) {
    let request = json!({ "TableName": local.stack.table_name(), "Item": item });
    let (status, answer) = dynamodb(local, "PutItem", &request).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

/// The id of the entry number `number`: ids sort by time.
fn id(number: usize) -> String {
    format!("01K{number:023}")
}

/// Puts entry number `number` of the trail of [`BUCKET`] into the table.
async fn put_entry(local: &Local, number: usize) {
    put(
        local,
        json!({
            "pk": { "S": format!("BUCKET#{BUCKET}") },
            "sk": { "S": format!("AUDIT#{}", id(number)) },
            "type": { "S": "audit" },
            "bucket_id": { "S": BUCKET },
            "id": { "S": id(number) },
            "actor_id": { "S": ALICE },
            "action": { "S": "invite" },
            "target_email": { "S": "<b>bob</b>@example.com" },
            "at": { "N": "1795506646007" },
        }),
    )
    .await;
}

#[tokio::test]
async fn a_trail_is_read_newest_first_and_in_parts() {
    let local = stack().await;
    put(&local, json!({ "pk": { "S": format!("USER#{ALICE}") }, "sk": { "S": "USER" }, "email": { "S": "alice@example.com" } })).await;
    put(&local, json!({ "pk": { "S": format!("BUCKET#{BUCKET}") }, "sk": { "S": "BUCKET" } })).await;
    for number in 0..52 {
        put_entry(&local, number).await;
    }

    let response = local.get(&format!("/_local/audit/{BUCKET}")).await;

    assert_eq!(response.status(), StatusCode::OK);
    let answer = body(&response);
    assert_eq!(answer["entries"].as_array().unwrap().len(), 50);
    assert_eq!(
        answer["entries"][0],
        json!({
            "bucket_id": BUCKET,
            "id": id(51),
            "actor_id": ALICE,
            "action": "invite",
            "target_email": "<b>bob</b>@example.com",
            "at": 1_795_506_646_007_u64,
        })
    );
    assert_eq!(answer["people"], json!({ ALICE: "alice@example.com" }));
    assert_eq!(answer["more"], true);

    let older = body(&local.get(&format!("/_local/audit/{BUCKET}?before={}", id(2))).await);
    let ids: Vec<_> = older["entries"].as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect();
    assert_eq!(ids, [id(1), id(0)]);
    assert_eq!(older["more"], false);

    let nothing = local.get(&format!("/_local/audit/{BUCKET}?before={}", id(0))).await;
    assert_eq!(nothing.status(), StatusCode::OK);
    assert_eq!(body(&nothing), json!({ "entries": [], "more": false, "people": {} }));
}

#[tokio::test]
async fn what_is_no_bucket_has_no_trail() {
    let local = stack().await;

    let unknown = local.get(&format!("/_local/audit/{BUCKET}")).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert_eq!(body(&unknown), json!({ "message": "No bucket has this id." }));

    for id in
        ["1", "5F1D2C3B4A5968778695A4B3", "5f1d2c3b4a5968778695a4b3a", "5f1d2c3b4a5968778695a4b%23", "%2e%2e"]
    {
        let response = local.get(&format!("/_local/audit/{id}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{id}");
    }
    for before in ["", "1", "01k00000000000000000000000", "01K0000000000000000000000%23"] {
        let response = local.get(&format!("/_local/audit/{BUCKET}?before={before}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{before}");
    }
    let posted = local.send(Request::post(format!("/_local/audit/{BUCKET}")), "").await;
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_table_too_is_refused_to_other_hosts() {
    let local = Local::start().await;
    let asked_for = async |host: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        Local::send_raw_to(local.stack.dynamodb_endpoint(), request.as_bytes()).await
    };

    let refused = asked_for("rebound.example").await;
    assert!(refused.starts_with("HTTP/1.1 421 "), "{refused}");
    let answered = asked_for("127.0.0.1").await;
    assert!(!answered.starts_with("HTTP/1.1 421 "), "{answered}");
}

#[tokio::test]
async fn what_is_for_the_people_at_this_machine_is_refused_to_other_hosts() {
    let local = Local::start().await;
    let port = local.stack.origin().rsplit_once(':').unwrap().1.to_owned();
    let audit = format!("/_local/audit/{BUCKET}");
    let paths = [
        "/_local/",
        "/_local",
        "/_local/openapi.json",
        "/_local/mail",
        "/_local/mail.json",
        &audit,
        "/_local/oidc/jwks",
    ];
    for path in paths {
        for host in [
            "rebound.example",
            "localhost.rebound.example",
            "0.0.0.0",
            "127.0.0.1.rebound.example",
            "me@localhost",
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
            let answer = local.send_raw(request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 421 "), "{path} of {host}: {answer}");
        }
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
            let answer = local.send_raw(request.as_bytes()).await;
            assert!(!answer.starts_with("HTTP/1.1 421 "), "{path} of {host}: {answer}");
        }
    }
}

#[tokio::test]
async fn no_page_of_another_origin_is_let_read_mails_or_trails() {
    let local = stack().await;
    put_entry(&local, 0).await;
    for path in ["/_local/mail.json", "/_local/", &format!("/_local/audit/{BUCKET}")] {
        let response = local.send(Request::get(path).header("origin", "https://app.example"), "").await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert!(!response.headers().contains_key("access-control-allow-origin"), "{path}");
    }
}

#[tokio::test]
async fn the_description_names_the_host_that_it_was_asked_of() {
    let local = Local::start().await;
    let missing = local.get("/_local/openapi.json").await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert!(body(&missing)["message"].as_str().unwrap().starts_with("There is no usable openapi.json"));

    let file = local.folder.path().join("openapi.json");
    std::fs::write(&file, r#"{"openapi":"3.1.1","servers":[{"url":"https://api.example.com"}]}"#).unwrap();
    let origin = local.stack.origin();
    let described = body(&local.get("/_local/openapi.json").await);
    assert_eq!(described, json!({ "openapi": "3.1.1", "servers": [{ "url": origin }] }));

    let port = origin.rsplit_once(':').unwrap().1;
    let request =
        format!("GET /_local/openapi.json HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    assert!(local.send_raw(request.as_bytes()).await.contains(&format!("http://localhost:{port}")));
}
