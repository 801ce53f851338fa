//! What the functions log: one line a request, and nothing that must not be read there.

use serde_json::{Value, json};

use super::api::{Api, path};

/// The lines that are metrics, or those that are not, once there are `count`: they arrive behind the answer,
/// through a pipe.
async fn logged_as(api: &Api, metrics: bool, count: usize) -> Vec<String> {
    let found = || {
        let mut lines = api.logs();
        lines.retain(|line| line.contains("\"_aws\"") == metrics);
        lines
    };
    for _ in 0..1_000 {
        if found().len() >= count {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    found()
}

/// What is logged beside metrics, once there are `count` lines.
async fn logged(api: &Api, count: usize) -> Vec<String> {
    logged_as(api, false, count).await
}

/// The same, each line as the JSON that it must be.
async fn lines(api: &Api, count: usize) -> Vec<Value> {
    let lines = logged(api, count).await;
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[tokio::test]
async fn each_request_is_one_line_with_what_it_took() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.get(&path(&bucket, "")).await.ok();
    let refused = owner.get("/api/bucket/x").await;

    let lines = lines(&api, 4).await;

    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            assert_eq!((&line["message"], &line["level"]), (&json!("request"), &json!("INFO")));
            assert!(
                line["duration_ms"].is_f64()
                    && line["request_id"].is_string()
                    && line["timestamp"].is_string()
            );
            let field = |name: &str| line[name].as_f64().unwrap();
            (
                line["route"].as_str().unwrap(),
                line["status"].as_u64().unwrap(),
                line["code"].as_str(),
                [field("table_calls"), field("read_units"), field("write_units")],
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("POST /api/oauth/token", 200, None, [0.0, 0.0, 0.0]),
            // Look for the user; record the person; look for invitations and memberships; clear the
            // mark; create the bucket.
            ("POST /api/bucket/create_classic", 200, None, [6.0, 3.0, 18.0]),
            ("GET /api/bucket/{id}", 200, None, [1.0, 2.0, 0.0]),
            ("GET /api/bucket/{id}", 404, Some("bucket_not_found"), [0.0, 0.0, 0.0]),
        ]
    );
    assert_eq!(lines[3]["request_id"], refused.body["request_id"]);
}

/// Holds that a line is what `CloudWatch` takes for metrics, and gives the value of each with its namespace and
/// dimensions.
///
/// Source: "Specification: Embedded metric format" in the Amazon `CloudWatch` user guide.
fn metrics_of(line: &Value) -> Vec<Value> {
    let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1_000;
    let timestamp = line["_aws"]["Timestamp"].as_i64().unwrap();
    assert!((now - 60_000..=now + 60_000).contains(&timestamp), "in milliseconds, and now: {line}");
    let mut metrics = Vec::new();
    for directive in line["_aws"]["CloudWatchMetrics"].as_array().unwrap() {
        let namespace = directive["Namespace"].as_str().unwrap();
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_/#:".contains(c);
        assert!((1..=255).contains(&namespace.len()) && namespace.chars().all(is_allowed), "{line}");
        for set in directive["Dimensions"].as_array().unwrap() {
            let set = set.as_array().unwrap();
            assert!(set.len() <= 30, "{line}");
            let dimensions = set.iter().map(|name| {
                let name = name.as_str().unwrap();
                let value = line[name].as_str().unwrap_or_else(|| panic!("{name} is no text: {line}"));
                assert!((1..=1_024).contains(&value.len()) && value.is_ascii(), "{line}");
                (name.to_owned(), json!(value))
            });
            let dimensions: serde_json::Map<_, _> = dimensions.collect();
            for metric in directive["Metrics"].as_array().unwrap() {
                let name = metric["Name"].as_str().unwrap();
                assert!(line[name].is_number(), "{name} is no number: {line}");
                assert_eq!(metric["Unit"], "Count");
                metrics.push(json!([namespace, name, dimensions, line[name]]));
            }
        }
    }
    metrics
}

#[tokio::test]
async fn each_refusal_is_counted_by_its_code_and_what_succeeds_is_not() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.get("/api/bucket/x").await.is_problem(404, "bucket_not_found");
    owner.put(&path(&bucket, ""), &json!({ "name": 5 })).await.blames(&["name"]);
    api.send("POST", &path(&bucket, "/add_user"), None, Some("{}")).await.is_problem(401, "missing_token");

    let mut seen: Vec<Value> = Vec::new();
    for line in logged_as(&api, true, 3).await {
        let line: Value = serde_json::from_str(&line).unwrap();
        seen.extend(metrics_of(&line));
        // Nothing that tells one person or bucket from another.
        let names: Vec<_> = line.as_object().unwrap().keys().collect();
        assert_eq!(names, ["Refusals", "_aws", "code", "route", "status"]);
    }
    seen.sort_by_key(ToString::to_string);

    let counted = |code| json!(["bucket-api/bucket-api", "Refusals", { "code": code }, 1]);
    assert_eq!(seen, ["bucket_not_found", "invalid_input", "missing_token"].map(counted));
}

