//! The scene: the local stack as the recorded events want it, and what they are.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, os};

use bytes::Bytes;
use local::{Data, Options, Stack};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::proxy::Proxy;
use crate::table::{self, Rows, Table};
use crate::{Bootstrap, Failure, Subject};

/// What of the recorded events is the ordinary case of a function where the first by name is not.
const ORDINARY: [(&str, &str); 3] =
    [("invite_user", "invited"), ("is_logged", "known"), ("retrieve_all", "listed")];

/// They talk to somebody else, who is not here: the provider, or Stripe.
const LEFT_OUT: [&str; 2] = ["oauth_token", "stripe_webhook"];

/// Says to a function where the table is.
pub(crate) const ENDPOINT: &str = "AWS_ENDPOINT_URL_DYNAMODB";

/// Of a plan without a limit that the growth would come to.
const PLAN: &str = "enterprise";

/// A bootstrap that is measured beside the functions.
#[derive(Clone, Debug)]
pub struct Other {
    /// What it is called here.
    pub name: String,
    /// The function whose environment and event it is given; none for a greeting.
    pub function: Option<String>,
    /// The executable.
    pub binary: PathBuf,
}

/// A recorded event that a function does something for.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) function: String,
    pub(crate) name: String,
    pub(crate) event: Value,
    /// Status of the answer; none where it is none to HTTP.
    pub(crate) status: Option<u64>,
}

impl Case {
    /// Whether the table may be another afterwards.
    pub(crate) fn changes(&self) -> bool {
        self.event.pointer("/requestContext/http/method").is_none_or(|method| method != "GET")
    }

    pub(crate) fn event(&self) -> Bytes {
        self.event.to_string().into()
    }

    /// Method and path, or what stands for them.
    pub(crate) fn route(&self) -> &str {
        let key = self.event.pointer("/requestContext/routeKey").and_then(Value::as_str);
        key.unwrap_or("the table's stream")
    }
}

/// The stack, with the rows of `events/table.json` and nobody who follows its stream.
pub struct Stage {
    pub(crate) stack: Stack,
    pub(crate) table: Table,
    pub(crate) rows: Rows,
    cases: Vec<Case>,
    binaries: PathBuf,
    /// What makes the table as far away as was asked for.
    away: Option<Proxy>,
    /// Holds the binaries by the names that the stack wants, and the template.
    _folder: TempDir,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Stage").field("binaries", &self.binaries).finish_non_exhaustive()
    }
}

