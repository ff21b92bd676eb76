//! The runner as a real child process: answers, cancellation, death, garbage.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::common::{Shards, envelope, plan};
use async_trait::async_trait;
use bytes::Bytes;
use conun_executor::{
    MemoryInputs,
    referee::Question,
    run_task,
    runner::{InputSource, RunnerConfig, RunnerPool},
    trace::record,
};
use conun_types::{Cid, Failure, OutputSpec, TaskEnvelope, codec};
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};

struct Inputs {
    blocks: HashMap<Cid, Bytes>,
    asked: std::sync::Mutex<Vec<Cid>>,
}

#[async_trait]
impl InputSource for Inputs {
    fn may_reuse(&self, _: &Cid) -> bool {
        true
    }

    async fn load(&self, cid: Cid) -> Result<Bytes, Failure> {
        self.asked.lock().unwrap().push(cid);
        self.blocks.get(&cid).cloned().ok_or(Failure::InputMissing(cid))
    }
}

/// Never answers.
struct Stuck;

#[async_trait]
impl InputSource for Stuck {
    fn may_reuse(&self, _: &Cid) -> bool {
        true
    }

    async fn load(&self, _: Cid) -> Result<Bytes, Failure> {
        std::future::pending().await
    }
}

fn pool(command: &str, args: &[&str]) -> RunnerPool {
    let args = args.iter().map(Into::into).collect();
    RunnerPool::new(RunnerConfig { command: command.into(), args, max: 1 })
}

fn runner() -> RunnerPool {
    pool(env!("CARGO_BIN_EXE_conun-test-runner"), &[])
}

async fn task(sql: &str) -> (TaskEnvelope, Bytes, Inputs) {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
    let table = Shards::new(&[RecordBatch::try_from_iter([("v", values)]).unwrap()]);
    let (plan, table) = plan(sql, table).await;
    let envelope = envelope(&plan, OutputSpec::Passthrough, table.inputs());
    let bytes = codec::encode(&envelope).unwrap().into();
    (envelope, bytes, Inputs { blocks: table.by_cid(), asked: Default::default() })
}

const SUM: &str = "select v % 7 k, sum(v) from t group by 1 order by 1";

#[tokio::test]
async fn answers_as_in_process_and_asks_for_an_input_once() {
    let (envelope, bytes, inputs) = task(SUM).await;
    let pool = runner();
    pool.warm().unwrap();
    let expected = run_task(&envelope, Arc::new(MemoryInputs::new(inputs.blocks.values().cloned()))).await.unwrap();
    for _ in 0..3 {
        let output = pool.run(&envelope, &bytes, &inputs).await.unwrap();
        assert_eq!(output.blocks, expected.blocks);
    }
    assert_eq!(inputs.asked.lock().unwrap().len(), 1, "a warm runner keeps verified inputs");
    let started = std::time::Instant::now();
    for _ in 0..20 {
        pool.run(&envelope, &bytes, &inputs).await.unwrap();
    }
    eprintln!("a tiny task over a warm runner: {:?}", started.elapsed() / 20);
}

#[tokio::test]
async fn failures_come_through_and_the_runner_goes_on() {
    let (envelope, bytes, inputs) = task("select v / (v - v) from t").await;
    let pool = runner();
    let failed = pool.run(&envelope, &bytes, &inputs).await.unwrap_err();
    assert_eq!(failed, Failure::Query("Divide by zero error".into()));
    let empty = Inputs { blocks: HashMap::new(), asked: Default::default() };
    let (other, other_bytes, _) = task("select max(v) from t").await;
    // The shard is cached by now: what is missing must be another.
    let (mut unknown, _, _) = task(SUM).await;
    unknown.plan = vec![9];
    let unknown_bytes = codec::encode(&unknown).unwrap().into();
    assert!(matches!(pool.run(&unknown, &unknown_bytes, &empty).await, Err(Failure::Refused(_))));
    assert!(pool.run(&other, &other_bytes, &empty).await.is_ok());
    let missing = runner().run(&other, &other_bytes, &empty).await.unwrap_err();
    assert_eq!(missing, Failure::InputMissing(other.shards[0].cid));
}

