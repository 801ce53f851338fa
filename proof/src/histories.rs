//! Random histories: the same commands to the model and to the real store.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use proptest::{
    prelude::{any, prop},
    test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestError, TestRunner},
};
use proptest_state_machine::ReferenceStateMachine;
use shared::store::Store;

use crate::{
    engine::Engine,
    model::Command,
    schedule::{self, Actors, Setting, Waiting},
    stage::{check, differences},
    story::{self, Story, Told},
    world::{Manner, World},
};

/// What a run of histories takes.
#[derive(Clone, Debug)]
pub struct Histories {
    /// Where the table is.
    pub engine: Engine,
    /// How many.
    pub count: u32,
    /// What the choices follow from.
    pub seed: u64,
}

/// What a run has found.
#[derive(Debug, Default)]
pub struct Figures {
    /// Histories that were run.
    pub histories: u64,
    /// Commands in them.
    pub commands: u64,
}

/// A history that is not as it should be, as small as it could be made.
#[derive(Debug, thiserror::Error)]
#[error("{why}\n\nThe story:\n{story}(seed {seed})")]
pub struct Violation {
    /// What is wrong.
    pub why: String,
    /// What happened.
    pub story: String,
    /// What it followed from.
    pub seed: u64,
}

/// Who tells a story to the model and to the real store, and compares.
#[derive(Debug)]
pub struct Teller {
    /// The story so far.
    pub story: Story,
    /// The real thing.
    pub world: Arc<World>,
    store: Store,
}

impl Teller {
    /// The beginning of every story, on an empty table.
    ///
    /// # Errors
    /// The engine fails, or the beginning goes wrong already.
    pub async fn begin(engine: &Engine) -> Result<Self, TestCaseError> {
        let plans = story::plans().map_err(broken)?;
        let world = Arc::new(World::new(engine.clone(), plans.clone()).await.map_err(broken)?);
        let (begun, commands) = Story::beginning(plans);
        let store = world.store();
        for command in &commands {
            let outcome = world.perform(&store, command, 0, Manner::Careful).await.map_err(broken)?;
            if let Err(no) = outcome {
                return Err(TestCaseError::fail(format!("{command}: {no:?}")));
            }
        }
        let teller = Self { story: begun, world, store };
        teller.compare("the beginning").await?;
        Ok(teller)
    }

    /// One command more: answer and table must be as the model has them.
    ///
    /// # Errors
    /// They are not.
    pub async fn does(&mut self, command: &Command) -> Result<(), TestCaseError> {
        let now = self.story.state.now;
        let mut expected = self.story.state.clone();
        let expected = expected.run(command);
        self.story = Story::apply(self.story.clone(), command);
        let outcome = self.world.perform(&self.store, command, now, Manner::Careful).await;
        match outcome {
            Ok(outcome) if outcome == expected => self.compare(&command.to_string()).await,
            Ok(outcome) => Err(TestCaseError::fail(format!(
                "{command}: the model says {expected:?}, the store {outcome:?}"
            ))),
            Err(error) => Err(TestCaseError::fail(format!("{command}: {error}"))),
        }
    }

    async fn compare(&self, after: &str) -> Result<(), TestCaseError> {
        let state = self.world.state(self.story.state.now).await.map_err(broken)?;
        let state = state.map_err(|broken| TestCaseError::fail(format!("after {after}: {broken}")))?;
        if state == self.story.state {
            return Ok(());
        }
        let why = differences(&self.story.state, &state);
        Err(TestCaseError::fail(format!("after {after}, the table is not as the model has it:\n{why}")))
    }
}

