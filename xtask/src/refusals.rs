//! `cargo xtask refusals`: how many of DataFusion's own SQL tests the planner refuses, against what is documented.
//!
//! The tests come with the package `datafusion-sqllogictest` (Apache-2.0) in the version of DataFusion that is locked;
//! cargo fetches it, and nothing of it is kept. The table in docs/DETERMINISM.md is the ceiling: more refusals of
//! any construct, or a construct that is not in it, fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use toml::{Table, Value};

use crate::ci::must;
use crate::{Result, repo};

const PACKAGE: &str = "datafusion-sqllogictest";
const DOCUMENT: &str = "docs/DETERMINISM.md";
const BEGIN: &str = "<!-- refusals: written by cargo xtask refusals --write -->\n";
const END: &str = "<!-- end of refusals -->";

/// Rows of the table that are no construct.
const TOTALS: [&str; 5] = ["all", "on the network", DECODED, "on the coordinator", REFUSED];
const DECODED: &str = "decoded as another plan";
const REFUSED: &str = "refused";

/// Queries by row of the table.
type Counts = BTreeMap<String, u64>;

pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut args = args.iter();
    let (mut slt, mut write) = (None, false);
    while let Some(flag) = args.next() {
        match flag.as_str() {
            "--slt" => slt = Some(PathBuf::from(args.next().ok_or("--slt needs a folder")?)),
            "--write" => write = true,
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    let slt = slt.map_or_else(package, Ok)?;
    let measured = parse(&census(&slt)?);
    let table = table(&measured);
    println!("{table}");
    let path = repo::root().join(DOCUMENT);
    let text = std::fs::read_to_string(&path)?;
    let (before, documented, after) = parts(&text)?;
    if write {
        return Ok(std::fs::write(&path, format!("{before}{table}{after}"))?);
    }
    let risen = risen(&measured, &parse(documented));
    if risen.is_empty() {
        return Ok(());
    }
    Err(format!("more queries are refused, or decoded as another plan, than {DOCUMENT} says: {}", risen.join(", "))
        .into())
}

/// The folder of the package, fetched by cargo.
fn package() -> Result<PathBuf> {
    let lock: Table = std::fs::read_to_string(repo::root().join("Cargo.lock"))?.parse()?;
    let packages = lock.get("package").and_then(Value::as_array).ok_or("Cargo.lock lists no packages")?;
    let datafusion = packages.iter().find(|p| p.get("name").and_then(Value::as_str) == Some("datafusion"));
    let version = datafusion.and_then(|p| p.get("version")?.as_str()).ok_or("Cargo.lock has no datafusion")?;
    let fetched = Command::new("cargo").args(["info", "--quiet", &format!("{PACKAGE}@{version}")]).output()?;
    if !fetched.status.success() {
        return Err(String::from_utf8_lossy(&fetched.stderr).into());
    }
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|h| h.join(".cargo"))).ok_or("no home folder")?;
    let registries = std::fs::read_dir(home.join("registry/src"))?.collect::<std::io::Result<Vec<_>>>()?;
    let found = registries.into_iter().map(|r| r.path().join(format!("{PACKAGE}-{version}"))).find(|p| p.is_dir());
    Ok(found.ok_or_else(|| format!("cargo did not unpack {PACKAGE} {version}"))?)
}

/// What the planner's example prints of a copy of the tests: some of them write files beside themselves.
fn census(slt: &Path) -> Result<String> {
    let scratch = std::env::temp_dir().join(format!("conun-refusals-{}", std::process::id()));
    let counted = copy(slt, &scratch).and_then(|()| {
        let mut example = Command::new("cargo");
        example
            .args(["run", "--release", "--quiet", "-p", "conun-planner", "--example", "refusals", "--"])
            .arg(&scratch);
        let example = repo::as_from_a_shell(&mut example).stderr(Stdio::inherit());
        let output = example.current_dir(repo::root()).output()?;
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout)?),
            false => Err(format!("the census failed: {}", output.status).into()),
        }
    });
    std::fs::remove_dir_all(&scratch)?;
    counted
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    must(Command::new("cp").arg("-R").args([from.join("test_files"), from.join("data")]).arg(to))
}

