//! The command `bucket-api`, as far as it can be had without a build of the functions.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

use std::process::{Command, Output};
use std::sync::Arc;

use local::{Data, Options, Stack};

fn bucket_api(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bucket-api")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A stack without functions.
async fn stack() -> Stack {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("template.yaml");
    std::fs::write(&template, "Resources: { Api: { Type: AWS::Serverless::HttpApi } }").unwrap();
    let options = Options {
        template,
        binaries: folder.path().to_owned(),
        data: Data::Memory,
        address: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
        dynamodb_port: 0,
        parameters: std::collections::BTreeMap::new(),
        secrets: std::collections::BTreeMap::new(),
        logs: Arc::new(|_, _| {}),
        functions_dynamodb: None,
    };
    Stack::start(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn token_prints_a_token_and_nothing_else() {
    let stack = stack().await;
    let port = stack.origin().rsplit(':').next().unwrap().to_owned();

    let output = bucket_api(&["token", "you@example.com", "--ttl", "-5", "--unverified", "--port", &port]);

    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    let token = text(&output.stdout).strip_suffix('\n').unwrap();
    assert_eq!(token.split('.').count(), 3);
    assert!(!token.contains(char::is_whitespace));

    let output = bucket_api(&["token", "nobody", "--port", &port]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: the refresh token must be an e-mail address"));
}

#[test]
fn without_a_stack_token_says_how_to_start_one() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    drop(taken);

    let output = bucket_api(&["token", "you@example.com", "--port", &port]);

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let expected =
        format!("error: no stack runs on port {port}: start one with `cargo run -- --port {port}`\n");
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn a_port_in_use_is_said_before_anything_is_built() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let output = bucket_api(&["--port", &port]);

    assert_eq!(output.status.code(), Some(1));
    let expected =
        format!("error: port {port} is in use: stop what listens there or choose another with --port\n");
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn a_parameter_that_is_not_right_is_said_before_anything_is_built() {
    let output = bucket_api(&["--port", "0", "--memory", "--parameter-overrides", "NoSuchParameter=1"]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(
        error.starts_with("error: the template parameter `NoSuchParameter` is not one of this template's (")
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn help_explains_each_option_with_an_example() {
    for arguments in [&["--help"][..], &["token", "--help"]] {
        let output = bucket_api(arguments);
        let help = text(&output.stdout).to_owned();
        assert!(output.status.success());
        let options = help.lines().filter(|line| line.trim_start().starts_with("--")).count();
        assert!(help.matches("Example: ").count() > options, "{help}");
    }
}
