//! Builds the functions' binaries with cargo.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde::Deserialize;

/// The package whose binaries the functions are.
const PACKAGE: &str = "functions";

/// Why there are no binaries.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo cannot be run.
    #[error("cannot run cargo to build the functions: {source}")]
    Cargo {
        /// What the system said.
        source: io::Error,
    },
    /// Something does not compile. Cargo has said why.
    #[error("{what} does not build: see the error above")]
    Compile {
        /// What does not: "function `create`", "crate `shared`".
        what: String,
    },
    /// There is nothing to run.
    #[error("the package `{PACKAGE}` has no binaries")]
    NoBinaries,
}

/// Builds all binaries of the functions in `workspace` and returns the folder that holds them.
///
/// The profile is the one that this crate was built with: dev, or release. `report` is given what cargo
/// has to say, line by line, and nothing if there is nothing to do. `names` are the functions that will
/// be run, for the line that announces a build.
pub fn build(
    workspace: &Path,
    names: &[&str],
    report: &(dyn Fn(&str) + Sync),
) -> Result<PathBuf, BuildError> {
    run(cargo(workspace, io::stderr().is_terminal()), names, report)
}

/// The command, with or without colour in what it says.
fn cargo(workspace: &Path, colour: bool) -> Command {
    // Set when `cargo run` started this process; else the cargo that built it.
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from(env!("CARGO")));
    let mut command = Command::new(program);
    command
        .current_dir(workspace)
        // The same packages as `cargo run` builds for: with others cargo would resolve other features, and
        // compile the dependencies once more.
        .args(["build", "--bins"])
        .arg(if colour { "--message-format=json-diagnostic-rendered-ansi" } else { "--message-format=json" })
        .args(if cfg!(debug_assertions) { &[][..] } else { &["--release"] })
        .env("CARGO_TERM_COLOR", if colour { "always" } else { "never" })
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(mut command: Command, names: &[&str], report: &(dyn Fn(&str) + Sync)) -> Result<PathBuf, BuildError> {
    let failed = |source| BuildError::Cargo { source };
    let mut child = command.spawn().map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let outcome = thread::scope(|scope| {
        if let Some(stderr) = stderr {
            scope.spawn(|| progress(stderr, names, report));
        }
        stdout.map(|stdout| read(stdout, report)).unwrap_or_default()
    });
    let status = child.wait().map_err(failed)?;

    if !status.success() {
        let what = outcome.broken.first().cloned().unwrap_or_else(|| format!("package `{PACKAGE}`"));
        return Err(BuildError::Compile { what });
    }
    outcome.folder.ok_or(BuildError::NoBinaries)
}

/// Passes the progress of cargo on, if there is any: when everything is fresh, cargo says no more than
/// that it has finished.
fn progress(stderr: impl Read, names: &[&str], report: &(dyn Fn(&str) + Sync)) {
    let mut announced = false;
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if line.contains("Finished") {
            continue;
        }
        if !announced && line.contains("Compiling") {
            announced = true;
            report(&format!("Building {} functions: {}", names.len(), names.join(", ")));
        }
        report(&line);
    }
}

/// What cargo's messages come to.
#[derive(Default)]
struct Outcome {
    folder: Option<PathBuf>,
    /// What has errors, in words.
    broken: BTreeSet<String>,
}

/// The messages that are of interest.
///
/// Source: "External tools" in the Cargo book.
#[derive(Deserialize)]
#[serde(tag = "reason")]
enum Message {
    #[serde(rename = "compiler-artifact")]
    Artifact { target: Target, executable: Option<PathBuf> },
    #[serde(rename = "compiler-message")]
    Diagnostic { target: Target, message: Diagnostic },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    rendered: Option<String>,
}

impl Target {
    fn is_binary(&self) -> bool {
        self.kind.iter().any(|kind| kind == "bin")
    }
}

fn read(stdout: impl Read, report: &(dyn Fn(&str) + Sync)) -> Outcome {
    let mut outcome = Outcome::default();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        // A build script's output may stand between the messages.
        match serde_json::from_str(&line) {
            Ok(Message::Artifact { target, executable: Some(executable) }) if target.is_binary() => {
                outcome.folder = executable.parent().map(Path::to_owned);
            }
            Ok(Message::Diagnostic { target, message: Diagnostic { level, rendered } }) => {
                if let Some(rendered) = rendered {
                    report(rendered.trim_end());
                }
                if level.starts_with("error") {
                    let kind = if target.is_binary() { "function" } else { "crate" };
                    outcome.broken.insert(format!("{kind} `{}`", target.name));
                }
            }
            Ok(Message::Artifact { .. } | Message::Other) | Err(_) => {}
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;

    use tempfile::TempDir;

    use super::*;

    /// A workspace with the crate `shared` and the functions `create` and `retrieve`.
    fn workspace(shared: &str, create: &str) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let manifest = |name: &str| format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n");
        for (path, text) in [
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\"functions\", \"crates/shared\"]\nresolver = \"3\"\n".to_owned(),
            ),
            ("crates/shared/Cargo.toml", manifest("shared")),
            ("crates/shared/src/lib.rs", shared.to_owned()),
            (
                "functions/Cargo.toml",
                manifest("functions") + "[dependencies]\nshared = { path = \"../crates/shared\" }\n",
            ),
            ("functions/src/bin/create.rs", create.to_owned()),
            ("functions/src/bin/retrieve.rs", "fn main() {}".to_owned()),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    /// The outcome of a build, and what was reported.
    fn build(workspace: &TempDir) -> (Result<PathBuf, BuildError>, Vec<String>) {
        let lines = Mutex::new(Vec::new());
        let report = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let mut command = cargo(workspace.path(), false);
        // That of this project is none of this workspace's.
        command.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET_DIR").arg("--offline");
        let outcome = run(command, &["create", "retrieve"], &report);
        (outcome, lines.into_inner().unwrap())
    }

    #[test]
    fn a_build_is_announced_and_a_second_one_says_nothing() {
        let workspace = workspace("", "fn main() {}");

        let (folder, lines) = build(&workspace);

        let folder = folder.unwrap();
        assert!(folder.join("create").is_file() && folder.join("retrieve").is_file());
        assert!(lines.contains(&"Building 2 functions: create, retrieve".to_owned()), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("Compiling functions")), "{lines:?}");

        let (again, lines) = build(&workspace);
        assert_eq!(again.unwrap(), folder);
        assert_eq!(lines, [""; 0]);
    }

    #[test]
    fn a_function_that_does_not_compile_is_named_after_what_the_compiler_says() {
        let (outcome, lines) = build(&workspace("", "fn main() { nothing() }"));
        assert_eq!(outcome.unwrap_err().to_string(), "function `create` does not build: see the error above");
        assert!(lines.iter().any(|line| line.contains("cannot find function `nothing`")), "{lines:?}");
    }

    #[test]
    fn a_crate_that_does_not_compile_is_named_as_well() {
        let (outcome, _) = build(&workspace("fn broken(", "fn main() {}"));
        assert_eq!(outcome.unwrap_err().to_string(), "crate `shared` does not build: see the error above");
    }

    #[test]
    fn a_workspace_that_cargo_refuses_is_an_error_with_what_cargo_says() {
        let workspace = workspace("", "fn main() {}");
        fs::write(workspace.path().join("functions/Cargo.toml"), "nonsense").unwrap();
        let (outcome, lines) = build(&workspace);
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "package `functions` does not build: see the error above"
        );
        assert!(lines.iter().any(|line| line.starts_with("error")), "{lines:?}");
    }
}
