//! Examples: the recorded events and their answers.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, read};

/// What stands for a text that is another at every run, and what an example says in its place.
const PLACEHOLDERS: [(&str, &str); 5] = [
    ("{request id}", "8f7a2c1e-5b3d-4c6a-9e2f-1a0b3c4d5e6f"),
    ("{access token}", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"),
    ("{time}", "2026-11-24T08:00:00Z"),
    ("{24 hexadecimal digits}", "5f1d2c3b4a5968778695a4b5"),
    ("{15 letters or digits}", "k3v9x0q7m2b8d4z"),
];

/// Longer bodies explain nothing.
const LONGEST_BODY: usize = 4_096;

/// An event and its answer.
#[derive(Debug)]
pub(crate) struct Example {
    /// The case that it shows, such as `role_too_low`.
    pub(crate) case: String,
    /// Its body, where that is an object in JSON.
    pub(crate) body: Option<Value>,
    /// The status of the answer.
    pub(crate) status: u16,
    /// The body of the answer.
    pub(crate) answer: Value,
}

/// The examples of `function` below `workspace`, by case.
pub(crate) fn examples(workspace: &Path, function: &str) -> Result<Vec<Example>, Error> {
    let folder = workspace.join("events").join(function);
    let entries =
        std::fs::read_dir(&folder).map_err(|source| Error::Read { path: folder.clone(), source })?;
    let mut cases: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".answer.json")?.to_owned()))
        .collect();
    cases.sort();
    cases.into_iter().map(|case| example(&folder, case)).collect()
}

fn example(folder: &Path, case: String) -> Result<Example, Error> {
    let event = json(&folder.join(format!("{case}.json")))?;
    let answer = json(&folder.join(format!("{case}.answer.json")))?;
    let body = event.get("body").and_then(Value::as_str).unwrap_or_default();
    let status = answer.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    Ok(Example {
        body: (body.len() <= LONGEST_BODY && !body.contains("{{"))
            .then(|| serde_json::from_str(body).ok().filter(Value::is_object))
            .flatten(),
        status: status.unwrap_or_default(),
        answer: filled(answer.get("body").cloned().unwrap_or_default()),
        case,
    })
}

fn json(path: &Path) -> Result<Value, Error> {
    serde_json::from_str(&read(path)?).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// `value`, which was recorded, with a text of the right form in the place of each placeholder.
#[must_use]
pub fn filled(value: Value) -> Value {
    match value {
        Value::String(text) => {
            let known = PLACEHOLDERS.iter().find(|(placeholder, _)| *placeholder == text);
            known.map_or(Value::String(text), |(_, example)| (*example).into())
        }
        Value::Array(items) => items.into_iter().map(filled).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, member)| (name, filled(member))).collect::<Map<_, _>>().into()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}
