//! Transcripts that nobody's network made: whoever has keys can write any. What is checked of them, and what a folder of
//! evidence from a stranger can do.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::common::{assert_fails, conun, json, run, stdout};
use conun_engine::{ReceiptRecord, Transcript};
use conun_executor::{MemoryInputs, encode_plan, run_task, session_config};
use conun_types::{
    AccountId, Amount, Cid, JobId, NodeKey, OsRng, OutputBlock, SignedOrder, SignedReceipt, TaskEnvelope, TaskOrder,
    TaskReceipt, WorkUnits, codec,
    eip712::Domain,
    hex32, profile,
    task::{output_volume, outputs_root},
};
use datafusion::{
    arrow::array::{ArrayRef, Int64Array, RecordBatch},
    datasource::MemTable,
    prelude::SessionContext,
};
use serde_json::{Value, json};

const JOB: JobId = JobId([7; 16]);
const MOST: &str = "select max(v) as m from t where v > 3";

/// A job that never was: each of its tasks has two honest nodes and a liar.
struct Scene {
    coordinator: NodeKey,
    nodes: [NodeKey; 3],
    receipts: Vec<ReceiptRecord>,
    envelopes: Vec<Vec<u8>>,
    _root: tempfile::TempDir,
    dir: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("case");
        let key = || NodeKey::generate(&OsRng);
        let (receipts, envelopes) = Default::default();
        Self { coordinator: key(), nodes: [key(), key(), key()], receipts, envelopes, _root: root, dir }
    }

    /// A folder of one task that is as it should be.
    fn honest() -> Self {
        let mut scene = Self::new();
        scene.task(MOST, |_| {});
        scene.write();
        scene
    }

    /// Adds a task whose envelope is changed by `bend`. Where it cannot be run, the honest ones claim that it gives nothing.
    fn task(&mut self, sql: &str, bend: impl FnOnce(&mut TaskEnvelope)) {
        let mut envelope = envelope(sql, self.envelopes.len() as u32);
        bend(&mut envelope);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let made = runtime.block_on(run_task(&envelope, Arc::new(MemoryInputs::default())));
        let empty = OutputBlock { partition: 0, cid: Cid::raw(b"nothing"), rows: 0, bytes: 0 };
        let honest = made.map_or(vec![empty], |made| made.blocks.iter().map(|(block, _)| *block).collect());
        let mut lie = honest.clone();
        lie[0].cid = Cid::raw(b"lie");
        let bytes = codec::encode(&envelope).unwrap();
        for (node, outputs, accepted) in [(0, &honest, true), (1, &honest, true), (2, &lie, false)] {
            let record = self.record(&envelope, Cid::raw(&bytes), node, outputs, accepted);
            self.receipts.push(record);
        }
        self.envelopes.push(bytes);
    }

    fn record(
        &self,
        envelope: &TaskEnvelope,
        task_cid: Cid,
        node: usize,
        outputs: &[OutputBlock],
        accepted: bool,
    ) -> ReceiptRecord {
        let (node, domain) = (&self.nodes[node], Domain::default());
        let order = TaskOrder {
            account: AccountId::default(),
            job: JOB,
            task_cid,
            provider: node.id(),
            nonce: 1,
            price: Amount::ZERO,
            deadline: 9,
        };
        let volume = output_volume(outputs);
        let receipt = TaskReceipt {
            order_hash: order.struct_hash().unwrap(),
            provider: node.address(),
            profile: envelope.profile,
            inputs_root: envelope.inputs_root(),
            outputs_root: outputs_root(outputs),
            rows: volume.rows,
            bytes: volume.bytes,
            units: WorkUnits(1),
        };
        ReceiptRecord {
            stage: envelope.stage,
            task: envelope.task,
            task_cid,
            node: node.id(),
            accepted,
            order: SignedOrder::sign(order, &domain, &self.coordinator).unwrap(),
            receipt: SignedReceipt::sign(receipt, &domain, node),
            outputs: outputs.to_vec(),
        }
    }

    fn write(&self) {
        let (receipts, liars) = (self.receipts.clone(), vec![self.nodes[2].id()]);
        let transcript = Transcript { job: JOB, domain: Domain::default(), liars, receipts, seal: None };
        let sealed = transcript.sealed(&self.coordinator).unwrap();
        std::fs::create_dir_all(self.dir.join("blocks")).unwrap();
        std::fs::write(self.transcript(), serde_json::to_vec(&sealed).unwrap()).unwrap();
        self.envelopes.iter().for_each(|bytes| std::fs::write(self.block(bytes), bytes).unwrap());
    }

    fn transcript(&self) -> PathBuf {
        self.dir.join("transcript.json")
    }

    fn block(&self, bytes: &[u8]) -> PathBuf {
        self.dir.join("blocks").join(Cid::raw(bytes).to_string())
    }

    fn run(&self, command: &str, args: &[&str]) -> std::process::Output {
        run(&[&["job", command, self.dir.to_str().unwrap()], args].concat())
    }

    fn verify(&self, args: &[&str]) -> std::process::Output {
        self.run("verify", &[&["--offline", "--json"], args].concat())
    }
}

