//! The commands over a network of real processes: tables, queries, faults, restarts.

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use crate::common::{Devnet, assert_fails, conun, flights, json, run, stderr, stdout};
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
    stdout(&net.conun(&["get", "airlines", dir.to_str().unwrap()]));
    std::fs::copy(dir.join("airlines-00000.parquet"), dir.join("airlines-00007.parquet")).unwrap();
    assert_fails(&net.conun(&["get", "airlines", dir.to_str().unwrap()]), 3, &["airlines-00007", "another version"]);

    assert_eq!(net.csv("select sum(value) as s from generate_series(1, 9)"), "s\n45\n", "by the coordinator itself");
    let mixed = "select * from flights f join generate_series(1, 9) g on f.month = g.value";
    assert_fails(&net.conun(&["sql", "-c", mixed]), 3, &["generate_series() (line 1, column 30)"]);

    stdout(&net.conun(&["rm", "airlines"]));
    assert_fails(&net.conun(&["show", "airlines"]), 3, &["airlines"]);
    assert_fails(&net.conun(&["sql", "-c", "select * from airlines"]), 3, &["airlines"]);
    assert_fails(&net.conun(&["sql", "-c", "select random() from flights"]), 3, &["random"]);
    assert_fails(&net.conun(&["sql", "-c", "create table x as select 1"]), 3, &["only queries", "CREATE"]);
    assert_fails(&net.conun(&["job", "show", "ffff"]), 3, &["ffff"]);
}

#[test]
fn known_answers_say_whose_they_are() {
    let net = Devnet::up(&["--nodes", "3", "--cache", "8MiB"]);
    net.put_flights(&[]);
    (0..2).for_each(|_| _ = net.csv(NYCFLIGHTS13[1].sql));
    let job = net.last_job();
    let (id, computed) = (job["id"].as_str().unwrap(), job["cached"].as_str().unwrap());
    assert_fails(&net.conun(&["job", "verify", id]), 3, &["no receipts", computed]);
    assert!(stdout(&net.conun(&["job", "verify", computed])).contains("all hashes and signatures are good"));
    let footer = stderr(&net.conun(&["sql", "-c", NYCFLIGHTS13[1].sql]));
    assert!(footer.contains(&format!("known from job {computed}")), "{footer}");
    assert_fails(&net.conun(&["job", "verify", "./nothing.json"]), 3, &["no file or folder"]);
}

