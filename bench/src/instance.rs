//! One process of a function, which is handed events over a Lambda Runtime API and watched meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use axum::serve::ListenerExt;
use bytes::Bytes;
use local::runtime_api::{self, Call, Delivery, Outcome};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Failure;

/// How long anything may take; longer than on Lambda, for a machine that has something else to do.
const LIMIT: Duration = Duration::from_mins(1);

/// How long the log line of an invocation is waited for: it is written before the answer, and read beside it.
const LINE: Duration = Duration::from_secs(1);

/// What is started.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// What it is called here.
    pub name: String,
    /// The executable.
    pub binary: PathBuf,
    /// All of its environment but for the address of the Runtime API.
    pub environment: BTreeMap<String, String>,
}

/// What became of an event.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// From handing it out to having the answer.
    pub took: Duration,
    /// The answer: JSON.
    pub answer: Bytes,
}

/// A process that runs. It ends with the value.
#[derive(Debug)]
pub struct Instance {
    name: String,
    child: Child,
    calls: mpsc::Receiver<Call>,
    lines: mpsc::UnboundedReceiver<String>,
    /// The process waits for an event.
    next: Option<oneshot::Sender<Delivery>>,
    invocations: u32,
    init: Duration,
    _tasks: JoinSet<()>,
}

impl Instance {
    /// Starts `bootstrap`, and returns when it asks for its first event.
    pub async fn start(bootstrap: &Bootstrap) -> Result<Self, Failure> {
        let Bootstrap { name, binary, environment } = bootstrap;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (sender, calls) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        tasks.spawn(async move {
            // Runs until the task is dropped.
            let _never = axum::serve(listener, runtime_api::router(sender)).await;
        });
        let start = Instant::now();
        let mut child = Command::new(binary)
            .env_clear()
            .envs(environment)
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "bench")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::file(binary, format!("cannot be started: {error}")))?;
        let (said, lines) = mpsc::unbounded_channel();
        if let Some(stdout) = child.stdout.take() {
            tasks.spawn(pass_on(stdout, said.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tasks.spawn(pass_on(stderr, said));
        }
        let (next, invocations, init) = (None, 0, Duration::ZERO);
        let mut instance =
            Self { name: name.clone(), child, calls, lines, next, invocations, init, _tasks: tasks };
        instance.wait_for_next().await?;
        instance.init = start.elapsed();
        Ok(instance)
    }

    /// From the start of the process to its first request for an event.
    #[must_use]
    pub fn init(&self) -> Duration {
        self.init
    }

    /// Hands `event` out, and returns when it is answered and the process asks for the next.
    pub async fn invoke(&mut self, event: &Bytes) -> Result<Invocation, Failure> {
        self.invocations += 1;
        let id = format!("{:08x}-0000-4000-8000-000000000000", self.invocations);
        let deadline = SystemTime::now() + LIMIT;
        let delivery = Delivery {
            event: event.clone(),
            id: id.clone(),
            deadline: deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis(),
            arn: format!("arn:aws:lambda:us-east-1:000000000000:function:{}", self.name),
            trace: "Root=1-00000000-000000000000000000000000;Sampled=0".to_owned(),
        };
        let start = Instant::now();
        if self.next.take().is_none_or(|next| next.send(delivery).is_err()) {
            return Err(Failure::function(&self.name, "asked for no event"));
        }
        let (took, outcome) = loop {
            if let Call::Report { id: Some(reported), outcome, accepted } = self.call().await?
                && reported == id
            {
                let took = start.elapsed();
                // Whether the process still waits for that, its next request will say.
                let _ = accepted.send(true);
                break (took, outcome);
            }
        };
        self.wait_for_next().await?;
        match outcome {
            Outcome::Response(answer) => Ok(Invocation { took, answer }),
            Outcome::ResponseTooLarge => {
                Err(Failure::function(&self.name, "answers with more than Lambda takes"))
            }
            Outcome::Error(error) => Err(Failure::function(
                &self.name,
                format!("fails: {}: {}", error.error_type, error.error_message),
            )),
        }
    }

    /// The next line of the process's log that is one about a request.
    pub async fn line(&mut self) -> Result<serde_json::Value, Failure> {
        let read = async {
            while let Some(line) = self.lines.recv().await {
                if let Ok(line) = serde_json::from_str::<serde_json::Value>(&line)
                    && line.get("table_calls").is_some()
                {
                    return Some(line);
                }
            }
            None
        };
        let line = timeout(LINE, read).await.ok().flatten();
        line.ok_or_else(|| Failure::function(&self.name, "has written no line with `table_calls`"))
    }

    /// Processor time of all threads that are there; none where the kernel does not count it in nanoseconds.
    ///
    /// Source: `/proc/PID/schedstat` in "Scheduler Statistics" of the Linux kernel's documentation.
    #[must_use]
    pub fn cpu(&self) -> Option<Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()?)).ok()?;
        tasks
            .map(|task| {
                let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
                let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
                Some(Duration::from_nanos(nanoseconds))
            })
            .sum()
    }

    /// The most memory that was resident at a time, in KiB, pages of the executable included.
    #[must_use]
    pub fn peak_memory(&self) -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Ends the process, and returns when it is gone.
    pub async fn end(mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    async fn wait_for_next(&mut self) -> Result<(), Failure> {
        loop {
            match self.call().await? {
                Call::Next(next) => {
                    self.next = Some(next);
                    return Ok(());
                }
                Call::Report { id: None, outcome, .. } => {
                    return Err(Failure::function(&self.name, format!("does not start: {outcome:?}")));
                }
                Call::Report { accepted, .. } => drop(accepted.send(false)),
            }
        }
    }

    async fn call(&mut self) -> Result<Call, Failure> {
        let either = async {
            tokio::select! {
                biased;
                call = self.calls.recv() => call.ok_or_else(|| "has no Runtime API".to_owned()),
                status = self.child.wait() => Err(match status {
                    Ok(status) => format!("has ended ({status})"),
                    Err(error) => format!("is lost: {error}"),
                }),
            }
        };
        let outcome = timeout(LIMIT, either)
            .await
            .unwrap_or_else(|_| Err(format!("has asked for nothing for {} seconds", LIMIT.as_secs())));
        outcome.map_err(|what| {
            let mut said = String::new();
            while let Ok(line) = self.lines.try_recv() {
                said = format!(", and says: {line}");
            }
            Failure::function(&self.name, format!("{what}{said}"))
        })
    }
}

async fn pass_on(from: impl AsyncRead + Unpin, to: mpsc::UnboundedSender<String>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if to.send(line).is_err() {
            return;
        }
    }
}
