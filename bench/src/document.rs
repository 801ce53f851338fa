//! The document that the figures go to: each section between two marks, all else as somebody wrote it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use time::OffsetDateTime;

use crate::growth::by_function;
use crate::{Cost, Failure, Growth, Load, RouteCost, Samples};

/// A part of the document that is written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// It stands between `<!-- NAME -->` and `<!-- /NAME -->`.
    pub name: &'static str,
    /// Markdown.
    pub text: String,
}

/// When, where and of what figures are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circumstances {
    date: String,
    commit: String,
    toolchain: String,
    machine: String,
    /// Runnable processes over the last minute: whether the machine had something else to do.
    load: String,
    latency: Duration,
}

impl Circumstances {
    /// Now, here, of what is checked out in `workspace`, the table being `latency` away.
    #[must_use]
    pub fn of(workspace: &Path, latency: Duration) -> Self {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            date: OffsetDateTime::now_utc().date().to_string(),
            commit: said(workspace, "git", &["describe", "--always", "--dirty"]),
            toolchain: said(workspace, "rustc", &["--version"]),
            machine: format!(
                "{} x {}, Linux {}",
                thread::available_parallelism().map_or(1, usize::from),
                model.map_or("unknown", |(_, model)| model),
                kernel.split('-').next().unwrap_or_default().trim(),
            ),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            latency,
        }
    }

    fn line(&self) -> String {
        let Self { date, commit, toolchain, machine, load, latency } = self;
        let away = match latency.as_millis() {
            0 => String::new(),
            away => format!(" The table was {away} ms away."),
        };
        format!("Measured on {date} at commit {commit}, {toolchain}, {machine}, load {load} before.{away}\n")
    }
}

/// The first line that a program says; `unknown` if it cannot be run.
fn said(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().map_or_else(|| "unknown".to_owned(), str::to_owned)
}

/// Writes `sections` into `document`, which has the marks of each.
pub fn put_in(document: &Path, sections: &[Section]) -> Result<(), Failure> {
    let text = fs::read_to_string(document).map_err(|error| Failure::file(document, error.to_string()))?;
    let text = sections.iter().try_fold(text, |text, section| replaced(&text, section));
    let text = text.map_err(|what| Failure::file(document, what))?;
    fs::write(document, text).map_err(|error| Failure::file(document, error.to_string()))
}

fn replaced(text: &str, section: &Section) -> Result<String, String> {
    let Section { name, text: new } = section;
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("has no `{begin}` with a `{end}` behind it"))?;
    Ok(format!("{before}{begin}\n{}\n{end}{after}", new.trim_end()))
}

