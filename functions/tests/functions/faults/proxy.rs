//! What stands between the functions and the table, and fails calls by rule as a network and a busy table would.

use std::{
    fmt, fs,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::{
    HeaderMap, Request, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, TRANSFER_ENCODING},
    request::Parts,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// Longer than the functions wait for an answer, which is two seconds.
const TOO_LONG: Duration = Duration::from_millis(2_300);

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Not at all.
    Passes,
    /// It is made, and the connection closed before its answer.
    AnswerLost,
    /// It is made, and answered with this status and type of error instead.
    AnsweredAfter(u16, &'static str),
    /// It is made, and its answer comes too late.
    AnswerLate,
    /// It is made, and the function killed before its answer.
    Killed,
    /// It comes to the table too late.
    Late,
    /// The connection is closed before it is made.
    Lost,
    /// It is not made, but answered with this status and type of error; without a type, with what is no JSON.
    Refused(u16, &'static str),
    /// The transaction is cancelled, for this reason in its last part or in all.
    Cancelled(&'static str, Parted),
    /// Of the batch the last key is left for another time.
    LeftUndone,
}

/// Which parts of a transaction are given a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parted {
    Last,
    All,
}

impl How {
    /// Whether the table is changed all the same.
    pub(super) fn is_made(self) -> bool {
        matches!(
            self,
            Self::Passes
                | Self::AnswerLost
                | Self::AnsweredAfter(..)
                | Self::AnswerLate
                | Self::Killed
                | Self::Late
        )
    }
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// The operation.
    pub(super) operation: &'static str,
    /// How, one call after another.
    pub(super) hows: &'static [How],
    /// The first that fails, counted from 1.
    pub(super) nth: usize,
    /// Whether those behind them fail like the last.
    pub(super) for_ever: bool,
}

/// A fault of the calls that name what is of one case.
pub(super) struct Rule {
    fault: Fault,
    /// What those calls name.
    marks: Vec<String>,
    seen: AtomicUsize,
    /// Calls that are on their way to the table, perhaps for a function that waits no more.
    under_way: AtomicUsize,
}

impl Rule {
    /// How many calls there were.
    pub(super) fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// Returns when no call is on its way any more.
    pub(super) async fn at_rest(&self) {
        while self.under_way.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn is_about(&self, headers: &HeaderMap, body: &str) -> bool {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // What follows a commit has its own tests.
        header("x-amz-target").rsplit('.').next() == Some(self.fault.operation)
            && !header(AUTHORIZATION.as_str()).contains("local-NotifyFunction/")
            && self.marks.iter().any(|mark| body.contains(mark))
    }

    /// How the call that has come fails.
    fn how(&self) -> How {
        let number = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        let Fault { operation: _, hows, nth, for_ever } = self.fault;
        let Some(place) = number.checked_sub(nth) else { return How::Passes };
        let after = if for_ever { hows.last() } else { None };
        hows.get(place).or(after).copied().unwrap_or(How::Passes)
    }
}

#[derive(Default)]
struct State {
    table: OnceLock<String>,
    rules: Mutex<Vec<Arc<Rule>>>,
}

/// The proxy. It goes with the runtime of its test.
pub(super) struct Proxy {
    pub(super) endpoint: String,
    state: Arc<State>,
}

/// The connection is closed instead of an answer.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("closed")
    }
}

impl std::error::Error for Closed {}

impl Proxy {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let served = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&served), stream));
            }
        });
        Self { endpoint, state }
    }

    /// Where the table is.
    pub(super) fn leads_to(&self, endpoint: &str) {
        self.state.table.set(endpoint.to_owned()).unwrap();
    }

    /// Has `fault` befall the calls that name one of `marks`.
    pub(super) fn arms(&self, fault: Fault, marks: Vec<String>) -> Arc<Rule> {
        let (seen, under_way) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let rule = Arc::new(Rule { fault, marks, seen, under_way });
        self.state.rules.lock().unwrap().push(Arc::clone(&rule));
        rule
    }

    pub(super) fn disarms(&self, rule: &Arc<Rule>) {
        self.state.rules.lock().unwrap().retain(|armed| !Arc::ptr_eq(armed, rule));
    }
}

