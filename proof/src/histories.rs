//! Random histories: the same commands to the model and to the real store.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use proptest::{
    prelude::{Strategy, any, prop},
    test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestError, TestRunner},
};
use proptest_state_machine::ReferenceStateMachine;

use crate::{
    engine::Engine,
    model::{Command, State},
    schedule::{self, Actors, Setting, Waiting},
    stage::{Stage, check, compare, tell},
    story::{self, Story, Told},
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

/// What happens in a history.
#[derive(Clone, Debug)]
struct History {
    /// One after another.
    sequence: Vec<Command>,
    /// Counts what was seen of it, which helps to make it smaller.
    seen: Option<Arc<AtomicUsize>>,
    /// Then, at once.
    actors: Actors,
    /// Whose turn it is among those.
    choices: Vec<u8>,
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
        let strategy = Story::sequential_strategy(1..40).prop_map(|(_, sequence, seen)| History {
            sequence,
            seen,
            actors: Vec::new(),
            choices: Vec::new(),
        });
        self.run(&strategy, progress)
    }

    /// Runs concurrent histories: up to 12 commands one after another, then 2 to 6 actors at once, each with
    /// one or two. The model must explain what came of it, and every invariant must hold.
    ///
    /// # Errors
    /// The smallest history that was found for which it is not so.
    pub fn concurrent(&self, progress: impl Fn(u64)) -> Result<Figures, Violation> {
        let actors = prop::collection::vec(prop::collection::vec(story::command(), 1..=2), 2..=6);
        let choices = prop::collection::vec(any::<u8>(), 60);
        let strategy = (Story::sequential_strategy(1..12), actors, choices)
            .prop_map(|((_, sequence, seen), actors, choices)| History { sequence, seen, actors, choices });
        self.run(&strategy, progress)
    }

    fn run(
        &self,
        strategy: &impl Strategy<Value = History>,
        progress: impl Fn(u64),
    ) -> Result<Figures, Violation> {
        let (histories, commands) = (AtomicU64::new(0), AtomicU64::new(0));
        let outcome = self.runner().run(strategy, |history| {
            commands.fetch_add(self.tell(&history)?, Ordering::Relaxed);
            progress(histories.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(())
        });
        let (why, sequence, actors) = match outcome {
            Ok(()) => {
                return Ok(Figures { histories: histories.into_inner(), commands: commands.into_inner() });
            }
            Err(TestError::Fail(why, History { sequence, actors, .. })) => (why, sequence, actors),
            Err(TestError::Abort(why)) => (why, Vec::new(), Vec::new()),
        };
        let setting = story::plans().map(|plans| Story::beginning(plans).1).unwrap_or_default();
        let story = Told { setting: &setting, sequence: &sequence, actors: &actors }.to_string();
        Err(Violation { why: why.to_string(), story, seed: self.seed })
    }

    /// Tells `history` to the model and to the real store, and compares. Gives the number of its commands.
    fn tell(&self, history: &History) -> Result<u64, TestCaseError> {
        self.engine.runtime().map_err(broken)?.block_on(async {
            let plans = story::plans().map_err(broken)?;
            let (mut story, beginning) = Story::beginning(plans.clone());
            let stage = Stage::set_by(&self.engine, State::new(plans), &beginning).await.map_err(broken)?;
            let (world, real) = (&stage.world, stage.world.store());
            for command in &history.sequence {
                if let Some(seen) = &history.seen {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
                story.give_names(command);
                let told = tell(world, &real, &mut story.state, command).await;
                told.map_err(broken)?;
                let after = |failure| broken(format!("after {command}, {failure}"));
                compare(world, &story.state).await.map_err(after)?;
            }
            let actors = story.fit(&history.actors);
            let setting = Setting::earnest(story.state.now);
            let mut choices = history.choices.iter().copied().map(usize::from);
            let chosen = |waiting: &[Waiting]| Some(choices.next().unwrap_or_default() % waiting.len());
            if let Some(outcomes) = schedule::run(world, &setting, &actors, chosen).await {
                check(world, &story.state, &actors, &outcomes).await.map_err(broken)?;
            }
            let commands = history.sequence.len() + actors.iter().map(Vec::len).sum::<usize>();
            Ok(commands.try_into().unwrap_or(u64::MAX))
        })
    }
}
