//! A hand that takes a row away, or puts one in the way, right before a transaction commits.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector},
    orchestrator::HttpRequest,
};
use serde_json::{Value, json};
use shared::store::{Guard, Guards};

use crate::{
    engine::{Engine, Item},
    footprint::row_of,
    schedule::{Actors, Setting},
    stage::{Failure, Stage},
};

/// What the hand does, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touch {
    /// Before which transaction, from 0.
    transaction: usize,
    /// To the row of which of its writes, from 0.
    write: usize,
    /// Whether a row comes to be there, or the one that is there goes.
    puts: bool,
}

impl fmt::Display for Touch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.puts { "a row is in the way" } else { "a row is gone" })
    }
}

/// What became of the transaction that the hand has touched.
#[derive(Debug, Default)]
struct Seen {
    transactions: AtomicUsize,
    /// The writes of each transaction.
    writes: Mutex<Vec<usize>>,
    refused: Mutex<Option<bool>>,
}

#[derive(Clone)]
struct Hand {
    inner: SharedHttpConnector,
    engine: Engine,
    touch: Option<Touch>,
    seen: Arc<Seen>,
}

impl fmt::Debug for Hand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hand({:?})", self.touch)
    }
}

impl HttpConnector for Hand {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        if !target.ends_with("TransactWriteItems") {
            return self.inner.call(request);
        }
        let number = self.seen.transactions.fetch_add(1, Ordering::SeqCst);
        let body: Value =
            serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap_or_default();
        let writes = body["TransactItems"].as_array().cloned().unwrap_or_default();
        self.seen.writes.lock().unwrap_or_else(PoisonError::into_inner).push(writes.len());
        let hand = self.clone();
        HttpConnectorFuture::new(async move {
            let touch = hand.touch.filter(|touch| touch.transaction == number);
            let touched = match touch.and_then(|touch| Some((touch, writes.get(touch.write)?))) {
                Some((touch, write)) => hand.touches(touch, write).await,
                None => false,
            };
            let response = hand.inner.call(request).await;
            if touched {
                let refused = response.as_ref().is_ok_and(|response| !response.status().is_success());
                *hand.seen.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
            }
            response
        })
    }
}

impl Hand {
    /// Tells whether it could.
    async fn touches(&self, touch: Touch, write: &Value) -> bool {
        let Some((_, of)) = row_of(write) else { return false };
        let key: Item = ["pk", "sk"].map(|name| (name.to_owned(), of[name].clone())).into_iter().collect();
        let is_there = self.engine.rows().await.is_ok_and(|rows| {
            rows.iter().any(|row| key.iter().all(|(name, value)| row.get(name) == Some(value)))
        });
        if is_there == touch.puts {
            return false;
        }
        let done = if touch.puts {
            let mut row = key;
            row.insert("type".to_owned(), json!({ "S": "in the way" }));
            self.engine.put(&row).await
        } else {
            self.engine.delete(&key).await
        };
        done.is_ok()
    }
}

async fn run(
    stage: &Stage,
    setting: &Setting,
    actors: &Actors,
    touch: Option<Touch>,
) -> Result<Arc<Seen>, Failure> {
    stage.reset().await?;
    let seen = Arc::new(Seen::default());
    let (of_hand, engine) = (Arc::clone(&seen), stage.world.engine().clone());
    let store = setting.store(stage.world.store_by(move |inner| {
        let (engine, seen) = (engine.clone(), Arc::clone(&of_hand));
        SharedHttpConnector::new(Hand { inner, engine, touch, seen })
    }));
    for command in actors.iter().flatten() {
        // What comes of it depends on the hand; what matters is the transaction.
        let _ = stage.world.perform(&store, command, setting.now, setting.manner).await;
    }
    Ok(seen)
}

/// Whether the transaction that `touch` touches is refused; nothing where there is none to touch.
pub(crate) async fn is_refused(
    stage: &Stage,
    setting: &Setting,
    actors: &Actors,
    touch: &Touch,
) -> Result<Option<bool>, Failure> {
    let seen = run(stage, setting, actors, Some(*touch)).await?;
    let refused = *seen.refused.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(refused)
}

/// The touches by which a transaction of `actors` is refused, and the guards that it meets.
pub(crate) async fn touches(
    stage: &Stage,
    actors: &Actors,
) -> Result<Vec<(Touch, BTreeSet<Guard>)>, Failure> {
    let guards = Arc::new(Guards::default());
    let setting = Setting { guards: Some(Arc::clone(&guards)), ..Setting::earnest(stage.state.now) };
    let seen = run(stage, &setting, actors, None).await?;
    let writes = seen.writes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut touches = Vec::new();
    for (transaction, writes) in writes.into_iter().enumerate() {
        for write in 0..writes {
            for puts in [false, true] {
                let touch = Touch { transaction, write, puts };
                if is_refused(stage, &setting, actors, &touch).await? == Some(true) {
                    touches.push((touch, guards.seen()));
                }
            }
        }
    }
    Ok(touches)
}
