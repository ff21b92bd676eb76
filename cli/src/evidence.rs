//! Evidence of a job on disk: a folder with its transcript and with blocks, each named by its address. It may come from
//! anybody.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_engine::Transcript;
use conun_executor::runner::{InputSource, RunnerConfig, RunnerPool};
use conun_storage::{Durability, durable};
use conun_types::{Cid, Error, ErrorKind, Failure, Result, TaskEnvelope, hex32, profile, wire::MAX_BLOCK};
use rustix::fs::{Mode, OFlags};

/// Bytes of a transcript or a trace at most.
const MOST_JSON: u64 = 256 << 20;
/// How long a task may take to be run again, traced or decided, and all disputes of a transcript together: evidence may come
/// from somebody who wants to waste time.
pub(crate) const MOST_TIME: Duration = Duration::from_secs(600);
/// Name of the transcript in its folder.
const TRANSCRIPT: &str = "transcript.json";
/// Name of the folder of blocks in it.
const BLOCKS: &str = "blocks";

/// Reads the document that the user named, whatever it is: a file, a pipe, a link.
///
/// # Errors
/// Data where it is too large or holds something else.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    parse(File::open(path), path, what)
}

fn parse<T: serde::de::DeserializeOwned>(file: io::Result<File>, path: &Path, what: &str) -> Result<T> {
    let read = file.and_then(|file| read_up_to(file, MOST_JSON));
    let bytes = read.map_err(|e| Error::data(format!("{} cannot be read: {e}", path.display())))?;
    let bytes = bytes.ok_or_else(|| Error::data(format!("{} is too large for {what}", path.display())))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::data(format!("{} holds no {what}: {e}", path.display())))
}

/// All bytes of a file; none where they are more than `most`. What a file says of its size is not relied on.
fn read_up_to(file: File, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// Opens a file in a folder that somebody else has packed. Only a plain one: a link may lead anywhere, and a pipe or a
/// device never end.
fn open_plain(path: &Path) -> io::Result<File> {
    if !path.symlink_metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no plain file"));
    }
    // What has taken its place in the meantime is not followed or waited for, either.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// The transcript in the file or folder at `path`, and the folder of blocks beside it.
///
/// # Errors
/// As [`read_json`]; Data where something in the folder is no plain file or folder.
pub(crate) fn read_transcript(path: &Path) -> Result<(Transcript, Option<PathBuf>)> {
    let hint = "write one with: conun job receipts JOB --json, or with its evidence: conun job evidence JOB DIR";
    if !path.is_dir() {
        return Ok((read_json(path, "receipts").map_err(|e| e.with_hint(hint))?, None));
    }
    let (file, blocks) = (path.join(TRANSCRIPT), path.join(BLOCKS));
    // Batches are written to it, too.
    if blocks.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
        return Err(Error::data(format!("{} is no folder", blocks.display())).with_hint(hint));
    }
    let transcript = parse(open_plain(&file), &file, "receipts").map_err(|e| e.with_hint(hint))?;
    Ok((transcript, Some(blocks)))
}

/// Writes a job's transcript and blocks to `dir`.
///
/// # Errors
/// Those of the file system.
pub(crate) fn write(dir: &Path, transcript: &Transcript, blocks: &[Bytes]) -> Result<()> {
    let named = |e: io::Error| Error::from(e).context(format!("cannot write {}", dir.display()));
    std::fs::create_dir_all(dir.join(BLOCKS)).map_err(named)?;
    let json = serde_json::to_vec_pretty(transcript).map_err(|e| Error::internal(e.to_string()))?;
    durable::replace(&dir.join(TRANSCRIPT), &json, Durability::Durable).map_err(named)?;
    let evidence = Evidence::new(dir.join(BLOCKS));
    blocks.iter().try_for_each(|block| evidence.add(Cid::raw(block), block))
}

/// A folder of blocks.
pub(crate) struct Evidence {
    dir: PathBuf,
}

impl Evidence {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Adds a block.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn add(&self, cid: Cid, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(cid.to_string());
        durable::replace(&path, bytes, Durability::Volatile)
            .map_err(|e| Error::from(e).context(format!("cannot write {}", path.display())))
    }

    /// The block of this address, if it is there.
    ///
    /// # Errors
    /// Verification where a file of its name holds something else, or is none; those of the file system.
    pub(crate) fn get(&self, cid: &Cid) -> Result<Option<Bytes>> {
        let path = self.dir.join(cid.to_string());
        let wrong = |what: &str| Error::verification(format!("the evidence does not hold: {cid} {what}"));
        let read = open_plain(&path).and_then(|file| read_up_to(file, MAX_BLOCK));
        match read.map(|bytes| bytes.map(Bytes::from)) {
            Ok(Some(bytes)) if cid.matches(&bytes) => Ok(Some(bytes)),
            Ok(_) => Err(wrong("is not what its name says")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(wrong("is no plain file")),
            Err(error) => Err(Error::from(error).context(path.display())),
        }
    }
}

#[async_trait]
impl InputSource for Evidence {
    async fn load(&self, cid: Cid) -> Result<Bytes, Failure> {
        match self.get(&cid) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Failure::InputMissing(cid)),
            Err(error) if error.kind == ErrorKind::Verification => Err(Failure::Refused(error.message)),
            // A disk that fails is nobody's lie.
            Err(error) => Err(Failure::Node(error.message)),
        }
    }

    fn may_reuse(&self, _: &Cid) -> bool {
        true
    }
}

/// A runner for strangers' plans, as nodes have them: a child process without network, keys and files. It is given up after
/// `most`, which is [`MOST_TIME`] at most.
///
/// # Errors
/// Where this program cannot be found.
pub(crate) fn runner(most: Duration) -> Result<RunnerPool> {
    let command = std::env::current_exe().map_err(|e| Error::from(e).context("this program cannot be found"))?;
    Ok(RunnerPool::new(RunnerConfig { command, args: vec!["runner".into()], max: 1 }).within(most.min(MOST_TIME)))
}

/// Whether this program runs tasks as the one of `envelope` was run.
///
/// # Errors
/// Data naming both profiles where it does not.
pub(crate) fn check_profile(envelope: &TaskEnvelope) -> Result<()> {
    let ours = profile::hash();
    if envelope.profile == ours {
        return Ok(());
    }
    Err(Error::data(format!(
        "the task cannot be run again: it ran under the execution profile {}, and this program has {} ({})",
        hex32::text(&envelope.profile),
        hex32::text(&ours),
        profile::NAME
    ))
    .with_hint("use the release of conun that its nodes had"))
}

/// What a failure of a task that was run again means for whoever asked for it.
pub(crate) fn failed(failure: Failure) -> Error {
    let missing = "the coordinator keeps evidence within bounds, and only of disputed tasks";
    match failure {
        Failure::InputMissing(cid) => Error::data(format!("{cid} is not among the evidence")).with_hint(missing),
        Failure::Refused(why) => Error::new(ErrorKind::Verification, format!("the task cannot be run: {why}")),
        Failure::Node(why) => Error::data(format!("the task cannot be run again: {why}")),
        other => Error::data(format!("the task cannot be run again: {other}")),
    }
}
