//! AWS Lambda: starts each function's binary as often as events wait, hands every instance one event
//! at a time over the Runtime API, and ends what is idle.
//!
//! Source: "Understanding the Lambda execution environment lifecycle" and "Lambda quotas" in the AWS
//! Lambda developer guide.

mod instance;
pub mod runtime_api;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::stack::LogSink;
use crate::template::{ACCOUNT, Function, REGION};
use crate::{iam, ids};

/// Bytes of an event or of a response: 6 MB and some room for the envelope.
pub(crate) const MAX_PAYLOAD: usize = 6_291_556;

/// How far a function's pool goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Instances at a time; further events wait. AWS allows 1,000 by default, one machine less.
    pub(crate) instances: usize,
    /// How long an instance may take to ask for its first event.
    pub(crate) init: Duration,
    /// How long an instance without an event is kept.
    pub(crate) idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { instances: 16, init: Duration::from_secs(10), idle: Duration::from_mins(5) }
    }
}

/// Why an event was not answered.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// No function of the template has this binary.
    #[error("there is no function `{name}`")]
    UnknownFunction {
        /// The name asked for.
        name: String,
    },
    /// The event is larger than Lambda takes.
    #[error("RequestTooLarge: the event has {size} bytes, and {MAX_PAYLOAD} are allowed")]
    RequestTooLarge {
        /// Bytes of the event.
        size: usize,
    },
    /// The instance could not be started, or did not come to ask for an event.
    #[error("Runtime.InitError: {reason}")]
    Init {
        /// What the function reported, or what became of the process.
        reason: String,
    },
    /// The function reported an error.
    #[error("{kind}: {message}")]
    Function {
        /// `errorType`.
        kind: String,
        /// `errorMessage`.
        message: String,
    },
    /// The process ended while it had the event.
    #[error("Runtime.ExitError: the process ended before it answered ({status})")]
    Exit {
        /// How it ended.
        status: ExitStatus,
    },
    /// The function took longer than its `Timeout`.
    #[error("Task timed out after {seconds}.00 seconds")]
    Timeout {
        /// The timeout.
        seconds: u64,
    },
    /// The answer is larger than Lambda takes.
    #[error("Function.ResponseSizeTooLarge: the response is larger than {MAX_PAYLOAD} bytes")]
    ResponseTooLarge,
    /// The stack was stopped first.
    #[error("the stack was stopped before the function answered")]
    Stopped,
}

/// All functions of a template.
pub(crate) struct Lambda {
    /// By the name of the binary.
    pools: BTreeMap<String, Arc<Pool>>,
}

impl Lambda {
    /// Plays `functions`, whose binaries are in the folder `binaries`. `environment` is set for each
    /// beside its own. Nothing is started yet.
    pub(crate) fn new(
        functions: &[Function],
        binaries: &Path,
        environment: &BTreeMap<String, String>,
        logs: &LogSink,
        limits: Limits,
    ) -> Self {
        let pools = functions.iter().map(|function| {
            let pool = Pool {
                process: Process::new(function, binaries, environment),
                logs: Arc::clone(logs),
                limits,
                stopping: watch::Sender::new(false),
                state: Mutex::default(),
            };
            (function.name.clone(), Arc::new(pool))
        });
        Self { pools: pools.collect() }
    }

    /// Has `function` (the name of its binary) handle `event`.
    pub(crate) async fn invoke(&self, function: &str, event: Bytes) -> Result<Bytes, InvokeError> {
        match self.pools.get(function) {
            Some(pool) => pool.invoke(event).await,
            None => Err(InvokeError::UnknownFunction { name: function.to_owned() }),
        }
    }

    /// The ARN of `function` (the name of its binary).
    pub(crate) fn arn(&self, function: &str) -> Option<String> {
        self.pools.get(function).map(|pool| pool.process.arn())
    }

    /// What the processes of `function` (the name of its binary) have in their environment, but for what is of
    /// one instance.
    pub(crate) fn environment(&self, function: &str) -> Option<&BTreeMap<String, String>> {
        self.pools.get(function).map(|pool| &pool.process.environment)
    }

    /// How many instances of `function` have been started.
    pub(crate) fn instances_started(&self, function: &str) -> usize {
        self.pools.get(function).map_or(0, |pool| pool.lock().started)
    }

    /// Ends every instance, and returns when all processes are gone.
    pub(crate) async fn stop(&self) {
        // All are told before the first is waited for.
        self.kill();
        for pool in self.pools.values() {
            let mut instances = std::mem::take(&mut pool.lock().instances);
            while instances.join_next().await.is_some() {}
        }
    }

    /// Tells every instance to end, without waiting.
    pub(crate) fn kill(&self) {
        for pool in self.pools.values() {
            pool.stopping.send_replace(true);
            // Whoever waits learns that nobody will answer.
            pool.lock().waiting.clear();
        }
    }
}

/// How the processes of a function are started.
#[derive(Debug)]
struct Process {
    /// The function's name on AWS.
    logical_id: String,
    binary: PathBuf,
    timeout: Duration,
    environment: BTreeMap<String, String>,
}

