//! A function that does as it is told, for the tests of the pool and the gateway.
//!
//! The event's field `do`, or else the query parameter `do`, says what; without it, the event is
//! returned. The variable `INIT` says what goes wrong before the first event.
//!
//! An event of a stream is written out, and then handled as the attribute `do` of its items says. So is one of
//! a WebSocket API; what `$disconnect` is to do says the variable `DISCONNECT`, and without anything to do the
//! answer is a success.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lambda_runtime::{Context, Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    match std::env::var("INIT").as_deref() {
        Ok("exit") => std::process::exit(3),
        Ok("hang") => tokio::time::sleep(Duration::from_mins(1)).await,
        Ok("report") => report_init_error()?,
        _ => {}
    }
    lambda_runtime::run(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let LambdaEvent { payload, context } = event;
    if let Some(Value::Array(records)) = payload.get("Records") {
        writeln!(std::io::stdout(), "event {payload}")?;
        return handle_records(records).await;
    }
    if let Some(kind) = payload.pointer("/requestContext/eventType").and_then(Value::as_str) {
        writeln!(std::io::stdout(), "event {payload}")?;
        let told = match kind {
            "DISCONNECT" => std::env::var("DISCONNECT").unwrap_or_default(),
            _ => payload
                .pointer("/queryStringParameters/do")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        };
        return match told.split_once(':').unwrap_or((&told, "")) {
            ("", _) => Ok(json!({ "statusCode": 200 })),
            ("sleep", _) => act(&told, &context).await.map(|_| json!({ "statusCode": 200 })),
            ("status", status) => Ok(json!({ "statusCode": status.parse::<u16>()? })),
            _ => act(&told, &context).await,
        };
    }
    let action = payload.get("do").or_else(|| payload.pointer("/queryStringParameters/do"));
    match action.and_then(Value::as_str) {
        Some(action) => act(action, &context).await,
        None => Ok(payload),
    }
}

/// Does as `action` says.
async fn act(action: &str, context: &Context) -> Result<Value, Error> {
    let (action, argument) = action.split_once(':').unwrap_or((action, ""));
    match action {
        "context" => Ok(json!({
            "environment": std::env::vars().collect::<BTreeMap<_, _>>(),
            "pid": std::process::id(),
            "request_id": context.request_id,
            "deadline": context.deadline,
            "arn": context.invoked_function_arn,
        })),
        "exit" => std::process::exit(argument.parse()?),
        "fail" => Err(argument.into()),
        "large" => Ok(Value::String("x".repeat(argument.parse()?))),
        "log" => {
            writeln!(std::io::stdout(), "out {argument}")?;
            writeln!(std::io::stderr(), "err {argument}")?;
            Ok(Value::Null)
        }
        "return" => Ok(serde_json::from_str(argument)?),
        "sleep" => {
            tokio::time::sleep(Duration::from_millis(argument.parse()?)).await;
            Ok(json!(std::process::id()))
        }
        unknown => Err(format!("cannot {unknown}").into()),
    }
}

/// How often each record of a stream was handled so far, by its sequence number.
static HANDLED: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

/// Handles records one by one, and reports the first that fails. An item says what to do: `fail:N` fails
/// with the whole batch the first N times, `report:N` by itself.
async fn handle_records(records: &[Value]) -> Result<Value, Error> {
    for record in records {
        let text = |pointer| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let number = text("/dynamodb/SequenceNumber");
        let times = {
            let mut handled = HANDLED.lock().unwrap_or_else(PoisonError::into_inner);
            let times = handled.entry(number.to_owned()).or_default();
            *times += 1;
            *times
        };
        let action = text("/dynamodb/NewImage/do/S");
        let (action, argument) = action.split_once(':').unwrap_or((action, ""));
        match action {
            "fail" if times <= argument.parse()? => return Err(format!("failed {times} times").into()),
            "report" if times <= argument.parse()? => {
                return Ok(json!({ "batchItemFailures": [{ "itemIdentifier": number }] }));
            }
            "return" => return Ok(serde_json::from_str(argument)?),
            "sleep" => tokio::time::sleep(Duration::from_millis(argument.parse()?)).await,
            _ => {}
        }
    }
    Ok(Value::Null)
}

/// What a runtime does when the function's initialisation fails. The Rust runtime has no call for it.
fn report_init_error() -> Result<(), Error> {
    let body = r#"{"errorType":"Config","errorMessage":"TABLE_NAME is missing"}"#;
    let mut stream = TcpStream::connect(std::env::var("AWS_LAMBDA_RUNTIME_API")?)?;
    write!(
        stream,
        "POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: local\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    stream.read_to_end(&mut Vec::new())?;
    std::process::exit(1)
}
