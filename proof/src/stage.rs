//! A stage: a scene that was set once, and that is there again for every run.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};

use shared::store::Store;

use crate::{
    catalogue::Scene,
    engine::{Engine, Item},
    explain::{Deeds, is_explained},
    model::{Command, State},
    schedule::{self, Actors, Outcomes, Setting, Waiting},
    world::{Manner, Names, World},
};

/// Why a run is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The run could not take place.
    #[error("the run could not take place: {0}")]
    Broken(String),
    /// What came of it is wrong.
    #[error("{0}")]
    Wrong(String),
}

/// How far an exploration went.
#[derive(Clone, Copy, Debug)]
pub struct Explored {
    /// The orders that were run.
    pub orders: u32,
    /// Whether these are all.
    pub all: bool,
}

/// A scene that is set.
#[derive(Debug)]
pub struct Stage {
    /// What is so.
    pub state: State,
    /// The real thing.
    pub world: Arc<World>,
    rows: Vec<Item>,
    names: Names,
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}

/// Tells the model, in `state`, and `store`, of `world`, one `command`: both must say the same of it.
///
/// # Errors
/// They do not.
pub(crate) async fn tell(
    world: &World,
    store: &Store,
    state: &mut State,
    command: &Command,
) -> Result<(), Failure> {
    let now = state.now;
    let expected = state.run(command);
    let outcome = world.perform(store, command, now, Manner::Careful).await;
    let outcome = outcome.map_err(|error| Failure::Wrong(format!("{command}: {error}")))?;
    if outcome == expected {
        return Ok(());
    }
    Err(Failure::Wrong(format!("{command}: the model says {expected:?}, the store {outcome:?}")))
}

/// Compares the table of `world` with `state`.
///
/// # Errors
/// It breaks an invariant, or is not as `state` says.
pub(crate) async fn compare(world: &World, state: &State) -> Result<(), Failure> {
    let found = world.state(state.now).await.map_err(broken)?.map_err(Failure::Wrong)?;
    if found == *state {
        return Ok(());
    }
    let why = differences(state, &found);
    Err(Failure::Wrong(format!("the table is not as the model has it:\n{why}")))
}

/// Checks what came of `actors` in `world`, which was as `before` says: every invariant holds, and the model
/// explains it.
///
/// # Errors
/// It is not so.
pub async fn check(
    world: &World,
    before: &State,
    actors: &Actors,
    outcomes: &Outcomes,
) -> Result<(), Failure> {
    let mut told = String::new();
    let mut deeds: Vec<Deeds> = Vec::new();
    for (commands, outcomes) in actors.iter().zip(&outcomes.of_actors) {
        let mut done = Vec::new();
        for (command, outcome) in commands.iter().zip(outcomes) {
            let outcome = outcome.as_ref().map_err(|error| Failure::Wrong(format!("{command}: {error}")))?;
            let _ = writeln!(told, "  {command}: {outcome:?}");
            done.push((command.clone(), outcome.clone()));
        }
        deeds.push(done);
    }
    let after = world.state(before.now).await.map_err(broken)?;
    let after = after.map_err(|broken| Failure::Wrong(format!("{broken}, after\n{told}")))?;
    if is_explained(before, &deeds, &outcomes.commits, &after) {
        return Ok(());
    }
    let why = differences(before, &after);
    Err(Failure::Wrong(format!("the model does not explain\n{told}with which the table changed:\n{why}")))
}

/// The lines in which two states differ.
fn differences(one: &State, other: &State) -> String {
    let lines = |state: &State| format!("{state:#?}").lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (lines(one), lines(other));
    let mut text = String::new();
    for line in before.iter().filter(|line| !after.contains(line)) {
        let _ = writeln!(text, "  - {}", line.trim());
    }
    for line in after.iter().filter(|line| !before.contains(line)) {
        let _ = writeln!(text, "  + {}", line.trim());
    }
    text
}

impl Stage {
    /// Sets `scene`.
    ///
    /// # Errors
    /// What comes of one of its commands is not what the model says.
    pub async fn set(engine: &Engine, scene: &Scene) -> Result<Self, Failure> {
        let nothing = scene.nothing().map_err(broken)?;
        Self::set_by(engine, nothing, &scene.commands).await.map_err(|failure| match failure {
            Failure::Wrong(why) => Failure::Broken(format!("{} cannot be set: {why}", scene.title)),
            Failure::Broken(_) => failure,
        })
    }