impl Stage {
    /// Starts the stack of the project in `workspace` with the functions in `binaries`, which are
    /// `NAME/bootstrap` there, as cargo-lambda puts them, or `NAME`. Each call of a function to the table takes
    /// `latency` longer, as over a network.
    pub async fn set(workspace: &Path, binaries: &Path, latency: Duration) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let links = folder.path().join("functions");
        fs::create_dir(&links)?;
        let entries = fs::read_dir(binaries).map_err(|error| Failure::file(binaries, error.to_string()))?;
        for entry in entries {
            let path = std::path::absolute(entry?.path())?;
            let bootstrap = path.join("bootstrap");
            let (Some(name), target) =
                (path.file_name(), if bootstrap.is_file() { &bootstrap } else { &path })
            else {
                continue;
            };
            os::unix::fs::symlink(target, links.join(name))?;
        }
        let template = folder.path().join("template.yaml");
        fs::write(&template, unfollowed(&read(&workspace.join("template.yaml"))?))?;
        let events = workspace.join("events");
        let key_set = json(&events.join("key-set.json"))?;
        let mut plans = json(&workspace.join("plans.json"))?;
        if let Some(plan) = plans.get_mut(PLAN).and_then(Value::as_object_mut) {
            plan.insert("seats".to_owned(), json!(1_000_000));
        }
        let parameters = [
            ("PublicOrigin", "https://api.example.com".to_owned()),
            ("AgentOrigin", "wss://agents.example.com".to_owned()),
            ("OidcIssuer", "https://identity.example.com".to_owned()),
            ("OidcJwks", key_set.to_string()),
            ("Plans", plans.to_string()),
        ];
        let stack = Stack::start(Options {
            template,
            binaries: links.clone(),
            data: Data::Memory,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            dynamodb_port: 0,
            parameters: parameters.map(|(name, value)| (name.to_owned(), value)).into(),
            secrets: BTreeMap::new(),
            logs: Arc::new(|_, _| {}),
            functions_dynamodb: None,
        })
        .await?;
        let table = Table::new(stack.dynamodb_endpoint(), stack.table_name());
        let rows = table::rows(json(&events.join("table.json"))?.as_array().map_or(&[], Vec::as_slice));
        table.restore(&rows).await?;
        let away = if latency.is_zero() {
            None
        } else {
            Some(Proxy::before(stack.dynamodb_endpoint(), latency).await?)
        };
        Ok(Self { stack, table, rows, cases: cases(&events)?, binaries: links, away, _folder: folder })
    }

    /// Ends the stack.
    pub async fn stop(self) {
        self.stack.stop().await;
    }

    /// Has the table be as it was in the beginning.
    pub(crate) async fn restore(&self) -> Result<(), Failure> {
        self.table.restore(&self.rows).await
    }

    /// How `function` is started.
    pub(crate) fn bootstrap(&self, function: &str) -> Result<Bootstrap, Failure> {
        let environment = self.stack.environment(function);
        let environment = environment.ok_or_else(|| Failure::function(function, "is not in the template"))?;
        let mut environment = environment.clone();
        if let Some(away) = &self.away {
            environment.insert(ENDPOINT.to_owned(), away.endpoint.clone());
        }
        Ok(Bootstrap { name: function.to_owned(), binary: self.binaries.join(function), environment })
    }

    /// The recorded events that something is done for, by function.
    pub(crate) fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// The ordinary event of `function`.
    pub(crate) fn ordinary(&self, function: &str) -> Option<&Case> {
        let name = ORDINARY.into_iter().find_map(|(of, name)| (of == function).then_some(name));
        self.cases.iter().find(|case| case.function == function && name.is_none_or(|name| case.name == name))
    }

    /// A recorded event.
    pub(crate) fn case(&self, function: &str, name: &str) -> Result<&Case, Failure> {
        let case = self.cases.iter().find(|case| case.function == function && case.name == name);
        case.ok_or_else(|| Failure::function(function, format!("has no event `{name}`")))
    }

    /// What is measured: `hello`, which is the first, the functions in `only` (all, if there are none), and the
    /// `others`.
    pub fn subjects(&self, hello: &Path, only: &[String], others: &[Other]) -> Result<Vec<Subject>, Failure> {
        let mut subjects = vec![Subject::hello("hello", hello)];
        let mut functions: Vec<_> = self.cases.iter().map(|case| case.function.clone()).collect();
        functions.dedup();
        for function in functions {
            if only.is_empty() || only.contains(&function) {
                let bootstrap = self.bootstrap(&function)?;
                subjects.extend(self.ordinary(&function).map(|case| Subject::of(case, bootstrap)));
            }
        }
        for Other { name, function, binary } in others {
            let Some(function) = function else {
                subjects.push(Subject::hello(name, binary));
                continue;
            };
            let case = self.ordinary(function);
            let case = case.ok_or_else(|| Failure::function(function, "has no event"))?;
            let bootstrap =
                Bootstrap { name: name.clone(), binary: binary.clone(), ..self.bootstrap(function)? };
            subjects.push(Subject::of(case, bootstrap));
        }
        Ok(subjects)
    }
}

/// `template`, whose stream triggers are not played: what follows up a change would run beside what is measured.
fn unfollowed(template: &str) -> String {
    let lines = template.lines().map(|line| {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("StartingPosition:") {
            format!("{line}\n{}Enabled: false\n", " ".repeat(indent))
        } else {
            format!("{line}\n")
        }
    });
    lines.collect()
}

fn cases(events: &Path) -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for folder in entries(events)?.into_iter().filter(|path| path.is_dir()) {
        let function = name(&folder);
        if LEFT_OUT.contains(&function.as_str()) {
            continue;
        }
        for path in entries(&folder)? {
            let name = name(&path);
            let answer = path.with_extension("answer.json");
            // Paid ones are of a deployment with an account at Stripe.
            if !answer.is_file() || name.starts_with("paid_") {
                continue;
            }
            let (event, answer) = (json(&path)?, json(&answer)?);
            let status = answer.get("status").and_then(Value::as_u64);
            let is_done = status.is_none_or(|status| status < 300);
            if is_done && answer.pointer("/batchItemFailures/0").is_none() || function == "not_found" {
                cases.push(Case { function: function.clone(), name, event, status });
            }
        }
    }
    Ok(cases)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| Failure::file(folder, error.to_string()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::file(path, error.to_string()))
}

fn json(path: &Path) -> Result<Value, Failure> {
    serde_json::from_str(&read(path)?).map_err(|error| Failure::file(path, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_is_turned_off_where_it_stands() {
        let template = "a:\n  Stream: x\n  StartingPosition: LATEST\n  BatchSize: 10\n";
        let expected = "a:\n  Stream: x\n  StartingPosition: LATEST\n  Enabled: false\n  BatchSize: 10\n";
        assert_eq!(unfollowed(template), expected);
    }
}
