//! What of the template an operator rests on: alarms that look at what is there, limits on routes that exist, and a
//! document that knows every parameter and every alarm.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use local::template::Source;
use openapi::Page;
use serde_json::{Map, Value, json};

use super::api::workspace;

/// The template, nothing evaluated.
fn template() -> Value {
    Source::read(&workspace().join("template.yaml")).unwrap().to_json()
}

fn text_of(file: &str) -> String {
    fs::read_to_string(workspace().join(file)).unwrap()
}

/// The members of a section, or of any other map.
fn members(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap()
}

/// The resources of a type, by their logical ids.
fn of_type<'a>(template: &'a Value, kind: &str) -> BTreeMap<&'a str, &'a Value> {
    let resources = members(&template["Resources"]).iter();
    resources.filter(|(_, it)| it["Type"] == kind).map(|(id, it)| (id.as_str(), &it["Properties"])).collect()
}

/// What `value` refers to with `Ref`, `GetAtt` and `Sub`.
fn references(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let text = member.as_str().unwrap_or_default();
                let id = |text: &str| text.split('.').next().unwrap().to_owned();
                match name.as_str() {
                    "Ref" | "Fn::GetAtt" => {
                        found.insert(id(text));
                    }
                    "Fn::Sub" => {
                        let body = member.as_str().or_else(|| member[0].as_str()).unwrap();
                        let own = body.split("${").skip(1).filter_map(|part| part.split('}').next());
                        found.extend(own.filter(|name| !name.starts_with('!')).map(id));
                        if let Some(variables) = member[1].as_object() {
                            found.retain(|name| !variables.contains_key(name));
                            found.extend(references(&member[1]));
                        }
                    }
                    _ => found.extend(references(member)),
                }
            }
        }
        Value::Array(items) => found.extend(items.iter().flat_map(references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found
}

/// A metric: its namespace, its name and its dimensions.
type Metric<'a> = (&'a Value, &'a str, Vec<(&'a str, &'a Value)>);

fn metric(it: &Value) -> Metric<'_> {
    let dimensions = it["Dimensions"].as_array().into_iter().flatten();
    let dimensions = dimensions.map(|it| (it["Name"].as_str().unwrap(), &it["Value"])).collect();
    (&it["Namespace"], it["MetricName"].as_str().unwrap(), dimensions)
}

/// The metrics that an alarm is about.
fn metrics_of(alarm: &Value) -> Vec<Metric<'_>> {
    let Some(metrics) = alarm["Metrics"].as_array() else { return vec![metric(alarm)] };
    let measured = metrics.iter().filter(|it| it["Expression"].is_null());
    measured.map(|it| metric(&it["MetricStat"]["Metric"])).collect()
}

/// The codes that a request can be refused with.
fn codes() -> BTreeSet<String> {
    let problems = text_of("docs/problems.md");
    let codes = problems.lines().filter_map(|line| line.strip_prefix("### `")?.split('`').next());
    codes.map(str::to_owned).collect()
}

