//! Event source mappings: what changes in a table invokes the functions that its stream triggers.
//!
//! One batch at a time is under way for each trigger, so records arrive in their order; each is
//! delivered at least once. Source: "Using AWS Lambda with Amazon DynamoDB" in the AWS Lambda
//! developer guide.

mod batch;
mod filter;
mod kept;
mod source;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dynoxide::errors::DynoxideError;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::batch::{Queue, Step};
pub use self::filter::Filter;
use self::kept::{DEAD_LETTERS, Kept};
pub(crate) use self::source::Position;
use self::source::{Shard, Source};
use crate::database::Handle;
use crate::lambda::{InvokeError, Lambda};
use crate::stack::LogSink;
use crate::template::{Function, StreamTrigger};

/// How often the stream is looked at.
const POLL: Duration = Duration::from_millis(100);
/// A look may take this part of the time: the engine has no index on its records, so it takes longer
/// the more there have been.
const SHARE: u32 = 20;
/// How long the first retry of a batch waits; each further one waits twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// The longest that a retry waits.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// Why the streams cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The file that says how far the triggers have come cannot be used.
    #[error("cannot use {}, which says what of the stream was handled: {source}", path.display())]
    Positions {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The engine does not give the stream of the table.
    #[error("cannot read the stream of `{table}`: {source}")]
    Read {
        /// The table.
        table: String,
        /// What the engine said.
        source: DynoxideError,
    },
    /// The database has been stopped.
    #[error("cannot read the stream of `{table}`: the database has been stopped")]
    Gone {
        /// The table.
        table: String,
    },
}

/// The running triggers. They end when this is dropped; [`Triggers::stop`] also waits.
pub(crate) struct Triggers {
    watched: Vec<Watched>,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What is seen of a trigger from outside.
struct Watched {
    shard: Shard,
    /// Everything up to here has been handled.
    handled: watch::Receiver<Position>,
    /// Has the trigger look at the stream now.
    wake: Arc<Notify>,
}

impl Triggers {
    /// Starts the triggers of `functions`. How far they come and their dead letters are kept in
    /// `folder`, in memory if there is none; `lock` is let go when nothing is written any more.
    pub(crate) async fn start(
        functions: &[Function],
        database: &Handle,
        lambda: &Arc<Lambda>,
        logs: &LogSink,
        folder: Option<PathBuf>,
        lock: Option<Arc<File>>,
    ) -> Result<Self, StreamError> {
        let kept = Arc::new(Kept::open(folder, lock)?);
        let mut triggers =
            Self { watched: Vec::new(), stopping: watch::Sender::new(false), tasks: JoinSet::new() };
        for function in functions {
            for trigger in &function.streams {
                let shard = Shard::open(database.clone(), trigger).await?;
                let position = match kept.position(&trigger.id) {
                    Some(position) => position,
                    None => shard.start(trigger.starting_position).await?,
                };
                // Else a stop before the first record is handled would forget where `LATEST` was.
                keep(&kept, trigger, position, None, |line| logs(&function.name, line)).await;
                let source = shard.source(position).await?;
                let (handled, watched) = watch::channel(position);
                let wake = Arc::new(Notify::new());
                triggers.watched.push(Watched { shard, handled: watched, wake: Arc::clone(&wake) });
                let running = Running {
                    function: function.clone(),
                    trigger: trigger.clone(),
                    source,
                    queue: Queue::new(trigger),
                    since: Instant::now(),
                    failures: 0,
                    lambda: Arc::clone(lambda),
                    logs: Arc::clone(logs),
                    kept: Arc::clone(&kept),
                    handled,
                    wake,
                };
                triggers.tasks.spawn(running.run(triggers.stopping.subscribe()));
            }
        }
        Ok(triggers)
    }

    /// Returns when every trigger has handled every record that is in its stream now.
    pub(crate) async fn settled(&self) -> Result<(), StreamError> {
        let mut ends = Vec::with_capacity(self.watched.len());
        for watched in &self.watched {
            ends.push((watched, watched.shard.end().await?));
        }
        for (watched, end) in ends {
            watched.wake.notify_one();
            let mut handled = watched.handled.clone();
            let reached = handled.wait_for(|handled| *handled >= end).await;
            reached.map_err(|_ended| StreamError::Gone { table: watched.shard.table().to_owned() })?;
        }
        Ok(())
    }

    /// Ends the triggers, and returns when nothing of them is left. A batch that is under way is
    /// delivered again at the next start.
    pub(crate) async fn stop(mut self) {
        self.stopping.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A trigger at work.
struct Running {
    function: Function,
    trigger: StreamTrigger,
    source: Source,
    /// Records that the function is yet to handle.
    queue: Queue,
    /// When the queue was last empty.
    since: Instant,
    /// How many attempts have failed in a row.
    failures: u32,
    lambda: Arc<Lambda>,
    logs: LogSink,
    kept: Arc<Kept>,
    handled: watch::Sender<Position>,
    wake: Arc<Notify>,
}

impl Running {
    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        loop {
            let letter = tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                letter = self.step() => letter,
            };
            let known = *self.handled.borrow();
            let position =
                if self.queue.is_empty() { self.source.position() } else { self.queue.left().max(known) };
            if letter.is_some() || position != known {
                keep(&self.kept, &self.trigger, position, letter, |line| self.log(line)).await;
                self.handled.send_replace(position);
            }
        }
    }