#[tokio::test]
async fn a_failure_is_logged_once_with_its_cause() {
    let api = Api::with_parameters(&[("OidcIssuer", "http://127.0.0.1:1")]).await;
    let person = api.user_with_claims(&json!({ "sub": "a" }));
    let answer = person.get("/api/bucket").await;

    let lines = lines(&api, 2).await;

    let [warning, error] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((&warning["level"], &error["level"]), (&json!("WARN"), &json!("ERROR")));
    assert_eq!(warning["message"], "the key set could not be fetched");
    assert!(warning["error"].as_str().unwrap().contains("http://127.0.0.1:1/.well-known"), "{warning}");
    assert_eq!(error["error"], "the identity provider did not answer a moment ago");
    assert_eq!(error["request_id"], answer.body["request_id"]);
    assert!(!answer.body.to_string().contains("identity"));
}

#[tokio::test]
async fn no_line_holds_a_token_a_secret_or_an_address() {
    let api = Api::start().await;
    let owner = api.user("very-private@example.com").await;
    let bucket = owner.creates_bucket("Confidential name").await;
    owner.put(&path(&bucket, ""), &json!({ "comment": "Confidential comment" })).await.ok();
    owner.put(&path(&bucket, ""), &json!({ "comment": ["Confidential comment"] })).await.blames(&["comment"]);
    owner.get(&path(&bucket, "?email=very-private@example.com")).await.ok();
    owner.get("/api/users/isLogged").await.ok();
    owner.delete(&path(&bucket, "")).await.ok();
    api.bearer("very-private-token").get("/api/bucket").await.is_problem(401, "invalid_token");
    api.send("POST", "/api/oauth/token", None, Some("{\"refresh_token\":\"very-private\"}")).await;

    let text = lines(&api, 9).await.iter().map(Value::to_string).collect::<String>();

    assert!(text.contains("/api/oauth/token"));
    let secrets = [bucket["secret_id"].as_str().unwrap(), owner.token.split('.').nth(1).unwrap()];
    for private in ["very-private", "@example.com", "Confidential"].into_iter().chain(secrets) {
        assert!(!text.contains(private), "{private} in {text}");
    }
}

#[tokio::test]
async fn a_function_that_cannot_start_names_the_variable() {
    let api = Api::with_parameters(&[("OidcJwks", "{\"keys\":5}")]).await;

    let answer = api.send("GET", "/api/bucket", None, None).await;

    assert_eq!((answer.status, &answer.body), (500, &json!({ "message": "Internal Server Error" })));
    // The function's line, and the stack's that it could not start.
    let text = logged(&api, 2).await.concat();
    assert!(text.contains("OIDC_JWKS must be a JWK Set as JSON"), "{text}");
}
