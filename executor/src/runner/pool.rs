//! The parent's side: warm children, one task at a time each.

use std::{
    collections::HashMap,
    ffi::OsString,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{Cid, Error, Failure, OutputBlock, Result, TaskEnvelope, codec, task::MAX_BLOCKS};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Semaphore,
    task::JoinHandle,
};

use super::{
    frame::{self, Frame, FromRunner, PREFIX, ToRunner},
    words,
};
use crate::{
    TaskOutput, canonical,
    referee::{Question, Ruling},
    trace::{MAX_BATCHES, MOST_BATCH_BYTES, Trace, Traced},
};

/// Bytes of a child's standard error that are kept to explain its death.
const STDERR_TAIL: usize = 4096;
/// What Rust's allocator says before it aborts.
const OUT_OF_MEMORY: &str = "memory allocation of";

/// How children are started.
#[derive(Debug, Clone)]
pub struct RunnerConfig {
    /// The program, usually this one.
    pub command: PathBuf,
    /// Its arguments, usually `runner`.
    pub args: Vec<OsString>,
    /// Most children, hence tasks at once.
    pub max: usize,
}

/// Gives a task's inputs when its runner asks for them.
#[async_trait]
pub trait InputSource: Send + Sync {
    /// The bytes of `cid`; the runner checks them against the id.
    ///
    /// # Errors
    /// The failure that becomes the task's.
    async fn load(&self, cid: Cid) -> Result<Bytes, Failure>;

    /// Whether a runner that read `cid` for an earlier task may use it for this one: another coordinator's block may
    /// not be open to this task's.
    fn may_reuse(&self, cid: &Cid) -> bool;
}

/// Children that run tasks.
pub struct RunnerPool {
    config: RunnerConfig,
    slots: Semaphore,
    idle: Mutex<Vec<Runner>>,
    /// How long a child may take for one request.
    most_time: Option<Duration>,
}

impl RunnerPool {
    /// A pool; its children are started when they are needed.
    #[must_use]
    pub fn new(config: RunnerConfig) -> Self {
        let slots = Semaphore::new(config.max.max(1));
        Self { config, slots, idle: Mutex::default(), most_time: None }
    }

    /// The same pool, whose children are given up once they take longer than `most` for a request.
    #[must_use]
    pub fn within(self, most: Duration) -> Self {
        Self { most_time: Some(most), ..self }
    }

    /// Starts a child ahead of the first task.
    ///
    /// # Errors
    /// Kind `Internal` where the program cannot be started.
    pub fn warm(&self) -> Result<()> {
        let runner = Runner::start(&self.config)?;
        self.park(runner);
        Ok(())
    }

    /// Runs the task that `envelope` (whose bytes are `encoded`) describes, once a child is free. Dropping the future
    /// kills the child.
    ///
    /// # Errors
    /// The task's failure; [`Failure::Node`] where the child died, broke the protocol or took too long.
    pub async fn run(
        &self,
        envelope: &TaskEnvelope,
        encoded: &Bytes,
        inputs: &dyn InputSource,
    ) -> Result<TaskOutput, Failure> {
        let mut output = Collected::new(envelope.memory.bytes());
        let collect = |header, body| output.collect(header, body);
        self.ask(&ToRunner::Run, encoded, inputs, collect).await?;
        Ok(output.output)
    }

    /// As [`RunnerPool::run`], and tells what every operator gave; each batch is checked against its address, and they are
    /// taken up to [`MOST_BATCH_BYTES`].
    ///
    /// # Errors
    /// As [`RunnerPool::run`].
    pub async fn trace(
        &self,
        envelope: &TaskEnvelope,
        encoded: &Bytes,
        inputs: &dyn InputSource,
    ) -> Result<Traced, Failure> {
        let mut output = Collected::new(envelope.memory.bytes());
        let mut batches = Batches::new(MOST_BATCH_BYTES);
        let (mut operators, mut trace) = (Vec::new(), Trace::default());
        let collect = |header, body: Bytes| {
            match header {
                FromRunner::Batch(cid) => batches.push(cid, body)?,
                FromRunner::Traced => (operators, trace) = decode_trace(&body)?,
                header => return output.collect(header, body),
            }
            Ok(None)
        };
        self.ask(&ToRunner::Trace, encoded, inputs, collect).await?;
        Ok(Traced { output: output.output, operators, trace, batches: batches.blocks })
    }

    /// Has a child decide a dispute; `inputs` are asked for batches that the parties agree on, too.
    ///
    /// # Errors
    /// As [`crate::referee::decide`]; [`Failure::Node`] where the child died or broke the protocol.
    pub async fn decide(&self, question: &Question, inputs: &dyn InputSource) -> Result<Ruling, Failure> {
        let body = question.encode().map_err(|e| Failure::Node(e.message))?;
        let take = |header, body: Bytes| match header {
            FromRunner::Ruled => codec::decode(&body).map(|ruling| Some(words::ruling(ruling))),
            other => Err(unexpected(&other)),
        };
        self.ask(&ToRunner::Decide, &body, inputs, take).await
    }

