//! One instance of a function: a process with a Runtime API of its own, as on AWS, where every
//! execution environment has one at the address in `AWS_LAMBDA_RUNTIME_API`.

use std::io;
use std::net::Ipv4Addr;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::runtime_api::{self, Call, Delivery, Outcome};
use super::{InvokeError, Job, Pool};
use crate::http::Server;
use crate::ids;

/// How long the last lines of a process that has ended are waited for. They come at once, unless a
/// process that it started holds the pipe open.
const LAST_LINES: Duration = Duration::from_millis(250);

/// How soon after an answer a process asks for its next event, unless it has more to do.
const GRACE: Duration = Duration::from_millis(250);

/// Starts an instance, has it handle events until it ends, and leaves no process behind.
pub(super) async fn run(pool: Arc<Pool>) {
    let mut undelivered = None;
    match Instance::start(&pool).await {
        Ok(mut instance) => {
            let mut stopping = pool.stopping.subscribe();
            tokio::select! {
                rest = instance.live(&pool) => undelivered = rest,
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
            // Fails only if it has ended already.
            let _ = instance.child.kill().await;
            instance.last_lines().await;
        }
        Err(error) => {
            let reason = format!("cannot start {}: {error}", pool.process.binary.display());
            pool.instance_failed(InvokeError::Init { reason });
        }
    }
    pool.instance_ended(undelivered);
}

struct Instance {
    child: Child,
    /// What the process asks of its Runtime API.
    calls: mpsc::Receiver<Call>,
    /// Pass the lines of the process on.
    output: JoinSet<()>,
    /// The Runtime API; gone with the instance.
    _server: Server,
}

/// The process is waiting for an event.
type Next = oneshot::Sender<Delivery>;

impl Instance {
    async fn start(pool: &Arc<Pool>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let process = &pool.process;
        let mut child = Command::new(&process.binary)
            .env_clear()
            .envs(&process.environment)
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_LOG_STREAM_NAME", format!("local/[$LATEST]{}", ids::uuid()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole group: only the stack is to act on it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let mut output = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            output.spawn(pass_on(stdout, Arc::clone(pool)));
        }
        if let Some(stderr) = child.stderr.take() {
            output.spawn(pass_on(stderr, Arc::clone(pool)));
        }
        // An instance makes one call at a time.
        let (sender, calls) = mpsc::channel(1);
        Ok(Self { child, calls, output, _server: Server::spawn(listener, runtime_api::router(sender)) })
    }

    /// From the start of the process to its end. What it was handed but never saw is returned.
    async fn live(&mut self, pool: &Arc<Pool>) -> Option<Job> {
        let mut next = match self.init(pool).await {
            Ok(next) => next,
            Err(error) => {
                pool.instance_failed(error);
                return None;
            }
        };
        loop {
            let job = match pool.instance_idle() {
                Ok(job) => job,
                Err(parked) => match self.wait(pool, &mut next, parked).await {
                    Waited::Job(job) => job,
                    Waited::End(undelivered) => return undelivered,
                },
            };
            let delivery = Delivery {
                event: job.event.clone(),
                id: job.id.clone(),
                deadline: now_in_milliseconds() + pool.process.timeout.as_millis(),
                arn: pool.process.arn(),
                trace: format!("{};Sampled=0", ids::trace(OffsetDateTime::now_utc())),
            };
            if next.send(delivery).is_err() {
                return Some(job);
            }
            let Job { id, reply, .. } = job;
            let (result, survives) = self.handle(pool, &id).await;
            if survives {
                pool.instance_expected();
            }
            // Nobody may be waiting any more: the event was handled all the same, as on AWS.
            let _ = reply.send(result);
            if !survives {
                return None;
            }
            next = self.after(pool).await?;
        }
    }

    /// Waits for the first request for an event.
    async fn init(&mut self, pool: &Pool) -> Result<Next, InvokeError> {
        let limit = sleep(pool.limits.init);
        tokio::pin!(limit);
        let reason = loop {
            tokio::select! {
                // A report that came before the end of the process says more than the end does.
                biased;
                Some(call) = self.calls.recv() => match call {
                    Call::Next(next) => return Ok(next),
                    Call::Report { id: None, outcome: Outcome::Error(report), accepted } => {
                        let _ = accepted.send(true);
                        break format!("{}: {}", report.error_type, report.error_message);
                    }
                    Call::Report { accepted, .. } => drop(accepted.send(false)),
                },
                status = self.child.wait() => {
                    self.last_lines().await;
                    break match status {
                        Ok(status) => format!("the process ended before it asked for an event ({status})"),
                        Err(error) => format!("the process is lost: {error}"),
                    };
                }
                () = &mut limit => {
                    break format!("no request for an event within {} seconds", pool.limits.init.as_secs_f64());
                }
            }
        };
        Err(InvokeError::Init { reason })
    }

    /// Waits for an event, as long as an idle instance is kept.
    async fn wait(&mut self, pool: &Pool, next: &mut Next, mut parked: oneshot::Receiver<Job>) -> Waited {
        let limit = sleep(pool.limits.idle);
        tokio::pin!(limit);
        loop {
            tokio::select! {
                biased;
                job = &mut parked => return job.map_or(Waited::End(None), Waited::Job),
                Some(call) = self.calls.recv() => match call {
                    // It may have lost the connection.
                    Call::Next(again) => *next = again,
                    Call::Report { accepted, .. } => drop(accepted.send(false)),
                },
                status = self.child.wait() => {
                    pool.log(&format!("the process ended while it was idle{}", describe(status)));
                    break;
                }
                () = &mut limit => break,
            }
        }
        // From here on the pool looks elsewhere. It may have sent an event a moment ago.
        parked.close();
        Waited::End(parked.try_recv().ok())
    }

    /// Waits for the answer to the event `id`. Also says whether the instance can go on.
    async fn handle(&mut self, pool: &Pool, id: &str) -> (Result<bytes::Bytes, InvokeError>, bool) {
        let limit = sleep(pool.process.timeout);
        tokio::pin!(limit);
        loop {
            tokio::select! {
                biased;
                Some(call) = self.calls.recv() => match call {
                    Call::Report { id: Some(reported), outcome, accepted } if reported == id => {
                        let _ = accepted.send(true);
                        let result = match outcome {
                            Outcome::Response(body) => Ok(body),
                            Outcome::ResponseTooLarge => Err(InvokeError::ResponseTooLarge),
                            Outcome::Error(report) => Err(InvokeError::Function {
                                kind: report.error_type,
                                message: report.error_message,
                            }),
                        };
                        return (result, true);
                    }
                    Call::Report { accepted, .. } => drop(accepted.send(false)),
                    // To ask for the next event before this one is answered is out of order; the
                    // request fails as its sender is dropped.
                    Call::Next(_) => {}
                },
                status = self.child.wait() => {
                    self.last_lines().await;
                    let error = match status {
                        Ok(status) => InvokeError::Exit { status },
                        Err(error) => InvokeError::Init { reason: format!("the process is lost: {error}") },
                    };
                    return (Err(error), false);
                }
                () = &mut limit => {
                    return (Err(InvokeError::Timeout { seconds: pool.process.timeout.as_secs() }), false);
                }
            }
        }
    }

    /// Waits, after an answer, for the request for the next event. `None` if none comes.
    async fn after(&mut self, pool: &Arc<Pool>) -> Option<Next> {
        let (grace, limit) = (sleep(GRACE), sleep(pool.limits.idle));
        tokio::pin!(grace, limit);
        let mut expected = true;
        let next = loop {
            tokio::select! {
                biased;
                Some(call) = self.calls.recv() => match call {
                    Call::Next(next) => break Some(next),
                    Call::Report { accepted, .. } => drop(accepted.send(false)),
                },
                status = self.child.wait() => {
                    self.last_lines().await;
                    pool.log(&format!("the process ended after its answer{}", describe(status)));
                    break None;
                }
                () = &mut grace, if expected => {
                    expected = false;
                    pool.instance_overdue();
                }
                () = &mut limit => break None,
            }
        };
        match (&next, expected) {
            (Some(_), false) => pool.instance_expected(),
            (None, true) => pool.instance_overdue(),
            (Some(_), true) | (None, false) => {}
        }
        next
    }

    /// Lets what the process has written before its end be passed on first.
    async fn last_lines(&mut self) {
        let all = async { while self.output.join_next().await.is_some() {} };
        // What is late comes late.
        let _ = tokio::time::timeout(LAST_LINES, all).await;
    }
}

/// How the wait of an idle instance ended.
enum Waited {
    Job(Job),
    /// The instance ends, with an event that it was handed but never saw.
    End(Option<Job>),
}

/// Passes the lines that a process writes on to the log.
async fn pass_on(stream: impl AsyncRead + Unpin, pool: Arc<Pool>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    // An error means that the pipe is gone.
    while reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        pool.log(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']));
        line.clear();
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| format!(": {error}"), |status| format!(" ({status})"))
}

fn now_in_milliseconds() -> u128 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis()
}
