//! Replays `events/<function>/<case>.json` through the Lambda Runtime API against the real binaries,
//! and compares status, headers and body with `<case>.answer.json`.
//!
//! With `UPDATE_EVENTS=1` it writes what is missing: `{{person}}` in an event becomes that person's
//! token, and an event without answer gets the one that it has now, to be read before it is committed.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use openapi::Page;
use serde_json::{Value, json};

use super::{
    api::{Api, workspace},
    replayed_stripe,
    stripe::sign,
};

const ISSUER: &str = "https://identity.example.com";

const ORIGIN: (&str, &str) = ("PublicOrigin", "https://api.example.com");

/// Who the events' tokens are of, and what the tokens say beside `sub`.
fn people() -> Vec<(&'static str, Value)> {
    let verified = |name: &str| json!({ "email": format!("{name}@example.com"), "email_verified": true });
    let mut expired = verified("alice");
    expired["exp"] = json!(1_577_836_800);
    expired["sub"] = json!("alice");
    vec![
        ("alice", verified("alice")),
        ("bob", verified("bob")),
        ("carol", verified("carol")),
        ("dave", verified("dave")),
        ("frank", verified("frank")),
        ("grace", verified("grace")),
        ("heidi", verified("heidi")),
        ("erin", json!({ "email": "erin@example.com", "email_verified": false })),
        ("mallory", verified("alice")),
        ("expired", expired),
    ]
}

/// A key for these events alone: no deployment trusts it.
fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(b"the key of the recorded events..").unwrap()
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn key_set() -> Value {
    let x = base64url(key().public_key());
    json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "events", "use": "sig", "alg": "EdDSA", "x": x }] })
}

fn token(person: &str, said: &Value) -> String {
    let header = json!({ "alg": "EdDSA", "kid": "events", "typ": "at+jwt" });
    let mut claims = json!({ "iss": ISSUER, "aud": "bucket-api", "sub": person, "exp": 4_102_444_800_u32 });
    claims.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
    let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
    format!("{message}.{}", base64url(key().sign(message.as_bytes())))
}

fn updating() -> bool {
    env::var_os("UPDATE_EVENTS").is_some()
}

/// A recorded event.
pub(crate) struct Case {
    pub(crate) function: String,
    event: PathBuf,
}

impl Case {
    fn answer(&self) -> PathBuf {
        self.event.with_extension("answer.json")
    }

    pub(crate) fn name(&self) -> &str {
        self.event.file_stem().unwrap().to_str().unwrap()
    }

    /// The event, with what cannot be recorded: a signature is of now, and what is too long is not worth
    /// keeping.
    pub(crate) fn event(&self) -> Value {
        let mut event = read(&self.event);
        if let Some(body) = event["body"].as_str() {
            event["body"] = body.replace("{{filler}}", &"x".repeat(512 * 1024)).into();
        }
        if event["headers"]["stripe-signature"] == "{{signature}}" {
            let body = event["body"].as_str().unwrap();
            let now = time::OffsetDateTime::now_utc().unix_timestamp();
            event["headers"]["stripe-signature"] = sign(body, replayed_stripe::WEBHOOK_SECRET, now).into();
        }
        event
    }

    /// Whether it is of a deployment with an account at Stripe.
    pub(crate) fn is_paid(&self) -> bool {
        self.name().starts_with("paid_")
    }

    pub(crate) fn recorded_answer(&self) -> Value {
        read(&self.answer())
    }
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, value: &Value) {
    fs::write(path, serde_json::to_string_pretty(value).unwrap() + "\n").unwrap();
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for folder in fs::read_dir(workspace().join("events")).unwrap().map(|entry| entry.unwrap().path()) {
        if !folder.is_dir() {
            continue;
        }
        let function = folder.file_name().unwrap().to_str().unwrap().to_owned();
        for event in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if !event.to_str().unwrap().ends_with(".answer.json") {
                cases.push(Case { function: function.clone(), event });
            }
        }
    }
    cases.sort_by(|a, b| a.event.cmp(&b.event));
    assert!(!cases.is_empty());
    cases
}

/// The API as the event was recorded: the token route with the embedded provider, all others as
/// [`recorded`].
pub(crate) async fn api_for(case: &Case) -> Api {
    if case.function == "oauth_token" {
        Api::with_parameters(&[ORIGIN]).await
    } else {
        recorded(case.is_paid()).await
    }
}

/// The rows of `events/table.json`.
pub(crate) fn table() -> Vec<Value> {
    read(&workspace().join("events/table.json")).as_array().unwrap().clone()
}

