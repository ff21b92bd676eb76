//! Churn: long jobs on a devnet whose nodes die and slow down meanwhile, beside the same jobs on the nodes that remain.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Result;
use crate::bench::{self, proc};
use crate::ci::{must, release_dir};
use crate::devnet::Devnet;

/// Nodes of the network.
const NODES: usize = 10;
/// Nodes that are killed in mid-query: after a quarter, half and three quarters of the undisturbed time.
const KILLED: usize = 3;
/// How often the slow node is let run, and for how long: a tenth of the time.
const SLOW_PERIOD: Duration = Duration::from_millis(200);
const SLOW_RUN: Duration = Duration::from_millis(20);

/// Statements with a total order, so that answers can be compared as text. Each takes over half a minute at scale factor 1 on
/// two cores.
const STATEMENTS: [(&str, &str); 2] = [
    (
        "join",
        "select a.l_returnflag, b.l_linestatus, count(*) as n, sum(a.l_quantity * b.l_discount) as x, \
         avg(a.l_extendedprice - b.l_extendedprice) as d from lineitem a join lineitem b on a.l_partkey = b.l_partkey \
         where a.l_shipdate < b.l_receiptdate group by 1, 2 order by 1, 2",
    ),
    (
        "windows",
        "select l_shipmode, count(*) as n, sum(r) as ranks, sum(s) as s, sum(t) as t from (select l_shipmode, \
         row_number() over (partition by l_partkey order by l_extendedprice, l_orderkey, l_linenumber) as r, \
         sum(l_tax) over (partition by l_suppkey order by l_shipdate, l_orderkey, l_linenumber) as s, \
         sum(l_quantity) over (partition by l_orderkey order by l_linenumber) as t from lineitem) \
         group by l_shipmode order by l_shipmode",
    ),
];

/// One statement, undisturbed and disturbed.
#[derive(Debug, Serialize)]
struct Row {
    statement: &'static str,
    undisturbed: f64,
    disturbed: f64,
    /// Nodes that were killed while it ran.
    killed: usize,
    right: bool,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.disturbed / self.undisturbed
    }

    /// What the run does not show, if anything.
    fn fault(&self) -> Option<String> {
        let Self { statement, killed, .. } = self;
        match (self.right, *killed) {
            (false, _) => Some(format!("{statement}: a wrong answer")),
            (true, KILLED) => None,
            (true, _) => {
                Some(format!("{statement}: {killed} of {KILLED} nodes were killed in mid-query; use a larger --sf"))
            }
        }
    }
}

/// Runs it; `[--sf F] [--json FILE]`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let (mut scale, mut json) = (1.0, None);
    for pair in args.chunks(2) {
        match pair {
            [name, value] if name == "--sf" => scale = value.parse()?,
            [name, value] if name == "--json" => json = Some(PathBuf::from(value)),
            other => return Err(format!("{}: use --sf F or --json FILE", other.join(" ")).into()),
        }
    }
    bench::build()?;
    let bin = release_dir()?;
    let data = bench::prepare_data(&bin, scale)?;
    let scratch = std::env::temp_dir().join(format!("conun-churn-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let rows = measure(&bin, &data, &scratch);
    // The devnets are down, whatever came of it.
    std::fs::remove_dir_all(&scratch)?;
    let rows = rows?;
    for row in &rows {
        let verdict = if row.right { "right" } else { "WRONG" };
        println!(
            "{}: {:.1} s undisturbed, {:.1} s disturbed, ratio {:.2}, {} killed, {verdict}",
            row.statement,
            row.undisturbed,
            row.disturbed,
            row.ratio(),
            row.killed
        );
    }
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
    }
    let faults: Vec<String> = rows.iter().filter_map(Row::fault).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ").into()) }
}

fn measure(bin: &Path, data: &Path, scratch: &Path) -> Result<Vec<Row>> {
    let tables = [("lineitem", data.join("lineitem.parquet"))];
    let remaining = network(bin, &scratch.join("undisturbed"), NODES - KILLED, &tables)?;
    let undisturbed = STATEMENTS.iter().map(|(_, sql)| ask(&remaining, sql)).collect::<Result<Vec<_>>>()?;
    drop(remaining);
    let mut rows = Vec::new();
    for ((statement, sql), (seconds, answer)) in STATEMENTS.iter().zip(undisturbed) {
        // A network of its own each: the dead do not come back.
        let devnet = network(bin, &scratch.join(statement), NODES, &tables)?;
        let (outcome, killed) = disturb(&devnet.nodes(), Duration::from_secs_f64(seconds), || ask(&devnet, sql));
        let (disturbed, found) = outcome?;
        rows.push(Row { statement, undisturbed: seconds, disturbed, killed, right: found == answer });
    }
    Ok(rows)
}

