//! The pool against a real process: the example `misbehaving`.

use std::path::PathBuf;
use std::sync::MutexGuard;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;

/// The folder of the examples, which `cargo test` builds unless it is asked for less.
pub(crate) fn examples() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap().parent().unwrap().join("examples");
    assert!(folder.join("misbehaving").is_file(), "run `cargo build -p local --examples` first");
    folder
}

/// A pool of `misbehaving`, and what it logged.
struct Harness {
    lambda: Arc<Lambda>,
    lines: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy)]
struct Settings {
    /// What goes wrong in init; nothing if empty.
    init: &'static str,
    timeout: Duration,
    limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self { init: "", timeout: Duration::from_secs(10), limits: Limits::default() }
    }
}

impl Harness {
    fn new(settings: Settings) -> Self {
        let function = Function {
            logical_id: "MisbehavingFunction".to_owned(),
            name: "misbehaving".to_owned(),
            timeout: settings.timeout,
            memory_size: 256,
            environment: BTreeMap::from([
                ("INIT".to_owned(), settings.init.to_owned()),
                ("TABLE_NAME".to_owned(), "Table".to_owned()),
            ]),
            routes: Vec::new(),
            streams: Vec::new(),
            permissions: Vec::new(),
        };
        let shared = BTreeMap::from([("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), "http://local".to_owned())]);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let logs: LogSink = {
            let lines = Arc::clone(&lines);
            Arc::new(move |function, line| {
                assert_eq!(function, "misbehaving");
                lines.lock().unwrap().push(line.to_owned());
            })
        };
        let lambda = Lambda::new(&[function], &examples(), &shared, &logs, settings.limits);
        Self { lambda: Arc::new(lambda), lines }
    }

    async fn invoke(&self, event: &Value) -> Result<Value, InvokeError> {
        let answer = self.lambda.invoke("misbehaving", event.to_string().into()).await?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }

    async fn told(&self, action: &str) -> Result<Value, InvokeError> {
        self.invoke(&json!({ "do": action })).await
    }

    /// Events in a number, all at once.
    async fn at_once(&self, number: usize, action: &'static str) -> Vec<Result<Value, InvokeError>> {
        let mut events = JoinSet::new();
        for _ in 0..number {
            let (lambda, lines) = (Arc::clone(&self.lambda), Arc::clone(&self.lines));
            events.spawn(async move { Self { lambda, lines }.told(action).await });
        }
        events.join_all().await
    }

    fn started(&self) -> usize {
        self.lambda.instances_started("misbehaving")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.lambda.pools.get("misbehaving").unwrap().lock()
    }

    /// Waits until no instance is left.
    async fn all_gone(&self) {
        eventually(|| self.state().alive == 0).await;
    }

    fn logged(&self, line: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|logged| logged.contains(line))
    }
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never came to be");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process is there (a dead one that nobody has waited for counts).
fn is_process(pid: &Value) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn an_event_comes_back_from_the_function() {
    let harness = Harness::new(Settings::default());
    let event = json!({ "text": "ä", "list": [1, null] });
    assert_eq!(harness.invoke(&event).await.unwrap(), event);
}

#[tokio::test]
async fn a_function_finds_the_environment_of_lambda_and_nothing_else() {
    let harness = Harness::new(Settings::default());
    let before = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();

    let context = harness.told("context").await.unwrap();

    let mut environment = context["environment"].as_object().unwrap().clone();
    let api = environment.remove("AWS_LAMBDA_RUNTIME_API").unwrap();
    assert!(api.as_str().unwrap().starts_with("127.0.0.1:"));
    let stream = environment.remove("AWS_LAMBDA_LOG_STREAM_NAME").unwrap();
    assert!(stream.as_str().unwrap().contains("[$LATEST]"));
    environment.remove("_X_AMZN_TRACE_ID").unwrap();
    assert_eq!(
        Value::Object(environment),
        json!({
            "_HANDLER": "bootstrap",
            "AWS_ACCESS_KEY_ID": "local-MisbehavingFunction",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_DYNAMODB": "http://local",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_NAME": "MisbehavingFunction",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/MisbehavingFunction",
            "AWS_REGION": "us-east-1",
            "AWS_SECRET_ACCESS_KEY": "local",
            "INIT": "",
            "LAMBDA_TASK_ROOT": examples().to_str().unwrap(),
            "LANG": "en_US.UTF-8",
            "TABLE_NAME": "Table",
            "TZ": ":UTC",
        })
    );
    let deadline = context["deadline"].as_u64().unwrap();
    assert!((before + 10_000..before + 20_000).contains(&deadline));
    assert_eq!(context["arn"], "arn:aws:lambda:us-east-1:000000000000:function:MisbehavingFunction");
    assert_eq!(context["request_id"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn a_warm_instance_takes_the_next_event() {
    let harness = Harness::new(Settings::default());
    let first = harness.told("sleep:0").await.unwrap();
    let second = harness.told("sleep:0").await.unwrap();
    assert_eq!(first, second);
    assert_eq!(harness.started(), 1);
}

#[tokio::test]
async fn events_at_once_have_an_instance_each() {
    let harness = Harness::new(Settings::default());
    let mut processes: Vec<_> =
        harness.at_once(3, "sleep:300").await.into_iter().map(|pid| pid.unwrap().as_u64().unwrap()).collect();
    processes.sort_unstable();
    processes.dedup();
    assert_eq!(processes.len(), 3);
    assert_eq!(harness.started(), 3);
}

#[tokio::test]
async fn events_beyond_the_last_instance_wait_for_one() {
    let limits = Limits { instances: 2, ..Limits::default() };
    let harness = Harness::new(Settings { limits, ..Settings::default() });
    let answers = harness.at_once(7, "sleep:20").await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(harness.started(), 2);
}

#[tokio::test]
async fn the_instance_that_was_used_last_is_used_next() {
    let harness = Harness::new(Settings::default());
    harness.at_once(2, "sleep:200").await;
    let both_idle = || harness.state().idle.len() == 2;
    eventually(both_idle).await;
    let first = harness.told("sleep:0").await.unwrap();
    for _ in 0..3 {
        eventually(both_idle).await;
        assert_eq!(harness.told("sleep:0").await.unwrap(), first);
    }
}

#[tokio::test]
async fn an_error_of_the_handler_fails_its_event_only() {
    let harness = Harness::new(Settings::default());
    let error = harness.told("fail:no bucket").await.unwrap_err();
    assert!(matches!(&error, InvokeError::Function { message, .. } if message == "no bucket"), "{error}");
    harness.told("sleep:0").await.unwrap();
    assert_eq!(harness.started(), 1, "the instance lives on");
}

#[tokio::test]
async fn a_process_that_ends_fails_its_event_and_is_replaced() {
    let harness = Harness::new(Settings::default());
    let error = harness.told("exit:7").await.unwrap_err();
    assert!(matches!(error, InvokeError::Exit { status } if status.code() == Some(7)), "{error}");
    harness.told("sleep:0").await.unwrap();
    assert_eq!(harness.started(), 2);
}

#[tokio::test]
async fn an_event_that_takes_too_long_fails_and_its_process_is_killed() {
    let harness = Harness::new(Settings { timeout: Duration::from_secs(1), ..Settings::default() });
    let process = harness.told("context").await.unwrap()["pid"].clone();
    let error = harness.told("sleep:60000").await.unwrap_err();
    assert_eq!(error.to_string(), "Task timed out after 1.00 seconds");
    eventually(|| !is_process(&process)).await;
    harness.told("sleep:0").await.unwrap();
    assert_eq!(harness.started(), 2);
}

#[tokio::test]
async fn an_error_of_init_fails_the_event_with_what_was_reported() {
    let harness = Harness::new(Settings { init: "report", ..Settings::default() });
    let error = harness.told("sleep:0").await.unwrap_err();
    assert_eq!(error.to_string(), "Runtime.InitError: Config: TABLE_NAME is missing");
    harness.all_gone().await;
}

#[tokio::test]
async fn a_process_that_ends_in_init_fails_one_event_each() {
    let harness = Harness::new(Settings { init: "exit", ..Settings::default() });
    for answer in harness.at_once(3, "sleep:0").await {
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("ended before it asked for an event (exit status: 3)"), "{error}");
    }
    harness.all_gone().await;
    assert_eq!(harness.started(), 3);
}

#[tokio::test]
async fn an_init_that_takes_too_long_fails_the_event() {
    let limits = Limits { init: Duration::from_millis(200), ..Limits::default() };
    let harness = Harness::new(Settings { init: "hang", limits, ..Settings::default() });
    let error = harness.told("sleep:0").await.unwrap_err().to_string();
    assert_eq!(error, "Runtime.InitError: no request for an event within 0.2 seconds");
    harness.all_gone().await;
}

#[tokio::test]
async fn a_binary_that_is_not_there_fails_the_event() {
    let harness = Harness::new(Settings::default());
    let function = Function {
        logical_id: "X".to_owned(),
        name: "no_such_binary".to_owned(),
        timeout: Duration::from_secs(1),
        memory_size: 128,
        environment: BTreeMap::new(),
        routes: Vec::new(),
        streams: Vec::new(),
        permissions: Vec::new(),
    };
    let logs: LogSink = Arc::new(|_, _| {});
    let lambda = Lambda::new(&[function], &examples(), &BTreeMap::new(), &logs, Limits::default());

    let error = lambda.invoke("no_such_binary", Bytes::new()).await.unwrap_err();

    assert!(error.to_string().starts_with("Runtime.InitError: cannot start "), "{error}");
    let unknown = harness.lambda.invoke("other", Bytes::new()).await.unwrap_err();
    assert!(matches!(unknown, InvokeError::UnknownFunction { .. }));
}

#[tokio::test]
async fn a_response_that_is_too_large_fails_its_event_only() {
    let harness = Harness::new(Settings::default());
    // The quotes of the JSON string count.
    let largest = harness.told(&format!("large:{}", MAX_PAYLOAD - 2)).await.unwrap();
    assert_eq!(largest.as_str().unwrap().len(), MAX_PAYLOAD - 2);

    let error = harness.told(&format!("large:{}", MAX_PAYLOAD - 1)).await.unwrap_err();

    assert!(matches!(error, InvokeError::ResponseTooLarge), "{error}");
    harness.told("sleep:0").await.unwrap();
    assert_eq!(harness.started(), 1, "the instance lives on");
}

#[tokio::test]
async fn an_event_that_is_too_large_reaches_no_function() {
    let harness = Harness::new(Settings::default());
    let event = Bytes::from(vec![b' '; MAX_PAYLOAD + 1]);
    let error = harness.lambda.invoke("misbehaving", event).await.unwrap_err();
    assert!(matches!(error, InvokeError::RequestTooLarge { .. }), "{error}");
    assert_eq!(harness.started(), 0);
}

#[tokio::test]
async fn an_instance_that_has_been_idle_too_long_is_ended() {
    let limits = Limits { idle: Duration::from_millis(100), ..Limits::default() };
    let harness = Harness::new(Settings { limits, ..Settings::default() });
    let process = harness.told("context").await.unwrap()["pid"].clone();
    harness.all_gone().await;
    assert!(!is_process(&process));
    assert!(harness.state().idle.is_empty());
    harness.told("sleep:0").await.unwrap();
    assert_eq!(harness.started(), 2);
}

#[tokio::test]
async fn an_idle_instance_that_dies_is_replaced() {
    let harness = Harness::new(Settings::default());
    let process = harness.told("context").await.unwrap()["pid"].clone();
    eventually(|| harness.state().idle.len() == 1).await;
    assert!(
        std::process::Command::new("kill").args(["-9", &process.to_string()]).status().unwrap().success()
    );
    harness.all_gone().await;
    assert!(harness.logged("the process ended while it was idle (signal: 9"));
    harness.told("sleep:0").await.unwrap();
    assert_eq!(harness.started(), 2);
}

#[tokio::test]
async fn an_event_that_nobody_waits_for_any_more_is_dropped() {
    let limits = Limits { instances: 1, ..Limits::default() };
    let harness = Harness::new(Settings { limits, ..Settings::default() });
    let (lambda, lines) = (Arc::clone(&harness.lambda), Arc::clone(&harness.lines));
    let busy = tokio::spawn(async move { Harness { lambda, lines }.told("sleep:300").await });
    eventually(|| harness.started() == 1 && harness.state().waiting.is_empty()).await;

    let impatient = tokio::time::timeout(Duration::from_millis(50), harness.told("exit:1")).await;

    assert!(impatient.is_err());
    busy.await.unwrap().unwrap();
    harness.told("sleep:0").await.unwrap();
    assert_eq!(harness.started(), 1, "the dropped event would have ended the instance");
}

#[tokio::test]
async fn an_event_runs_to_its_end_though_its_waiter_has_gone() {
    let harness = Harness::new(Settings::default());
    harness.told("sleep:0").await.unwrap();
    let impatient = tokio::time::timeout(Duration::from_millis(20), harness.told("sleep:200")).await;
    assert!(impatient.is_err());
    eventually(|| harness.state().idle.len() == 1).await;
    assert_eq!(harness.started(), 1);
}

#[tokio::test]
async fn what_a_function_writes_is_logged_line_by_line() {
    let harness = Harness::new(Settings::default());
    harness.told("log:hello").await.unwrap();
    eventually(|| harness.logged("out hello") && harness.logged("err hello")).await;
}

#[tokio::test]
async fn no_process_is_left_after_a_stop() {
    let harness = Harness::new(Settings::default());
    let idle = harness.told("context").await.unwrap()["pid"].clone();
    let (lambda, lines) = (Arc::clone(&harness.lambda), Arc::clone(&harness.lines));
    let busy = tokio::spawn(async move { Harness { lambda, lines }.told("sleep:60000").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(is_process(&idle));

    harness.lambda.stop().await;

    assert!(!is_process(&idle));
    assert!(matches!(busy.await.unwrap(), Err(InvokeError::Stopped)));
    assert!(matches!(harness.told("sleep:0").await, Err(InvokeError::Stopped)));
    assert_eq!(harness.started(), 1);
    assert_eq!(harness.state().alive, 0);
}

/// What ends the processes of a stack that was killed and could not end them itself.
#[tokio::test]
async fn a_process_that_loses_its_runtime_api_ends() {
    let api = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut process = tokio::process::Command::new(examples().join("misbehaving"))
        .env("AWS_LAMBDA_RUNTIME_API", api.local_addr().unwrap().to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "f")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (connection, _) = api.accept().await.unwrap();

    drop((connection, api));

    tokio::time::timeout(Duration::from_secs(5), process.wait()).await.unwrap().unwrap();
}