    /// Sets the scene that `commands` make of `state`, which is of an empty table.
    ///
    /// # Errors
    /// What comes of one of them is not what the model says.
    pub async fn set_by(engine: &Engine, mut state: State, commands: &[Command]) -> Result<Self, Failure> {
        let world = Arc::new(World::new(engine.clone(), state.plans.clone()).await.map_err(broken)?);
        let store = world.store();
        for command in commands {
            tell(&world, &store, &mut state, command).await?;
        }
        compare(&world, &state).await?;
        let rows = engine.rows().await.map_err(broken)?;
        let names = world.names().clone();
        Ok(Self { state, world, rows, names })
    }

    /// Puts everything back.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn reset(&self) -> Result<(), Failure> {
        self.world.engine().reset(&self.rows).await.map_err(broken)?;
        *self.world.names() = self.names.clone();
        Ok(())
    }

    /// Runs `actors` once, in turns that `choose` tells, and checks what came of it, if it came to an end.
    ///
    /// # Errors
    /// An invariant is broken, or no order of the commands explains what came of them.
    pub async fn run(
        &self,
        setting: &Setting,
        actors: &Actors,
        choose: impl FnMut(&[Waiting]) -> Option<usize>,
    ) -> Result<(), Failure> {
        self.reset().await?;
        match schedule::run(&self.world, setting, actors, choose).await {
            Some(outcomes) => check(&self.world, &self.state, actors, &outcomes).await,
            None => Ok(()),
        }
    }

    /// Runs `actors` in every order of their calls that may make a difference, but in no more than `bound`.
    ///
    /// # Errors
    /// The first order that goes wrong.
    pub async fn explore(&self, setting: &Setting, actors: &Actors, bound: u32) -> Result<Explored, Failure> {
        let mut orders = 0;
        let mut path = Path::default();
        loop {
            path.position = 0;
            let outcome = self.run(setting, actors, |waiting| path.choose(waiting)).await;
            if path.position == path.turns.len() {
                orders += 1;
            }
            if let Err(Failure::Wrong(why)) = outcome {
                return Err(Failure::Wrong(format!("with the turns {}: {why}", path.told())));
            }
            outcome?;
            if !path.go_on() {
                return Ok(Explored { orders, all: true });
            }
            if orders == bound {
                return Ok(Explored { orders, all: false });
            }
        }
    }
}

/// A way through the orders of calls. Two calls that commute are not both tried first: whoever was tried at a
/// place *sleeps* on the ways from there, until a call comes that does not commute with theirs
/// (P. Godefroid, "Partial-Order Methods for the Verification of Concurrent Systems", 1996, sleep sets).
#[derive(Debug, Default)]
struct Path {
    turns: Vec<Turn>,
    position: usize,
}

#[derive(Debug)]
struct Turn {
    actor: usize,
    waiting: Vec<Waiting>,
    /// Those of whom it is known that nothing new comes of their turn here.
    asleep: BTreeSet<usize>,
}

impl Path {
    /// Whose turn it is; nobody's, where nothing new can come of anybody's.
    fn choose(&mut self, waiting: &[Waiting]) -> Option<usize> {
        if self.position == self.turns.len() {
            let asleep = match self.turns.last() {
                Some(last) => last.asleep_after(),
                None => BTreeSet::new(),
            };
            let actor = waiting.iter().map(|waiting| waiting.actor).find(|actor| !asleep.contains(actor))?;
            self.turns.push(Turn { actor, waiting: waiting.to_vec(), asleep });
        }
        let actor = self.turns.get(self.position)?.actor;
        self.position += 1;
        waiting.iter().position(|waiting| waiting.actor == actor)
    }

    /// Turns to the next way; tells whether there is one.
    fn go_on(&mut self) -> bool {
        while let Some(turn) = self.turns.last_mut() {
            turn.asleep.insert(turn.actor);
            let awake = |waiting: &&Waiting| !turn.asleep.contains(&waiting.actor);
            if let Some(Waiting { actor, .. }) = turn.waiting.iter().find(awake) {
                turn.actor = *actor;
                return true;
            }
            self.turns.pop();
        }
        false
    }

    fn told(&self) -> String {
        let actors: Vec<_> = self.turns.iter().map(|turn| (turn.actor + 1).to_string()).collect();
        actors.join(" ")
    }
}

impl Turn {
    fn asleep_after(&self) -> BTreeSet<usize> {
        let call = |actor: usize| self.waiting.iter().find(|waiting| waiting.actor == actor);
        let Some(taken) = call(self.actor) else { return BTreeSet::new() };
        let commutes =
            |actor: &&usize| call(**actor).is_some_and(|waiting| waiting.call.commutes_with(&taken.call));
        self.asleep.iter().filter(commutes).copied().collect()
    }
}