    /// Sends a request to a child and takes its answers until `take` has what it waits for.
    async fn ask<T>(
        &self,
        request: &ToRunner,
        body: &[u8],
        inputs: &dyn InputSource,
        take: impl FnMut(FromRunner, Bytes) -> Result<Option<T>> + Send,
    ) -> Result<T, Failure> {
        let _slot = self.slots.acquire().await.map_err(|_| Failure::Node("the runners are shut down".into()))?;
        let mut runner = self.take()?;
        let asking = runner.ask(request, body, inputs, take);
        let asked = match self.most_time {
            None => asking.await,
            // The child is killed where it is dropped.
            Some(most) => match tokio::time::timeout(most, asking).await {
                Ok(asked) => asked,
                Err(_) => return Err(Failure::Node(format!("it takes longer than {most:?}"))),
            },
        };
        let outcome = match asked {
            Ok(outcome) => outcome,
            Err(broken) => return Err(runner.explain(broken).await),
        };
        // A child that blames itself is not used again.
        if !matches!(outcome, Err(Failure::Node(_))) {
            self.park(runner);
        }
        outcome
    }

    fn take(&self) -> Result<Runner, Failure> {
        loop {
            let parked = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match parked {
                None => return Runner::start(&self.config).map_err(|e| Failure::Node(e.message)),
                Some(mut runner) => {
                    if runner.is_alive() {
                        return Ok(runner);
                    }
                }
            }
        }
    }

    fn park(&self, runner: Runner) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(runner);
    }
}

/// One child. Dropping it kills it; Tokio reaps it.
struct Runner {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: JoinHandle<String>,
}

impl Runner {
    /// In its own process group: Ctrl-C in a terminal is the node's business, which ends its children itself.
    fn start(config: &RunnerConfig) -> Result<Self> {
        let mut child = Command::new(&config.command)
            .args(&config.args)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::internal(format!("cannot start a runner: {e}")))?;
        let taken = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let ((stdin, stdout), stderr) = taken.ok_or_else(|| Error::internal("a runner without streams"))?;
        let stderr = tokio::spawn(read_tail(stderr));
        Ok(Self { child, stdin, stdout: BufReader::new(stdout), stderr })
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The outer error means that the child cannot be used any more.
    async fn ask<T>(
        &mut self,
        request: &ToRunner,
        body: &[u8],
        inputs: &dyn InputSource,
        mut take: impl FnMut(FromRunner, Bytes) -> Result<Option<T>> + Send,
    ) -> Result<Result<T, Failure>> {
        self.send(request, body).await?;
        loop {
            let frame = self.receive().await?;
            match frame.header {
                FromRunner::Need(cid) => match inputs.load(cid).await {
                    Ok(bytes) => self.send(&ToRunner::Input(cid), &bytes).await?,
                    Err(failure) => self.send(&ToRunner::Missing(failure), &[]).await?,
                },
                FromRunner::Have(cid) => self.send(&ToRunner::Reuse(inputs.may_reuse(&cid)), &[]).await?,
                FromRunner::Failed(failure) => return Ok(Err(words::failure(failure))),
                header => {
                    if let Some(done) = take(header, frame.body)? {
                        return Ok(Ok(done));
                    }
                }
            }
        }
    }

    async fn send<T: Serialize>(&mut self, header: &T, body: &[u8]) -> Result<()> {
        let head = frame::head(header, body.len())?;
        self.stdin.write_all(&head).await?;
        self.stdin.write_all(body).await?;
        Ok(self.stdin.flush().await?)
    }

    async fn receive(&mut self) -> Result<Frame<FromRunner>> {
        let mut prefix = [0; PREFIX];
        self.stdout.read_exact(&mut prefix).await?;
        let (header, body) = frame::lengths(&prefix)?;
        let mut header = vec![0; header];
        self.stdout.read_exact(&mut header).await?;
        let mut body = vec![0; body];
        self.stdout.read_exact(&mut body).await?;
        Frame::decode(&header, body)
    }

    /// Kills and reaps the child, and tells from its last words what ended it.
    async fn explain(mut self, broken: Error) -> Failure {
        let killed = self.child.kill().await;
        let said = self.stderr.await.unwrap_or_default();
        if said.contains(OUT_OF_MEMORY) {
            return Failure::MemoryExceeded;
        }
        if let Err(error) = killed {
            tracing::warn!(%error, "a runner could not be killed");
        }
        let last = words::plain(said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default());
        tracing::warn!(%broken, stderr = %said.trim(), "a runner died");
        Failure::Node(if last.is_empty() { "the runner died".into() } else { format!("the runner died: {last}") })
    }
}

