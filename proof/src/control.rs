//! The proof that the proof can fail: each guard of each transaction is taken out, and something must notice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use shared::store::{Guard, Guards};

use crate::{
    catalogue::{self, Scene},
    engine::Engine,
    hand::{self, Touch},
    histories::runtime,
    interleavings::Pair,
    model::{No, Person},
    schedule::{Actors, Setting},
    stage::{Failure, Stage},
    world::Manner,
};

/// How many orders of one pair are run to find one that goes wrong.
const BOUND: u32 = 300;

/// What may notice that a guard is missing.
enum Check<'s> {
    /// Two changes at once.
    Pair(Pair<'s>),
    /// A change alone, by somebody whose right nobody has looked at.
    Careless { title: String, actors: Actors },
    /// A change alone, while a row that it rests on goes, or comes to be, right before it commits.
    Hand { title: String, actors: Actors, touch: Touch },
}

impl Check<'_> {
    fn title(&self, scene: &Scene) -> String {
        let what = match self {
            Self::Pair(pair) => format!("at once: {}", pair.title()),
            Self::Careless { title, .. } => format!("without a look at rights: {title}"),
            Self::Hand { title, touch, .. } => format!("{touch}: {title}"),
        };
        format!("{what} (in {})", scene.title)
    }

    /// Whether something is wrong without what `guards` leave out.
    async fn notices(&self, stage: &Stage, guards: &Arc<Guards>) -> Result<bool, Failure> {
        let setting = |manner| Setting { now: stage.state.now, manner, guards: Some(Arc::clone(guards)) };
        let outcome = match self {
            Self::Pair(pair) => {
                stage.explore(&setting(Manner::Careful), &pair.actors(), BOUND).await.map(drop)
            }
            Self::Careless { actors, .. } => stage.run(&setting(Manner::Careless), actors, |_| Some(0)).await,
            Self::Hand { actors, touch, .. } => {
                let refused = hand::is_refused(stage, &setting(Manner::Careful), actors, touch).await?;
                return Ok(refused == Some(false));
            }
        };
        match outcome {
            Ok(()) => Ok(false),
            Err(Failure::Wrong(_)) => Ok(true),
            Err(error @ Failure::Broken(_)) => Err(error),
        }
    }
}

/// A check, and the guards that it meets with all of them in.
type Meeting<'s> = (Check<'s>, BTreeSet<Guard>);

/// The guards, each with what notices that it is missing, if anything does.
pub type Controlled = BTreeMap<Guard, Option<String>>;

/// Takes each guard out in turn. `progress` is told of each.
///
/// # Errors
/// A scene cannot be set, or goes wrong with all guards in.
pub fn control(
    engines: &[Engine],
    progress: impl Fn(&Guard, Option<&str>) + Sync,
) -> Result<Controlled, String> {
    let scenes = catalogue::scenes();
    let shares: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = engines
            .iter()
            .enumerate()
            .map(|(position, engine)| {
                let (scenes, progress) = (&scenes, &progress);
                let share = (position, engines.len());
                scope.spawn(move || control_share(engine, scenes, share, progress))
            })
            .collect();
        running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    shares.into_iter().try_fold(Controlled::new(), |mut all, share| {
        let share = share.map_err(|_panic| "a thread has panicked".to_owned())?;
        all.extend(share.map_err(|error| error.to_string())?);
        Ok(all)
    })
}

fn control_share(
    engine: &Engine,
    scenes: &[Scene],
    (position, of): (usize, usize),
    progress: &(impl Fn(&Guard, Option<&str>) + Sync),
) -> Result<Controlled, Failure> {
    let broken = |error: &dyn std::fmt::Display| Failure::Broken(error.to_string());
    let runtime = runtime().map_err(|error| broken(&error))?;
    runtime.block_on(async {
        // What each check meets with all guards in, the cheapest checks first.
        let mut checks: Vec<(&Scene, Vec<Meeting<'_>>)> = Vec::new();
        for scene in scenes {
            let stage = set(engine, scene).await?;
            checks.push((scene, met(&stage, scene).await?));
        }
        let guards: BTreeSet<Guard> =
            checks.iter().flat_map(|(_, checks)| checks).flat_map(|(_, met)| met).cloned().collect();
        let mut controlled = Controlled::new();
        for guard in guards.into_iter().skip(position).step_by(of) {
            let mut noticed = None;
            'search: for (scene, checks) in &checks {
                let mut checks = checks.iter().filter(|(_, met)| met.contains(&guard)).peekable();
                if checks.peek().is_none() {
                    continue;
                }
                let stage = set(engine, scene).await?;
                for (check, _) in checks {
                    let without = Arc::new(Guards::without(guard.clone()));
                    if check.notices(&stage, &without).await? {
                        // What goes wrong with all guards in notices nothing.
                        if check.notices(&stage, &Arc::new(Guards::default())).await? {
                            let title = check.title(scene);
                            return Err(Failure::Wrong(format!("with all guards in, {title}")));
                        }
                        noticed = Some(check.title(scene));
                        break 'search;
                    }
                }
            }
            progress(&guard, noticed.as_deref());
            controlled.insert(guard, noticed);
        }
        Ok(controlled)
    })
}

