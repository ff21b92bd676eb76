//! Runs the built `conun`, alone or with a devnet of real processes that is always taken down.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// The program under test, without the user's configuration.
pub(crate) fn conun() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conun"));
    command.stdin(Stdio::null()).env_remove("CONUN_CONNECT").env_remove("CONUN_TOKEN").env_remove("RUST_LOG");
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// Runs `conun` with `args` to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    conun().args(args).output().expect("conun starts")
}

/// What it printed, after checking that it succeeded.
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", output.status, stderr(output));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// What it said on stderr.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks exit code and the one line of an error; `words` must be in it.
pub(crate) fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "one error line: {said}");
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    words.iter().for_each(|word| assert!(errors[0].contains(word), "'{word}' in: {said}"));
}

/// What it printed, as JSON.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).expect("JSON")
}

/// A devnet in a folder of its own, on a free port.
pub(crate) struct Devnet {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// URL of its (first) coordinator.
    pub(crate) url: String,
    _root: tempfile::TempDir,
}

impl Devnet {
    /// Starts one with more arguments for `devnet up`.
    pub(crate) fn up(args: &[&str]) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let mut devnet = Self { dir: root.path().join("net"), url: String::new(), _root: root };
        devnet.start(&[&["--port", "0"], args].concat());
        devnet
    }

    /// Starts it again on the same folder.
    pub(crate) fn start(&mut self, args: &[&str]) {
        // Statements that are asked twice shall run twice, unless it is answers from the cache that are looked at.
        let cache: &[&str] = if args.contains(&"--cache") { &[] } else { &["--cache", "0"] };
        let up = [&["devnet", "up", "--detach", "--json", "--dir", self.path()], cache, args].concat();
        let report = json(&run(&up));
        self.url = report["coordinator"]["url"].as_str().expect("a URL").to_owned();
    }

    /// Stops it; data stays.
    pub(crate) fn down(&self) {
        run(&["devnet", "down", "--dir", self.path()]);
    }

    fn path(&self) -> &str {
        self.dir.to_str().expect("UTF-8")
    }

    /// `devnet status --json`.
    pub(crate) fn status(&self) -> Value {
        json(&run(&["devnet", "status", "--json", "--dir", self.path()]))
    }

    /// Id of node `index`.
    pub(crate) fn node_id(&self, index: usize) -> String {
        self.status()["nodes"][index]["id"].as_str().expect("an id").to_owned()
    }

    /// Kills node `index` as a power cut would.
    pub(crate) fn kill_node(&self, index: usize) {
        kill(&self.status()["nodes"][index]);
    }

    /// The same for the coordinator.
    pub(crate) fn kill_coordinator(&self) {
        kill(&self.status()["coordinator"]);
    }

    /// Runs `conun` with this devnet's coordinator in the environment.
    pub(crate) fn conun(&self, args: &[&str]) -> Output {
        conun().env("CONUN_CONNECT", &self.url).args(args).output().expect("conun starts")
    }

    /// Stores the five flights tables.
    pub(crate) fn put_flights(&self, args: &[&str]) {
        for (name, _) in conun_sql_examples::TABLES {
            let path = flights(name);
            let put = [&["put", name, path.to_str().expect("UTF-8"), "--shard-size", "512KiB"], args].concat();
            stdout(&self.conun(&put));
        }
    }

    /// The answer of a statement as CSV.
    pub(crate) fn csv(&self, sql: &str) -> String {
        stdout(&self.conun(&["sql", "--format", "csv", "-q", "-c", sql]))
    }

    /// The newest job, as `job show --json` prints it.
    pub(crate) fn last_job(&self) -> Value {
        let jobs = json(&self.conun(&["job", "ls", "--json"]));
        let id = jobs["jobs"][0]["id"].as_str().expect("a job").to_owned();
        json(&self.conun(&["job", "show", &id, "--json"]))
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        self.down();
    }
}

fn kill(process: &Value) {
    let pid = process["pid"].as_u64().expect("a pid");
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill").success());
}

/// Parquet file of a flights table.
pub(crate) fn flights(table: &str) -> PathBuf {
    conun_sql_examples::nycflights13_dir().join(format!("{table}.parquet"))
}

/// Whether a folder has no entries.
pub(crate) fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).expect("a folder").next().is_none()
}
