//! The two real parts, installed on first use and run as processes of their own.
//!
//! They are kept below the target directory, for one version each. Nothing of them is linked or shipped.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

/// What localstripe is installed from: pinned, with the hashes of all it needs.
const REQUIREMENTS: &str = include_str!("../../stripe-parts/requirements.txt");
const REQUIREMENTS_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stripe-parts/requirements.txt");
const SERVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stripe-parts/serve.py");
const STRIPE_MOCK_VERSION: &str = "v0.203.0";

/// Runs a command until standard input ends, which the test's process holds open.
const WHILE_THE_TEST_RUNS: &str = r#""$@" & exec >/dev/null; cat; kill $!"#;

/// How long a part may take to listen, on a machine that does much else.
const START: Duration = Duration::from_mins(1);

/// Says something that must be read even when a test passes: libtest swallows what macros print.
pub(super) fn say(text: &str) {
    // Nobody to tell is no reason to fail.
    let _ = writeln!(std::io::stderr().lock(), "stripe rig: {text}");
}

/// A part that runs, and ends with the value or with the process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Where it listens: `http://127.0.0.1:PORT`.
    pub(super) origin: String,
}

impl Process {
    /// Starts a part that says on standard output where it listens, after `announces`.
    fn start(mut command: Command, name: &str, announces: &'static str) -> Result<Self, String> {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.map_err(|error| format!("{name} does not start: {command:?}: {error}"))?;
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        // Reads on to the end: a part that nobody reads stops at a full pipe.
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once(announces) {
                    let _ = sender.send(format!("http://{}", address.trim()));
                }
            }
        });
        if let Ok(origin) = receiver.recv_timeout(START) {
            return Ok(Self { child, origin });
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(format!("{name} does not listen: {command:?}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ends it, as the end of this process would.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// An own localstripe, empty.
pub(super) fn localstripe() -> Result<Process, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let python = PYTHON.get_or_init(|| match env::var_os("LOCALSTRIPE_PYTHON") {
        Some(path) => Ok(PathBuf::from(path)),
        None => installed("localstripe", REQUIREMENTS, "localstripe, about a minute", |folder| {
            run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
            let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2"];
            let python = folder.join("bin/python");
            run(Command::new(python).args(pip).args(["--require-hashes", "-r", REQUIREMENTS_FILE]))
        })
        .map(|folder| folder.join("bin/python")),
    });
    let mut command = Command::new(python.as_ref()?);
    command.arg(SERVE);
    Process::start(command, "localstripe", "listening at ")
}

/// Where the process's one stripe-mock listens, or why there is none.
pub(super) fn stripe_mock() -> Result<&'static str, &'static str> {
    static STRIPE_MOCK: OnceLock<Result<Process, String>> = OnceLock::new();
    let running = STRIPE_MOCK.get_or_init(|| {
        let binary = match env::var_os("STRIPE_MOCK") {
            Some(path) => PathBuf::from(path),
            None => {
                installed("stripe-mock", STRIPE_MOCK_VERSION, "stripe-mock, a minute or two", |folder| {
                    let package = format!("github.com/stripe/stripe-mock@{STRIPE_MOCK_VERSION}");
                    run(Command::new("go").args(["install", &package]).env("GOBIN", folder))
                })?
                .join("stripe-mock")
            }
        };
        let mut command = Command::new("sh");
        command.args(["-c", WHILE_THE_TEST_RUNS, "sh"]).arg(binary);
        // It always listens for HTTPS too, on every interface unless told.
        command.args(["-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0"]);
        Process::start(command, "stripe-mock", "Listening for HTTP at address: ")
    });
    running.as_ref().map(|process| process.origin.as_str()).map_err(String::as_str)
}

/// The folder of the part `name`, into which `install` puts it unless `version` of it is there.
fn installed(
    name: &str,
    version: &str,
    what: &str,
    install: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let parts = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("stripe-parts");
    let folder = parts.join(name);
    // Written last, so that a part that was interrupted does not count.
    let mark = parts.join(format!("{name}.installed"));
    let is_there = || fs::read_to_string(&mark).is_ok_and(|installed| installed == version);
    let failed = |error: std::io::Error| format!("cannot install into {}: {error}", parts.display());
    if is_there() {
        return Ok(folder);
    }
    fs::create_dir_all(&parts).map_err(failed)?;
    // Other test processes wait here, and then find it installed.
    let lock = File::create(parts.join("lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    if !is_there() {
        say(&format!("installing {what}, into {}", parts.display()));
        let _ = fs::remove_file(&mark);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(failed)?;
        install(&folder)?;
        fs::write(&mark, version).map_err(failed)?;
        say(&format!("installed {name}"));
    }
    Ok(folder)
}

/// Runs a command to its end.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(3).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(format!("{command:?} failed: {}", last.join(" / ")))
}
