//! `bucket-api`: builds the functions and runs them on this machine, or gets a token from a stack that
//! runs.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use local::functions::{self, BuildError};
use local::identity::{self, RequestTokenError};
use local::template::Route;
use local::{Data, Options, Stack, StartError};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

/// The backend on this machine: API, database, sign-in and outbox, with nothing else installed.
///
/// Example: bucket-api --port 4000 --parameter-overrides BucketsPerOwner=2
#[derive(Parser)]
#[command(name = "bucket-api", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Port of the API. Example: --port 4000
    #[arg(long, default_value_t = DEFAULT_PORT)]
    port: u16,

    /// Address to listen on: of loopback, or private, such as that of Docker's bridge, for functions in its
    /// containers. Who can reach it can sign in as anybody. Example: --address 172.17.0.1
    #[arg(long, default_value_t = LOOPBACK, value_parser = private_address)]
    address: IpAddr,

    /// Port of `DynamoDB` on the same address [default: any that is free]. Example: --dynamodb-port 8000
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    dynamodb_port: u16,

    /// Keep data in memory only: they are gone when this stops. Example: --memory
    #[arg(long, conflicts_with = "data")]
    memory: bool,

    /// Folder to keep data in [default: .local/PORT or .local/ADDRESS-PORT below the workspace]. Example: --data /tmp/buckets
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Values of template parameters. Example: --parameter-overrides BucketsPerOwner=2 OidcTrustEmail=true
    #[arg(long, value_name = "NAME=VALUE", num_args = 1.., value_parser = name_and_value)]
    parameter_overrides: Vec<(String, String)>,

    /// Take money through Stripe, with the keys in `STRIPE_SECRET_KEY` and `STRIPE_WEBHOOK_SECRET`; without
    /// it, plans are switched freely. Example: --stripe <https://api.stripe.com>
    #[arg(long, value_name = "URL", value_parser = http_url)]
    stripe: Option<Url>,
}

#[derive(Subcommand)]
enum Command {
    /// Print an access token of the running stack. Example: bucket-api token you@example.com
    Token {
        /// Who to sign in; any address will do. Example: you@example.com
        email: String,

        /// Seconds that the token lives; negative for one that has expired. Example: --ttl 60
        #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
        ttl: Option<i32>,

        /// Sign in as somebody whose address is not verified. Example: --unverified
        #[arg(long)]
        unverified: bool,

        /// Port of the running stack. Example: --port 4000
        #[arg(long, default_value_t = DEFAULT_PORT)]
        port: u16,

        /// Address of the running stack. Example: --address 172.17.0.1
        #[arg(long, default_value_t = LOOPBACK, value_parser = private_address)]
        address: IpAddr,
    },
}

const DEFAULT_PORT: u16 = 3000;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The name under which Secrets Manager has Stripe's keys here.
const STRIPE_SECRET: &str = "bucket-api-stripe";

/// The request that the greeting suggests, if the template has the route.
const TRY_ROUTE: (&str, &str) = ("POST", "/api/bucket/create_classic");
const TRY_BODY: &str = r#"{"name":"My servers"}"#;

