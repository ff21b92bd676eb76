//! TPC-H over networks of real processes: right answers, and the same bits on three nodes as on six.

use std::path::Path;

use crate::common::{Devnet, stdout};
use conun_sql_examples::{TpchScale, tpch};

const TABLES: [&str; 8] = ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"];

/// Runs the 22 queries on `nodes` nodes, checks the answers, and gives their digests.
fn digests(nodes: usize, data: &Path) -> Vec<String> {
    let net = Devnet::up(&["--nodes", &nodes.to_string()]);
    for table in TABLES {
        let file = data.join(format!("{table}.parquet"));
        stdout(&net.conun(&["put", table, file.to_str().unwrap(), "--shard-size", "2MiB"]));
    }
    let mut digests = Vec::new();
    for case in tpch(TpchScale::Tenth) {
        assert_eq!(case.check_csv(&net.csv(case.sql)), Ok(()), "{nodes} nodes: {}", case.name);
        let job = net.last_job();
        by_volunteers(&job, case.name);
        digests.push(job["digest"].as_str().unwrap().to_owned());
    }
    digests
}

/// No work unit is the coordinator's: every task of every stage has the votes of two nodes.
fn by_volunteers(job: &serde_json::Value, name: &str) {
    assert_eq!(job["verified"], "quorum", "{name}");
    let stages = job["stages"].as_array().unwrap();
    assert!(!stages.is_empty(), "{name}");
    for stage in stages {
        let count = |field: &str| stage[field].as_u64().unwrap();
        assert!(count("units") > 0 && count("replicas") >= 2 * count("tasks"), "{name}: {stage}");
    }
}

#[test]
fn answers_are_right_and_bits_do_not_follow_the_number_of_nodes() {
    let data = tempfile::tempdir().unwrap();
    conun_benches::tpch::write_tables(data.path(), 0.1).unwrap();
    let three = digests(3, data.path());
    assert_eq!(three.len(), 22);
    assert_eq!(three, digests(6, data.path()));
}