/// Something that cannot go on is a failure like any other.
fn broken(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

impl Histories {
    fn runner(&self) -> TestRunner {
        let config = Config {
            cases: self.count,
            failure_persistence: None,
            max_shrink_iters: 4_000,
            rng_seed: RngSeed::Fixed(self.seed),
            rng_algorithm: RngAlgorithm::ChaCha,
            ..Config::default()
        };
        TestRunner::new(config)
    }

    /// Runs sequential histories, each of up to 40 commands: every answer and every state must be that of
    /// the model. `progress` is told how many have been run.
    ///
    /// # Errors
    /// The smallest history that was found for which it is not so.
    pub fn sequential(&self, progress: impl Fn(u64)) -> Result<Figures, Violation> {
        let (histories, commands) = (AtomicU64::new(0), AtomicU64::new(0));
        let outcome = self.runner().run(&Story::sequential_strategy(1..40), |(_, sequence, seen)| {
            let count = self.in_sequence(&sequence, seen.as_deref())?;
            commands.fetch_add(count, Ordering::Relaxed);
            progress(histories.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(())
        });
        match outcome {
            Ok(()) => Ok(Figures { histories: histories.into_inner(), commands: commands.into_inner() }),
            Err(TestError::Fail(why, (_, sequence, _))) => {
                Err(self.violation(&why.to_string(), &sequence, &[]))
            }
            Err(TestError::Abort(why)) => Err(self.violation(&why.to_string(), &[], &[])),
        }
    }

    fn violation(&self, why: &str, sequence: &[Command], actors: &[Vec<Command>]) -> Violation {
        let setting = story::plans().map(|plans| Story::beginning(plans).1).unwrap_or_default();
        let story = Told { setting: &setting, sequence, actors }.to_string();
        Violation { why: why.to_owned(), story, seed: self.seed }
    }

    fn in_sequence(&self, sequence: &[Command], seen: Option<&AtomicUsize>) -> Result<u64, TestCaseError> {
        self.engine.runtime().map_err(broken)?.block_on(async {
            let mut teller = Teller::begin(&self.engine).await?;
            for command in sequence {
                if let Some(seen) = seen {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
                teller.does(command).await?;
            }
            Ok(count(sequence))
        })
    }

    /// Runs concurrent histories: up to 12 commands one after another, then 2 to 6 actors at once, each with
    /// one or two. Some order must explain what came of it, and every invariant must hold.
    ///
    /// # Errors
    /// The smallest history that was found for which it is not so.
    pub fn concurrent(&self, progress: impl Fn(u64)) -> Result<Figures, Violation> {
        let (histories, commands) = (AtomicU64::new(0), AtomicU64::new(0));
        let actors = prop::collection::vec(prop::collection::vec(story::command(), 1..=2), 2..=6);
        let strategy = (Story::sequential_strategy(1..12), actors, prop::collection::vec(any::<u8>(), 60));
        let outcome = self.runner().run(&strategy, |((_, sequence, seen), actors, choices)| {
            let count = self.at_once(&sequence, seen.as_deref(), &actors, &choices)?;
            commands.fetch_add(count, Ordering::Relaxed);
            progress(histories.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(())
        });
        match outcome {
            Ok(()) => Ok(Figures { histories: histories.into_inner(), commands: commands.into_inner() }),
            Err(TestError::Fail(why, ((_, sequence, _), actors, _))) => {
                Err(self.violation(&why.to_string(), &sequence, &actors))
            }
            Err(TestError::Abort(why)) => Err(self.violation(&why.to_string(), &[], &[])),
        }
    }

    fn at_once(
        &self,
        sequence: &[Command],
        seen: Option<&AtomicUsize>,
        actors: &Actors,
        choices: &[u8],
    ) -> Result<u64, TestCaseError> {
        self.engine.runtime().map_err(broken)?.block_on(async {
            let mut teller = Teller::begin(&self.engine).await?;
            for command in sequence {
                if let Some(seen) = seen {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
                teller.does(command).await?;
            }
            let actors = teller.story.fit(actors);
            let mut choices = choices.iter().copied().map(usize::from);
            let setting = Setting::earnest(teller.story.state.now);
            let chosen = |waiting: &[Waiting]| Some(choices.next().unwrap_or_default() % waiting.len());
            if let Some(outcomes) = schedule::run(&teller.world, &setting, &actors, chosen).await {
                check(&teller.world, &teller.story.state, &actors, &outcomes).await.map_err(broken)?;
            }
            Ok(count(sequence) + actors.iter().map(|commands| count(commands)).sum::<u64>())
        })
    }
}

fn count(commands: &[Command]) -> u64 {
    commands.len().try_into().unwrap_or(u64::MAX)
}