#[tokio::test]
async fn wrong_bytes_are_not_used() {
    let (envelope, bytes, mut inputs) = task(SUM).await;
    for block in inputs.blocks.values_mut() {
        *block = Bytes::from_static(b"forged");
    }
    let failed = runner().run(&envelope, &bytes, &inputs).await.unwrap_err();
    assert!(matches!(failed, Failure::Node(_)), "{failed}");
}

#[tokio::test]
async fn dropping_a_task_kills_its_runner_and_the_next_gets_a_fresh_one() {
    let (envelope, bytes, inputs) = task(SUM).await;
    let pool = runner();
    let cancelled = tokio::time::timeout(Duration::from_millis(300), pool.run(&envelope, &bytes, &Stuck)).await;
    assert!(cancelled.is_err());
    assert!(pool.run(&envelope, &bytes, &inputs).await.is_ok());
}

/// A pool whose child writes its process id into a file, and how to read it.
fn observed(folder: &tempfile::TempDir) -> (RunnerPool, impl Fn() -> u32 + use<>) {
    let file = folder.path().join("pid");
    let script = format!("echo $$ > {}; exec {}", file.display(), env!("CARGO_BIN_EXE_conun-test-runner"));
    (pool("/bin/sh", &["-c", &script]), move || std::fs::read_to_string(&file).unwrap().trim().parse().unwrap())
}

/// Whether the process is gone, and its exit was collected.
async fn is_reaped(pid: u32) -> bool {
    for _ in 0..100 {
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Kills the runner that asks, then answers.
struct Killer<'a>(&'a (dyn Fn() -> u32 + Sync), Inputs);

#[async_trait]
impl InputSource for Killer<'_> {
    fn may_reuse(&self, _: &Cid) -> bool {
        true
    }

    async fn load(&self, cid: Cid) -> Result<Bytes, Failure> {
        let killed = std::process::Command::new("kill").args(["-9", &self.0().to_string()]).status().unwrap();
        assert!(killed.success());
        self.1.load(cid).await
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn killed_runners_are_reaped_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (envelope, bytes, inputs) = task(SUM).await;
    let (pool, pid) = observed(&folder);
    let cancelled = tokio::time::timeout(Duration::from_secs(2), pool.run(&envelope, &bytes, &Stuck)).await;
    assert!(cancelled.is_err());
    assert!(is_reaped(pid()).await, "cancelling ends the process");
    let killed = pool.run(&envelope, &bytes, &Killer(&pid, inputs)).await.unwrap_err();
    assert!(matches!(killed, Failure::Node(_)), "{killed}");
    assert!(is_reaped(pid()).await);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_runner_can_neither_write_files_nor_start_processes() {
    let folder = tempfile::tempdir().unwrap();
    let (envelope, bytes, inputs) = task(SUM).await;
    let (pool, pid) = observed(&folder);
    pool.run(&envelope, &bytes, &inputs).await.unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid())).unwrap();
    for name in ["Max file size", "Max processes", "Max core file size"] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let values: Vec<_> = line[name.len()..].split_whitespace().take(2).collect();
        assert_eq!(values, ["0", "0"], "{line}");
    }
    let environment = std::fs::read(format!("/proc/{}/environ", pid())).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("HOME="), "nothing of our environment");
}

#[tokio::test]
async fn children_that_die_or_talk_nonsense_are_a_node_failure() {
    let (envelope, bytes, inputs) = task(SUM).await;
    let cases: [(&str, &[&str]); 5] = [
        ("/bin/false", &[]),
        ("/bin/echo", &["hello, this is not a frame at all, is it?"]),
        ("/bin/sh", &["-c", "exec cat"]),
        ("/bin/sh", &["-c", "kill -9 $$"]),
        ("/nonexistent/conun", &[]),
    ];
    for (command, args) in cases {
        let run = pool(command, args);
        let failed = tokio::time::timeout(Duration::from_secs(10), run.run(&envelope, &bytes, &inputs)).await;
        let failed = failed.expect("it never hangs").unwrap_err();
        assert!(matches!(failed, Failure::Node(_)), "{command}: {failed}");
    }
    let aborted = pool("/bin/sh", &["-c", "echo 'memory allocation of 99 bytes failed' >&2; kill -6 $$"]);
    assert_eq!(aborted.run(&envelope, &bytes, &inputs).await.unwrap_err(), Failure::MemoryExceeded);
}