/// Nodes that run a task each at a time.
fn network(bin: &Path, dir: &Path, nodes: usize, tables: &[(&str, PathBuf)]) -> Result<Devnet> {
    let devnet = Devnet::up_with(bin, dir, nodes, &["--cores".to_owned(), "1".to_owned()])?;
    devnet.put(tables, &[])?;
    Ok(devnet)
}

/// Seconds and answer of a statement.
fn ask(devnet: &Devnet, sql: &str) -> Result<(f64, String)> {
    let start = Instant::now();
    let mut command = devnet.conun();
    command.args(["sql", "--quiet", "--format", "csv", "--no-cache", "--connect", devnet.url(), "-c", sql]);
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok((start.elapsed().as_secs_f64(), String::from_utf8(output.stdout)?))
}

/// Kills and slows `nodes` while `work` runs, which takes about `usual` without; tells how many were killed before it ended.
fn disturb<T>(nodes: &[u32], usual: Duration, work: impl FnOnce() -> T) -> (T, usize) {
    let (victims, slow) = (&nodes[..KILLED], nodes[KILLED]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let killer = scope.spawn(|| kill_in_turn(victims, usual / 4, &done));
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let tree = proc::tree(slow);
                signal("STOP", &tree);
                thread::sleep(SLOW_PERIOD - SLOW_RUN);
                signal("CONT", &tree);
                thread::sleep(SLOW_RUN);
            }
        });
        let outcome = {
            let _done = WhenDropped(&done);
            work()
        };
        (outcome, killer.join().unwrap_or(0))
    })
}

/// Kills a victim after each `pause`, until `done`; tells how many were killed before that.
fn kill_in_turn(victims: &[u32], pause: Duration, done: &AtomicBool) -> usize {
    let mut killed = 0;
    for victim in victims {
        if sleep(pause, done) && signal("KILL", &[*victim]) && !done.load(Ordering::Relaxed) {
            killed += 1;
        }
    }
    killed
}

/// Sets a flag when it is dropped, in a panic too: threads that wait for the flag would be waited for without end.
struct WhenDropped<'a>(&'a AtomicBool);

impl Drop for WhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sleeps for `time`; tells whether it was not cut short by `done`.
fn sleep(time: Duration, done: &AtomicBool) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end && !done.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
    }
    !done.load(Ordering::Relaxed)
}

/// Sends a signal; tells whether all were there to get it.
fn signal(name: &str, pids: &[u32]) -> bool {
    let pids = pids.iter().map(u32::to_string);
    must(Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null())).is_ok()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::process::Child;

    use super::*;

    /// Processes that would run for a minute, as the nodes of a network.
    struct Sleepers(Vec<Child>);

    impl Sleepers {
        fn new() -> Self {
            Self((0..=KILLED).map(|_| Command::new("sleep").arg("60").spawn().unwrap()).collect())
        }

        fn pids(&self) -> Vec<u32> {
            self.0.iter().map(Child::id).collect()
        }
    }

    impl Drop for Sleepers {
        fn drop(&mut self) {
            for child in &mut self.0 {
                // It may be dead, which is what most of them are here for.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    fn row(killed: usize, right: bool) -> Row {
        Row { statement: "join", undisturbed: 1.0, disturbed: 2.0, killed, right }
    }

    #[test]
    fn only_kills_during_the_work_count() {
        let nodes = Sleepers::new();
        let (pause, nap) = (Duration::from_millis(40), Duration::from_secs(2));
        let (long, killed) = disturb(&nodes.pids(), pause, || thread::sleep(nap));
        assert_eq!((long, killed), ((), KILLED));
        let fresh = Sleepers::new();
        let (_, killed) = disturb(&fresh.pids(), nap * 4, || thread::sleep(pause));
        assert_eq!(killed, 0, "the work ended first");
        drop(fresh);
        assert!(!signal("KILL", &[i32::MAX as u32]), "nobody was there");
    }

    #[test]
    fn a_run_without_all_kills_shows_nothing() {
        assert_eq!(row(KILLED, true).fault(), None);
        assert!(row(KILLED - 1, true).fault().is_some_and(|fault| fault.contains("2 of 3")));
        assert!(row(KILLED, false).fault().is_some_and(|fault| fault.contains("wrong")));
    }

    #[test]
    fn threads_end_where_the_work_panics() {
        let nodes = Sleepers::new();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            disturb(&nodes.pids(), Duration::from_secs(60), || panic!("on purpose"));
        }));
        assert!(panicked.is_err());
    }
}