/// What can go wrong, each in one line.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("no stack runs on port {port}: start one with `cargo run{options}`")]
    NotRunning { port: u16, options: String },
    #[error(transparent)]
    Token(RequestTokenError),
    #[error("{url} wants keys: set {missing} in the environment")]
    StripeKey { url: Url, missing: &'static str },
    #[error("cannot wait for signals: {0}")]
    Signal(io::Error),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Some(Command::Token { email, ttl, unverified, port, address }) => {
            token(&email, ttl, unverified, (address, port)).await
        }
        None => run(arguments).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&format!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints an access token, and nothing else.
async fn token(
    email: &str,
    ttl: Option<i32>,
    unverified: bool,
    (address, port): (IpAddr, u16),
) -> Result<(), Failure> {
    let ttl = ttl.map(|seconds| format!("#ttl={seconds}")).unwrap_or_default();
    let mark = if unverified { "#unverified" } else { "" };
    let origin = format!("http://{}", SocketAddr::new(address, port));
    let token = identity::request_token(&origin, &format!("{email}{mark}{ttl}")).await;
    let token = token.map_err(|error| match error {
        RequestTokenError::Client(_) => {
            let options = where_options(address, port);
            let options = if options.is_empty() { options } else { format!(" --{options}") };
            Failure::NotRunning { port, options }
        }
        RequestTokenError::Refused(_) | RequestTokenError::Stranger { .. } => Failure::Token(error),
    })?;
    say(&token);
    Ok(())
}

/// Builds the functions and runs them until Ctrl-C or SIGTERM.
async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { command: _, port, address, dynamodb_port, memory, data, parameter_overrides, stripe } =
        arguments;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));

    // First what fails at once, and only then the build.
    let listener = Stack::listen((address, port).into())?;
    let port = listener.local_addr().map_or(port, |address| address.port());
    let data = if memory {
        Data::Memory
    } else {
        // What is in it belongs to the issuer's URL.
        let name = if address == LOOPBACK { port.to_string() } else { format!("{address}-{port}") };
        Data::Directory(data.unwrap_or_else(|| workspace.join(".local").join(name)))
    };
    let mut options = Options {
        template: workspace.join("template.yaml"),
        binaries: PathBuf::new(),
        data: data.clone(),
        address: (address, port).into(),
        dynamodb_port,
        parameters: parameter_overrides.into_iter().collect(),
        secrets: BTreeMap::new(),
        logs: Arc::new(|function, line| {
            if !is_metric(line) {
                tell(&format!("{function} | {line}"));
            }
        }),
        functions_dynamodb: None,
    };
    if let Some(url) = &stripe {
        let keys = stripe_keys(url, |name| env::var(name).ok())?;
        options.secrets.insert(STRIPE_SECRET.to_owned(), keys);
        options.parameters.insert("StripeSecretName".to_owned(), STRIPE_SECRET.to_owned());
        options.parameters.insert("StripeUrl".to_owned(), url.as_str().trim_end_matches('/').to_owned());
    }
    let template = options.read_template(&listener)?;
    let names: Vec<_> = template.functions.iter().map(|function| &*function.name).collect();
    options.binaries = functions::build(workspace, &names, &tell)?;

    // From here on there are processes to end.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Signal)?;
    let stack = tokio::select! {
        stack = Stack::start_on(listener, options) => stack?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    say(&greeting(&stack, &data, (address, port)));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stack.stop().await;
    Ok(())
}

/// Whether `line` is a metric in `CloudWatch`'s embedded metric format, which tells a person nothing that the line
/// of its request does not.
fn is_metric(line: &str) -> bool {
    line.starts_with(r#"{"_aws":"#)
}

/// What to know of a stack that has started.
fn greeting(stack: &Stack, data: &Data, (address, port): (IpAddr, u16)) -> String {
    let origin = stack.origin();
    let data = match data {
        Data::Memory => "in memory, gone when this stops".to_owned(),
        Data::Directory(folder) => {
            let here = env::current_dir().unwrap_or_default();
            folder.strip_prefix(here).unwrap_or(folder).display().to_string()
        }
    };
    let mut lines = vec!["bucket-api is ready".to_owned(), String::new()];
    lines.extend([format!("  Page    {}", stack.page()), format!("  API     {origin}")]);
    lines.extend(stack.websocket_url().map(|url| format!("  Agents  {url}")));
    lines.extend([format!("  Mail    {origin}/_local/mail"), format!("  Data    {data}")]);
    let template = stack.template();
    match template.parameters.get("StripeUrl").map(String::as_str) {
        None => {}
        Some("") => {
            lines.push("  Stripe  none: plans are switched freely (--stripe URL takes money)".to_owned());
        }
        Some(url) => lines.push(format!("  Stripe  {url}")),
    }
    // With a provider of one's own, this one's tokens are good for nothing.
    let local_provider =
        template.parameters.get("OidcIssuer").is_none_or(|issuer| issuer == stack.identity().issuer());
    if local_provider {
        let options = where_options(address, port);
        lines.push(format!("  Token   cargo run -q -- token you@example.com{options}"));
        let (method, path) = TRY_ROUTE;
        let route = Route::Path { method: method.to_owned(), path: path.to_owned() };
        if template.functions.iter().any(|function| function.routes.contains(&route)) {
            let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("bucket-api"));
            let program = shell_quoted(&program.to_string_lossy());
            lines.push(format!("  Try     curl -s -X {method} {origin}{path} \\"));
            lines.push(format!(
                "            -H \"Authorization: Bearer $({program} token you@example.com{options})\" \\"
            ));
            lines.push(format!("            -H \"Content-Type: application/json\" -d '{TRY_BODY}'"));
        }
    }
    lines.extend([String::new(), "Ctrl-C stops it.".to_owned()]);
    lines.join("\n")
}

/// The options that name address and port, where they are needed.
fn where_options(address: IpAddr, port: u16) -> String {
    let address = if address == LOOPBACK { String::new() } else { format!(" --address {address}") };
    let port = if port == DEFAULT_PORT { String::new() } else { format!(" --port {port}") };
    address + &port
}