/// The API of the recorded events, with the key of their tokens and the table of `events/table.json`; with
/// an account at Stripe where it `is_paid`.
pub(crate) async fn recorded(is_paid: bool) -> Api {
    let agents = ("AgentOrigin", "wss://agents.example.com");
    let key_set = key_set().to_string();
    let mut parameters = vec![ORIGIN, agents, ("OidcIssuer", ISSUER), ("OidcJwks", &key_set)];
    let (url, mut secrets) = (replayed_stripe::start().await, BTreeMap::new());
    if is_paid {
        parameters.extend([("StripeSecretName", replayed_stripe::SECRET_NAME), ("StripeUrl", &url)]);
        secrets = replayed_stripe::secrets();
    }
    let api = Api::deployed(&parameters, secrets).await;
    api.table().put_all(&table()).await;
    api
}

/// Status, headers and body of what the function answered; the whole answer where it is none to HTTP.
pub(crate) fn readable(answer: &[u8]) -> Value {
    let answer: Value = serde_json::from_slice(answer).unwrap();
    if answer["statusCode"].is_null() {
        return answer;
    }
    let text = answer["body"].as_str().unwrap_or_default();
    json!({
        "status": answer["statusCode"],
        "headers": answer["headers"],
        "body": serde_json::from_str::<Value>(text).unwrap_or_else(|_| text.into()),
    })
}

/// `value` with a placeholder for each text that is another at every run. What stands in the table
/// that it was run on, `known`, stays.
pub(crate) fn masked(value: &Value, known: &str) -> Value {
    let is_of = |text: &str, length: usize, alphabet: &[u8]| {
        text.len() == length && text.bytes().all(|byte| alphabet.contains(&byte))
    };
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| match name.as_str() {
                "request_id" => (name.clone(), json!("{request id}")),
                "access_token" => (name.clone(), json!("{access token}")),
                _ => (name.clone(), masked(member, known)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(|item| masked(item, known)).collect(),
        Value::String(text) if known.contains(text.as_str()) => value.clone(),
        Value::String(text) if is_of(text, 24, b"0123456789abcdef") => json!("{24 hexadecimal digits}"),
        Value::String(text) if is_of(text, 15, b"0123456789abcdefghijklmnopqrstuvwxyz") => {
            json!("{15 letters or digits}")
        }
        Value::String(text) if is_of_this_run(text) => json!("{time}"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// A time of today, or the expiry of something made today; those of the recorded table are older.
fn is_of_this_run(text: &str) -> bool {
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
    time.is_ok_and(|time| (-1..30).contains(&(time - time::OffsetDateTime::now_utc()).whole_days()))
}

#[tokio::test]
async fn every_recorded_event_is_answered_as_recorded() {
    let table = fs::read_to_string(workspace().join("events/table.json")).unwrap();
    let cases = cases();
    for case in &cases {
        let api = api_for(case).await;
        let event = case.event().to_string();

        let answer = readable(&api.stack.invoke(&case.function, event.into_bytes()).await.unwrap());

        let answer = masked(&answer, &table);
        if updating() && !case.answer().exists() {
            write(&case.answer(), &answer);
        }
        assert_eq!(answer, case.recorded_answer(), "{}", case.event.display());
        api.stack.stop().await;
    }
}

#[test]
fn the_events_tokens_are_of_the_people_they_say() {
    let tokens: Vec<_> = people().iter().map(|(person, said)| (*person, token(person, said))).collect();
    if updating() {
        write(&workspace().join("events/key-set.json"), &key_set());
    }
    assert_eq!(read(&workspace().join("events/key-set.json")), key_set());
    for case in cases() {
        let mut text = fs::read_to_string(&case.event).unwrap();
        if updating() {
            for (person, token) in &tokens {
                text = text.replace(&format!("{{{{{person}}}}}"), token);
            }
            fs::write(&case.event, &text).unwrap();
        }
        let event: Value = serde_json::from_str(&text).unwrap();
        if let Some(sent) = event["headers"]["authorization"].as_str() {
            let sent = sent.strip_prefix("Bearer ").unwrap();
            let is_known = tokens.iter().any(|(_, token)| token == sent);
            assert!(is_known || matches!(sent, "null" | "not.a.token"), "{}", case.event.display());
        }
    }
}

#[test]
fn every_event_is_one_of_its_functions_routes() {
    for case in cases() {
        let event = read(&case.event);
        let Some(route) = event["requestContext"]["routeKey"].as_str() else {
            assert_eq!(case.function, "notify");
            continue;
        };
        let page = Page::read(&workspace(), &case.function).unwrap();

        assert!(
            page.routes.contains(&route.replace("{proxy+}", ""))
                || (route == "$default" && case.function == "not_found"),
            "{}: {route}",
            case.event.display()
        );
        if event["requestContext"]["connectionId"].is_null() {
            assert_eq!(event["version"], "2.0");
            assert_eq!(event["routeKey"], route);
        }
    }
}
