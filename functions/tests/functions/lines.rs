//! The lines that the functions of a stack log, none of which may hold a token, a secret or an address: each is
//! looked at, in every test.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use local::LogSink;
use serde_json::Value;

/// What was secret in any test of this run: random, so that none is another's by chance.
static SECRETS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Lines that were not what they must be, found behind the end of their test, since they come through a pipe.
static LATE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What a line holds that it must not.
fn leak(line: &str) -> Option<&'static str> {
    let is_secret = |word: &str| SECRETS.lock().unwrap_or_else(PoisonError::into_inner).contains(word);
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
    // `{"` in base64: every JWT begins so, and each of its parts.
    if line.contains("eyJ") {
        Some("a token")
    } else if line.contains('@') || line.contains("%40") {
        Some("an address")
    } else if ["sk_", "whsec_", "rk_", "tok_"].iter().any(|prefix| line.contains(prefix)) {
        Some("a secret of Stripe's")
    } else if words.any(is_secret) {
        Some("a secret")
    } else {
        None
    }
}

/// The lines of one stack. Whoever drops them is told of those that hold what they must not.
pub(crate) struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    test: String,
}

impl Lines {
    pub(crate) fn new() -> Self {
        let test = thread::current().name().unwrap_or("a test").to_owned();
        Self { lines: Arc::default(), test }
    }

    /// What takes the lines.
    pub(crate) fn sink(&self) -> LogSink {
        let (lines, test) = (Arc::downgrade(&self.lines), self.test.clone());
        Arc::new(move |function, line| {
            if let Some(lines) = lines.upgrade() {
                lines.lock().unwrap().push(line.to_owned());
            } else if let Some(what) = leak(line) {
                LATE.lock().unwrap().push(format!("{test}: {function} has logged {what}: {line}"));
            }
        })
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Remembers what is secret of `value`, an answer or a secret of the deployment.
    pub(crate) fn must_not_hold(value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member.as_str() {
                        Some(secret) if matches!(&**name, "secret_id" | "secret_key" | "webhook_secret") => {
                            SECRETS.lock().unwrap().insert(secret.to_owned());
                        }
                        _ => Self::must_not_hold(member),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(Self::must_not_hold),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The lines that hold what they must not, so far.
    fn leaks(&self) -> Vec<String> {
        let told = |line: String| leak(&line).map(|what| format!("{}: {what} is logged: {line}", self.test));
        let late = std::mem::take(&mut *LATE.lock().unwrap_or_else(PoisonError::into_inner));
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lines.into_iter().filter_map(told).chain(late).collect()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let leaks = self.leaks();
        // A test that has failed already has its own reason to tell.
        assert!(leaks.is_empty() || thread::panicking(), "{leaks:#?}");
    }
}

#[test]
fn a_line_with_a_token_a_secret_or_an_address_is_found() {
    let lines = Lines::new();
    Lines::must_not_hold(&serde_json::json!([{ "bucket": { "secret_id": "abcdefghij01234" } }]));
    let sink = lines.sink();
    for (line, is_found) in [
        (r#"{"message":"request","route":"GET /api/bucket/{id}","status":200}"#, false),
        (r#"{"error":"abcdefghij01235"}"#, false),
        (r#"{"error":"abcdefghij01234"}"#, true),
        (r#"{"error":"private_id=abcdefghij01234&"}"#, true),
        (r#"{"error":"alice@example.com"}"#, true),
        (r#"{"path":"/api/bucket/a/invitation/alice%40example.com"}"#, true),
        (r#"{"error":"Bearer eyJhbGciOiJub25lIn0.e30."}"#, true),
        (r#"{"error":"no such key: sk_test_1"}"#, true),
    ] {
        sink("create", line);

        assert_eq!(lines.leaks().len(), usize::from(is_found), "{line}");
        lines.lines.lock().unwrap().clear();
    }
}
