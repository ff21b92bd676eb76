//! Each choice that the profile forbids, made alone: the time that it saves, and whether the bits stay when a stage is
//! run again, on one thread and on several, and the rows when there are more or fewer partitions.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use conun_benches::tpch::Error;
use conun_types::Cid;

use crate::{
    cpu,
    pinned::Pinned,
    stages::run_stages,
    workload::{Setting, Workload, rows},
};

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
    least: Duration,
    bits_stay: bool,
    rows_stay: bool,
}

/// One run: its time, all its blocks, the rows of its answer.
struct Run {
    time: Duration,
    addresses: Vec<Cid>,
    rows: Vec<String>,
}

/// Prints a table of all switches.
pub(crate) fn run(scale: f64, runs: usize) -> Result<(), Error> {
    let workload = Workload::new(scale, 1)?;
    println!("| switched on alone | CPU s | ratio | same bits | same rows | fail |\n|---|---:|---:|---:|---:|---:|");
    let mut profile: Option<Vec<Option<Duration>>> = None;
    for switch in SWITCHES {
        let viewed = if switch.views { workload.with_schemas(with_views) } else { workload.with_schemas(Arc::clone) };
        let seen: Vec<(&str, Result<Seen, Error>)> =
            workload.queries().map(|(name, sql)| (name, query(&workload, &viewed, switch, sql, runs))).collect();
        let times: Vec<Option<Duration>> = seen.iter().map(|(_, s)| s.as_ref().ok().map(|s| s.least)).collect();
        print_row(switch.name, &seen, &times, profile.as_ref().unwrap_or(&times));
        profile.get_or_insert(times);
    }
    Ok(())
}

/// Sums and ratio are over the queries that ran on both sides.
fn print_row(
    name: &str,
    seen: &[(&str, Result<Seen, Error>)],
    times: &[Option<Duration>],
    profile: &[Option<Duration>],
) {
    let both = || times.iter().zip(profile).filter_map(|(ours, theirs)| Some(((*ours)?, (*theirs)?)));
    let sum: Duration = both().map(|(ours, _)| ours).sum();
    let base: Duration = both().map(|(_, theirs)| theirs).sum();
    let ran = || seen.iter().filter_map(|(query, seen)| Some((query, seen.as_ref().ok()?)));
    let (bits, rows) = (ran().filter(|(_, s)| s.bits_stay).count(), ran().filter(|(_, s)| s.rows_stay).count());
    let failed = seen.len() - ran().count();
    let (seconds, ratio) = (sum.as_secs_f64(), sum.as_secs_f64() / base.as_secs_f64());
    println!("| {name} | {seconds:.2} | {ratio:.2} | {bits} | {rows} | {failed} |");
    for (query, why) in seen.iter().filter_map(|(query, seen)| Some((query, seen.as_ref().err()?))) {
        eprintln!("{name}: {query}: {why}");
    }
    for (query, _) in ran().filter(|(_, s)| !s.bits_stay || !s.rows_stay) {
        eprintln!("{name}: {query}: differs");
    }
}

fn query(plain: &Workload, viewed: &Workload, switch: &Switch, sql: &str, runs: usize) -> Result<Seen, Error> {
    let expected = once(plain, sql, &settings(&SWITCHES[0], PARTITIONS[0]), false)?.rows;
    let mut seen = Seen { least: Duration::MAX, bits_stay: true, rows_stay: true };
    for partitions in PARTITIONS {
        let settings = settings(switch, partitions);
        let first = once(viewed, sql, &settings, false)?;
        seen.rows_stay &= first.rows == expected;
        for run in 0..runs {
            let again = once(viewed, sql, &settings, run % 2 == 1)?;
            seen.bits_stay &= again.addresses == first.addresses;
            if partitions == PARTITIONS[0] && run % 2 == 0 {
                seen.least = seen.least.min(again.time);
            }
        }
    }
    Ok(seen)
}

fn settings(switch: &Switch, partitions: usize) -> Vec<Setting> {
    let chosen = switch.settings.iter().map(|(key, value)| (*key, (*value).to_owned()));
    chosen.chain([("datafusion.execution.target_partitions", partitions.to_string())]).collect()
}

/// Runs a query: on one thread, as runners do, or on several, where more follows timing.
fn once(workload: &Workload, sql: &str, settings: &[Setting], several: bool) -> Result<Run, Error> {
    let mut builder = if several {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build()?.block_on(async {
        let plan = workload.plan(sql, settings, true).await?;
        let mut pinned = Pinned::new(workload);
        let start = cpu::used()?;
        let blocks = run_stages(plan, &mut pinned).await?;
        let time = cpu::used()? - start;
        Ok(Run { time, addresses: pinned.addresses(), rows: rows(&blocks)? })
    })
}

fn with_views(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => Field::new(field.name(), DataType::Utf8View, field.is_nullable()),
        _ => field.as_ref().clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