/// A table: its head, which columns are numbers, its rows.
pub(crate) fn table(
    head: &[&str],
    numbers_from: usize,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut text = String::new();
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    text += &line(&head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
    let rule = |column| if column < numbers_from { "---" } else { "--:" };
    let _infallible = writeln!(text, "|{}|", (0..head.len()).map(rule).collect::<Vec<_>>().join("|"));
    for row in rows {
        text += &line(&row);
    }
    text
}

/// A figure to three digits; a dash where there is none.
pub(crate) fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 99.95 => format!("{value:.0}"),
        Some(value) if value >= 9.995 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn half_to_worst(samples: &Samples) -> [String; 3] {
    [50, 90, 99].map(|percent| figure(samples.percentile(percent)))
}

/// How many times `other` one is, by their medians.
fn ratio(one: &Samples, other: &Samples) -> Option<f64> {
    Some(one.median()? / other.median()?)
}

impl Section {
    /// What each function costs, beside the first, which does nothing.
    #[must_use]
    pub fn functions(circumstances: &Circumstances, costs: &[Cost]) -> Self {
        let mut text = circumstances.line();
        let Some(hello) = costs.first() else { return Self { name: "functions", text } };
        let starts = costs.get(1).unwrap_or(hello).init.count();
        let warm = costs.get(1).unwrap_or(hello).warm.count();
        let _infallible = writeln!(
            text,
            "{starts} starts of each in turn, {warm} events after the first ones. Times are in ms but for the \
             processor's per event, which is in µs; sizes are in MiB; \"x\" is how many times the `{}` of the same \
             run. First and later events: the times that 50, 90 and 99 % do not exceed.\n",
            hello.name,
        );
        let head = [
            "function",
            "init",
            "x",
            "init CPU",
            "x",
            "first 50",
            "90",
            "99",
            "later 50",
            "90",
            "99",
            "CPU",
            "x",
            "allocations",
            "memory",
            "x",
            "binary",
        ];
        text += &table(
            &head,
            1,
            costs.iter().map(|cost| {
                let Cost { name, init, init_cpu, first, warm, cpu, memory, allocations, bytes } = cost;
                let mut row =
                    vec![format!("`{name}`"), figure(init.median()), figure(ratio(init, &hello.init))];
                row.extend([figure(init_cpu.median()), figure(ratio(init_cpu, &hello.init_cpu))]);
                row.extend(half_to_worst(first));
                row.extend(half_to_worst(warm));
                row.extend([figure(cpu.median()), figure(ratio(cpu, &hello.cpu))]);
                row.push(allocations.map_or_else(|| "-".to_owned(), |count| format!("{count:.0}")));
                row.extend([figure(memory.median()), figure(ratio(memory, &hello.memory))]);
                let bytes = f64::from(u32::try_from(*bytes).unwrap_or(u32::MAX));
                row.push(figure(Some(bytes / f64::from(1 << 20))));
                row
            }),
        );
        if costs.iter().all(|cost| cost.allocations.is_none()) {
            text += "\nAllocations are not counted where heaptrack is not installed.\n";
        }
        Self { name: "functions", text }
    }

    /// What each route asks of the table.
    #[must_use]
    pub fn routes(circumstances: &Circumstances, costs: &[RouteCost]) -> Self {
        let mut text = circumstances.line();
        text += "Each recorded event that something is done for, on a warm instance; the calls as a proxy before the \
                 table saw them, the units as the functions' log lines have them.\n\n";
        let head = ["route", "event", "calls", "RRU", "WRU", "which"];
        text += &table(
            &head,
            2,
            costs.iter().map(|cost| {
                let RouteCost { route, function, case, changes: _, calls, read_units, write_units } = cost;
                let event = format!("`{function}/{case}`");
                let units = [read_units, write_units].map(ToString::to_string);
                let mut row = vec![format!("`{route}`"), event, calls.len().to_string()];
                row.extend(units);
                row.push(calls.join(", "));
                row
            }),
        );
        Self { name: "routes", text }
    }

    /// What becomes of functions as there is more.
    #[must_use]
    pub fn growth(circumstances: &Circumstances, growth: &[Growth]) -> Self {
        let mut text = circumstances.line();
        let events = growth.first().map_or(0, |one| one.took.count());
        let _infallible = writeln!(
            text,
            "{events} warm events each. Times are in ms (those that 50, 90 and 99 % do not exceed, and the \
             processor's per event), the answer in KiB, memory in MiB.\n",
        );
        let head = ["function", "of", "50", "90", "99", "CPU", "calls", "RRU", "WRU", "answer", "memory"];
        text += &table(
            &head,
            2,
            by_function(growth).into_values().flatten().map(|one| {
                let Growth {
                    function,
                    what,
                    count,
                    took,
                    cpu,
                    calls,
                    read_units,
                    write_units,
                    bytes,
                    memory,
                } = one;
                let mut row = vec![format!("`{function}`"), format!("{count} {what}")];
                row.extend(half_to_worst(took));
                row.extend([
                    figure(*cpu),
                    calls.to_string(),
                    read_units.to_string(),
                    write_units.to_string(),
                ]);
                let bytes = f64::from(u32::try_from(*bytes).unwrap_or(u32::MAX));
                row.extend([figure(Some(bytes / 1024.0)), figure(*memory)]);
                row
            }),
        );
        Self { name: "growth", text }
    }

    /// How much the whole local stack takes.
    #[must_use]
    pub fn throughput(circumstances: &Circumstances, loads: &[Load]) -> Self {
        let mut text = circumstances.line();
        text += "Over HTTP to the local stack, which is in one process with whoever asks, on the same machine as the \
                 functions. Times are in ms: those that 50, 90 and 99 % of the answers do not exceed.\n\n";
        let head = ["route", "connections", "answers/s", "50", "90", "99", "not 200"];
        text += &table(
            &head,
            1,
            loads.iter().map(|load| {
                let Load { route, connections, rate, took, refused } = load;
                let mut row = vec![format!("`{route}`"), connections.to_string(), format!("{rate:.0}")];
                row.extend(half_to_worst(took));
                row.push(refused.to_string());
                row
            }),
        );
        Self { name: "throughput", text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_what_it_was() {
        let section = Section { name: "a", text: "new\n".to_owned() };
        let text = "before\n<!-- a -->\nold\n<!-- /a -->\nafter <!-- b --><!-- /b -->";

        let text = replaced(text, &section).unwrap();

        assert_eq!(text, "before\n<!-- a -->\nnew\n<!-- /a -->\nafter <!-- b --><!-- /b -->");
        assert!(replaced("<!-- /a --><!-- a -->", &section).is_err());
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(figure(None), "-");
        let figures = [0.1234, 9.994, 9.996, 99.94, 99.96, 1234.5].map(|value| figure(Some(value)));
        assert_eq!(figures, ["0.12", "9.99", "10.0", "99.9", "100", "1234"]);
    }
}