/// `text` as one word of a shell.
fn shell_quoted(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte)) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The secret with the keys for Stripe at `url`. What plays Stripe on this machine takes any.
fn stripe_keys(url: &Url, variable: impl Fn(&str) -> Option<String>) -> Result<String, Failure> {
    let is_played = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let key = |name: &'static str, played: &str| match variable(name).filter(|value| !value.is_empty()) {
        Some(value) => Ok(value),
        None if is_played => Ok(played.to_owned()),
        None => Err(Failure::StripeKey { url: url.clone(), missing: name }),
    };
    let keys = json!({
        "secret_key": key("STRIPE_SECRET_KEY", "sk_test_local")?,
        "webhook_secret": key("STRIPE_WEBHOOK_SECRET", "whsec_local")?,
    });
    Ok(keys.to_string())
}

/// Parses an http or https URL.
fn http_url(argument: &str) -> Result<Url, &'static str> {
    let url = Url::parse(argument).ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or("write an http or https URL")
}

/// Parses an address that no other machine reaches, unless somebody sees to it.
fn private_address(argument: &str) -> Result<IpAddr, &'static str> {
    let address = argument.parse::<Ipv4Addr>().ok();
    let address = address.filter(|address| address.is_loopback() || address.is_private());
    address.map(IpAddr::V4).ok_or("write an IPv4 address of loopback or of a private network")
}

/// Parses `Name=Value`.
fn name_and_value(argument: &str) -> Result<(String, String), &'static str> {
    match argument.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write Name=Value"),
    }
}

/// Writes a line for the person in front of the terminal. If nobody reads it, there is nobody to tell.
fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes what was asked for.
fn say(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_anything_unusual_in_it_is_quoted() {
        assert_eq!(shell_quoted("/home/you/target/debug/bucket-api"), "/home/you/target/debug/bucket-api");
        assert_eq!(shell_quoted("/my work/it's"), r"'/my work/it'\''s'");
    }

    #[test]
    fn a_line_of_a_request_is_shown_and_a_metric_is_not() {
        assert!(is_metric(
            r#"{"_aws":{"Timestamp":1,"CloudWatchMetrics":[]},"code":"internal","Refusals":1}"#
        ));
        for line in [r#"{"message":"request","code":"internal"}"#, r#"no {"_aws":"#, ""] {
            assert!(!is_metric(line), "{line}");
        }
    }

    #[test]
    fn an_override_is_a_name_and_a_value() {
        assert_eq!(name_and_value("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(name_and_value("A="), Ok(("A".to_owned(), String::new())));
        assert!(name_and_value("A").is_err());
        assert!(name_and_value("=b").is_err());
    }

    #[test]
    fn stripe_itself_wants_keys_and_what_plays_it_takes_any() {
        let none = |_: &str| None;
        let both = |name: &str| Some(format!("{name}!"));
        let url = |url| http_url(url).unwrap();

        assert_eq!(
            stripe_keys(&url("http://127.0.0.1:12111"), none).unwrap(),
            r#"{"secret_key":"sk_test_local","webhook_secret":"whsec_local"}"#
        );
        assert_eq!(
            stripe_keys(&url("https://api.stripe.com"), both).unwrap(),
            r#"{"secret_key":"STRIPE_SECRET_KEY!","webhook_secret":"STRIPE_WEBHOOK_SECRET!"}"#
        );
        assert_eq!(
            stripe_keys(&url("https://api.stripe.com"), none).unwrap_err().to_string(),
            "https://api.stripe.com/ wants keys: set STRIPE_SECRET_KEY in the environment"
        );
        assert!(http_url("api.stripe.com").is_err());
    }

    #[test]
    fn address_and_port_are_named_where_they_are_not_the_usual_ones() {
        assert_eq!(where_options(LOOPBACK, 3000), "");
        assert_eq!(where_options(LOOPBACK, 4000), " --port 4000");
        let bridge = private_address("172.17.0.1").unwrap();
        assert_eq!(where_options(bridge, 3000), " --address 172.17.0.1");
        assert_eq!(where_options(bridge, 4000), " --address 172.17.0.1 --port 4000");
    }

    #[test]
    fn an_address_that_other_machines_reach_is_not_listened_on() {
        for address in ["0.0.0.0", "8.8.8.8", "::", "::1", "localhost", "", "172.32.0.1"] {
            assert!(private_address(address).is_err(), "{address}");
        }
    }

    #[test]
    fn the_arguments_make_sense_to_clap() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
