//! Networks with liars of every mode: answers stay right, the culprit is named, and nobody else.

use std::collections::BTreeSet;

use crate::common::{Devnet, assert_fails, flights, run, stdout};
use conun_sql_examples::{Case, NYCFLIGHTS13, TpchScale, tpch};
use serde_json::Value;

/// Queries with something to lie about for every mode: scans, shuffles of several partitions, joins, one row.
fn cases() -> Vec<Case> {
    let flights = ["01_count", "02_carrier_delay"];
    let tpch = tpch(TpchScale::Hundredth).iter().filter(|case| ["q01", "q12"].contains(&case.name));
    NYCFLIGHTS13.iter().filter(|case| flights.contains(&case.name)).chain(tpch).copied().collect()
}

/// A network with liars, and the tables of [`cases`].
fn network(nodes: &str, liars: &str) -> Devnet {
    let net = Devnet::up(&["--nodes", nodes, "--liar", liars]);
    let data = tempfile::tempdir().unwrap();
    conun_benches::tpch::write_tables(data.path(), 0.01).unwrap();
    let ours = ["airlines", "flights"].map(|table| (table, flights(table)));
    let tpch = ["orders", "lineitem"].map(|table| (table, data.path().join(format!("{table}.parquet"))));
    for (table, file) in ours.into_iter().chain(tpch) {
        stdout(&net.conun(&["put", table, file.to_str().unwrap(), "--shard-size", "1MiB"]));
    }
    net
}

fn named(job: &Value, list: &str) -> Vec<String> {
    job[list].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// Runs the queries past node 2, who lies in `mode`, and checks that it alone is named in `list`.
fn is_named(mode: &str, list: &str) {
    let net = network("4", &format!("2={mode}"));
    let (mut culprits, mut accused) = (BTreeSet::new(), BTreeSet::new());
    for case in cases() {
        let answer = stdout(&net.conun(&["sql", "-q", "--format", "csv", "--verify", "quorum", "-c", case.sql]));
        assert_eq!(case.check_csv(&answer), Ok(()), "{mode}: {}", case.name);
        let job = net.last_job();
        culprits.extend(named(&job, list));
        accused.extend(named(&job, "liars"));
    }
    let liar = BTreeSet::from([net.node_id(2)]);
    assert_eq!(culprits, liar, "{mode}");
    assert!(accused.is_subset(&liar), "{mode}: {accused:?}");
}

#[test]
fn who_lies_about_rows_is_named_and_nobody_else() {
    ["wrong-value", "drop-rows", "duplicate-rows", "misroute"].iter().for_each(|mode| is_named(mode, "liars"));
}

#[test]
fn who_lies_about_work_is_named_and_nobody_else() {
    ["corrupt-block", "inflate", "equivocate", "replay"].iter().for_each(|mode| is_named(mode, "liars"));
}

#[test]
fn copycats_and_sleepers_are_named_and_nobody_else() {
    ["copycat", "sleeper:4"].iter().for_each(|mode| is_named(mode, "liars"));
}

#[test]
fn a_stalling_node_is_late_and_no_liar() {
    is_named("stall", "late");
}

#[test]
fn a_ring_is_beaten_by_the_bound_that_was_asked_for() {
    let net = network("12", "2,5,7=collude");
    let ring: BTreeSet<String> = [2, 5, 7].map(|index| net.node_id(index)).into();
    let mut accused = BTreeSet::new();
    for case in cases() {
        let answer = stdout(&net.conun(&["sql", "-q", "--format", "csv", "--max-error", "1e-4", "-c", case.sql]));
        assert_eq!(case.check_csv(&answer), Ok(()), "{}", case.name);
        let job = net.last_job();
        let bound = job["error_bound"].as_f64().unwrap();
        assert!(bound <= 1e-4, "{}: {bound}", case.name);
        accused.extend(named(&job, "liars"));
    }
    assert!(!accused.is_empty() && accused.is_subset(&ring), "{accused:?}");
}

#[test]
fn mistakes_with_liars_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let up = ["devnet", "up", "--detach", "--nodes", "3", "--port", "0", "--dir", dir.path().to_str().unwrap()];
    let fails = |liars: &[&str], words: &[&str]| assert_fails(&run(&[&up, liars].concat()), 2, words);
    fails(&["--liar", "1,3=collude"], &["no node 3"]);
    fails(&["--liar", "1,2=collude", "--liar", "2=stall"], &["node 2", "'collude'", "'stall'"]);
}
