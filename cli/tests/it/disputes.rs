//! Disputes from evidence on disk: the network that made it is gone.

use std::path::{Path, PathBuf};

use crate::common::{Devnet, assert_fails, flights, json, run, stderr, stdout};
use serde_json::{Value, json};

const QUERY: &str = "select a.name, count(*) as n, sum(f.distance) as miles from flights f \
                     join airlines a on f.carrier = a.carrier group by a.name order by a.name";

fn put(net: &Devnet) {
    for table in ["airlines", "flights"] {
        stdout(&net.conun(&["put", table, flights(table).to_str().unwrap(), "--shard-size", "1MiB"]));
    }
}

/// Evidence of `job`; the network ends.
fn evidence(net: &Devnet, job: &Value) -> PathBuf {
    let dir = net.dir.join("evidence");
    let saved = json(&net.conun(&["job", "evidence", job["id"].as_str().unwrap(), text(&dir), "--json"]));
    assert!(saved["disputes"].as_u64() > Some(0) && saved["blocks"].as_u64() > Some(2), "{saved}");
    net.down();
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn write(path: &Path, value: &Value) {
    std::fs::write(path, serde_json::to_vec(value).unwrap()).unwrap();
}

fn verify(dir: &Path) -> std::process::Output {
    run(&["job", "verify", text(dir), "--offline", "--json"])
}

/// The claim of a dispute that is right, or wrong.
fn claim(dispute: &Value, right: bool) -> &Value {
    dispute["claims"].as_array().unwrap().iter().find(|claim| claim["right"] == right).unwrap()
}

#[test]
fn a_liar_is_named_with_the_place_of_its_lie_when_the_network_is_gone() {
    let net = Devnet::up(&["--liar", "1=wrong-value"]);
    put(&net);
    let liar = net.node_id(1);
    let job = (0..20).find_map(|_| {
        net.csv(QUERY);
        Some(net.last_job()).filter(|job| job["liars"] == json!([liar]))
    });
    let dir = evidence(&net, &job.expect("the liar gets work"));

    let report = json(&verify(&dir));
    let dispute = &report["disputes"][0];
    let (right, wrong) = (claim(dispute, true), claim(dispute, false));
    assert_eq!((&right["accepted"], &wrong["nodes"]), (&json!(true), &json!([liar])), "{report}");
    let value = &wrong["place"]["value"];
    assert!(value["row"].is_u64() && value["said"] != value["is"], "the very value is named: {report}");
    let said = stdout(&run(&["job", "verify", text(&dir), "--offline"]));
    assert!(said.contains(&format!("{liar} wrong: writer (#0), block")), "{said}");

    narrowing(&dir, dispute, &liar);
    evidence_that_is_not_what_it_was_is_refused(&dir, dispute);
    tampered_transcripts_are_refused(&dir);
}

/// Traces as files: the referee finds the operator and the batch that one of them bends.
fn narrowing(dir: &Path, dispute: &Value, liar: &str) {
    let task = format!("{}.{}", dispute["stage"], dispute["task"]);
    let told = json(&run(&["job", "trace", text(dir), "--task", &task, "--json"]));
    let transcript = read(&dir.join("transcript.json"));
    let of_liar = |r: &&Value| r["node"] == liar && r["task_cid"] == dispute["task_cid"];
    let signed = transcript["receipts"].as_array().unwrap().iter().find(of_liar).unwrap()["outputs"].clone();
    let (honest, bent) = (dir.join("honest.json"), dir.join("bent.json"));
    write(&honest, &told);
    let decide = |bent_trace: &Value| {
        write(&bent, bent_trace);
        run(&["job", "dispute", text(dir), "--task", &task, text(&honest), text(&bent), "--json"])
    };
    assert_fails(&decide(&json!({ "task_cid": 1 })), 3, &["holds no trace"]);
    assert_eq!(json(&decide(&told))["right"], Value::Null, "two that say the same have no dispute");

    let mut lie = told.clone();
    lie["outputs"] = signed;
    let ruling = json(&decide(&lie));
    assert_eq!((&ruling["wrong"], &ruling["place"]["operator"]), (&json!([liar]), &json!(0)), "{ruling}");

    let operators = told["trace"]["operators"].as_array().unwrap().len();
    for number in 1..=operators {
        let mut lie = lie.clone();
        let partitions = lie["trace"]["operators"][number - 1]["partitions"].as_array_mut().unwrap();
        let Some(at) = partitions.iter().position(|p| !p["batches"].as_array().unwrap().is_empty()) else { continue };
        partitions[at]["batches"][0] = dispute["task_cid"].clone();
        let ruling = json(&decide(&lie));
        assert_eq!(ruling["wrong"], json!([liar]), "operator {number}: {ruling}");
        let place = (&ruling["place"]["operator"], &ruling["place"]["partition"], &ruling["place"]["batch"]);
        assert_eq!(place, (&json!(number), &json!(at), &json!(0)), "{ruling}");
        assert_eq!(ruling["place"]["name"], told["operators"][number - 1]);
    }

    let mut unsigned = told.clone();
    unsigned["outputs"][0]["rows"] = json!(7);
    assert_fails(&decide(&unsigned), 6, &["nobody signed"]);
    let mut foreign = told.clone();
    foreign["task_cid"] = told["outputs"][0]["cid"].clone();
    assert_fails(&decide(&foreign), 6, &["another task"]);
    assert_fails(&run(&["job", "trace", text(dir), "--task", "99.0"]), 2, &["not disputed"]);
}

fn evidence_that_is_not_what_it_was_is_refused(dir: &Path, dispute: &Value) {
    let envelope = dir.join("blocks").join(dispute["task_cid"].as_str().unwrap());
    let bytes = std::fs::read(&envelope).unwrap();
    let mut bent = bytes.clone();
    bent[40] ^= 1;
    std::fs::write(&envelope, bent).unwrap();
    assert_fails(&verify(dir), 6, &["evidence does not hold"]);
    std::fs::remove_file(&envelope).unwrap();
    let report = json(&verify(dir));
    let same = |d: &&Value| d["task_cid"] == dispute["task_cid"];
    let skipped = report["disputes"].as_array().unwrap().iter().find(same).unwrap()["skipped"].clone();
    assert!(
        skipped.as_str().unwrap().contains("not among the evidence"),
        "signatures are checked all the same: {report}"
    );
    std::fs::write(&envelope, bytes).unwrap();
}

fn tampered_transcripts_are_refused(dir: &Path) {
    let file = dir.join("transcript.json");
    let honest = read(&file);
    let dissent = honest["receipts"].as_array().unwrap().iter().position(|r| r["accepted"] == false).unwrap();
    type Change<'a> = Box<dyn Fn(&mut Value) + 'a>;
    let changes: Vec<(&str, Change<'_>)> = vec![
        ("a vote removed", Box::new(|t| drop(t["receipts"].as_array_mut().unwrap().remove(0)))),
        ("a dissenting vote removed", Box::new(|t| drop(t["receipts"].as_array_mut().unwrap().remove(dissent)))),
        ("another hash", Box::new(|t| t["receipts"][0]["outputs"][0]["cid"] = t["receipts"][0]["task_cid"].clone())),
        (
            "another signature",
            Box::new(|t| {
                t["receipts"][0]["receipt"]["signature"] = t["receipts"][1]["receipt"]["signature"].clone();
            }),
        ),
        ("a verdict turned", Box::new(|t| t["receipts"][dissent]["accepted"] = json!(true))),
        ("the liar cleared", Box::new(|t| t["liars"] = json!([]))),
        ("no seal", Box::new(|t| t["seal"] = Value::Null)),
    ];
    for (what, change) in changes {
        let mut changed = honest.clone();
        change(&mut changed);
        write(&file, &changed);
        let output = verify(dir);
        assert_eq!(output.status.code(), Some(6), "{what}: {}", stderr(&output));
    }
    let whole = serde_json::to_vec(&honest).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert_fails(&verify(dir), 3, &["holds no receipts"]);
    std::fs::write(&file, vec![b'['; 100_000]).unwrap();
    assert_fails(&verify(dir), 3, &["holds no receipts"]);
    std::fs::write(&file, whole).unwrap();
    json(&verify(dir));
}

#[test]
fn a_tie_is_broken_by_whoever_runs_the_task_again() {
    let net = Devnet::up(&["--nodes", "2", "--liar", "0=wrong-value"]);
    put(&net);
    assert_fails(&net.conun(&["sql", "-q", "-c", QUERY]), 6, &["different answers"]);
    let liar = net.node_id(0);
    let dir = evidence(&net, &net.last_job());
    let report = json(&verify(&dir));
    assert_eq!(report["open"], 1, "{report}");
    let dispute = &report["disputes"][0];
    assert_eq!(claim(dispute, false)["nodes"], json!([liar]), "{report}");
    assert_ne!(claim(dispute, true)["nodes"], json!([liar]), "{report}");
}
