//! The commands over a network of real processes: tables, queries, faults, restarts.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Devnet, assert_fails, conun, flights, json, run, stdout};
use conun_sql_examples::{NYCFLIGHTS13, TEXT, text_file};

fn check_all_queries(net: &Devnet) {
    for case in NYCFLIGHTS13 {
        assert_eq!(case.check_csv(&net.csv(case.sql)), Ok(()), "{}", case.name);
    }
}

#[test]
fn tables_queries_jobs_and_receipts() {
    let net = Devnet::up(&[]);
    net.put_flights(&[]);
    check_all_queries(&net);
    stdout(&net.conun(&["put", "lines", text_file().to_str().unwrap()]));
    for case in TEXT {
        assert_eq!(case.check_csv(&net.csv(case.sql)), Ok(()), "{}", case.name);
    }

    let tables = json(&net.conun(&["tables", "--json"]));
    assert_eq!(tables["tables"].as_array().map(Vec::len), Some(6));
    let shown = json(&net.conun(&["show", "flights", "--json"]));
    assert_eq!(shown["code"], "4+2");
    assert_eq!(shown["holders"].as_array().map(Vec::len), Some(6));

    net.csv(NYCFLIGHTS13[1].sql);
    let job = net.last_job();
    assert_eq!((&job["state"], &job["verified"]), (&"done".into(), &"quorum".into()));
    assert!(job["liars"].as_array().is_some_and(Vec::is_empty), "{job}");
    let digest = job["digest"].clone();
    net.csv(NYCFLIGHTS13[1].sql);
    assert_eq!(net.last_job()["digest"], digest, "the same query gives the same bits");
    let receipts = json(&net.conun(&["job", "receipts", job["id"].as_str().unwrap(), "--json"]));
    assert_eq!(receipts["receipts"].as_array().map(|r| r.len() as u64), job["receipts"].as_u64());

    let dir = net.dir.join("back");
    stdout(&net.conun(&["get", "airlines", dir.to_str().unwrap()]));
    let sql = format!("select count(*) as n from '{}'", dir.join("airlines-00000.parquet").display());
    assert_eq!(stdout(&run(&["sql", "--format", "csv", "-c", &sql])), "n\n16\n");

    stdout(&net.conun(&["rm", "airlines"]));
    assert_fails(&net.conun(&["show", "airlines"]), 3, &["airlines"]);
    assert_fails(&net.conun(&["sql", "-c", "select * from airlines"]), 3, &["airlines"]);
    assert_fails(&net.conun(&["sql", "-c", "select random() from flights"]), 3, &["random"]);
    assert_fails(&net.conun(&["job", "show", "ffff"]), 3, &["ffff"]);
}

#[test]
fn two_of_six_nodes_may_die() {
    let net = Devnet::up(&[]);
    net.put_flights(&[]);
    net.kill_node(0);
    net.kill_node(5);
    check_all_queries(&net);
}

#[test]
fn liars_are_named_and_nobody_else() {
    for mode in ["wrong-value", "drop-rows", "corrupt-block"] {
        let net = Devnet::up(&["--liar", &format!("3={mode}")]);
        net.put_flights(&[]);
        let mut named = Vec::new();
        for case in NYCFLIGHTS13 {
            assert_eq!(case.check_csv(&net.csv(case.sql)), Ok(()), "{mode}: {}", case.name);
            named.extend(net.last_job()["liars"].as_array().unwrap().clone());
        }
        named.dedup();
        assert_eq!(named, [serde_json::Value::from(net.node_id(3))], "{mode}");
    }
}

#[test]
fn a_stalling_node_is_late_and_no_liar() {
    let net = Devnet::up(&["--liar", "2=stall"]);
    net.put_flights(&[]);
    let (mut late, mut liars) = (Vec::new(), 0);
    for case in &NYCFLIGHTS13[..4] {
        assert_eq!(case.check_csv(&net.csv(case.sql)), Ok(()), "{}", case.name);
        let job = net.last_job();
        late.extend(job["late"].as_array().unwrap().clone());
        liars += job["liars"].as_array().map_or(0, Vec::len);
    }
    late.dedup();
    assert_eq!((late, liars), (vec![serde_json::Value::from(net.node_id(2))], 0));
}

#[test]
fn everything_is_there_after_a_restart_even_without_the_coordinators_folder() {
    let mut net = Devnet::up(&[]);
    net.put_flights(&[]);
    net.csv(NYCFLIGHTS13[0].sql);
    let job = net.last_job()["id"].clone();
    net.down();
    net.start(&[]);
    assert_eq!(net.last_job()["id"], job, "jobs are kept");
    check_all_queries(&net);
    net.down();
    std::fs::remove_dir_all(net.dir.join("coordinator")).unwrap();
    net.start(&[]);
    check_all_queries(&net);
}

#[test]
fn two_coordinators_share_the_nodes() {
    let net = Devnet::up(&["--coordinators", "2"]);
    let second = net.status()["coordinators"][1]["url"].as_str().unwrap().to_owned();
    let path = flights("airlines");
    for url in [&net.url, &second] {
        stdout(&run(&["put", "a", path.to_str().unwrap(), "--connect", url]));
    }
    let ask = |url: &str| {
        let mut command = conun();
        command.args(["sql", "-q", "--format", "csv", "--connect", url, "-c", "select count(*) as n from a"]);
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = [&net.url, &second, &net.url, &second].into_iter().map(|url| ask(url)).collect();
    for child in children {
        assert_eq!(stdout(&child.wait_with_output().unwrap()), "n\n16\n");
    }
}

#[test]
fn mistakes_with_devnets_are_told() {
    let net = Devnet::up(&["--nodes", "1"]);
    let dir = net.dir.to_str().unwrap();
    assert_fails(&run(&["devnet", "up", "--detach", "--dir", dir, "--port", "0"]), 2, &["already running"]);
    let port = net.url.rsplit(':').next().unwrap();
    let other = net.dir.join("other");
    let other = other.to_str().unwrap();
    assert_fails(&run(&["devnet", "up", "--detach", "--dir", other, "--port", port]), 2, &["in use"]);
    let busy = net.dir.join("node-0");
    assert_fails(&run(&["node", "--dir", busy.to_str().unwrap()]), 2, &["in use"]);
    net.kill_node(0);
    let error = net.conun(&["sql", "-c", "select 1"]);
    assert_eq!(stdout(&error).lines().count(), 5, "the coordinator computes constants itself");
}
