//! `cargo xtask bench`: TPC-H on Conun and on its rivals, each as separate processes, in one interleaved run.
//!
//! What it knows: how to start each contender and how to compare them. Every answer is checked where a golden one
//! exists: a fast wrong answer is no result.

mod contender;
mod latency;
mod measure;
pub(crate) mod proc;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;

use conun_sql_examples::{Case, TpchScale, tpch};

use crate::ci::{must, release_dir};
use crate::devnet::Devnet;
use crate::{Result, repo};
use contender::Contender;
pub(crate) use contender::{duckdb_is_there, python};
use report::{Measured, Report};

/// How often all queries run under a quorum before anything is measured on a devnet.
const WARM_UPS: usize = 2;
/// Tables of TPC-H.
pub(crate) const TABLES: [&str; 8] =
    ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

/// What to measure.
#[derive(Debug, Clone, PartialEq)]
struct Options {
    /// Scale factor of TPC-H.
    scale: f64,
    /// Volunteers of the devnet; 0 leaves it out.
    nodes: usize,
    /// Runs of each query on each contender.
    runs: usize,
    /// Where to write the report.
    json: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { scale: 0.1, nodes: 4, runs: 3, json: None };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--sf" => options.scale = value.parse()?,
                "--nodes" => options.nodes = value.parse()?,
                "--runs" => options.runs = value.parse::<usize>()?.max(1),
                "--json" => options.json = Some(value.into()),
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        Ok(options)
    }
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let bin = release_dir()?;
    build()?;
    let data = prepare_data(&bin, options.scale)?;
    let scratch = std::env::temp_dir().join(format!("conun-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let report = measure_all(&options, &bin, &data, &scratch);
    std::fs::remove_dir_all(&scratch)?;
    let report = report?;
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    println!("{}", report.markdown());
    match report.wrong_answers() {
        0 => Ok(()),
        wrong => Err(format!("{wrong} answers were wrong").into()),
    }
}

/// Builds the programs that are compared.
pub(crate) fn build() -> Result<()> {
    must(Command::new("cargo").args(["build", "--release", "-p", "conun-cli", "-p", "conun-benches"]))
}

/// TPC-H as Parquet at `scale`, made once and kept in the cache folder.
pub(crate) fn prepare_data(bin: &Path, scale: f64) -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache"))).unwrap_or_else(std::env::temp_dir);
    let dir = cache.join("conun").join("tpch").join(format!("sf{scale}"));
    if TABLES.iter().any(|table| !dir.join(format!("{table}.parquet")).exists()) {
        must(Command::new(bin.join("tpch-data")).args(["--sf", &scale.to_string()]).arg(&dir))?;
    }
    Ok(dir)
}

/// Runs every query on every contender, interleaved, so that a slow minute of the machine hurts all alike.
fn measure_all(options: &Options, bin: &Path, data: &Path, scratch: &Path) -> Result<Report> {
    let devnet = match options.nodes {
        0 => None,
        nodes => {
            let tables = TABLES.map(|table| (table, data.join(format!("{table}.parquet"))));
            Some(Devnet::up(bin, &scratch.join("devnet"), nodes, &tables)?)
        }
    };
    let contenders = contender::all(bin, data, devnet.as_ref());
    let judged = TpchScale::of(options.scale).is_some();
    let cases = tpch(TpchScale::of(options.scale).unwrap_or(TpchScale::Tenth));
    // Nodes that nobody knows are all compared: `audit` is measured on those that have a record.
    if let Some(compared) = contenders.iter().find(|contender| contender.name() == "conun devnet quorum") {
        for case in (0..WARM_UPS).flat_map(|_| cases) {
            measure_one(compared, case, scratch, judged)?;
        }
    }
    let mut report = Report::new(options.scale, options.nodes, options.runs, judged);
    for run in 0..options.runs {
        for case in cases {
            eprintln!("run {}/{}: {}", run + 1, options.runs, case.name);
            for contender in &contenders {
                report.add(contender.name(), case.name, measure_one(contender, case, scratch, judged)?);
            }
        }
    }
    // The others run the last statement of a script only.
    for contender in contenders.iter().filter(|contender| contender.name().starts_with("conun")) {
        report.latencies.push(latency::of(contender, scratch)?);
    }
    report.coordinator_peak = devnet.as_ref().and_then(|devnet| proc::peak_memory(devnet.coordinator()));
    Ok(report)
}

fn measure_one(contender: &Contender, case: &Case, scratch: &Path, judged: bool) -> Result<Measured> {
    let script = scratch.join("query.sql");
    std::fs::write(&script, contender.script(case.sql))?;
    let (sample, output) = measure::run(&mut contender.command(&script), &contender.watched())?;
    let error = match output {
        Err(error) => Some(error),
        Ok(csv) if judged => case.check_csv(&csv).err().map(|mismatch| mismatch.to_string()),
        Ok(_) => None,
    };
    if let Some(error) = &error {
        eprintln!("  {}: {}: {error}", contender.name(), case.name);
    }
    Ok(Measured { sample, error })
}

/// The workspace's folder of foreign contenders.
pub(crate) fn compare_dir() -> PathBuf {
    repo::root().join("benches/compare")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(&crate::words(args))
    }

    #[test]
    fn options_are_parsed() {
        let options = parse(&["--sf", "1", "--nodes", "0", "--json", "x.json"]).map_err(|e| e.to_string());
        let expected = Options { scale: 1.0, nodes: 0, runs: 3, json: Some("x.json".into()) };
        assert_eq!(options, Ok(expected));
        for wrong in [&["--sf"][..], &["--sf", "x"], &["--no", "1"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
