//! `openapi.json` is what the sources say, and what the functions were recorded to answer is what it says.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use jsonschema::Validator;
use local::template::Route;
use serde_json::{Value, json};

fn written() -> String {
    fs::read_to_string(openapi::workspace().join("openapi.json")).unwrap()
}

fn description() -> Value {
    serde_json::from_str(&written()).unwrap()
}

/// The method, path and description of each operation.
fn operations(description: &Value) -> Vec<(String, String, Value)> {
    let paths = description["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let operations = item.as_object().unwrap().clone();
        let path = path.clone();
        operations.into_iter().map(move |(method, operation)| (method, path.clone(), operation))
    };
    paths.iter().flat_map(of_path).collect()
}

/// A validator of `schema`, which may refer to the schemas of `description`. Where it is `exact`, fields
/// that no schema names are an error.
fn validator(description: &Value, schema: &Value, exact: bool) -> Validator {
    let mut root = schema.clone();
    root["components"] = json!({ "schemas": description["components"]["schemas"] });
    if exact {
        for schema in root["components"]["schemas"].as_object_mut().unwrap().values_mut() {
            if schema.get("properties").is_some() {
                schema["additionalProperties"] = json!(false);
            }
        }
    }
    jsonschema::options().should_validate_formats(true).build(&root).unwrap()
}

/// The recorded events of `function` with their answers, by case.
fn recorded(function: &str) -> BTreeMap<String, (Value, Value)> {
    let folder = openapi::workspace().join("events").join(function);
    let read = |path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut recorded = BTreeMap::new();
    for file in fs::read_dir(&folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if let Some(case) = name.strip_suffix(".answer.json") {
            let event = read(folder.join(format!("{case}.json")));
            recorded.insert(case.to_owned(), (event, read(folder.join(&name))));
        }
    }
    assert!(!recorded.is_empty(), "{function} has no events");
    recorded
}

/// The function of an operation.
fn function(operation: &Value) -> String {
    operation["operationId"].as_str().unwrap().trim_end_matches("_alias").to_owned()
}

#[test]
fn the_file_is_what_the_sources_say() {
    let generated = openapi::document(&openapi::workspace()).unwrap();

    assert!(written() == generated, "openapi.json is behind: run `cargo run -p openapi`");
}

#[test]
fn the_routes_are_those_of_the_template() {
    let template = openapi::template(&openapi::workspace()).unwrap();
    let routes = template.functions.iter().flat_map(|function| &function.routes);
    let routes: BTreeSet<_> = routes
        .filter_map(|route| match route {
            Route::Path { method, path } => Some((method.to_lowercase(), path.replace("{proxy+}", ""))),
            Route::Default => None,
        })
        .collect();

    let description = description();
    let described: BTreeSet<_> =
        operations(&description).into_iter().map(|(method, path, _)| (method, path)).collect();

    assert_eq!(described, routes);
}

#[test]
fn every_recorded_answer_is_as_described() {
    let description = description();
    for (_, _, operation) in operations(&description) {
        let function = function(&operation);
        for (case, (_, answer)) in recorded(&function) {
            let response = &operation["responses"][answer["status"].to_string()];
            let media_type = answer["headers"]["content-type"].as_str().unwrap();
            let schema = &response["content"][media_type]["schema"];
            assert!(schema.is_object(), "{function}/{case}: {} is not described", answer["status"]);

            let validated = validator(&description, schema, true);
            let body = openapi::filled(answer["body"].clone());
            let errors: Vec<_> = validated.iter_errors(&body).map(|error| error.to_string()).collect();

            assert_eq!(errors, Vec::<String>::new(), "{function}/{case}");
        }
    }
}

#[test]
fn a_body_is_taken_if_it_is_as_described_and_refused_as_bad_input_if_not() {
    let description = description();
    let mut astray = BTreeSet::new();
    for (_, _, operation) in operations(&description) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        let validated = validator(&description, schema, false);
        let function = function(&operation);
        for (case, (event, answer)) in recorded(&function) {
            let Ok(body) = serde_json::from_str::<Value>(event["body"].as_str().unwrap_or_default()) else {
                continue;
            };
            let code = &answer["body"]["code"];
            let is_bad = *code == "invalid_input" || *code == "unsupported_grant_type";
            if (answer["status"] == 200 || is_bad) && validated.is_valid(&body) == is_bad {
                astray.insert(format!("{function}/{case}"));
            }
        }
    }

    // What only the table or the deployment can tell.
    let beyond_a_schema = [
        "server_delete_server/server_unknown",
        "transfer_ownership/already_owner",
        "upgrade/paid_token_unknown",
        "upgrade/plan_unknown",
    ];
    assert_eq!(astray, BTreeSet::from(beyond_a_schema.map(ToOwned::to_owned)));
}

#[test]
fn no_description_speaks_of_what_only_the_code_knows() {
    fn descriptions(value: &Value) -> Vec<&str> {
        match value {
            Value::Object(members) => {
                let own = members.get("description").and_then(Value::as_str);
                own.into_iter().chain(members.values().flat_map(descriptions)).collect()
            }
            Value::Array(items) => items.iter().flat_map(descriptions).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        }
    }
    let description = description();
    for text in descriptions(&description) {
        let strange = ["::", "[`", "`None`", "`Debug`", "`Some"].iter().find(|part| text.contains(**part));
        assert!(strange.is_none(), "{text}");
    }
}

#[test]
fn every_code_is_explained_and_none_is_explained_that_cannot_come() {
    let description = description();
    let text = description.to_string();
    let problems = fs::read_to_string(openapi::workspace().join("docs/problems.md")).unwrap();
    let explained: BTreeSet<&str> =
        problems.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    // Over a connection of an agent, or without a route.
    let elsewhere = ["agent_oversized", "route_not_found", "server_not_linked"];

    let unknown: Vec<_> = explained
        .iter()
        .filter(|code| !text.contains(&format!("\"{code}\"")) && !elsewhere.contains(code))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    for (_, path, operation) in operations(&description) {
        for response in operation["responses"].as_object().unwrap().values() {
            let codes =
                &response["content"]["application/problem+json"]["schema"]["properties"]["code"]["enum"];
            for code in codes.as_array().into_iter().flatten() {
                assert!(explained.contains(code.as_str().unwrap()), "{path}: {code}");
            }
        }
    }
}
