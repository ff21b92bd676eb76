//! Adaptive re-planning: Ballista plans again after each stage, by the rows and bytes of those that are done. Each query is
//! run with it and without on the same settings, in turns: the time that it saves, in what the plans differ, and whether
//! plan and bits are the same when a query is run again, and when stages are run in another order.

use std::{collections::BTreeMap, time::Duration};

use conun_benches::tpch::Error;

use crate::{
    drive::{Order, Planning, Replan, Run, expected, once},
    workload::Workload,
};

/// Shards of a table.
const SHARDS: usize = 4;

struct Mode {
    name: &'static str,
    replan: Replan,
    settings: &'static [(&'static str, &'static str)],
    /// Place of the mode that it is compared with.
    base: usize,
}

impl Mode {
    fn planning(&self) -> Planning {
        let settings = self.settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Planning { replan: self.replan, settings }
    }
}

/// Ballista coalesces nothing by default; its target for a partition is divided by a hundred.
const COALESCING: &[(&str, &str)] =
    &[("ballista.planner.coalesce.enabled", "true"), ("ballista.planner.coalesce.target_partition_bytes", "671088")];
/// Up to which size a join's side is broadcast. Ballista's limits (128 MiB, a million rows) act so on far larger tables.
const LITTLE_BROADCAST: &[(&str, &str)] = &[
    ("ballista.optimizer.broadcast_join_threshold_bytes", "104857"),
    ("ballista.optimizer.broadcast_join_threshold_rows", "10000"),
];

const MODES: &[Mode] = &[
    Mode { name: "static", replan: Replan::Never, settings: &[], base: 0 },
    Mode { name: "adaptive, blind", replan: Replan::Blind, settings: &[], base: 0 },
    Mode { name: "adaptive", replan: Replan::BySize, settings: &[], base: 0 },
    Mode { name: "adaptive, coalescing", replan: Replan::BySize, settings: COALESCING, base: 0 },
    Mode { name: "static, little broadcast", replan: Replan::Never, settings: LITTLE_BROADCAST, base: 4 },
    Mode { name: "adaptive, blind, little broadcast", replan: Replan::Blind, settings: LITTLE_BROADCAST, base: 4 },
    Mode { name: "adaptive, little broadcast", replan: Replan::BySize, settings: LITTLE_BROADCAST, base: 4 },
];

/// Joins that Ballista cuts though they must see all of their right side; engine/ mends them in physical plans, which the
/// adaptive planner does not take.
const UNMENDED: &[(&str, &str)] = &[
    ("left join", "SELECT count(*) AS n FROM nation LEFT JOIN customer ON n_nationkey * 100 > c_custkey"),
    (
        "anti join",
        "SELECT count(*) AS n FROM nation WHERE NOT EXISTS (SELECT 1 FROM customer WHERE n_nationkey * 100 > c_custkey)",
    ),
];

/// What is the same in two runs.
#[derive(Clone, Copy)]
struct Same {
    numbers: bool,
    plans: bool,
    bits: bool,
}

/// What a query did in a mode.
struct Seen {
    first: Run,
    tasks: Duration,
    planning: Duration,
    rows_stay: bool,
    again: Same,
    newest_first: Same,
}

