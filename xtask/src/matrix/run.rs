//! The queries on one network: are the answers right, and which digests have they?

use std::path::{Path, PathBuf};
use std::process::Command;

use conun_sql_examples::{Case, NYCFLIGHTS13, TpchScale, nycflights13_dir, tpch};
use serde::Deserialize;

use super::Setting;
use crate::Result;
use crate::bench::TABLES;
use crate::devnet::Devnet;

/// Bytes of a shard at the smallest scale: the large tables have several shards at every scale.
const LEAST_SHARD: u32 = 512 << 10;
/// Bytes of a shard at scale factor 1: some 45 shards of the largest table.
const SHARD: f64 = (4 << 20) as f64;

/// What one network made of one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observed {
    /// Of the answer's rows, with the kind before it: of their sequence or of their multiset.
    digest: String,
    /// What is wrong with the answer.
    mismatch: Option<String>,
}

/// `conun job ls --json` and `conun job show --json`.
#[derive(Deserialize)]
struct Jobs {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    id: String,
}

#[derive(Deserialize)]
struct Shown {
    digest: String,
    digest_kind: String,
}

/// What every network is asked: TPC-H at a scale whose answers are known, and the flights.
pub(super) struct Workload {
    pub(super) cases: Vec<Case>,
    tables: Vec<(&'static str, PathBuf)>,
    /// Bytes of a shard.
    shard: u32,
}

impl Workload {
    /// With TPC-H at `scale` in folder `data`.
    pub(super) fn new(scale: f64, data: &Path) -> Result<Self> {
        let tpch = tpch(TpchScale::of(scale).ok_or("answers are known at scales 0.01, 0.1 and 1")?);
        let cases = tpch.iter().chain(NYCFLIGHTS13).copied().collect();
        let shard = ((SHARD * scale) as u32).max(LEAST_SHARD);
        Ok(Self { cases, tables: tables(data), shard })
    }
}

fn tables(data: &Path) -> Vec<(&'static str, PathBuf)> {
    let flights = nycflights13_dir();
    let file = |dir: &Path, table: &'static str| (table, dir.join(format!("{table}.parquet")));
    let flights = conun_sql_examples::TABLES.iter().map(|(table, _)| file(&flights, table));
    TABLES.iter().map(|table| file(data, table)).chain(flights).collect()
}

/// Starts the network in `dir` and runs everything on it.
pub(super) fn observe(setting: &Setting, work: &Workload, dir: &Path) -> Result<Vec<Observed>> {
    let devnet = Devnet::up_with(&setting.bin, dir, setting.nodes, &setting.flags)?;
    devnet.put(&work.tables, &["--shard-size", &work.shard.to_string()])?;
    // One node cannot check itself.
    let verify = if setting.nodes == 1 { "off" } else { "quorum" };
    let observed = work.cases.iter().map(|case| one(&devnet, case, verify)).collect();
    drop(devnet);
    std::fs::remove_dir_all(dir)?;
    observed
}

fn one(devnet: &Devnet, case: &Case, verify: &str) -> Result<Observed> {
    let sql = ["sql", "--no-cache", "--format", "csv", "-q", "--verify", verify, "-c", case.sql];
    let answer = match text(devnet.conun().args(sql).args(["--connect", devnet.url()])) {
        Ok(csv) => csv,
        Err(error) => return Ok(Observed { digest: String::new(), mismatch: Some(error.to_string()) }),
    };
    let list = text(devnet.conun().args(["job", "ls", "--json", "--connect", devnet.url()]))?;
    let newest = serde_json::from_str::<Jobs>(&list)?.jobs.into_iter().next().ok_or("no job ran")?;
    let shown = text(devnet.conun().args(["job", "show", &newest.id, "--json", "--connect", devnet.url()]))?;
    let shown: Shown = serde_json::from_str(&shown)?;
    let mismatch = case.check_csv(&answer).err().map(|mismatch| mismatch.to_string());
    Ok(Observed { digest: format!("{} {}", shown.digest_kind, shown.digest), mismatch })
}

/// What a command prints.
fn text(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Wrong answers, and digests that are not those of `first`.
pub(super) fn complaints(cases: &[Case], observed: &[Observed], first: Option<&[Observed]>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, (case, seen)) in cases.iter().zip(observed).enumerate() {
        if let Some(mismatch) = &seen.mismatch {
            complaints.push(format!("{}: {mismatch}", case.name));
        } else if let Some(expected) = first.map(|first| &first[at]).filter(|expected| expected.digest != seen.digest) {
            complaints.push(format!("{}: {}, first {}", case.name, seen.digest, expected.digest));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_answers_and_other_digests_are_told() {
        let seen = |digest: &str, mismatch: Option<&str>| Observed {
            digest: digest.to_owned(),
            mismatch: mismatch.map(str::to_owned),
        };
        let cases = &NYCFLIGHTS13[..2];
        let first = [seen("a", None), seen("b", None)];
        assert!(complaints(cases, &first, None).is_empty());
        assert!(complaints(cases, &first, Some(&first)).is_empty());
        assert_eq!(complaints(cases, &[seen("a", None), seen("c", None)], Some(&first)).len(), 1);
        assert_eq!(complaints(cases, &[seen("a", Some("row 1")), seen("b", None)], None).len(), 1);
    }
}
