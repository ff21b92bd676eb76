//! Each choice that the profile forbids, made alone and in turns with the profile's: the time that it saves, and whether the
//! bits stay when a query is run again, on one thread and on several, and the rows when there are more or fewer partitions.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use conun_benches::tpch::Error;

use crate::{
    drive::{Order, Planning, Replan, Run, expected, once},
    workload::Workload,
};

/// Shards of a table.
const SHARDS: usize = 4;

/// Numbers of shuffle partitions; the first is the profile's.
const PARTITIONS: [usize; 3] = [4, 1, 16];

struct Switch {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    /// Whether strings of tables are read as views.
    views: bool,
}

const SWITCHES: &[Switch] = &[
    Switch { name: "(profile)", settings: &[], views: false },
    Switch {
        name: "sort-merge instead of hash joins",
        settings: &[("datafusion.optimizer.prefer_hash_join", "false")],
        views: false,
    },
    Switch {
        name: "dynamic filters",
        settings: &[("datafusion.optimizer.enable_dynamic_filter_pushdown", "true")],
        views: false,
    },
    Switch {
        name: "filters in scans",
        settings: &[("datafusion.execution.parquet.pushdown_filters", "true")],
        views: false,
    },
    Switch {
        name: "dynamic filters, filters in scans",
        settings: &[
            ("datafusion.optimizer.enable_dynamic_filter_pushdown", "true"),
            ("datafusion.execution.parquet.pushdown_filters", "true"),
        ],
        views: false,
    },
    Switch {
        name: "view types",
        settings: &[("datafusion.sql_parser.map_string_types_to_utf8view", "true")],
        views: true,
    },
    Switch {
        name: "scalar subqueries through memory",
        settings: &[("datafusion.optimizer.enable_physical_uncorrelated_scalar_subquery", "true")],
        views: false,
    },
];

/// What a query did under a switch.
struct Seen {
    first: Run,
    least: Duration,
    bits_stay: bool,
    rows_stay: bool,
}

type Results = Vec<(&'static str, Vec<Result<Seen, Error>>)>;

/// Prints a table of all switches.
pub(crate) fn run(scale: f64, runs: usize) -> Result<(), Error> {
    let plain = Workload::new(scale, SHARDS)?;
    let viewed = plain.with_schemas(with_views);
    let results = plain
        .queries()
        .map(|(name, sql)| Ok((name, query(&plain, &viewed, sql, runs)?)))
        .collect::<Result<Results, Error>>()?;
    println!("| switched on alone | CPU s | ratio | blocks MB | same bits | same rows | fail |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    (0..SWITCHES.len()).for_each(|switch| print_row(switch, &results));
    Ok(())
}

/// Sums and ratio are over the queries that ran on both sides.
fn print_row(switch: usize, results: &Results) {
    let name = SWITCHES[switch].name;
    let ran = || {
        results.iter().filter_map(|(query, seen)| Some((query, seen[switch].as_ref().ok()?, seen[0].as_ref().ok()?)))
    };
    let sum: Duration = ran().map(|(_, ours, _)| ours.least).sum();
    let base: Duration = ran().map(|(_, _, theirs)| theirs.least).sum();
    let megabytes = ran().map(|(_, ours, _)| ours.first.bytes as f64 / 1e6).sum::<f64>();
    let count = |what: fn(&Seen) -> bool| ran().filter(|(_, ours, _)| what(ours)).count();
    let failed = results.len() - ran().count();
    println!(
        "| {name} | {:.2} | {:.2} | {megabytes:.0} | {} | {} | {failed} |",
        sum.as_secs_f64(),
        sum.as_secs_f64() / base.as_secs_f64(),
        count(|seen| seen.bits_stay),
        count(|seen| seen.rows_stay),
    );
    for (query, ours, theirs) in ran() {
        let (ms, base) = (ours.least.as_secs_f64() * 1e3, theirs.least.as_secs_f64() * 1e3);
        let differs = if ours.bits_stay && ours.rows_stay { "" } else { ", differs" };
        eprintln!("{name}: {query}: {ms:.1} ms against {base:.1}{differs}");
    }
    for (query, why) in results.iter().filter_map(|(query, seen)| Some((query, seen[switch].as_ref().err()?))) {
        eprintln!("{name}: {query}: {why}");
    }
}

/// Runs a query under each switch, in turns.
fn query(plain: &Workload, viewed: &Workload, sql: &str, runs: usize) -> Result<Vec<Result<Seen, Error>>, Error> {
    let expected = expected(plain, sql)?;
    let once = |switch: &Switch, partitions, several| {
        let workload = if switch.views { viewed } else { plain };
        once(workload, &switch.planning(partitions), sql, Order::Oldest, several)
    };
    let mut seen: Vec<Result<Seen, Error>> =
        SWITCHES.iter().map(|switch| once(switch, PARTITIONS[0], true).map(|run| Seen::new(run, &expected))).collect();
    for _ in 0..runs {
        for (switch, seen) in SWITCHES.iter().zip(&mut seen) {
            amend(seen, |seen| {
                seen.add(&once(switch, PARTITIONS[0], false)?);
                Ok(())
            });
        }
    }
    for (switch, seen) in SWITCHES.iter().zip(&mut seen) {
        for partitions in &PARTITIONS[1..] {
            amend(seen, |seen| {
                let (first, again) = (once(switch, *partitions, true)?, once(switch, *partitions, false)?);
                seen.bits_stay &= first.addresses == again.addresses;
                seen.rows_stay &= first.rows == expected;
                Ok(())
            });
        }
    }
    Ok(seen)
}

/// Does more where nothing has failed.
fn amend(seen: &mut Result<Seen, Error>, more: impl FnOnce(&mut Seen) -> Result<(), Error>) {
    if let Ok(so_far) = seen
        && let Err(why) = more(so_far)
    {
        *seen = Err(why);
    }
}

impl Seen {
    fn new(first: Run, expected: &[String]) -> Self {
        let rows_stay = first.rows == expected;
        Self { first, least: Duration::MAX, bits_stay: true, rows_stay }
    }

    fn add(&mut self, run: &Run) {
        self.least = self.least.min(run.tasks);
        self.bits_stay &= run.addresses == self.first.addresses;
    }
}

impl Switch {
    fn planning(&self, partitions: usize) -> Planning {
        let chosen = self.settings.iter().map(|(key, value)| (*key, (*value).to_owned()));
        let settings = chosen.chain([("datafusion.execution.target_partitions", partitions.to_string())]).collect();
        Planning { replan: Replan::Never, settings }
    }
}

fn with_views(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => Field::new(field.name(), DataType::Utf8View, field.is_nullable()),
        _ => field.as_ref().clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