/// The rows of a table: names without back quotes, then numbers.
fn parse(table: &str) -> Counts {
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let name = cells.next()?.replace('`', "");
        Some((name, cells.next()?.replace(',', "").parse().ok()?))
    };
    table.lines().filter_map(row).collect()
}

/// The table for people: totals first, then constructs by number.
fn table(counts: &Counts) -> String {
    let all = counts.get(TOTALS[0]).copied().unwrap_or_default().max(1);
    let mut text = "| queries | number | share |\n|---|---:|---:|\n".to_owned();
    let mut row = |name: &str, count: u64| {
        let _infallible = writeln!(text, "| {name} | {count} | {:.2} % |", 100.0 * count as f64 / all as f64);
    };
    for name in TOTALS {
        row(name, counts.get(name).copied().unwrap_or_default());
    }
    let mut constructs: Vec<_> = counts.iter().filter(|(name, _)| !TOTALS.contains(&name.as_str())).collect();
    constructs.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), name.as_str()));
    for (name, count) in constructs {
        row(&format!("`{name}`"), *count);
    }
    text
}

/// What is refused, or decoded as another plan, more often than documented, of the same queries.
fn risen(measured: &Counts, documented: &Counts) -> Vec<String> {
    let ceiling = |name: &str| documented.get(name).copied().unwrap_or_default();
    let has_ceiling = |name: &str| [DECODED, REFUSED].contains(&name) || !TOTALS.contains(&name);
    let refusals = measured.iter().filter(|(name, _)| has_ceiling(name));
    refusals
        .filter(|(name, count)| **count > ceiling(name))
        .map(|(name, count)| format!("{name}: {count}, documented {}", ceiling(name)))
        .collect()
}

/// The document before its table, the table, and the rest.
fn parts(text: &str) -> Result<(&str, &str, &str)> {
    let begin = text.find(BEGIN).ok_or("no table of refusals")? + BEGIN.len();
    let end = text[begin..].find(END).ok_or("the table of refusals has no end")? + begin;
    Ok((&text[..begin], &text[begin..end], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "| queries | number | share |\n|---|---:|---:|\n| all | 200 | 100.00 % |\n\
        | on the network | 150 | 75.00 % |\n| decoded as another plan | 2 | 1.00 % |\n| on the coordinator | 40 | 20.00 % |\n| refused | 10 | 5.00 % |\n\
        | `COPY` | 7 | 3.50 % |\n| `random()` | 3 | 1.50 % |\n";

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let counts = parse(TABLE);
        assert_eq!(counts.get("random()"), Some(&3));
        assert_eq!(table(&counts), TABLE);
        let document = format!("# Title\n{BEGIN}{TABLE}{END}\nrest");
        assert_eq!(parts(&document).unwrap().1, TABLE);
    }

    #[test]
    fn more_refusals_or_new_ones_are_noticed_and_fewer_are_not() {
        let documented = parse(TABLE);
        assert!(risen(&documented, &documented).is_empty());
        let fewer = parse(&TABLE.replace("| 7 |", "| 2 |").replace("| 10 |", "| 5 |"));
        assert!(risen(&fewer, &documented).is_empty());
        let more = parse(&TABLE.replace("| 3 |", "| 4 |").replace("| 10 |", "| 11 |").replace("| 2 |", "| 3 |"));
        let risen_ones =
            ["decoded as another plan: 3, documented 2", "random(): 4, documented 3", "refused: 11, documented 10"];
        assert_eq!(risen(&more, &documented), risen_ones);
        let other = parse(&TABLE.replace("random()", "uuid()"));
        assert_eq!(risen(&other, &documented), ["uuid(): 3, documented 0"]);
    }
}
