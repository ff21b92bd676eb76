//! The child's side: one thread runs tasks, another reads what the parent says.
//!
//! When the parent is gone its end of the pipe closes, and the reading thread ends the process in mid-task: no runner
//! outlives its node.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use bytes::Bytes;
use conun_types::{Cid, Error, Failure, Result, TaskEnvelope, codec};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::Serialize;

use super::frame::{self, Frame, FromRunner, PREFIX, ToRunner};
use crate::{
    TaskInputs, TaskOutput,
    referee::{Question, Ruling},
    run_task, session,
    trace::{Traced, record_all},
};

/// Inputs kept between tasks, in bytes: tasks of one job read the same shards and build sides.
const INPUT_CACHE: usize = 256 << 20;
/// Address space beside twice the memory class: code, caches, decoded inputs.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Open files: the standard streams and what the runtime needs.
const MAX_FILES: u64 = 32;

/// Runs tasks that a parent sends over standard input until it closes. The whole of `conun runner`.
#[must_use]
pub fn child_main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("runner: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("runner-input".into()).spawn(move || read_parent(&sender))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    confine()?;
    // The first task should not pay for filling the function registry.
    let _ = session::bare_context();
    let parent = Arc::new(Parent::new(receiver));
    while let Some((request, body)) = parent.next_request()? {
        let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(serve_one(&request, &body, parent.clone()))));
        // The panic's message went to standard error, where the parent finds it.
        parent.answer(outcome.unwrap_or_else(|_| Err(Failure::Node("the task panicked".into()))))?;
    }
    Ok(())
}

/// What was asked for.
enum Reply {
    Output(TaskOutput),
    Traced(Traced),
    Ruled(Ruling),
}

async fn serve_one(request: &ToRunner, body: &[u8], inputs: Arc<Parent>) -> Result<Reply, Failure> {
    if *request == ToRunner::Decide {
        let question = Question::decode(body).map_err(|e| Failure::Refused(e.message))?;
        limit_memory(&question.envelope).map_err(|e| Failure::Node(e.message))?;
        return Ok(Reply::Ruled(question.decide(inputs).await?));
    }
    let envelope = TaskEnvelope::decode(body).map_err(|e| Failure::Refused(e.message))?;
    limit_memory(&envelope).map_err(|e| Failure::Node(e.message))?;
    match request {
        ToRunner::Trace => Ok(Reply::Traced(record_all(&envelope, inputs).await?)),
        _ => Ok(Reply::Output(run_task(&envelope, inputs).await?)),
    }
}

/// No core dumps, no new files, no files written, no further threads or processes.
fn confine() -> Result<()> {
    let limits = [(Resource::Core, 0), (Resource::Fsize, 0), (Resource::Nofile, MAX_FILES), (Resource::Nproc, 0)];
    for (resource, value) in limits {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, limit).map_err(io::Error::from)?;
    }
    Ok(())
}

/// A wall behind the memory pool, for what operators do not account. Only the soft limit: classes differ.
fn limit_memory(envelope: &TaskEnvelope) -> Result<()> {
    let bytes = 2 * envelope.memory.bytes() as u64 + ADDRESS_SPACE;
    let maximum = rustix::process::getrlimit(Resource::As).maximum;
    let current = maximum.map_or(bytes, |maximum| maximum.min(bytes));
    Ok(setrlimit(Resource::As, Rlimit { current: Some(current), maximum }).map_err(io::Error::from)?)
}

/// Reads frames until the parent is gone, then ends the process.
fn read_parent(sender: &mpsc::SyncSender<Frame<ToRunner>>) {
    let mut stdin = io::stdin().lock();
    while let Ok(frame) = read_frame(&mut stdin) {
        if sender.send(frame).is_err() {
            break;
        }
    }
    std::process::exit(0);
}

fn read_frame(from: &mut impl Read) -> Result<Frame<ToRunner>> {
    let mut prefix = [0; PREFIX];
    from.read_exact(&mut prefix)?;
    let (header, body) = frame::lengths(&prefix)?;
    let mut header = vec![0; header];
    from.read_exact(&mut header)?;
    let mut body = vec![0; body];
    from.read_exact(&mut body)?;
    Frame::decode(&header, body)
}

/// The parent, as the thread that runs tasks sees it.
struct Parent(Mutex<Conversation>);

struct Conversation {
    frames: mpsc::Receiver<Frame<ToRunner>>,
    cache: InputCache,
}

impl Parent {
    fn new(frames: mpsc::Receiver<Frame<ToRunner>>) -> Self {
        Self(Mutex::new(Conversation { frames, cache: InputCache::new(INPUT_CACHE) }))
    }

    /// The next request with its body, or none when the parent is gone.
    fn next_request(&self) -> Result<Option<(ToRunner, Bytes)>> {
        let conversation = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match conversation.frames.recv() {
            Ok(Frame { header: header @ (ToRunner::Run | ToRunner::Trace | ToRunner::Decide), body }) => {
                Ok(Some((header, body)))
            }
            Ok(Frame { header, .. }) => Err(Error::internal(format!("expected a task, got {header:?}"))),
            Err(_) => Ok(None),
        }
    }