impl Process {
    /// Source: "Defined runtime environment variables" in the AWS Lambda developer guide.
    fn new(function: &Function, binaries: &Path, shared: &BTreeMap<String, String>) -> Self {
        let mut environment = function.environment.clone();
        environment.extend(shared.clone());
        let defined = [
            ("_HANDLER", "bootstrap"),
            // Says who is asking: signatures are not verified.
            ("AWS_ACCESS_KEY_ID", &iam::access_key(&function.logical_id)),
            ("AWS_DEFAULT_REGION", REGION),
            // No instance metadata service: the SDK would look for one.
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_LAMBDA_FUNCTION_NAME", &function.logical_id),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_REGION", REGION),
            ("AWS_SECRET_ACCESS_KEY", "local"),
            ("LANG", "en_US.UTF-8"),
            ("TZ", ":UTC"),
        ];
        environment.extend(defined.map(|(name, value)| (name.to_owned(), value.to_owned())));
        environment.extend([
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE".to_owned(), function.memory_size.to_string()),
            ("AWS_LAMBDA_LOG_GROUP_NAME".to_owned(), format!("/aws/lambda/{}", function.logical_id)),
            ("LAMBDA_TASK_ROOT".to_owned(), binaries.display().to_string()),
        ]);
        Self {
            logical_id: function.logical_id.clone(),
            binary: binaries.join(&function.name),
            timeout: function.timeout,
            environment,
        }
    }

    fn arn(&self) -> String {
        format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{}", self.logical_id)
    }

    /// The name of the function in logs: that of its binary.
    fn name(&self) -> String {
        self.binary.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// An event on its way.
#[derive(Debug)]
struct Job {
    /// The id of the invocation.
    id: String,
    event: Bytes,
    reply: oneshot::Sender<Result<Bytes, InvokeError>>,
}

/// The instances of one function and the events that wait for them.
struct Pool {
    process: Process,
    logs: LogSink,
    limits: Limits,
    stopping: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    waiting: VecDeque<Job>,
    /// Most recently used last. An instance that has gone away has closed its end.
    idle: Vec<oneshot::Sender<Job>>,
    /// Instances that are about to ask for an event: they are starting, or have just answered.
    expected: usize,
    /// Instances that are there: starting, idle or busy.
    alive: usize,
    /// Instances that there have ever been.
    started: usize,
    instances: JoinSet<()>,
}

impl Pool {
    async fn invoke(self: &Arc<Self>, event: Bytes) -> Result<Bytes, InvokeError> {
        if event.len() > MAX_PAYLOAD {
            return Err(InvokeError::RequestTooLarge { size: event.len() });
        }
        let (reply, result) = oneshot::channel();
        let job = Job { id: ids::uuid(), event, reply };
        self.dispatch(job, &mut self.lock());
        // Dropped unanswered only when the stack stops.
        result.await.unwrap_or(Err(InvokeError::Stopped))
    }

    /// Hands `job` to an idle instance, or else has it wait and sees to an instance.
    fn dispatch(self: &Arc<Self>, mut job: Job, state: &mut State) {
        if *self.stopping.borrow() {
            return;
        }
        while let Some(instance) = state.idle.pop() {
            match instance.send(job) {
                Ok(()) => return,
                Err(returned) => job = returned,
            }
        }
        state.waiting.push_back(job);
        self.start_as_needed(state);
    }

    /// Starts an instance for each waiting event that none is expected to ask for.
    fn start_as_needed(self: &Arc<Self>, state: &mut State) {
        // Instances that have ended are forgotten here, since nothing else looks at them.
        while state.instances.try_join_next().is_some() {}
        while state.expected < state.waiting.len()
            && state.alive < self.limits.instances
            && !*self.stopping.borrow()
        {
            state.expected += 1;
            state.alive += 1;
            state.started += 1;
            state.instances.spawn(instance::run(Arc::clone(self)));
        }
    }

    /// The event that has waited longest. Those that nobody waits for any more are dropped.
    fn next_waiting(state: &mut State) -> Option<Job> {
        std::iter::from_fn(|| state.waiting.pop_front()).find(|job| !job.reply.is_closed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, line: &str) {
        (self.logs)(&self.process.name(), line);
    }
}

/// What an instance tells its pool.
impl Pool {
    /// It will never ask for an event. The one that it was started for fails with it.
    fn instance_failed(&self, error: InvokeError) {
        let mut state = self.lock();
        state.expected -= 1;
        if let Some(job) = Self::next_waiting(&mut state) {
            // A receiver that has gone has no use for the reason.
            let _ = job.reply.send(Err(error));
        } else {
            drop(state);
            self.log(&error.to_string());
        }
    }

    /// It has answered, and is about to ask for its next event. Counted before the answer is out: whoever
    /// has it may send an event before the process can ask, which is no reason to start another.
    fn instance_expected(&self) {
        self.lock().expected += 1;
    }

    /// It does not ask for its next event as soon as was expected.
    fn instance_overdue(self: &Arc<Self>) {
        let mut state = self.lock();
        state.expected -= 1;
        self.start_as_needed(&mut state);
    }

    /// It asks for an event, as expected: one that waits, or else one that comes later.
    fn instance_idle(&self) -> Result<Job, oneshot::Receiver<Job>> {
        let mut state = self.lock();
        state.expected -= 1;
        Self::next_waiting(&mut state).ok_or_else(|| {
            let (sender, receiver) = oneshot::channel();
            state.idle.push(sender);
            receiver
        })
    }

    /// It ended with `undelivered`, an event that it was handed but never saw.
    fn instance_ended(self: &Arc<Self>, undelivered: Option<Job>) {
        let mut state = self.lock();
        state.alive -= 1;
        state.idle.retain(|instance| !instance.is_closed());
        if let Some(job) = undelivered {
            self.dispatch(job, &mut state);
        }
        self.start_as_needed(&mut state);
    }
}

#[cfg(test)]
pub(crate) mod tests;
