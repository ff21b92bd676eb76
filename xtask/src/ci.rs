//! `cargo xtask ci`: the one list of checks. `.ci/run` runs it, and so does a developer before a commit.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::devnet::Devnet;
use crate::{Result, repo};

/// A check: its name, the program it needs beside cargo, and the command.
struct Step {
    name: &'static str,
    /// Arguments of a command that succeeds where the step can run; the step is skipped, aloud, where it fails.
    needs: Option<&'static [&'static str]>,
    command: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
}

const NEXTEST: &[&str] = &["cargo", "nextest", "--version"];

/// In the order of their cost. The tests come last, so that a log ends with their summary.
const STEPS: &[Step] = &[
    Step { name: "format", needs: None, command: &["cargo", "fmt", "--all", "--check"], env: &[] },
    Step { name: "tidy", needs: None, command: &["cargo", "xtask", "tidy"], env: &[] },
    Step {
        name: "licences and bans",
        needs: Some(&["cargo", "deny", "--version"]),
        command: &["cargo", "deny", "--all-features", "check", "licenses", "bans", "sources"],
        env: &[],
    },
    Step { name: "contracts", needs: Some(&["npm", "--version"]), command: &["contracts/check"], env: &[] },
    Step {
        name: "clippy",
        needs: None,
        command: &["cargo", "clippy", "--release", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        env: &[],
    },
    Step {
        name: "documentation",
        needs: None,
        command: &["cargo", "doc", "--release", "--workspace", "--no-deps", "--document-private-items", "--locked"],
        env: &[("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links")],
    },
    Step {
        name: "documentation tests",
        needs: None,
        command: &["cargo", "test", "--release", "--workspace", "--doc", "--locked"],
        env: &[],
    },
];

/// Answers on networks that differ in whatever must not show.
const MATRIX: &[&str] = &["cargo", "xtask", "matrix", "--joined"];

/// The tests, with nextest where it is installed.
const TESTS_NEXTEST: &[&str] = &["cargo", "nextest", "run", "--release", "--workspace", "--locked", "--no-fail-fast"];
const TESTS_CARGO: &[&str] =
    &["cargo", "test", "--release", "--workspace", "--lib", "--bins", "--tests", "--locked", "--no-fail-fast"];

/// A stock Arrow Flight SQL client against a real coordinator.
const ADBC: &str = "cli/tests/adbc.py";
/// Volunteers that it runs against.
const ADBC_NODES: usize = 3;
/// What it imports, from PyPI.
const ADBC_PACKAGES: &[&str] = &["adbc-driver-flightsql", "adbc-driver-manager", "pyarrow"];

/// How a step ended.
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Runs every step, even after one failed, and lists them at the end.
pub(crate) fn run() -> Result<()> {
    let mut results: Vec<(&str, Outcome, Duration)> = Vec::new();
    for step in STEPS {
        results.push(timed(step.name, || run_step(step)));
    }
    results.push(timed("ADBC client", run_adbc));
    results.push(timed("determinism matrix", || finish(command(MATRIX))));
    results.push(timed("tests", run_tests));
    summary(&results);
    let failed = results.iter().filter(|(_, outcome, _)| matches!(outcome, Outcome::Failed)).count();
    if failed == 0 { Ok(()) } else { Err(format!("{failed} checks failed").into()) }
}

fn timed(name: &'static str, step: impl FnOnce() -> Outcome) -> (&'static str, Outcome, Duration) {
    println!("\n==> {name}");
    let start = Instant::now();
    let outcome = step();
    (name, outcome, start.elapsed())
}

fn summary(results: &[(&str, Outcome, Duration)]) {
    println!();
    for (name, outcome, time) in results {
        let word = match outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        };
        println!("{word:>8}  {:>6.1} s  {name}", time.as_secs_f64());
    }
}

fn run_step(step: &Step) -> Outcome {
    if let Some(needs) = step.needs
        && !is_there(needs)
    {
        println!("skipped: `{}` does not run here", needs.join(" "));
        return Outcome::Skipped;
    }
    let mut command = command(step.command);
    command.envs(step.env.iter().copied());
    finish(command)
}

fn run_tests() -> Outcome {
    finish(command(if is_there(NEXTEST) { TESTS_NEXTEST } else { TESTS_CARGO }))
}

/// Runs the ADBC script in a virtual environment beside the build folder.
fn run_adbc() -> Outcome {
    let script = repo::root().join(ADBC);
    if !script.exists() || !is_there(&["python3", "--version"]) {
        println!("skipped: no {ADBC}, or no python3");
        return Outcome::Skipped;
    }
    let python = match adbc_python() {
        Ok(python) => python,
        // A developer without PyPI misses one check; CI must not.
        Err(error) if std::env::var_os("CI").is_none() => {
            println!("skipped: {error}");
            return Outcome::Skipped;
        }
        Err(error) => return failed(&error),
    };
    match adbc(&python, &script) {
        Ok(()) => Outcome::Passed,
        Err(error) => failed(&error),
    }
}

/// A Python that has the packages: a virtual environment in the build folder.
fn adbc_python() -> Result<PathBuf> {
    let venv = release_dir()?.join("adbc-venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        must(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(ADBC_PACKAGES);
    must(&mut install)?;
    Ok(python)
}

/// The script against a devnet that has the five tables of flights.
fn adbc(python: &Path, script: &Path) -> Result<()> {
    must(&mut command(&["cargo", "build", "--release", "-p", "conun-cli", "--locked"]))?;
    let (bin, data) = (release_dir()?, conun_sql_examples::nycflights13_dir());
    let scratch = std::env::temp_dir().join(format!("conun-adbc-{}", std::process::id()));
    let tables: Vec<(&str, PathBuf)> =
        conun_sql_examples::TABLES.iter().map(|(name, _)| (*name, data.join(format!("{name}.parquet")))).collect();
    let devnet = Devnet::up(&bin, &scratch, ADBC_NODES, &tables)?;
    let queries = repo::root().join("sql-examples/nycflights13/queries");
    let result = must(Command::new(python).arg(script).arg(devnet.url()).arg(queries));
    drop(devnet);
    std::fs::remove_dir_all(&scratch)?;
    result
}

/// Where this program and the others are built.
pub(crate) fn release_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    Ok(exe.parent().map(Path::to_path_buf).unwrap_or_default())
}

/// Runs a command from the root and fails where it fails.
pub(crate) fn must(command: &mut Command) -> Result<()> {
    let status = repo::as_from_a_shell(command).current_dir(repo::root()).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

pub(crate) fn command<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

fn finish(mut command: Command) -> Outcome {
    match must(&mut command) {
        Ok(()) => Outcome::Passed,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> Outcome {
    println!("{error}");
    Outcome::Failed
}

fn is_there(words: &[&str]) -> bool {
    let mut command = command(words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
