//! The same tests against functions that AWS SAM runs in Docker's containers, as `sam-local/run test` starts them
//! (docs/sam-local.md).
//!
//! The stack is then what is around the functions, at an address that containers reach: the table, the identity
//! provider, the outbox. Each test has one of its own, all at the same place, so they run one after the other.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use local::{Data, Options, Stack, StartError};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    api::{Api, workspace},
    replay::{self, Case},
};

/// For one `sam local invoke`, on a machine that has other things to do.
const INVOCATION: Duration = Duration::from_mins(2);

/// How many of them at a time: each loads the SAM CLI, which takes a processor for seconds, and then waits for Docker.
const AT_ONCE: usize = 4;

/// How many stacks this run has started, each with a folder of its own.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// The address of all stacks of this run.
pub(crate) fn address() -> IpAddr {
    env::var("SAM_LOCAL_ADDRESS").map_or(Ipv4Addr::LOCALHOST.into(), |address| address.parse().unwrap())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `sam-local/run test`"))
}

/// What is kept for this run, and in it what its stacks keep.
fn folder() -> PathBuf {
    variable("SAM_LOCAL_FOLDER").into()
}

/// Where `sam local start-api` serves the routes, if this run is against it.
pub(crate) fn origin() -> Option<String> {
    env::var("SAM_LOCAL_URL").ok()
}

/// Starts what is around the functions behind [`origin`].
pub(crate) async fn stack(mut options: Options, origin: &str) -> Stack {
    assert!(
        options.parameters.is_empty() && options.secrets.is_empty() && options.functions_dynamodb.is_none(),
        "these functions run already, with parameters of their own: name this test in sam-local/left-out.txt"
    );
    options.parameters.insert("PublicOrigin".to_owned(), origin.to_owned());
    options.address.set_port(variable("SAM_LOCAL_PORT").parse().unwrap());
    options.dynamodb_port = variable("SAM_LOCAL_DYNAMODB_PORT").parse().unwrap();
    // The functions have seen the first key; another they would fetch once a minute.
    let kept = folder().join("identity.key");
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let data = folder().join(format!("data-{}-{number}", std::process::id()));
    fs::create_dir(&data).unwrap();
    if kept.exists() {
        fs::copy(&kept, data.join("identity.key")).unwrap();
    }
    options.data = Data::Directory(data.clone());
    for _ in 0..50 {
        match Stack::start(options.clone()).await {
            // The one of the test before is ending.
            Err(StartError::PortInUse { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            started => {
                let stack = started.unwrap();
                fs::copy(data.join("identity.key"), &kept).unwrap();
                return stack;
            }
        }
    }
    panic!("{} is in use", options.address);
}

/// For each function the first recorded event that it takes, or else the first that it refuses.
fn one_of_each_function() -> Vec<Case> {
    let mut chosen: BTreeMap<String, Case> = BTreeMap::new();
    let is_taken = |case: &Case| case.recorded_answer()["status"].as_u64().is_none_or(|status| status < 400);
    // What plays Stripe for the others is not where containers reach it.
    for case in replay::cases().into_iter().filter(|case| !case.is_paid()) {
        match chosen.get(&case.function) {
            Some(known) if is_taken(known) || !is_taken(&case) => {}
            _ => drop(chosen.insert(case.function.clone(), case)),
        }
    }
    chosen.into_values().collect()
}

/// What `sam local invoke` prints of the function that handles `case`, with the parameters and endpoints of `api`.
async fn invoked(api: &Api, case: &Case) -> Vec<u8> {
    let template = api.stack.template();
    let function = template.functions.iter().find(|function| function.name == case.function).unwrap();
    let mut parameters = template.parameters.clone();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    parameters.insert("Architecture".to_owned(), architecture.to_owned());
    let parameters = parameters.iter().map(|(name, value)| {
        let value = value.replace('\\', r"\\").replace('"', r#"\""#);
        format!("{name}=\"{value}\"")
    });
    let write = |name: &str, value: &Value| {
        let path = folder().join(format!("{}.{name}.json", case.function));
        fs::write(&path, value.to_string()).unwrap();
        path
    };
    let mut sam = Command::new(variable("SAM"));
    sam.current_dir(workspace())
        .args(["local", "invoke", &function.logical_id, "--template"])
        .arg(variable("SAM_LOCAL_TEMPLATE"))
        .arg("--event")
        .arg(write("event", &case.event()))
        .arg("--env-vars")
        .arg(write("variables", &json!({ "Parameters": api.stack.endpoints() })))
        .args(variable("SAM_LOCAL_OPTIONS").split_whitespace())
        .arg("--parameter-overrides")
        .args(parameters)
        .kill_on_drop(true);
    let output = tokio::time::timeout(INVOCATION, sam.output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", case.function);
    assert!(!output.stdout.is_empty(), "{} has answered nothing: {errors}", case.function);
    output.stdout
}

#[tokio::test]
#[ignore = "takes Docker: sam-local/run test"]
async fn the_published_clients_work_with_it() {
    let api = Api::start().await;

    let mut node = Command::new("node");
    let tests = node.args(["--test", "js-api.test.js"]).current_dir(workspace().join("clients"));
    let outcome = tests.env("BUCKET_API_URL", &api.origin).kill_on_drop(true).status().await.unwrap();

    assert!(outcome.success(), "js-api.test.js: {outcome}");
    api.stack.stop().await;
}

#[tokio::test]
#[ignore = "takes Docker: sam-local/run test"]
async fn one_event_of_each_function_is_answered_as_recorded() {
    let known = fs::read_to_string(workspace().join("events/table.json")).unwrap();
    let cases = one_of_each_function();
    let one = async |case: &Case| {
        let api = replay::api_for(case).await;
        let functions = api.stack.template().functions.len();
        assert_eq!(cases.len(), functions, "each function has an event");

        let answer = replay::readable(&invoked(&api, case).await);

        assert_eq!(replay::masked(&answer, &known), case.recorded_answer(), "{}", case.function);
        api.stack.stop().await;
    };
    stream::iter(&cases).for_each_concurrent(AT_ONCE, one).await;
    println!("sam local invoke: {} functions have answered an event as recorded", cases.len());
}