#[tokio::test]
async fn a_child_ends_when_its_parent_does() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_conun-test-runner"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdin.take());
    for _ in 0..100 {
        if child.try_wait().unwrap().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("the runner outlived its parent");
}

#[tokio::test]
async fn a_runner_traces_and_names_the_operators() {
    let (envelope, bytes, inputs) = task(SUM).await;
    let (output, trace) = record(&envelope, memory(&inputs)).await.unwrap();
    let traced = runner().trace(&envelope, &bytes, &inputs).await.unwrap();
    assert_eq!((traced.output.blocks, &traced.trace), (output.blocks, &trace));
    assert_eq!(traced.operators.len(), trace.operators.len());
    assert!(traced.operators.iter().any(|name| name == "AggregateExec"), "{:?}", traced.operators);
    let named = trace.operators.iter().flat_map(|o| &o.partitions).flat_map(|p| &p.batches);
    assert!(named.into_iter().all(|cid| traced.batches.contains_key(cid)), "all batches come with it");
}

fn memory(inputs: &Inputs) -> Arc<MemoryInputs> {
    Arc::new(MemoryInputs::new(inputs.blocks.values().cloned()))
}

#[tokio::test]
async fn whatever_a_runner_is_asked_has_an_end() {
    let (envelope, bytes, inputs) = task(SUM).await;
    let (output, honest) = record(&envelope, memory(&inputs)).await.unwrap();
    let votes: Vec<_> = output.blocks.iter().map(|(block, _)| *block).collect();
    let mut lie = (votes.clone(), honest.clone());
    lie.0[0].rows += 1;
    // The leaf differs, which is what reads the input that never comes.
    let leaf = lie.1.operators.last_mut().unwrap();
    leaf.partitions[0].batches[0] = Cid::raw(b"lie");
    let question = Question { envelope: envelope.clone(), votes: [votes, lie.0], traces: [Some(honest), Some(lie.1)] };
    let most = Duration::from_millis(300);
    let pool = runner().within(most);
    let outcomes = async {
        let ran = pool.run(&envelope, &bytes, &Stuck).await.err();
        let traced = pool.trace(&envelope, &bytes, &Stuck).await.err();
        [ran, traced, pool.decide(&question, &Stuck).await.err()]
    };
    let outcomes = tokio::time::timeout(Duration::from_secs(20), outcomes).await.expect("it never hangs");
    let late = Some(Failure::Node(format!("it takes longer than {most:?}")));
    assert_eq!(outcomes, [late.clone(), late.clone(), late]);
    assert!(runner().decide(&question, &inputs).await.is_ok(), "with its input it is decided");
}

/// Fails with what a terminal would obey.
struct Rude;

#[async_trait]
impl InputSource for Rude {
    fn may_reuse(&self, _: &Cid) -> bool {
        true
    }

    async fn load(&self, _: Cid) -> Result<Bytes, Failure> {
        Err(Failure::Node("\u{1b}[2J".into()))
    }
}

#[tokio::test]
async fn nothing_that_a_terminal_obeys_comes_out_of_a_runner() {
    let (envelope, bytes, inputs) = task("select cast(concat('\u{1b}[2J', v) as bigint) from t").await;
    let failed = runner().run(&envelope, &bytes, &inputs).await.unwrap_err();
    assert!(matches!(&failed, Failure::Query(why) if why.contains("' [2J0'")), "{failed:?}");

    let dies = pool("/bin/sh", &["-c", "printf '\\033[2J\\n' >&2; kill -9 $$"]);
    let failed = dies.run(&envelope, &bytes, &inputs).await.unwrap_err();
    assert_eq!(failed, Failure::Node("the runner died:  [2J".into()));

    let (envelope, _, inputs) = task(SUM).await;
    let (output, honest) = record(&envelope, memory(&inputs)).await.unwrap();
    let votes: Vec<_> = output.blocks.iter().map(|(block, _)| *block).collect();
    let mut lie = votes.clone();
    lie[0].rows += 1;
    let question = Question { envelope, votes: [votes, lie], traces: [Some(honest.clone()), Some(honest)] };
    let ruling = runner().decide(&question, &Rude).await.unwrap();
    assert!(ruling.why.contains("stays open") && ruling.why.contains(" [2J"), "{ruling:?}");
    assert!(!ruling.why.contains(char::is_control), "{ruling:?}");
}
