//! Every two changes of one bucket, in every order of their calls.

use crate::{
    catalogue::{self, Change, Scene},
    engine::Engine,
    schedule::{Actors, Setting},
    stage::{Failure, Stage},
};

/// Two changes of one scene.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'s> {
    /// The one.
    pub one: &'s Change,
    /// The other, or the same.
    pub other: &'s Change,
}

impl Pair<'_> {
    /// What the two do.
    #[must_use]
    pub fn actors(&self) -> Actors {
        let [one, _] = &self.one.commands;
        let [_, other] = &self.other.commands;
        vec![one.clone(), other.clone()]
    }

    /// What it is called.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} while {}", self.one.title, self.other.title)
    }
}

impl Scene {
    /// Every two of its changes.
    pub fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        self.changes.iter().enumerate().flat_map(|(position, one)| {
            self.changes.iter().skip(position).map(move |other| Pair { one, other })
        })
    }
}

/// What an exploration has found.
#[derive(Debug, Default)]
pub struct Found {
    /// Pairs of changes.
    pub pairs: u32,
    /// Orders of their calls.
    pub orders: u32,
    /// The pairs that have more orders than were run.
    pub cut_off: Vec<String>,
    /// What went wrong.
    pub wrong: Vec<String>,
}

impl Found {
    fn with(mut self, other: Self) -> Self {
        self.pairs += other.pairs;
        self.orders += other.orders;
        self.cut_off.extend(other.cut_off);
        self.wrong.extend(other.wrong);
        self
    }
}

/// Explores the pairs of all scenes, each in `bound` orders at most, on as many threads as there are
/// `engines`.
///
/// # Errors
/// A scene cannot be set.
pub fn explore(engines: &[Engine], bound: u32) -> Result<Found, String> {
    let scenes = catalogue::scenes();
    let shares = in_threads(engines, |engine, share| explore_share(engine, &scenes, share, bound))?;
    Ok(shares.into_iter().fold(Found::default(), Found::with))
}

/// What each engine's thread makes of its share: which of how many.
pub(crate) fn in_threads<T: Send>(
    engines: &[Engine],
    work: impl Fn(&Engine, (usize, usize)) -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, String> {
    let results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = engines
            .iter()
            .enumerate()
            .map(|(position, engine)| {
                let work = &work;
                scope.spawn(move || work(engine, (position, engines.len())))
            })
            .collect();
        running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    results
        .into_iter()
        .map(|result| {
            let result = result.map_err(|_panic| "a thread has panicked".to_owned())?;
            result.map_err(|error| error.to_string())
        })
        .collect()
}

fn explore_share(
    engine: &Engine,
    scenes: &[Scene],
    (position, of): (usize, usize),
    bound: u32,
) -> Result<Found, Failure> {
    engine.runtime().map_err(|error| Failure::Broken(error.to_string()))?.block_on(async {
        let mut found = Found::default();
        for scene in scenes {
            let stage = Stage::set(engine, scene).await?;
            let setting = Setting::earnest(stage.state.now);
            for pair in scene.pairs().skip(position).step_by(of) {
                found.pairs += 1;
                let title = format!("in {}, {}", scene.title, pair.title());
                match stage.explore(&setting, &pair.actors(), bound).await {
                    Ok(explored) => {
                        found.orders += explored.orders;
                        if !explored.all {
                            found.cut_off.push(title);
                        }
                    }
                    Err(Failure::Wrong(why)) => found.wrong.push(format!("{title}, {why}")),
                    Err(error @ Failure::Broken(_)) => return Err(error),
                }
            }
        }
        Ok(found)
    })
}