/// Every kind of join without an equality, and NOT IN, between a table of one shard and one of many: joins that remember
/// their left side must not be cut into tasks.
#[test]
fn joins_that_remember_a_side_answer_as_one_process_does() {
    let net = Devnet::up(&["--nodes", "3"]);
    net.put_flights(&[]);
    let on = "f.flight between length(a.name) * 300 and length(a.name) * 300 + 1";
    for sql in [
        format!(
            "select a.carrier, count(*) as n, count(f.flight) as m from airlines a left join flights f on {on} group by 1 order by 1"
        ),
        format!(
            "select count(*) as n, count(a.carrier) as m, count(f.flight) as k from airlines a full join flights f on {on}"
        ),
        format!("select a.carrier from airlines a where exists (select 1 from flights f where {on}) order by 1"),
        format!("select a.carrier from airlines a where not exists (select 1 from flights f where {on}) order by 1"),
        format!(
            "select a.carrier from airlines a where a.carrier = 'AA' or exists (select 1 from flights f where {on}) order by 1"
        ),
        format!("select a.carrier, count(*) as n from flights f right join airlines a on {on} group by 1 order by 1"),
        "select count(*) as n from airlines a where a.carrier not in (select carrier from flights where month = 1)".into(),
        "select count(*) as n from airlines a where a.carrier not in (select tailnum from flights)".into(),
        "select count(*) as n from airlines a where a.carrier not in (select tailnum from flights where tailnum is not null)".into(),
    ] {
        let files = ["airlines", "flights"].map(|table| {
            format!("create external table {table} stored as parquet location '{}'", flights(table).display())
        });
        let local = run(&["sql", "--local", "--format", "csv", "-c", &files[0], "-c", &files[1], "-c", &sql]);
        assert_eq!(net.csv(&sql), stdout(&local), "{sql}");
    }
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
fn everything_is_there_after_a_restart_even_without_the_coordinators_folder() {
    let mut net = Devnet::up(&[]);
    net.put_flights(&[]);
    net.csv(NYCFLIGHTS13[0].sql);
    let job = net.last_job()["id"].clone();
    net.down();
    net.start(&[]);
    assert_eq!(net.last_job()["id"], job, "jobs are kept");
    // Also what has run for a while when the coordinator is killed.
    let mut running = spawn(&net.url, "select count(*) from flights a join flights b on a.distance < b.distance");
    let begun = |job: &serde_json::Value| job["seconds"].as_f64().is_some_and(|seconds| seconds > 1.5);
    while !begun(&net.last_job()) {
        std::thread::sleep(Duration::from_millis(50));
    }
    net.kill_coordinator();
    running.wait().unwrap();
    net.down();
    net.start(&[]);
    let interrupted = net.last_job();
    assert_ne!(interrupted["id"], job);
    assert_eq!(interrupted["state"], "failed");
    assert_eq!(interrupted["error"]["message"], "the coordinator stopped while it ran");
    check_all_queries(&net);
    net.down();
    std::fs::remove_dir_all(net.dir.join("coordinator")).unwrap();
    net.start(&[]);
    check_all_queries(&net);
}

#[test]
fn four_jobs_at_once_of_two_coordinators_are_right() {
    let net = Devnet::up(&["--coordinators", "2"]);
    let second = net.status()["coordinators"][1]["url"].as_str().unwrap().to_owned();
    net.put_flights(&[]);
    net.put_flights(&["--connect", &second]);
    for cases in NYCFLIGHTS13.chunks(2) {
        let asked = cases.iter().flat_map(|case| [(case, &net.url), (case, &second)]);
        let running: Vec<_> = asked.map(|(case, url)| (case, spawn(url, case.sql))).collect();
        for (case, child) in running {
            let answer = stdout(&child.wait_with_output().unwrap());
            assert_eq!(case.check_csv(&answer), Ok(()), "{}", case.name);
        }
    }
}

/// `conun sql` over the coordinator at `url`, running.
fn spawn(url: &str, sql: &str) -> Child {
    let mut command = conun();
    command.args(["sql", "-q", "--format", "csv", "--connect", url, "-c", sql]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_query_survives_two_deaths_at_any_moment() {
    for (delay, victims) in [(0, [0, 1]), (60, [2, 3]), (150, [1, 4])] {
        let net = Devnet::up(&[]);
        net.put_flights(&[]);
        let case = &NYCFLIGHTS13[1];
        let running = spawn(&net.url, case.sql);
        std::thread::sleep(Duration::from_millis(delay));
        victims.iter().for_each(|node| net.kill_node(*node));
        assert_eq!(case.check_csv(&stdout(&running.wait_with_output().unwrap())), Ok(()), "after {delay} ms");
        check_all_queries(&net);
    }
}

#[test]
fn a_job_that_needs_more_memory_than_is_lent_says_so() {
    let net = Devnet::up(&["--nodes", "3", "--memory", "256MiB"]);
    net.put_flights(&[]);
    let sql = "select median(f.distance) from flights f cross join airlines a \
               cross join (select name from airlines limit 8) b";
    let failed = net.conun(&["sql", "-q", "-c", sql]);
    assert_fails(&failed, 3, &["memory exceeded", "256 MiB"]);
    assert!(stderr(&failed).contains("--memory"), "a hint: {}", stderr(&failed));
    assert!(net.last_job()["liars"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(net.csv("select count(*) as n from airlines"), "n\n16\n", "the nodes are well");
}

#[test]
fn a_running_job_is_cancelled_from_elsewhere() {
    let net = Devnet::up(&["--nodes", "2", "--liar", "0=stall", "--liar", "1=stall"]);
    let path = flights("airlines");
    stdout(&net.conun(&["put", "airlines", path.to_str().unwrap()]));
    let running = spawn(&net.url, "select count(*) from airlines");
    let id = loop {
        let jobs = json(&net.conun(&["job", "ls", "--json"]));
        match jobs["jobs"][0]["state"].as_str() {
            Some("running") => break jobs["jobs"][0]["id"].as_str().unwrap().to_owned(),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    stdout(&net.conun(&["job", "cancel", &id]));
    assert_fails(&running.wait_with_output().unwrap(), 4, &["cancelled"]);
    assert_eq!(json(&net.conun(&["job", "show", &id, "--json"]))["state"], "cancelled");
    assert_fails(&net.conun(&["job", "cancel", &id]), 3, &["has ended"]);
}

#[test]
fn pins_keep_blocks_and_are_listed_without_a_coordinator() {
    let net = Devnet::up(&["--nodes", "2"]);
    let path = flights("airlines");
    stdout(&net.conun(&["put", "airlines", path.to_str().unwrap()]));
    let manifest = json(&net.conun(&["show", "airlines", "--json"]))["manifest"].as_str().unwrap().to_owned();
    stdout(&net.conun(&["pin", &manifest]));
    assert!(stdout(&net.conun(&["pins"])).contains(&manifest));
    let node = net.dir.join("node-0");
    assert_fails(&run(&["pins", "--dir", node.to_str().unwrap()]), 2, &["in use"]);
    net.down();
    assert!(stdout(&run(&["pins", "--dir", node.to_str().unwrap()])).contains(&manifest));
}

#[test]
fn a_coordinator_with_a_token_asks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let net = dir.path().to_str().unwrap();
    let up = ["devnet", "up", "--detach", "--json", "--nodes", "2", "--port", "0", "--dir", net];
    let report = json(&conun().env("CONUN_TOKEN", "secret").args(up).output().unwrap());
    let url = report["coordinator"]["url"].as_str().unwrap();
    let ask = |token: Option<&str>| {
        let mut command = conun();
        token.map(|token| command.env("CONUN_TOKEN", token));
        command.args(["tables", "--connect", url]).output().unwrap()
    };
    assert_fails(&ask(None), 2, &["token"]);
    assert_fails(&ask(Some("guess")), 2, &["token"]);
    stdout(&ask(Some("secret")));
    stdout(&run(&["devnet", "down", "--dir", net]));
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