async fn serve(state: Arc<State>, stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let ends = [stream.peer_addr().unwrap(), stream.local_addr().unwrap()];
    let service = service_fn(move |request| answer(Arc::clone(&state), ends, request));
    // A function that goes away, or is sent away, is what this is for.
    let _gone = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    state: Arc<State>,
    ends: [SocketAddr; 2],
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Closed> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_gone| Closed)?.to_bytes();
    let table = state.table.get().unwrap().clone();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let found = |rule: &&Arc<Rule>| rule.is_about(&parts.headers, &text);
    let rule = state.rules.lock().unwrap().iter().find(found).cloned();
    let Some(rule) = rule else { return forward(table, parts, body).await };
    let how = rule.how();
    let body = match how {
        How::LeftUndone => return left_undone(table, parts, &text).await,
        How::Lost => return Err(Closed),
        How::Refused(status, kind) => return Ok(error(status, kind, &json!({}))),
        How::Cancelled(code, parted) => return Ok(cancelled(&text, code, parted)),
        How::Passes
        | How::AnswerLost
        | How::AnsweredAfter(..)
        | How::AnswerLate
        | How::Killed
        | How::Late => body,
    };
    // Once on its way, a call comes to the table, whoever waits for it.
    rule.under_way.fetch_add(1, Ordering::SeqCst);
    let (made, rule) = (parts, Arc::clone(&rule));
    let call = tokio::spawn(async move {
        if how == How::Late {
            tokio::time::sleep(TOO_LONG).await;
        }
        let answer = forward(table, made, body).await;
        rule.under_way.fetch_sub(1, Ordering::SeqCst);
        answer
    });
    let answer = call.await.unwrap()?;
    match how {
        How::AnswerLost => Err(Closed),
        How::AnsweredAfter(status, kind) => Ok(error(status, kind, &json!({}))),
        How::AnswerLate => {
            tokio::time::sleep(TOO_LONG).await;
            Ok(answer)
        }
        How::Killed => {
            kill(ends);
            Err(Closed)
        }
        How::Passes | How::Late | How::Lost | How::Refused(..) | How::Cancelled(..) | How::LeftUndone => {
            Ok(answer)
        }
    }
}

async fn forward(table: String, parts: Parts, body: Bytes) -> Result<Response<Full<Bytes>>, Closed> {
    let mut request = Request::builder().method(parts.method).uri(format!("{table}{}", parts.uri));
    *request.headers_mut().unwrap() = parts.headers;
    let answer = local::client::send(request.body(body).unwrap()).await.map_err(|_stopped| Closed)?;
    let mut answer = answer.map(Full::new);
    answer.headers_mut().remove(TRANSFER_ENCODING);
    Ok(answer)
}

/// Gets all keys of a batch but the last, which is left undone.
async fn left_undone(table: String, mut parts: Parts, body: &str) -> Result<Response<Full<Bytes>>, Closed> {
    let mut asked: Value = serde_json::from_str(body).unwrap();
    let (name, of_table) = asked["RequestItems"].as_object_mut().unwrap().iter_mut().next().unwrap();
    let (name, mut left) = (name.clone(), of_table.clone());
    let last = of_table["Keys"].as_array_mut().unwrap().pop().unwrap();
    left["Keys"] = json!([last]);
    if of_table["Keys"].as_array().unwrap().is_empty() {
        let body = json!({ "Responses": { &name: [] }, "UnprocessedKeys": { &name: left } });
        return Ok(typed(200, body.to_string()));
    }
    let smaller = asked.to_string();
    parts.headers.insert("content-length", smaller.len().into());
    let answer = forward(table, parts, smaller.into()).await?;
    let body = answer.into_body().collect().await.map_err(|never| match never {})?.to_bytes();
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    body["UnprocessedKeys"] = json!({ name: left });
    Ok(typed(200, body.to_string()))
}

/// The transaction `asked` for is cancelled.
fn cancelled(asked: &str, code: &str, parted: Parted) -> Response<Full<Bytes>> {
    let asked: Value = serde_json::from_str(asked).unwrap();
    let parts = asked["TransactItems"].as_array().unwrap().len();
    let reasons: Vec<_> = (1..=parts)
        .map(|part| {
            if parted == Parted::All || part == parts {
                json!({ "Code": code, "Message": "The part cannot be written now" })
            } else {
                json!({ "Code": "None" })
            }
        })
        .collect();
    let codes: Vec<_> = reasons.iter().map(|reason| reason["Code"].as_str().unwrap()).collect();
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    );
    let more = json!({ "Message": message, "CancellationReasons": reasons });
    error(400, "com.amazonaws.dynamodb.v20120810#TransactionCanceledException", &more)
}

/// An error as `DynamoDB` tells it; without a kind, as something before it does.
fn error(status: u16, kind: &str, more: &Value) -> Response<Full<Bytes>> {
    if kind.is_empty() {
        return typed(status, "<html><body>Service Unavailable</body></html>".to_owned());
    }
    let mut body = json!({ "__type": kind, "message": "It did not work" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    typed(status, body.to_string())
}

fn typed(status: u16, body: String) -> Response<Full<Bytes>> {
    let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/x-amz-json-1.0");
    answer.body(Full::new(body.into())).unwrap()
}

/// Kills the process at the first of the `ends` of a connection.
fn kill(ends: [SocketAddr; 2]) {
    let ends = ends.map(|end| format!("0100007F:{:04X}", end.port()));
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let socket = sockets.lines().map(fields).find(|fields| fields[1..3] == ends).unwrap();
    let socket = format!("socket:[{}]", socket[9]);
    let holds = |process: &fs::DirEntry| {
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file.to_str() == Some(&*socket))
    };
    let process = fs::read_dir("/proc").unwrap().flatten().find(holds).unwrap();
    assert!(Command::new("kill").arg("-KILL").arg(process.file_name()).status().unwrap().success());
}