#[test]
fn every_alarm_looks_at_what_there_is() {
    let template = template();
    let kind = |value: &Value| {
        let referred: Vec<_> = references(value).into_iter().filter(|id| id != "RestoredStreamArn").collect();
        let [id] = referred.as_slice() else { panic!("{value}") };
        template["Resources"][id]["Type"].as_str().unwrap_or_else(|| panic!("there is no {id}")).to_owned()
    };
    let own = &template["Globals"]["Function"]["Environment"]["Variables"]["METRICS_NAMESPACE"];
    let filters = of_type(&template, "AWS::Logs::MetricFilter");
    let filtered: Vec<_> = filters.values().map(|filter| &filter["MetricTransformations"][0]).collect();

    for (id, alarm) in of_type(&template, "AWS::CloudWatch::Alarm") {
        let parts = alarm["Metrics"].as_array().into_iter().flatten();
        let formula = parts.clone().find_map(|part| part["Expression"].as_str());
        for part in parts.filter(|part| part["MetricStat"]["Metric"]["Namespace"] == "AWS/DynamoDB") {
            let filled = format!("FILL({}, 0)", part["Id"].as_str().unwrap());
            assert!(formula.unwrap().contains(&filled), "{id} would never end: what is missing is ignored");
        }
        for (namespace, name, dimensions) in metrics_of(alarm) {
            let names: Vec<_> = dimensions.iter().map(|(name, _)| *name).collect();
            if namespace == own {
                if name == "Refusals" {
                    assert_eq!(names, ["code"], "{id}");
                    assert!(codes().contains(dimensions[0].1.as_str().unwrap()), "{id}: no such code");
                } else {
                    assert!(names.is_empty(), "{id}");
                    let makes = |it: &Value| it["MetricName"] == name && it["MetricNamespace"] == *own;
                    assert!(filtered.iter().any(|it| makes(it)), "{id}: nothing counts {name}");
                }
                continue;
            }
            // Of all that there is in the account: see the template.
            let is_of_the_account = namespace == "AWS/Lambda" && name == "Throttles";
            assert!(is_of_the_account || !dimensions.is_empty(), "{id} looks at everybody's {name}");
            for (dimension, value) in dimensions {
                let kinds: &[&str] = match dimension {
                    "ApiId" => &["AWS::Serverless::HttpApi", "AWS::ApiGatewayV2::Api"],
                    "FunctionName" => &["AWS::Serverless::Function"],
                    "QueueName" => &["AWS::SQS::Queue"],
                    "TableName" => &["AWS::DynamoDB::Table"],
                    "Operation" => continue,
                    other => panic!("{id}: {other}"),
                };
                assert!(kinds.contains(&kind(value).as_str()), "{id}: {value}");
            }
        }
    }
}

#[test]
fn every_alarm_is_told_shown_and_documented() {
    let template = template();
    let document = text_of("docs/operations.md");
    let told = json!({ "Fn::If": ["HasAlarmTopic", [{ "Ref": "AlarmTopic" }], { "Ref": "AWS::NoValue" }] });
    let dashboard = &template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"];
    let shown = dashboard[0].as_str().unwrap();
    let alarms = of_type(&template, "AWS::CloudWatch::Alarm");
    let metrics: usize = alarms.values().map(|alarm| metrics_of(alarm).len()).sum();
    assert!(document.contains(&format!("{metrics} * 0.10")), "{metrics} metrics of alarms are paid for");

    for (id, alarm) in alarms {
        assert_eq!((&alarm["AlarmActions"], &alarm["OKActions"]), (&told, &told), "{id}");
        assert!(shown.contains(&format!("${{{id}.Arn}}")), "{id} is not on the dashboard");
        assert!(document.contains(&format!("### `{id}`")), "docs/operations.md does not know {id}");
        assert!(alarm["AlarmDescription"].as_str().is_some_and(|text| text.len() > 20), "{id}");
    }
}

#[test]
fn the_dashboard_is_json_that_refers_to_what_there_is() {
    let template = template();
    let dashboard = &template["Resources"]["Dashboard"]["Properties"]["DashboardBody"];
    for id in references(dashboard) {
        let is_known = id.starts_with("AWS::")
            || [&template["Resources"], &template["Parameters"]].iter().any(|known| !known[&id].is_null());
        assert!(is_known, "there is no {id}");
    }
    let mut text = String::new();
    for (number, part) in dashboard["Fn::Sub"][0].as_str().unwrap().split("${").enumerate() {
        text += if number == 0 { part } else { part.split_once('}').unwrap().1 };
    }
    let body: Value = serde_json::from_str(&text).unwrap();
    let mut rows: BTreeMap<u64, u64> = BTreeMap::new();
    for widget in body["widgets"].as_array().unwrap() {
        let field = |name: &str| widget[name].as_u64().unwrap();
        assert!(field("x") + field("width") <= 24 && field("height") > 0, "{widget}");
        *rows.entry(field("y")).or_default() += field("width");
    }
    assert!(
        rows.values().all(|width| *width == 24),
        "each row is full, and no widget covers another: {rows:?}"
    );
}