type Results = Vec<(&'static str, Vec<Result<Seen, Error>>)>;

/// Prints a table of all modes.
pub(crate) fn run(scale: f64, runs: usize) -> Result<(), Error> {
    let workload = Workload::new(scale, SHARDS)?;
    let results = workload
        .queries()
        .map(|(name, sql)| Ok((name, query(&workload, sql, runs)?)))
        .collect::<Result<Results, Error>>()?;
    println!(
        "| planned | tasks, CPU s | ratio | planning, CPU s | blocks, MB | stages | tasks | plans differ | same rows \
         | again: numbers, plans, bits | newest first: numbers, plans, bits | fail |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    (0..MODES.len()).for_each(|mode| print_row(mode, &results));
    (0..MODES.len()).for_each(|mode| print_differences(mode, &results));
    UNMENDED.iter().try_for_each(|(name, sql)| print_unmended(&workload, name, sql))
}

/// In which modes the rows of a join without an equality are wrong.
fn print_unmended(workload: &Workload, name: &str, sql: &str) -> Result<(), Error> {
    let expected = expected(workload, sql)?;
    let mut wrong = Vec::new();
    for mode in MODES {
        if once(workload, &mode.planning(), sql, Order::Oldest, false)?.rows != expected {
            wrong.push(mode.name);
        }
    }
    println!("\n{name} without an equality, wrong rows: {}", wrong.join("; "));
    Ok(())
}

/// Runs a query in each mode, in turns.
fn query(workload: &Workload, sql: &str, runs: usize) -> Result<Vec<Result<Seen, Error>>, Error> {
    let expected = expected(workload, sql)?;
    let first =
        |mode: &Mode| once(workload, &mode.planning(), sql, Order::Oldest, true).map(|run| Seen::new(run, &expected));
    let mut seen: Vec<Result<Seen, Error>> = MODES.iter().map(first).collect();
    for _ in 0..runs {
        for (mode, seen) in MODES.iter().zip(&mut seen) {
            fold(seen, once(workload, &mode.planning(), sql, Order::Oldest, false), Seen::add);
        }
    }
    for (mode, seen) in MODES.iter().zip(&mut seen) {
        fold(seen, once(workload, &mode.planning(), sql, Order::Newest, false), Seen::add_newest_first);
    }
    Ok(seen)
}

fn fold(seen: &mut Result<Seen, Error>, run: Result<Run, Error>, add: fn(&mut Seen, &Run)) {
    match (seen.as_mut(), run) {
        (Ok(seen), Ok(run)) => add(seen, &run),
        (Ok(_), Err(why)) => *seen = Err(why),
        (Err(_), _) => {}
    }
}

impl Seen {
    fn new(first: Run, expected: &[String]) -> Self {
        let rows_stay = first.rows == expected;
        let (most, same) = (Duration::MAX, Same { numbers: true, plans: true, bits: true });
        Self { first, tasks: most, planning: most, rows_stay, again: same, newest_first: same }
    }

    fn add(&mut self, run: &Run) {
        self.tasks = self.tasks.min(run.tasks);
        self.planning = self.planning.min(run.planning);
        self.again = self.again.and(Same::new(&self.first, run));
        self.rows_stay &= run.rows == self.first.rows;
    }

    fn add_newest_first(&mut self, run: &Run) {
        self.newest_first = self.newest_first.and(Same::new(&self.first, run));
        self.rows_stay &= run.rows == self.first.rows;
    }
}

impl Same {
    fn new(a: &Run, b: &Run) -> Self {
        let plans = a.stages.unnumbered == b.stages.unnumbered;
        Self { numbers: a.stages.numbered == b.stages.numbered, plans, bits: a.addresses == b.addresses }
    }

    fn and(self, other: Self) -> Self {
        Self { numbers: self.numbers && other.numbers, plans: self.plans && other.plans, bits: self.bits && other.bits }
    }
}

/// Queries that ran in a mode and in the one that it is compared with.
fn ran(mode: usize, results: &Results) -> impl Iterator<Item = (&'static str, &Seen, &Seen)> {
    results.iter().filter_map(move |(query, seen)| {
        let (ours, base) = (seen[mode].as_ref().ok()?, seen[MODES[mode].base].as_ref().ok()?);
        Some((*query, ours, base))
    })
}

fn print_row(mode: usize, results: &Results) {
    let sum = |of: fn(&Seen, &Seen) -> Duration| ran(mode, results).map(|(_, s, b)| of(s, b)).sum::<Duration>();
    let total = |of: fn(&Seen, &Seen) -> usize| ran(mode, results).map(|(_, s, b)| of(s, b)).sum::<usize>();
    let (tasks, base) = (sum(|s, _| s.tasks).as_secs_f64(), sum(|_, b| b.tasks).as_secs_f64());
    let same = |of: fn(&Seen) -> Same| {
        let count = |what: fn(Same) -> bool| ran(mode, results).filter(|(_, s, _)| what(of(s))).count();
        format!("{}, {}, {}", count(|same| same.numbers), count(|same| same.plans), count(|same| same.bits))
    };
    println!(
        "| {} | {tasks:.2} | {:.2} | {:.2} | {:.1} | {} | {} | {} | {} | {} | {} | {} |",
        MODES[mode].name,
        tasks / base,
        sum(|s, _| s.planning).as_secs_f64(),
        total(|s, _| s.first.bytes as usize) as f64 / 1e6,
        total(|s, _| s.first.shape.stages),
        total(|s, _| s.first.shape.tasks),
        total(|s, b| usize::from(s.first.shape != b.first.shape)),
        total(|s, _| usize::from(s.rows_stay)),
        same(|s| s.again),
        same(|s| s.newest_first),
        results.len() - ran(mode, results).count(),
    );
}

/// On how many queries plans differ in what; then query by query.
fn print_differences(mode: usize, results: &Results) {
    let name = MODES[mode].name;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (query, ours, base) in ran(mode, results) {
        let (shape, fixed) = (&ours.first.shape, &base.first.shape);
        let differences = shape.differences(fixed);
        differences.iter().for_each(|what| *counts.entry(what).or_default() += 1);
        let (ms, base_ms) = (ours.tasks.as_secs_f64() * 1e3, base.tasks.as_secs_f64() * 1e3);
        eprintln!(
            "{name}: {query}: {ms:.1} ms against {base_ms:.1}, stages {} against {}, tasks {} against {}, {differences:?}",
            shape.stages, fixed.stages, shape.tasks, fixed.tasks
        );
    }
    for (query, seen) in results {
        if let Err(why) = &seen[mode] {
            eprintln!("{name}: {query}: {why}");
        }
    }
    println!("\n{name}: {counts:?}");
}