/// The last bytes that a child wrote to its standard error.
async fn read_tail(mut stderr: tokio::process::ChildStderr) -> String {
    let mut tail = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(read @ 1..) = stderr.read(&mut chunk).await {
        tail.extend_from_slice(&chunk[..read]);
        tail.drain(..tail.len().saturating_sub(STDERR_TAIL));
    }
    String::from_utf8_lossy(&tail).into_owned()
}

/// Blocks of a task as they arrive. A child ran a stranger's plan: what it says of a block is checked.
struct Collected {
    output: TaskOutput,
    budget: usize,
}

impl Collected {
    fn new(budget: usize) -> Self {
        Self { output: TaskOutput::default(), budget }
    }

    /// Takes a frame of the output; something where it was the last.
    fn collect(&mut self, header: FromRunner, body: Bytes) -> Result<Option<()>> {
        match header {
            FromRunner::Block(block) => self.push(block, body).map(|()| None),
            FromRunner::Done => Ok(Some(())),
            other => Err(unexpected(&other)),
        }
    }

    fn push(&mut self, block: OutputBlock, bytes: Bytes) -> Result<()> {
        let position = self.output.blocks.len();
        let left = self.budget.checked_sub(bytes.len()).filter(|_| position < MAX_BLOCKS);
        self.budget = left.ok_or_else(|| Error::data("more output than its memory class"))?;
        let described = block.partition as usize == position
            && block.bytes == bytes.len() as u64
            && block.cid == Cid::raw(&bytes)
            && canonical::row_count(&bytes)? == block.rows;
        if !described {
            return Err(Error::data("a block that is not as described"));
        }
        self.output.blocks.push((block, bytes));
        Ok(())
    }
}

/// Batches of a trace as they arrive, each checked against its address.
struct Batches {
    blocks: HashMap<Cid, Bytes>,
    budget: usize,
}

impl Batches {
    fn new(budget: usize) -> Self {
        Self { blocks: HashMap::new(), budget }
    }

    fn push(&mut self, cid: Cid, bytes: Bytes) -> Result<()> {
        let left = self.budget.checked_sub(bytes.len()).filter(|_| self.blocks.len() < MAX_BATCHES);
        self.budget = left.ok_or_else(|| Error::data("a trace of more batches than a task may have"))?;
        if !cid.matches(&bytes) || self.blocks.insert(cid, bytes).is_some() {
            return Err(Error::data("a batch that is not as described, or comes twice"));
        }
        Ok(())
    }
}

/// Longest name of an operator, in bytes.
const MAX_NAME: usize = 100;

/// Names of the operators and the trace. Whoever made them ran a stranger's plan: what people are going to read is looked at.
fn decode_trace(body: &[u8]) -> Result<(Vec<String>, Trace)> {
    let (operators, trace): (Vec<String>, Trace) = codec::decode(body)?;
    let is_name = |name: &String| name.len() <= MAX_NAME && name.bytes().all(|byte| byte.is_ascii_graphic());
    if operators.len() != trace.operators.len() || !operators.iter().all(is_name) {
        return Err(Error::data("a trace whose operators have no names"));
    }
    Ok((operators, trace))
}

fn unexpected(header: &FromRunner) -> Error {
    Error::data(format!("a runner said {header:?} out of turn"))
}

/// Sources are shared by everything that a node does for a task.
#[async_trait]
impl<S: InputSource + ?Sized> InputSource for Arc<S> {
    async fn load(&self, cid: Cid) -> Result<Bytes, Failure> {
        self.as_ref().load(cid).await
    }

    fn may_reuse(&self, cid: &Cid) -> bool {
        self.as_ref().may_reuse(cid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_checked_and_bounded() -> Result<()> {
        let batch = |text: &'static [u8]| (Cid::raw(text), Bytes::from_static(text));
        let mut batches = Batches::new(10);
        let push = |batches: &mut Batches, (cid, bytes)| batches.push(cid, bytes);
        push(&mut batches, batch(b"four"))?;
        assert!(push(&mut batches, (Cid::raw(b"x"), Bytes::from_static(b"y"))).is_err(), "another batch");
        assert!(push(&mut batches, batch(b"four")).is_err(), "twice");
        let mut batches = Batches::new(10);
        push(&mut batches, batch(b"four"))?;
        assert!(push(&mut batches, batch(b"seven b")).is_err(), "more than the budget");
        Ok(())
    }

    #[test]
    fn names_of_operators_are_fit_to_be_read() -> Result<()> {
        let trace = Trace { operators: vec![Default::default()] };
        let told = |names: &[&str]| decode_trace(&codec::encode(&(names, &trace))?);
        assert_eq!(told(&["SortExec(TopK)"])?.0, ["SortExec(TopK)"]);
        let long = "x".repeat(MAX_NAME + 1);
        for names in [&["two", "names"][..], &[], &["\u{1b}[2J"], &[&long]] {
            assert!(told(names).is_err(), "{names:?}");
        }
        Ok(())
    }
}