#[test]
fn no_function_fails_unseen() {
    let template = template();
    let filter = &template["Resources"]["FunctionFailuresFilter"]["Properties"];
    // What counts crashes and time-outs reads the log of every function.
    assert_eq!(template["Globals"]["Function"]["LoggingConfig"]["LogGroup"], filter["LogGroupName"]);
    assert_eq!(template["Globals"]["Function"]["LoggingConfig"]["LogFormat"], "JSON");

    let looked_at: BTreeSet<_> = of_type(&template, "AWS::CloudWatch::Alarm")
        .values()
        .flat_map(|alarm| metrics_of(alarm))
        .flat_map(|(_, _, dimensions)| dimensions.into_iter().flat_map(|(_, value)| references(value)))
        .collect();
    let integrations: BTreeMap<String, String> = of_type(&template, "AWS::ApiGatewayV2::Integration")
        .values()
        .flat_map(|it| {
            let api = it["ApiId"]["Ref"].as_str().unwrap().to_owned();
            references(&it["IntegrationUri"]).into_iter().map(move |function| (function, api.clone()))
        })
        .collect();
    let functions = of_type(&template, "AWS::Serverless::Function");
    let document = text_of("docs/operations.md");
    assert!(document.contains(&format!("{} functions", functions.len())), "ReservedConcurrency is of each");
    for (id, function) in functions {
        assert!(function["LoggingConfig"].is_null(), "{id} logs elsewhere");
        let events = function["Events"].as_object().into_iter().flatten().map(|(_, event)| event);
        let mut callers: BTreeSet<String> = events
            .map(|event| match event["Type"].as_str().unwrap() {
                "HttpApi" => event["Properties"]["ApiId"]["Ref"].as_str().unwrap().to_owned(),
                // An error only has the stream wait: the alarm is about the function itself.
                "DynamoDB" => id.to_owned(),
                other => panic!("{id}: no alarm is known for {other}"),
            })
            .collect();
        callers.extend(integrations.get(id).cloned());
        assert!(!callers.is_empty(), "{id} is called by nothing");
        for caller in callers {
            assert!(looked_at.contains(&caller), "no alarm looks at {caller}, by which {id} is called");
        }
    }
}

#[test]
fn what_strangers_may_try_is_throttled_on_routes_that_there_are() {
    let template = template();
    let routes: BTreeSet<String> = of_type(&template, "AWS::Serverless::Function")
        .values()
        .flat_map(|function| function["Events"].as_object().into_iter().flatten())
        .filter_map(|(_, event)| {
            let event = &event["Properties"];
            Some(format!("{} {}", event["Method"].as_str()?, event["Path"].as_str()?))
        })
        .collect();
    let limits = |rate: &str, burst: &str| json!({ "ThrottlingRateLimit": { "Ref": rate }, "ThrottlingBurstLimit": { "Ref": burst } });
    let api = &template["Resources"]["Api"]["Properties"];
    assert_eq!(api["DefaultRouteSettings"], limits("RequestRate", "RequestBurst"));
    for (route, settings) in members(&api["RouteSettings"]) {
        assert!(routes.contains(route), "there is no route {route}");
        // A name is more than a name: both are tighter than what holds for all others.
        for limit in members(settings).values() {
            let default = |name: &Value| -> f64 {
                template["Parameters"][name.as_str().unwrap()]["Default"].as_str().unwrap().parse().unwrap()
            };
            assert!(default(&limit["Ref"]) < default(&json!("RequestRate")), "{route}");
        }
    }
    for (function, expected) in [
        ("invite_user", limits("InvitationRate", "InvitationBurst")),
        ("oauth_token", limits("SignInRate", "SignInBurst")),
        ("node_verify", limits("SignInRate", "SignInBurst")),
    ] {
        let route = Page::read(&workspace(), function).unwrap().routes.remove(0);
        assert_eq!(api["RouteSettings"][&route], expected, "{route}");
    }

    let stage = &template["Resources"]["AgentStage"]["Properties"];
    assert_eq!(stage["DefaultRouteSettings"], limits("AgentMessageRate", "AgentMessageRate"));
    let keys = of_type(&template, "AWS::ApiGatewayV2::Route");
    for (key, settings) in members(&stage["RouteSettings"]) {
        assert!(keys.values().any(|route| route["RouteKey"] == *key), "there is no route {key}");
        assert_eq!(*settings, limits("SignInRate", "SignInBurst"));
    }
}

