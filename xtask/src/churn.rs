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
    right: bool,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.disturbed / self.undisturbed
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
            "{}: {:.1} s undisturbed, {:.1} s disturbed, ratio {:.2}, {verdict}",
            row.statement,
            row.undisturbed,
            row.disturbed,
            row.ratio()
        );
    }
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
    }
    if rows.iter().all(|row| row.right) { Ok(()) } else { Err("an answer was wrong".into()) }
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
        let (disturbed, found) = disturb(&devnet, Duration::from_secs_f64(seconds), || ask(&devnet, sql))?;
        rows.push(Row { statement, undisturbed: seconds, disturbed, right: found == answer });
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

/// Kills and slows nodes while `work` runs, which takes about `usual` without.
fn disturb<T>(devnet: &Devnet, usual: Duration, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let nodes = devnet.nodes();
    let (victims, slow) = (&nodes[..KILLED], nodes[KILLED]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for victim in victims {
                if sleep(usual / 4, &done) {
                    signal("KILL", &[*victim]);
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let tree = proc::tree(slow);
                signal("STOP", &tree);
                thread::sleep(SLOW_PERIOD - SLOW_RUN);
                signal("CONT", &tree);
                thread::sleep(SLOW_RUN);
            }
        });
        let outcome = work();
        done.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Sleeps for `time`; tells whether it was not cut short by `done`.
fn sleep(time: Duration, done: &AtomicBool) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end && !done.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
    }
    !done.load(Ordering::Relaxed)
}

fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    // Who is gone already needs no signal.
    let _ = must(Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()));
}
