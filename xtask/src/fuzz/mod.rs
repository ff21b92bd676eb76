//! `cargo xtask fuzz`: statements drawn at random over the flights, on a network and on DuckDB.
//!
//! What it knows: how both are asked, and when two answers are the same. Each statement has a seed of its own, so that one
//! alone can be drawn again. What it must not know: how either comes to its answer. DuckDB judges, as another engine's mistakes
//! are others.

mod expression;
mod judge;
mod statement;
mod subquery;

use std::path::Path;
use std::process::Command;

use conun_sql_examples::nycflights13_dir;

use crate::ci::release_dir;
use crate::devnet::Devnet;
use crate::{Result, bench};
use judge::Verdict;
use statement::Statement;

/// Volunteers: a quorum needs two, and a third where these differ.
const NODES: usize = 3;
/// Bytes of a shard of the flights: dozens of shards. The other tables have one.
const SHARD: &str = "65536";
/// The flights, in many shards, and the others.
const TABLES: [&str; 5] = ["flights", "airlines", "airports", "planes", "weather"];

/// What to draw.
#[derive(Debug, Clone, PartialEq)]
struct Options {
    /// Seed of the first statement; the others follow it.
    seed: u64,
    statements: u64,
    /// Whether statements are only printed.
    print: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { seed: 1, statements: 200, print: false };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--print" => options.print = true,
                "--seed" => options.seed = args.next().ok_or("--seed needs a value")?.parse()?,
                "--statements" => options.statements = args.next().ok_or("--statements needs a value")?.parse()?,
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        Ok(options)
    }

    fn seeds(&self) -> std::ops::Range<u64> {
        self.seed..self.seed.saturating_add(self.statements)
    }
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    if options.print {
        options.seeds().for_each(|seed| println!("{}", Statement::draw(seed).sql));
        return Ok(());
    }
    if !bench::duckdb_is_there() {
        return Err("the judge is DuckDB's Python package: pip install duckdb".into());
    }
    let bin = release_dir()?;
    bench::build()?;
    let scratch = std::env::temp_dir().join(format!("conun-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let outcome = compare(&options, &bin, &scratch);
    std::fs::remove_dir_all(&scratch)?;
    outcome
}

fn compare(options: &Options, bin: &Path, scratch: &Path) -> Result<()> {
    let data = nycflights13_dir();
    let devnet = Devnet::up_with(bin, &scratch.join("devnet"), NODES, &[])?;
    let tables = TABLES.map(|table| (table, data.join(format!("{table}.parquet"))));
    devnet.put(&tables[..1], &["--shard-size", SHARD])?;
    devnet.put(&tables[1..], &[])?;
    let views = tables.iter().map(|(table, file)| format!("create view {table} as from '{}';\n", file.display()));
    let views: String = views.collect();
    let mut tally = Tally::default();
    for seed in options.seeds() {
        let statement = Statement::draw(seed);
        let script = scratch.join("statement.sql");
        std::fs::write(&script, format!("{views}{}", statement.sql))?;
        let judge =
            Command::new(bench::python()).arg(bench::compare_dir().join("duckdb_sql.py")).arg(&script).output()?;
        let sql = ["sql", "--no-cache", "--quiet", "--format", "csv", "--verify", "quorum", "-c", &statement.sql];
        let network = devnet.conun().args(sql).args(["--connect", devnet.url()]).output()?;
        let verdict = judge::compare(&statement, &judge, &network);
        tally.add(seed, &statement, &verdict);
    }
    println!("{tally}");
    match tally.wrong {
        // Where hardly any is compared, something else is broken.
        0 if tally.same < tally.refused + tally.foreign => Err("more statements were refused than compared".into()),
        0 => Ok(()),
        wrong => Err(format!("{wrong} statements were answered otherwise").into()),
    }
}

/// What came of the statements.
#[derive(Debug, Default)]
struct Tally {
    same: u64,
    refused: u64,
    foreign: u64,
    wrong: u64,
}

impl Tally {
    fn add(&mut self, seed: u64, statement: &Statement, verdict: &Verdict) {
        let (count, told) = match verdict {
            Verdict::Same => return self.same += 1,
            Verdict::Foreign => return self.foreign += 1,
            Verdict::Refused(why) => (&mut self.refused, format!("refused: {why}")),
            Verdict::Wrong(why) => (&mut self.wrong, format!("WRONG: {why}\n{}", statement.sql)),
        };
        *count += 1;
        println!("seed {seed}: {told}");
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { same, refused, foreign, wrong } = self;
        write!(f, "{same} the same, {wrong} WRONG, {refused} refused, {foreign} that DuckDB does not run")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parsed() {
        let parse = |args: &[&str]| Options::parse(&crate::words(args)).map_err(|e| e.to_string());
        assert_eq!(parse(&["--seed", "9"]), Ok(Options { seed: 9, statements: 200, print: false }));
        assert!(parse(&["--print"]).is_ok_and(|options| options.print));
        for wrong in [&["--seed"][..], &["--seed", "x"], &["--statement"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
