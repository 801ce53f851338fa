//! `cargo run -p proof`: the claims, checked for as long as one likes.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use proof::{
    engine::Engine,
    histories::{Figures, Histories, Violation},
    interleavings,
};

/// Checks what this project claims about races, retries and faults: the real store against a model.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Where an empty DynamoDB Local answers, instead of the embedded engine.
    #[arg(long, global = true)]
    endpoint: Option<String>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Random histories, half of them one command after another, half of them with actors at once; tells the
    /// smallest story of what is not as it should be.
    Histories {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        histories: u32,
        /// What the choices follow from; one that the clock gives, if none is given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Every two changes of one bucket, in every order of their calls.
    Interleavings,
    /// Takes each guard of each transaction out in turn, and writes down what notices it.
    Guards {
        /// The file.
        #[arg(long, default_value = "docs/guards.md")]
        document: PathBuf,
    },
}

/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let Arguments { what, endpoint } = Arguments::parse();
    let start = Instant::now();
    let outcome = match what {
        What::Histories { histories, seed } => run_histories(histories, seed, endpoint.as_deref(), start),
        What::Interleavings => run_interleavings(endpoint.as_deref()),
        What::Guards { document } => run_guards(&document),
    };
    println!("{} s", start.elapsed().as_secs());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn engine(endpoint: Option<&str>) -> Result<Engine, String> {
    match endpoint {
        Some(url) => Engine::at(url),
        None => Engine::embedded(),
    }
    .map_err(|error| error.to_string())
}

/// One for each thread; a table elsewhere is only one.
fn engines(endpoint: Option<&str>) -> Result<Vec<Engine>, String> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let count = if endpoint.is_some() { 1 } else { threads };
    (0..count).map(|_| engine(endpoint)).collect()
}

type Run = fn(&Histories, &(dyn Fn(u64) + Sync)) -> Result<Figures, Violation>;

fn run_histories(
    histories: u32,
    seed: Option<u64>,
    endpoint: Option<&str>,
    start: Instant,
) -> Result<(), String> {
    let seed = seed.unwrap_or_else(|| {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or_default()
    });
    println!("seed {seed}");
    let runs: [(&str, Run); 2] = [
        ("sequential", |histories, progress| histories.sequential(progress)),
        ("concurrent", |histories, progress| histories.concurrent(progress)),
    ];
    let run = |(kind, run): (&'static str, Run)| -> Result<(), String> {
        let count = histories / 2;
        let told = AtomicU64::new(0);
        let progress = |done: u64| {
            let tick = start.elapsed().as_secs() / TOLD_EVERY.as_secs();
            if told.swap(tick, Ordering::Relaxed) != tick {
                eprintln!("{:>5} s: {done} of {count} {kind} histories", start.elapsed().as_secs());
            }
        };
        let Figures { histories, commands } =
            run(&Histories { engine: engine(endpoint)?, count, seed }, &progress)
                .map_err(|violation| format!("{kind} histories, a violation:\n{violation}"))?;
        println!("{histories} {kind} histories, {commands} commands, 0 violations");
        Ok(())
    };
    if endpoint.is_some() {
        // They would share one table.
        return runs.into_iter().try_for_each(run);
    }
    let outcomes = thread::scope(|scope| {
        let running = runs.map(|kind| scope.spawn(move || run(kind)));
        running.map(|run| run.join().unwrap_or_else(|_| Err("a thread has panicked".to_owned())))
    });
    outcomes.into_iter().collect()
}

fn run_interleavings(endpoint: Option<&str>) -> Result<(), String> {
    let found = interleavings::explore(&engines(endpoint)?, u32::MAX)?;
    println!("{} pairs of changes, {} orders, {} wrong", found.pairs, found.orders, found.wrong.len());
    if found.wrong.is_empty() { Ok(()) } else { Err(found.wrong.join("\n")) }
}

#[cfg(not(debug_assertions))]
fn run_guards(_: &std::path::Path) -> Result<(), String> {
    Err("release builds have no switch that takes guards out; leave `--release` away".to_owned())
}

#[cfg(debug_assertions)]
fn run_guards(document: &std::path::Path) -> Result<(), String> {
    let known = proof::control::known(&fs::read_to_string(document).unwrap_or_default());
    let controlled = proof::control::control(&engines(None)?, &known, |guard, noticed| {
        println!("{guard}: {}", noticed.unwrap_or("NOTHING notices that it is gone"));
    })?;
    fs::write(document, proof::control::document(&controlled))
        .map_err(|error| format!("{}: {error}", document.display()))?;
    let missed = controlled.values().filter(|noticed| noticed.is_none()).count();
    println!("{} guards, {missed} that nothing misses; written to {}", controlled.len(), document.display());
    if missed == 0 { Ok(()) } else { Err("a guard that nothing misses is a defect".to_owned()) }
}
