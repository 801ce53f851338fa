//! What each function takes of the table, as `docs/operations.md` tells it: measured with the recorded events that
//! succeed, of which the dearest counts.
//!
//! With `UPDATE_COSTS=1` the document is written anew.

use std::{collections::BTreeMap, env, fs, time::Duration};

use local::template::Route;
use serde_json::Value;

use super::{
    api::{Api, workspace},
    replay,
};

const HEAD: &str = "| function | route | calls | read units | write units |\n|---|---|---|---|---|\n";

/// Calls of the table, read units, write units.
type Taken = [f64; 3];

/// The most of each.
fn most(all: impl IntoIterator<Item = Taken>) -> Option<Taken> {
    all.into_iter().reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1]), a[2].max(b[2])])
}

/// What the lines with `message` say, as soon as there are `count`.
async fn taken(api: &Api, message: &str, count: usize) -> Option<Taken> {
    let found = || {
        let lines = api.logs().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let lines = lines.filter(|line| line["message"] == message);
        let field = |line: &Value, name: &str| line[name].as_f64().unwrap();
        let taken = |line: Value| ["table_calls", "read_units", "write_units"].map(|name| field(&line, name));
        lines.map(taken).collect::<Vec<_>>()
    };
    for _ in 0..100 {
        if found().len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    most(found())
}

/// What `case` takes. An invitation stands in the recorded table, so `notify` has run once before.
async fn taken_by(case: &replay::Case) -> Option<Taken> {
    let api = replay::api_for(case).await;
    let (message, count) = if case.function == "notify" { ("record", 2) } else { ("request", 1) };
    assert!(api.stack.settled(Duration::from_secs(20)).await);
    api.stack.invoke(&case.function, case.event().to_string().into_bytes()).await.unwrap();
    let taken = taken(&api, message, count).await;
    api.stack.stop().await;
    taken
}

/// How a function is reached, in the words of its route.
fn reached(function: &local::template::Function) -> String {
    let routes: Vec<_> = function
        .routes
        .iter()
        .map(|route| match route {
            Route::Path { .. } => format!("`{}`", route.to_string().replace("{proxy+}", "")),
            Route::Default => "all others".to_owned(),
        })
        .collect();
    match function.name.as_str() {
        "notify" => "one mail, or one deleted bucket".to_owned(),
        "agent_connect" => "`$connect`".to_owned(),
        "agent_disconnect" => "`$disconnect`".to_owned(),
        _ => routes.join(", "),
    }
}

#[tokio::test]
async fn the_document_tells_what_each_function_takes_of_the_table() {
    let mut dearest: BTreeMap<String, Taken> = BTreeMap::new();
    for case in replay::cases() {
        let status = case.recorded_answer()["status"].as_u64();
        if status.is_some_and(|status| status != 200) && case.function != "not_found" {
            continue;
        }
        let former = dearest.get(&case.function).copied();
        if let Some(taken) = most(former.into_iter().chain(taken_by(&case).await)) {
            dearest.insert(case.function.clone(), taken);
        }
    }
    let template = Api::start().await.stack.template().clone();
    let row = |function: &local::template::Function| {
        let [calls, reads, writes] = dearest[&function.name];
        format!("| `{}` | {} | {calls} | {reads} | {writes} |\n", function.name, reached(function))
    };
    let table = HEAD.to_owned() + &template.functions.iter().map(row).collect::<String>();

    let file = workspace().join("docs/operations.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(HEAD).unwrap();
    let after = rest.find("\n\n").map_or("", |end| &rest[end + 1..]);
    if env::var_os("UPDATE_COSTS").is_some() {
        fs::write(&file, format!("{before}{table}{after}")).unwrap();
    } else {
        assert!(text.contains(&table), "UPDATE_COSTS=1 writes the document anew: {table}");
    }
}
