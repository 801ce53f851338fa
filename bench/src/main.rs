//! `cargo run --release -p bench`: measures what the functions cost, and writes it into `docs/performance.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bench::{
    Circumstances, Effort, Failure, Other, Section, Sizes, Stage, count, grow, load, measure, plot, put_in,
};
use clap::{Parser, ValueEnum};

/// Measures what the functions cost beside one that does nothing, and writes it into the document.
///
/// Build what is measured first: `cargo lambda build --release`, or `cargo build --release --bins` and
/// `--binaries target/release`.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder of the functions' binaries: NAME/bootstrap or NAME. Example: --binaries target/release
    #[arg(long, value_name = "DIR", default_value = "target/lambda")]
    binaries: PathBuf,

    /// What to measure; everything, if nothing is named. Example: --only functions growth
    #[arg(long, value_name = "PART", value_enum, num_args = 1..)]
    only: Vec<Part>,

    /// The functions to measure; all, if none is named. Example: --functions retrieve update
    #[arg(long, value_name = "NAME", num_args = 1..)]
    functions: Vec<String>,

    /// Another bootstrap to measure beside them: one that answers HTTP events, or with FUNCTION= before its
    /// path one that is given that function's environment and event, such as an earlier build of it. Example:
    /// --other retrieve=/tmp/before/retrieve/bootstrap
    #[arg(long, value_name = "[FUNCTION=]PATH", value_parser = other)]
    other: Vec<Other>,

    /// How often each binary is started. Example: --starts 100
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    starts: usize,

    /// Events after the first, of each start. Example: --warm 200
    #[arg(long, value_name = "NUMBER", default_value_t = 40)]
    warm: usize,

    /// Members that a bucket has, as it grows. Example: --members 10 100
    #[arg(long, value_name = "NUMBER", num_args = 1.., default_values_t = [10, 1_000, 10_000])]
    members: Vec<u32>,

    /// Buckets that a person has, as these grow. Example: --buckets 10 100
    #[arg(long, value_name = "NUMBER", num_args = 1.., default_values_t = [10, 1_000])]
    buckets: Vec<u32>,

    /// Milliseconds that each call to the table takes longer, as over a network. Example: --latency 3
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    latency: u64,

    /// Seconds that each load of the whole stack lasts. Example: --seconds 30
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    seconds: u64,

    /// The document whose sections are written anew; the picture beside it is drawn where functions and growth are
    /// measured. Example: --document /tmp/performance.md
    #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
    document: PathBuf,

    /// Print the sections, and leave the document as it is. Example: --print
    #[arg(long)]
    print: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Start, first and later events, memory and size of each function.
    Functions,
    /// Calls and units of each route at the table.
    Routes,
    /// Time, calls and units as there are more members, or buckets.
    Growth,
    /// Answers per second of the whole local stack.
    Throughput,
}

fn other(text: &str) -> Result<Other, String> {
    let (function, path) = text.split_once('=').map_or((None, text), |(name, path)| (Some(name), path));
    let binary = PathBuf::from(path);
    if !binary.is_file() {
        return Err(format!("there is no file {path}"));
    }
    Ok(Other { name: path.to_owned(), function: function.map(str::to_owned), binary })
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        binaries,
        only,
        functions,
        other,
        starts,
        warm,
        members,
        buckets,
        latency,
        seconds,
        document,
        print,
    } = arguments;
    let latency = Duration::from_millis(latency);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let circumstances = Circumstances::of(workspace, latency);
    let stage = Stage::set(workspace, &binaries, latency).await?;
    let told = |what: &str| eprintln!("{what}");
    let is_wanted = |part| only.is_empty() || only.contains(&part);
    let (mut sections, mut costs, mut growth) = (Vec::new(), Vec::new(), Vec::new());
    if is_wanted(Part::Functions) {
        let hello = std::env::current_exe()?.with_file_name("hello");
        let subjects = stage.subjects(&hello, &functions, &other)?;
        costs = measure(Some(&stage), &subjects, Effort { starts, warm }, &told).await?;
        sections.push(Section::functions(&circumstances, &costs));
    }
    if is_wanted(Part::Routes) {
        sections.push(Section::routes(&circumstances, &count(&stage, &functions, &told).await?));
    }
    if is_wanted(Part::Growth) {
        growth = grow(
            workspace,
            &binaries,
            latency,
            &Sizes { members, buckets },
            u32::try_from(warm).unwrap_or(u32::MAX),
            &told,
        )
        .await?;
        sections.push(Section::growth(&circumstances, &growth));
    }
    if is_wanted(Part::Throughput) {
        let loads = load(&stage, Duration::from_secs(seconds), &told).await?;
        sections.push(Section::throughput(&circumstances, &loads));
    }
    stage.stop().await;
    for section in &sections {
        println!("{}", section.text);
    }
    if print {
        return Ok(());
    }
    put_in(&document, &sections)?;
    if !costs.is_empty() && !growth.is_empty() {
        let picture = document.with_extension("svg");
        fs::write(&picture, plot(&costs, &growth))?;
    }
    Ok(())
}