fn envelope(sql: &str, task: u32) -> TaskEnvelope {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let plan = runtime.block_on(async {
        let context = SessionContext::new_with_config(session_config().with_target_partitions(1));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
        let batch = RecordBatch::try_from_iter([("v", values)]).unwrap();
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
        context.register_table("t", Arc::new(table)).unwrap();
        context.sql(sql).await.unwrap().create_physical_plan().await.unwrap()
    });
    TaskEnvelope::new(JOB, 1, task, encode_plan(&plan).unwrap())
}

/// What a report says of an exit code other than 0.
fn report(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `right` of each claim, the accepted one first.
fn right(dispute: &Value) -> Vec<&Value> {
    dispute["claims"].as_array().unwrap().iter().map(|claim| &claim["right"]).collect()
}

#[test]
fn what_is_made_up_holds_until_somebody_says_whom_they_expect() {
    let scene = Scene::honest();
    let (id, address) = (scene.coordinator.id().to_string(), scene.coordinator.address().to_string());
    let unnamed = json(&scene.verify(&[]));
    assert_eq!((&unnamed["coordinator"], &unnamed["expected"]), (&json!(id), &json!(false)));
    assert!(stdout(&scene.run("verify", &["--offline"])).contains("--coordinator"), "people are told");
    for named in [&id, &address] {
        assert_eq!(json(&scene.verify(&["--coordinator", named]))["expected"], true);
    }
    let other = NodeKey::generate(&OsRng);
    for named in [other.id().to_string(), other.address().to_string()] {
        assert_fails(&scene.verify(&["--coordinator", &named]), 6, &["ordered by", &id, &address, &named]);
    }
    assert_eq!(scene.verify(&["--coordinator", "somebody"]).status.code(), Some(2));
}

#[test]
fn who_signed_is_right_even_where_the_list_was_taken_out() {
    let mut scene = Scene::new();
    scene.task(MOST, |_| {});
    scene.task("select v + 1 as w from t", |_| {});
    // Of the first task nobody's list is left, of the second one of the honest ones has none.
    scene.receipts[..4].iter_mut().for_each(|record| record.outputs.clear());
    scene.write();
    let report = json(&scene.verify(&[]));
    for (at, listed) in [(0, false), (1, true)] {
        let dispute = &report["disputes"][at];
        assert_eq!(right(dispute), [true, false], "{report}");
        let claims = dispute["claims"].as_array().unwrap();
        assert!(claims.iter().all(|claim| claim["listed"] == listed), "{report}");
        assert_eq!(claims[1]["place"].is_object(), listed, "{report}");
    }
    assert!(stdout(&scene.run("verify", &["--offline"])).contains("wrong: its blocks are not listed"));
    let told = json(&scene.run("trace", &["--task", "1.0", "--json"]));
    std::fs::write(scene.dir.join("mine.json"), serde_json::to_vec(&told).unwrap()).unwrap();
    let mine = scene.dir.join("mine.json").to_str().unwrap().to_owned();
    assert_eq!(json(&scene.run("dispute", &[&mine, &mine, "--task", "1.0", "--json"]))["right"], Value::Null);
}

#[test]
fn a_task_that_cannot_be_run_holds_up_no_other() {
    let mut scene = Scene::new();
    scene.task("select v / (v - v) as w from t", |_| {});
    scene.task(MOST, |_| {});
    scene.write();
    let output = scene.verify(&[]);
    assert_fails(&output, 3, &["stage 1, task 0", "Divide by zero"]);
    let told = report(&output);
    assert_eq!((&told["ok"], &told["skipped"]), (&json!(false), &json!(1)), "{told}");
    assert!(told["disputes"][0]["skipped"].as_str().unwrap().contains("Divide by zero"), "{told}");
    assert_eq!(
        (right(&told["disputes"][0]), right(&told["disputes"][1])),
        (vec![&Value::Null, &Value::Null], vec![&json!(true), &json!(false)])
    );

    // What does not hold outweighs what cannot be done.
    scene.task(MOST, |envelope| envelope.plan = vec![9]);
    for record in &mut scene.receipts[3..6] {
        record.accepted = !record.accepted;
    }
    scene.write();
    let output = scene.verify(&[]);
    assert_fails(&output, 6, &["stage 1, task 1", "accepted is wrong", "(and 2 more)"]);
    let told = report(&output);
    assert_eq!(right(&told["disputes"][1]), [false, true], "{told}");
    assert!(told["disputes"][1]["wrong"].is_string() && told["disputes"][2]["wrong"].is_string(), "{told}");
    assert_eq!(told["skipped"], 2, "{told}");
}

#[test]
fn tasks_of_another_profile_are_refused_by_name() {
    let mut scene = Scene::new();
    scene.task(MOST, |envelope| envelope.profile = [3; 32]);
    scene.write();
    let (theirs, ours) = (hex32::text(&[3; 32]), hex32::text(&profile::hash()));
    let words = [theirs.as_str(), &ours, profile::NAME];
    let output = scene.verify(&[]);
    assert_fails(&output, 3, &words);
    assert!(report(&output)["disputes"][0]["skipped"].as_str().unwrap().contains(&theirs));
    assert_fails(&scene.run("trace", &["--json"]), 3, &words);
    assert_fails(&scene.run("dispute", &["none.json", "none.json"]), 3, &words);
}

#[test]
fn the_operators_of_a_trace_have_their_names() {
    let scene = Scene::honest();
    let told = json(&scene.run("trace", &["--json"]));
    let names: Vec<_> = told["operators"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(names.contains(&"AggregateExec") && names.contains(&"FilterExec"), "{told}");
}

#[test]
fn nothing_but_plain_files_is_read_of_a_strangers_folder() {
    let link = |from: &Path, to: &Path| {
        std::fs::rename(from, to).unwrap();
        std::os::unix::fs::symlink(to, from).unwrap();
    };
    let scene = Scene::honest();
    let envelope = scene.block(&scene.envelopes[0]);
    link(&envelope, &scene.dir.join("elsewhere"));
    assert_fails(&scene.verify(&[]), 6, &["is no plain file"]);
    std::fs::remove_file(&envelope).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&envelope).status().unwrap().success());
    assert_fails(&scene.verify(&[]), 6, &["is no plain file"]);

    let scene = Scene::honest();
    link(&scene.transcript(), &scene.dir.join("elsewhere"));
    assert_fails(&scene.verify(&[]), 3, &["is no plain file"]);
    let scene = Scene::honest();
    link(&scene.dir.join("blocks"), &scene.dir.join("elsewhere"));
    assert_fails(&scene.verify(&[]), 3, &["is no folder"]);
    assert_fails(&scene.run("trace", &[]), 3, &["is no folder"]);
}

#[test]
fn what_a_user_names_is_read_within_bounds() {
    assert_fails(&run(&["job", "verify", "/dev/zero", "--offline"]), 3, &["too large"]);
}

#[test]
fn the_exit_code_is_that_of_the_outcome_also_where_nobody_reads_it() {
    let honest = Scene::honest();
    let mut failing = Scene::new();
    failing.task("select v / (v - v) as w from t", |_| {});
    failing.write();
    for (scene, code) in [(&honest, 0), (&failing, 3)] {
        for json in [&[][..], &["--json"]] {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut verify = conun();
            verify.args(["job", "verify", "--offline", scene.dir.to_str().unwrap()]).args(json).stdout(writer);
            assert_eq!(verify.output().unwrap().status.code(), Some(code), "{json:?}");
        }
    }
}
