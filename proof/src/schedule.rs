//! Who asks the table next: instead of luck, a choice.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector},
    orchestrator::HttpRequest,
};
use shared::store::{Guards, Store};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    footprint::Footprint,
    model::{Command, Outcome, Time},
    world::{Broken, Manner, World},
};

/// An actor who is about to ask the table.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Which one.
    pub actor: usize,
    /// What the call touches.
    pub call: Footprint,
}

/// What is heard of an actor.
enum Event {
    /// The actor is about to ask the table, and waits for their turn.
    Waits(Waiting),
    /// The actor has done all that they wanted.
    Ends(usize, Vec<Result<Outcome, Broken>>),
}

/// The way to the table of one actor, who has to wait for their turn.
#[derive(Clone)]
struct InTurn {
    actor: usize,
    inner: SharedHttpConnector,
    events: mpsc::UnboundedSender<Event>,
    turn: Arc<Semaphore>,
    commits: Arc<Mutex<Vec<Commit>>>,
}

impl fmt::Debug for InTurn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "InTurn({})", self.actor)
    }
}

impl HttpConnector for InTurn {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let way = self.clone();
        HttpConnectorFuture::new(async move {
            let waiting = Waiting { actor: way.actor, call: Footprint::of(&request) };
            // Both fail only when nobody cares any more.
            let _ = way.events.send(Event::Waits(waiting.clone()));
            if let Ok(turn) = way.turn.acquire().await {
                turn.forget();
            }
            let commit = Commit { actor: way.actor, counts: waiting.call.is_of_the_model() };
            let is_write = waiting.call.writes();
            let response = way.inner.call(request).await;
            if is_write && response.as_ref().is_ok_and(|response| response.status().is_success()) {
                way.commits.lock().unwrap_or_else(PoisonError::into_inner).push(commit);
            }
            response
        })
    }
}

/// What each actor does, one command after another.
pub type Actors = Vec<Vec<Command>>;

/// A transaction that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Whose it was.
    pub actor: usize,
    /// Whether it has to be explained: the model does not know everything.
    pub counts: bool,
}

/// What came of the commands of all actors.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Of each command of each actor.
    pub of_actors: Vec<Vec<Result<Outcome, Broken>>>,
    /// What was committed, in this order.
    pub commits: Vec<Commit>,
}

/// How the actors go about it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The time, which does not pass meanwhile.
    pub now: Time,
    /// Whether rights are looked at before the store is asked.
    pub manner: Manner,
    /// What watches the guards of the transactions, and may leave one out.
    #[cfg(debug_assertions)]
    pub guards: Option<Arc<Guards>>,
}

impl Setting {
    /// As it is in earnest.
    #[must_use]
    pub fn earnest(now: Time) -> Self {
        Self {
            now,
            manner: Manner::Careful,
            #[cfg(debug_assertions)]
            guards: None,
        }
    }

    /// `store`, with the guards of the setting.
    #[must_use]
    pub fn store(&self, store: Store) -> Store {
        #[cfg(debug_assertions)]
        if let Some(guards) = &self.guards {
            return store.guarded_by(Arc::clone(guards));
        }
        store
    }
}

/// Has all actors act at once on `world`. Whenever somebody is about to ask the table, and nobody else does
/// anything, `choose` tells whose turn it is, by the position among those who wait, who are in the actors'
/// order; or that the run is to end there, which then has no outcomes.
///
/// The runtime has one thread and a paused clock: who waits for a moment takes none.
pub async fn run(
    world: &Arc<World>,
    setting: &Setting,
    actors: &Actors,
    mut choose: impl FnMut(&[Waiting]) -> Option<usize>,
) -> Option<Outcomes> {
    let (events, mut heard) = mpsc::unbounded_channel();
    let commits = Arc::new(Mutex::new(Vec::new()));
    let turns: Vec<_> = actors.iter().map(|_| Arc::new(Semaphore::new(0))).collect();
    // Ends with this function, and its actors with it.
    let mut running = JoinSet::new();
    for (actor, (commands, turn)) in actors.iter().zip(&turns).enumerate() {
        let (on_the_way, turn, log) = (events.clone(), Arc::clone(turn), Arc::clone(&commits));
        let store = setting.store(world.store_by(move |inner| {
            let (events, turn, commits) = (on_the_way.clone(), Arc::clone(&turn), Arc::clone(&log));
            SharedHttpConnector::new(InTurn { actor, inner, events, turn, commits })
        }));
        let (world, setting, commands) = (Arc::clone(world), setting.clone(), commands.clone());
        let events = events.clone();
        running.spawn(async move {
            let mut outcomes = Vec::with_capacity(commands.len());
            for command in &commands {
                outcomes.push(world.perform(&store, command, setting.now, setting.manner).await);
            }
            let _ = events.send(Event::Ends(actor, outcomes));
        });
    }
    let mut of_actors: Vec<Vec<_>> = actors.iter().map(|_| Vec::new()).collect();
    let mut waiting: Vec<Waiting> = Vec::new();
    // Each waits or has ended before anybody's turn comes, and again after each turn.
    let mut under_way = actors.len();
    loop {
        while under_way > 0 {
            match heard.recv().await? {
                Event::Waits(actor) => waiting.push(actor),
                Event::Ends(actor, results) => *of_actors.get_mut(actor)? = results,
            }
            under_way -= 1;
        }
        if waiting.is_empty() {
            let commits = commits.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Some(Outcomes { of_actors, commits });
        }
        waiting.sort_unstable_by_key(|waiting| waiting.actor);
        let position = choose(&waiting)?;
        let Waiting { actor, .. } = waiting.remove(position);
        turns.get(actor)?.add_permits(1);
        under_way = 1;
    }
}
