//! Evidence of a job on disk: a folder with its transcript and with blocks, each named by its address. It may come from
//! anybody.

use std::{
    fs,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_engine::Transcript;
use conun_executor::runner::{InputSource, RunnerConfig, RunnerPool};
use conun_storage::{Durability, durable};
use conun_types::{Cid, Error, ErrorKind, Failure, Result, wire::MAX_BLOCK};

/// Bytes of a transcript or a trace at most.
const MOST_JSON: u64 = 256 << 20;
/// Name of the transcript in its folder.
const TRANSCRIPT: &str = "transcript.json";
/// Name of the folder of blocks in it.
const BLOCKS: &str = "blocks";

/// Reads a document that somebody else may have written.
///
/// # Errors
/// Data where it is too large or holds something else.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let failed = |e: std::io::Error| Error::data(format!("{} cannot be read: {e}", path.display()));
    let len = fs::metadata(path).map_err(failed)?.len();
    if len > MOST_JSON {
        return Err(Error::data(format!("{} is too large for {what}", path.display())));
    }
    let bytes = fs::read(path).map_err(failed)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::data(format!("{} holds no {what}: {e}", path.display())))
}

/// The transcript in the file or folder at `path`, and the folder of blocks beside it.
///
/// # Errors
/// As [`read_json`].
pub(crate) fn read_transcript(path: &Path) -> Result<(Transcript, Option<PathBuf>)> {
    let (file, blocks) = match path.is_dir() {
        true => (path.join(TRANSCRIPT), Some(path.join(BLOCKS))),
        false => (path.to_owned(), None),
    };
    let hint = "write one with: conun job receipts JOB --json, or with its evidence: conun job evidence JOB DIR";
    Ok((read_json(&file, "receipts").map_err(|e| e.with_hint(hint))?, blocks))
}

/// Writes a job's transcript and blocks to `dir`.
///
/// # Errors
/// Those of the file system.
pub(crate) fn write(dir: &Path, transcript: &Transcript, blocks: &[Bytes]) -> Result<()> {
    let named = |e: std::io::Error| Error::from(e).context(format!("cannot write {}", dir.display()));
    fs::create_dir_all(dir.join(BLOCKS)).map_err(named)?;
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
    /// Verification where a file of its name holds something else.
    pub(crate) fn get(&self, cid: &Cid) -> Result<Option<Bytes>> {
        let path = self.dir.join(cid.to_string());
        let Ok(meta) = fs::metadata(&path) else { return Ok(None) };
        let wrong = || Error::verification(format!("the evidence does not hold: {cid} is not what its name says"));
        if meta.len() > MAX_BLOCK {
            return Err(wrong());
        }
        let bytes = Bytes::from(fs::read(&path).map_err(|e| Error::from(e).context(path.display()))?);
        if cid.matches(&bytes) { Ok(Some(bytes)) } else { Err(wrong()) }
    }
}

#[async_trait]
impl InputSource for Evidence {
    async fn load(&self, cid: Cid) -> Result<Bytes, Failure> {
        match self.get(&cid) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Failure::InputMissing(cid)),
            Err(error) => Err(Failure::Refused(error.message)),
        }
    }

    fn may_reuse(&self, _: &Cid) -> bool {
        true
    }
}

/// A runner for strangers' plans, as nodes have them: a child process without network, keys and files.
///
/// # Errors
/// Where this program cannot be found.
pub(crate) fn runner() -> Result<RunnerPool> {
    let command = std::env::current_exe().map_err(|e| Error::from(e).context("this program cannot be found"))?;
    Ok(RunnerPool::new(RunnerConfig { command, args: vec!["runner".into()], max: 1 }))
}

/// What a failure of a task that was run again means for whoever asked for it.
pub(crate) fn failed(failure: Failure) -> Error {
    let missing = "the coordinator keeps evidence within bounds, and only of disputed tasks";
    match failure {
        Failure::InputMissing(cid) => Error::data(format!("{cid} is not among the evidence")).with_hint(missing),
        Failure::Refused(why) => Error::new(ErrorKind::Verification, format!("the task cannot be run: {why}")),
        other => Error::data(format!("the task cannot be run again: {other}")),
    }
}