    fn answer(&self, outcome: Result<Reply, Failure>) -> Result<()> {
        let mut out = io::stdout().lock();
        let output = match outcome {
            Ok(Reply::Output(output)) => output,
            Ok(Reply::Ruled(ruling)) => return write_frame(&mut out, &FromRunner::Ruled, &codec::encode(&ruling)?),
            Ok(Reply::Traced(traced)) => {
                for (cid, bytes) in &traced.batches {
                    write_frame(&mut out, &FromRunner::Batch(*cid), bytes)?;
                }
                write_frame(&mut out, &FromRunner::Traced, &codec::encode(&(&traced.operators, &traced.trace))?)?;
                traced.output
            }
            Err(failure) => return write_frame(&mut out, &FromRunner::Failed(failure), &[]),
        };
        for (block, bytes) in &output.blocks {
            write_frame(&mut out, &FromRunner::Block(*block), bytes)?;
        }
        write_frame(&mut out, &FromRunner::Done, &[])
    }
}

impl TaskInputs for Parent {
    fn load(&self, cid: &Cid) -> Result<Bytes, Failure> {
        let mut conversation = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let broken = |e: Error| Failure::Node(format!("the node is gone: {e}"));
        if let Some(bytes) = conversation.cache.get(cid) {
            write_frame(&mut io::stdout().lock(), &FromRunner::Have(*cid), &[]).map_err(broken)?;
            match conversation.frames.recv() {
                Ok(Frame { header: ToRunner::Reuse(true), .. }) => return Ok(bytes),
                Ok(Frame { header: ToRunner::Reuse(false), .. }) => {}
                _ => return Err(Failure::Node("the node is gone".into())),
            }
        }
        write_frame(&mut io::stdout().lock(), &FromRunner::Need(*cid), &[]).map_err(broken)?;
        match conversation.frames.recv() {
            Ok(Frame { header: ToRunner::Input(_), body }) if cid.matches(&body) => {
                conversation.cache.insert(*cid, body.clone());
                Ok(body)
            }
            Ok(Frame { header: ToRunner::Missing(failure), .. }) => Err(failure),
            Ok(_) => Err(Failure::Node(format!("input {cid} does not match its id"))),
            Err(_) => Err(Failure::Node("the node is gone".into())),
        }
    }
}

fn write_frame<T: Serialize>(out: &mut impl Write, header: &T, body: &[u8]) -> Result<()> {
    out.write_all(&frame::head(header, body.len())?)?;
    out.write_all(body)?;
    Ok(out.flush()?)
}

/// Verified inputs, least recently used last, bounded by their bytes.
struct InputCache {
    limit: usize,
    used: usize,
    blocks: HashMap<Cid, Bytes>,
    order: VecDeque<Cid>,
}

impl InputCache {
    fn new(limit: usize) -> Self {
        Self { limit, used: 0, blocks: HashMap::new(), order: VecDeque::new() }
    }

    fn get(&mut self, cid: &Cid) -> Option<Bytes> {
        let bytes = self.blocks.get(cid)?.clone();
        self.order.retain(|other| other != cid);
        self.order.push_front(*cid);
        Some(bytes)
    }

    fn insert(&mut self, cid: Cid, bytes: Bytes) {
        if bytes.len() > self.limit || self.blocks.contains_key(&cid) {
            return;
        }
        while self.used + bytes.len() > self.limit {
            let Some(oldest) = self.order.pop_back() else { break };
            self.used -= self.blocks.remove(&oldest).map_or(0, |b| b.len());
        }
        self.used += bytes.len();
        self.order.push_front(cid);
        self.blocks.insert(cid, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_forgets_the_oldest() {
        let mut cache = InputCache::new(10);
        let block = |name: &'static [u8]| (Cid::raw(name), Bytes::from_static(name));
        for (cid, bytes) in [block(b"aaaa"), block(b"bbbb")] {
            cache.insert(cid, bytes);
        }
        assert!(cache.get(&block(b"aaaa").0).is_some(), "now the youngest");
        cache.insert(block(b"cccc").0, block(b"cccc").1);
        assert!(cache.get(&block(b"bbbb").0).is_none());
        assert!(cache.get(&block(b"aaaa").0).is_some() && cache.used == 8);
        cache.insert(block(b"more than ten").0, block(b"more than ten").1);
        assert_eq!(cache.used, 8);
    }

    #[test]
    fn frames_round_trip_and_truncated_ones_fail() -> Result<()> {
        let cid = Cid::raw(b"x");
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &ToRunner::Input(cid), b"x")?;
        let frame = read_frame(&mut bytes.as_slice())?;
        assert_eq!((frame.header, frame.body.as_ref()), (ToRunner::Input(cid), b"x".as_slice()));
        assert!(read_frame(&mut &bytes[..bytes.len() - 1]).is_err());
        Ok(())
    }
}