async fn set(engine: &Engine, scene: &Scene) -> Result<Stage, Failure> {
    let nothing = scene.nothing().map_err(|error| Failure::Broken(error.to_string()))?;
    Stage::set(engine, nothing, &scene.commands).await
}

/// The checks of a scene, and the guards that each meets.
async fn met<'s>(stage: &Stage, scene: &'s Scene) -> Result<Vec<Meeting<'s>>, Failure> {
    let mut checks = Vec::new();
    for pair in scene.pairs() {
        let guards = Arc::new(Guards::default());
        let setting = Setting { guards: Some(Arc::clone(&guards)), ..Setting::earnest(stage.state.now) };
        // One after the other, and the other way round: what more they meet, the others meet too.
        for first in [0, usize::MAX] {
            stage.run(&setting, &pair.actors(), |waiting| Some(first.min(waiting.len() - 1))).await?;
        }
        checks.push((Check::Pair(pair), guards.seen()));
    }
    for change in &scene.changes {
        let [commands, _] = &change.commands;
        for who in [0, 1, 2].map(Person) {
            let Some(command) = commands.first().and_then(|command| command.by(who)) else { continue };
            // Whether somebody is in the bucket at all, every route looks at.
            if stage.state.refusals(&command).contains(&No::BucketNotFound) {
                continue;
            }
            let (title, actors) = (command.to_string(), vec![vec![command]]);
            let guards = Arc::new(Guards::default());
            let (now, manner) = (stage.state.now, Manner::Careless);
            let setting = Setting { now, manner, guards: Some(Arc::clone(&guards)) };
            stage.run(&setting, &actors, |_| Some(0)).await?;
            checks.push((Check::Careless { title, actors }, guards.seen()));
        }
        let actors = vec![commands.clone()];
        for (touch, guards) in hand::touches(stage, &actors).await? {
            let title = change.title.to_owned();
            checks.push((Check::Hand { title, actors: actors.clone(), touch }, guards));
        }
    }
    Ok(checks)
}

/// The table of guards, as a document.
#[must_use]
pub fn document(controlled: &Controlled) -> String {
    let mut text = String::from(
        "# Guards\n\n\
         Every change of the table is one transaction, and every fact that it rests on is a condition of it: a\n\
         guard. This is the list of all guards, each with a check that goes wrong when that guard alone is taken\n\
         out. `cargo run -p proof -- guards` takes each out in turn and writes this file; CI fails where a guard\n\
         is in nobody's way, or where this file is not what comes of it.\n\n\
         A check runs the real store on the embedded engine, and compares what comes of it with the model\n\
         (`proof/src/model.rs`) and with what must hold of every table (`proof/src/table.rs`):\n\n\
         - *at once*: two changes in every order of their calls;\n\
         - *without a look at rights*: a change by somebody whose right no route has looked at;\n\
         - *a row is gone*, *a row is in the way*: behind everybody's back, right before the change commits.\n",
    );
    let mut change = "";
    for (guard, noticed) in controlled {
        if guard.change != change {
            change = &guard.change;
            let _ = write!(
                text,
                "\n## {change}\n\n| row | guard | what notices that it is gone |\n|---|---|---|\n"
            );
        }
        let noticed = noticed.as_deref().unwrap_or("**nothing**");
        let _ = writeln!(text, "| {} | `{}` | {noticed} |", guard.row, guard.condition);
    }
    text
}
