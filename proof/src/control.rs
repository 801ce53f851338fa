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
    interleavings::{Pair, in_threads},
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

/// The guards of a document, each with what noticed that it was missing.
pub type Known = BTreeMap<Guard, String>;

/// What `document` says, as far as it can be read.
#[must_use]
pub fn known(document: &str) -> Known {
    let mut change = "";
    let mut known = Known::new();
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            change = title;
        }
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [row, condition, noticed] = cells.as_slice() {
            let condition = condition.trim_matches('`').to_owned();
            let guard = Guard { change: change.to_owned(), row: (*row).to_owned(), condition };
            known.insert(guard, (*noticed).to_owned());
        }
    }
    known
}

/// Takes each guard out in turn, and tries first what `known` says that notices it. `progress` is told of each.
///
/// # Errors
/// A scene cannot be set, or goes wrong with all guards in.
pub fn control(
    engines: &[Engine],
    known: &Known,
    progress: impl Fn(&Guard, Option<&str>) + Sync,
) -> Result<Controlled, String> {
    let scenes = catalogue::scenes();
    let shares = in_threads(engines, |engine, share| meetings(engine, &scenes, share))?;
    let mut meetings: Vec<_> = shares.into_iter().flatten().collect();
    meetings.sort_by_key(|(position, ..)| *position);
    let shares =
        in_threads(engines, |engine, share| control_share(engine, &meetings, share, known, &progress))?;
    Ok(shares.into_iter().flatten().collect())
}

/// A scene by its position, and its checks, each with the guards that it meets.
type Meetings<'s> = (usize, &'s Scene, Vec<Meeting<'s>>);

fn meetings<'s>(
    engine: &Engine,
    scenes: &'s [Scene],
    (position, of): (usize, usize),
) -> Result<Vec<Meetings<'s>>, Failure> {
    engine.runtime().map_err(|error| Failure::Broken(error.to_string()))?.block_on(async {
        let mut meetings = Vec::new();
        for (number, scene) in scenes.iter().enumerate().skip(position).step_by(of) {
            let stage = Stage::set(engine, scene).await?;
            meetings.push((number, scene, met(&stage, scene).await?));
        }
        Ok(meetings)
    })
}

fn control_share(
    engine: &Engine,
    meetings: &[Meetings<'_>],
    (position, of): (usize, usize),
    known: &Known,
    progress: &(impl Fn(&Guard, Option<&str>) + Sync),
) -> Result<Controlled, Failure> {
    engine.runtime().map_err(|error| Failure::Broken(error.to_string()))?.block_on(async {
        let guards: BTreeSet<&Guard> =
            meetings.iter().flat_map(|(_, _, checks)| checks).flat_map(|(_, met)| met).collect();
        let mut controlled = Controlled::new();
        for guard in guards.into_iter().skip(position).step_by(of) {
            let first = known.get(guard);
            let noticed =
                match noticed(engine, meetings, guard, |title| Some(title) == first.map(String::as_str))
                    .await?
                {
                    Some(title) => Some(title),
                    None => {
                        noticed(engine, meetings, guard, |title| Some(title) != first.map(String::as_str))
                            .await?
                    }
                };
            progress(guard, noticed.as_deref());
            controlled.insert(guard.clone(), noticed);
        }
        Ok(controlled)
    })
}

/// The first check, of those whose title `counts`, that notices that `guard` is gone.
async fn noticed(
    engine: &Engine,
    meetings: &[Meetings<'_>],
    guard: &Guard,
    counts: impl Fn(&str) -> bool,
) -> Result<Option<String>, Failure> {
    for (_, scene, checks) in meetings {
        let meets = |(check, met): &&Meeting<'_>| met.contains(guard) && counts(&check.title(scene));
        let mut checks = checks.iter().filter(meets).peekable();
        if checks.peek().is_none() {
            continue;
        }
        let stage = Stage::set(engine, scene).await?;
        for (check, _) in checks {
            if check.notices(&stage, &Arc::new(Guards::without(guard.clone()))).await? {
                let title = check.title(scene);
                // What goes wrong with all guards in notices nothing.
                if check.notices(&stage, &Arc::new(Guards::default())).await? {
                    return Err(Failure::Wrong(format!("with all guards in, {title}")));
                }
                return Ok(Some(title));
            }
        }
    }
    Ok(None)
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
         (`proof/src/model.rs`) and with what must hold of every table (`proof/src/invariants.rs`):\n\n\
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