#[test]
fn every_parameter_is_used_offered_and_documented() {
    let template = template();
    let documents = text_of("README.md") + &text_of("docs/operations.md");
    let sections = ["Conditions", "Globals", "Resources", "Outputs"];
    let used: BTreeSet<_> = sections.iter().flat_map(|section| references(&template[section])).collect();
    let groups = &template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"];
    let mut offered: Vec<_> = groups
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["Parameters"].as_array().unwrap())
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    offered.sort();

    let declared: Vec<_> = members(&template["Parameters"]).keys().cloned().collect();
    let mut sorted = declared.clone();
    sorted.sort();
    assert_eq!(sorted, offered, "each parameter is in one group");
    for name in declared {
        assert!(used.contains(&name), "nothing uses {name}");
        assert!(documents.contains(&format!("`{name}`")), "no document knows {name}");
    }
}

#[test]
fn a_restored_table_takes_the_place_of_the_stacks_own_everywhere() {
    let template = template();
    let restored =
        json!({ "Fn::Select": ["0", { "Fn::Split": ["/stream/", { "Ref": "RestoredStreamArn" }] }] });
    let instead_of = |own: Value| json!({ "Fn::If": ["IsRestored", restored.clone(), own] });
    let variables = &template["Globals"]["Function"]["Environment"]["Variables"];
    assert_eq!(variables["TABLE_NAME"], instead_of(json!({ "Ref": "Table" })));
    for (id, function) in of_type(&template, "AWS::Serverless::Function") {
        let policies = function["Policies"].as_array().into_iter().flatten();
        for statement in policies.flat_map(|policy| policy["Statement"].as_array().unwrap()) {
            if statement["Action"].to_string().contains("dynamodb:") {
                assert_eq!(statement["Resource"], instead_of(json!({ "Fn::GetAtt": "Table.Arn" })), "{id}");
            }
        }
        for (_, event) in function["Events"].as_object().into_iter().flatten() {
            if event["Type"] == "DynamoDB" {
                let stream = json!({ "Fn::If": [
                    "IsRestored", { "Ref": "RestoredStreamArn" }, { "Fn::GetAtt": "Table.StreamArn" }
                ] });
                assert_eq!(event["Properties"]["Stream"], stream, "{id}");
            }
        }
    }
}

#[test]
fn the_table_outlives_mistakes_and_the_gateways_log_has_no_addresses() {
    let template = template();
    let table = &template["Resources"]["Table"];
    assert_eq!(
        (&table["DeletionPolicy"], &table["UpdateReplacePolicy"]),
        (&json!("Retain"), &json!("Retain"))
    );
    assert_eq!(table["Properties"]["DeletionProtectionEnabled"], "true");
    let recovery = &table["Properties"]["PointInTimeRecoverySpecification"];
    assert_eq!(recovery["PointInTimeRecoveryEnabled"], "true");

    let agents = &template["Resources"]["AgentStage"]["Properties"]["AccessLogSettings"]["Fn::If"][1];
    for settings in [&template["Resources"]["Api"]["Properties"]["AccessLogSettings"], agents] {
        let format: Value = serde_json::from_str(settings["Format"].as_str().unwrap()).unwrap();
        let logged: BTreeSet<_> = members(&format).values().map(|value| value.as_str().unwrap()).collect();
        assert!(logged.contains("$context.requestId") && logged.contains("$context.routeKey"), "{format}");
        // An invitation's path names an address, and a query anything.
        for private in ["path", "Path", "query", "authorizer", "userAgent", "protocol"] {
            assert!(logged.iter().all(|name| !name.contains(private)), "{format}");
        }
    }
}