    /// Reads on, or has the function handle a batch. Returns a dead letter if there is one.
    ///
    /// What it does to `self` it does between two awaits: it may be broken off at each of them.
    async fn step(&mut self) -> Option<Value> {
        if self.queue.is_ready(self.since.elapsed() >= self.trigger.batching_window) {
            return self.attempt().await;
        }
        let began = Instant::now();
        if self.queue.is_empty() {
            self.since = began;
        }
        let read = match self.source.read().await {
            Ok(read) => read,
            // This is about to be stopped too.
            Err(StreamError::Gone { .. }) => std::future::pending().await,
            Err(error) => {
                self.log(&error.to_string());
                sleep(LONGEST_BACKOFF).await;
                return None;
            }
        };
        if read.is_empty() {
            let mut pause = POLL.max(began.elapsed() * SHARE);
            if !self.queue.is_empty() {
                pause = pause.min(self.trigger.batching_window.saturating_sub(self.since.elapsed()));
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.wake.notified() => {}
            }
        }
        let filters = &self.trigger.filters;
        self.queue.extend(
            read.into_iter()
                .filter(|record| {
                    let wanted =
                        filters.is_empty() || filters.iter().any(|filter| filter.matches(record.value()));
                    wanted && record.is_change()
                })
                .map(source::Record::seal),
        );
        None
    }

    /// Has the function handle the batch that comes next. Returns a dead letter if it is given up.
    async fn attempt(&mut self) -> Option<Value> {
        if let Some(doublings) = self.failures.checked_sub(1) {
            let backoff = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(doublings));
            sleep(backoff.min(LONGEST_BACKOFF)).await;
        }
        let batch = self.queue.batch();
        let answer = match self.lambda.invoke(&self.function.name, batch.event()).await {
            // This is about to be stopped too.
            Err(InvokeError::Stopped) => std::future::pending().await,
            answer => answer,
        };
        let invocation_failed = answer.is_err();
        let outcome = match answer {
            Ok(body) if self.trigger.reports_item_failures => batch.outcome(&body),
            Ok(_) => Ok(()),
            Err(error) => Err(batch.failed(error.to_string())),
        };
        let failure = match outcome {
            Ok(()) => {
                self.failures = 0;
                self.queue.handled();
                return None;
            }
            Err(failure) => failure,
        };
        self.failures = if failure.from == 0 { self.failures + 1 } else { 1 };
        let records = failure.records();
        match self.queue.failed(failure.from) {
            Step::Retry { attempts } => {
                let reason = &failure.reason;
                self.log(&format!(
                    "{records} failed at attempt {attempts}, and will be tried again: {reason}"
                ));
                None
            }
            Step::GiveUp { attempts, records: given_up } => {
                self.failures = 0;
                let table = &self.trigger.table;
                let (first, last) = (given_up.first()?, given_up.last()?);
                let fate = match (&self.trigger.on_failure, self.kept.is_on_disk()) {
                    (None, _) => "there is no OnFailure destination".to_owned(),
                    (Some(_), false) => "the dead letter is this line".to_owned(),
                    (Some(_), true) => format!("the dead letter is in {DEAD_LETTERS}"),
                };
                self.log(&format!(
                    "{records} of the stream of `{table}` given up at attempt {attempts} (sequence numbers {} to \
                     {}; {fate}): {}",
                    first.sequence_number, last.sequence_number, failure.reason
                ));
                self.trigger.on_failure.as_ref()?;
                // Source: "Configuring destinations for failed invocations", the message to a queue. The
                // pool does not tell the id of the request.
                Some(json!({
                    "requestContext": {
                        "functionArn": self.lambda.arn(&self.function.name),
                        "condition": "RetryAttemptsExhausted",
                        "approximateInvokeCount": attempts,
                    },
                    "responseContext": {
                        "statusCode": 200,
                        "executedVersion": "$LATEST",
                        "functionError": invocation_failed.then_some("Unhandled"),
                    },
                    "version": "1.0",
                    "timestamp": source::rfc3339(time::OffsetDateTime::now_utc()),
                    "DDBStreamBatchInfo": {
                        "shardId": self.source.shard_id(),
                        "startSequenceNumber": first.sequence_number,
                        "endSequenceNumber": last.sequence_number,
                        "approximateArrivalOfFirstRecord": first.arrival(),
                        "approximateArrivalOfLastRecord": last.arrival(),
                        "batchSize": given_up.len(),
                        "streamArn": self.trigger.arn,
                    },
                }))
            }
        }
    }

    fn log(&self, line: &str) {
        (self.logs)(&self.function.name, line);
    }
}

/// Keeps a dead letter, and then how far the trigger has come. Not to be broken off.
async fn keep(
    kept: &Arc<Kept>,
    trigger: &StreamTrigger,
    position: Position,
    letter: Option<Value>,
    log: impl Fn(&str),
) {
    let (kept, id) = (Arc::clone(kept), trigger.id.clone());
    let keep = move || {
        if let Some(letter) = letter {
            kept.keep_dead_letter(&letter)?;
        }
        kept.keep_position(&id, position)
    };
    // Writing to disk would hold up the functions' events.
    let written = tokio::task::spawn_blocking(keep).await.map_err(io::Error::other);
    if let Err(error) = written.flatten() {
        let table = &trigger.table;
        log(&format!("cannot keep what of the stream of `{table}` was handled: {error}"));
    }
}
