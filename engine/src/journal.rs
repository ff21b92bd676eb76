//! The job journal: a file a job, written durably when the job has run for a while and when it ends, read back when the coordinator starts.
//!
//! What it must not know: how jobs run. A job that was running when the coordinator died is found as `planned` or
//! `running` and becomes `failed`: its requester runs it again.
//!
//! Evidence of disputed tasks is a folder beside the job's file, with a file a block, named by its address.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use conun_storage::{Durability, durable};
use conun_types::{Cid, Error, JobId, Result, codec};
use serde::{Deserialize, Serialize};

use crate::{
    recheck::Replay,
    record::{JobRecord, JobState, ReceiptRecord},
};

/// Jobs whose evidence is kept, the newest ones: it is large.
const EVIDENCE_KEPT: usize = 64;
/// Extension of the folders of evidence.
const EVIDENCE: &str = "evidence";

/// A job with its receipts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) record: JobRecord,
    pub(crate) receipts: Vec<ReceiptRecord>,
    /// What it takes to run it again, where that can be done.
    pub(crate) replay: Option<Replay>,
}

/// The folder of all jobs.
pub(crate) struct Journal {
    dir: PathBuf,
    keep: usize,
}

impl Journal {
    /// Opens the journal in `dir`.
    pub(crate) fn open(dir: PathBuf, keep: usize) -> Result<Self> {
        fs::create_dir_all(&dir).map_err(|e| Error::from(e).context(dir.display()))?;
        Ok(Self { dir, keep })
    }

    /// Every job, oldest first. A file that cannot be read is set aside with a warning: one torn job must not keep
    /// the coordinator from starting.
    pub(crate) fn load(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            if path.extension().is_none_or(|e| e != "job") {
                continue;
            }
            match fs::read(&path).map_err(Error::from).and_then(|bytes| codec::decode::<Entry>(&bytes)) {
                Ok(entry) => entries.push(interrupted(entry)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "unreadable job set aside");
                    fs::rename(&path, path.with_extension("unreadable"))?;
                }
            }
        }
        entries.sort_by_key(|e| e.record.id);
        Ok(entries)
    }

    /// Writes a job durably, and drops the oldest beyond the number to keep.
    pub(crate) fn save(&self, entry: &Entry) -> Result<()> {
        Ok(durable::replace(&self.path(entry.record.id), &codec::encode(entry)?, Durability::Durable)?)
    }

    /// Drops the oldest of `ids` (sorted) beyond the number to keep, and tells which.
    pub(crate) fn trim(&self, ids: &[JobId]) -> Vec<JobId> {
        let excess = ids.len().saturating_sub(self.keep);
        let old = ids[..excess].to_vec();
        for id in &old {
            let _ = fs::remove_file(self.path(*id));
            let _ = fs::remove_dir_all(self.evidence_path(*id));
        }
        old
    }

    /// Writes blocks of evidence of a job, and drops those of the oldest jobs beyond [`EVIDENCE_KEPT`].
    pub(crate) fn save_evidence(&self, id: JobId, blocks: &[Bytes]) -> Result<()> {
        let dir = self.evidence_path(id);
        fs::create_dir_all(&dir)?;
        for block in blocks {
            durable::replace(&dir.join(Cid::raw(block).to_string()), block, Durability::Volatile)?;
        }
        let mut kept = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == EVIDENCE) {
                kept.push(path);
            }
        }
        // Ids sort by time.
        kept.sort();
        for old in &kept[..kept.len().saturating_sub(EVIDENCE_KEPT)] {
            fs::remove_dir_all(old)?;
        }
        Ok(())
    }

    /// The blocks of evidence of a job. What a crash has torn is left out.
    pub(crate) fn evidence(&self, id: JobId) -> Result<Vec<Bytes>> {
        let dir = self.evidence_path(id);
        let mut blocks = Vec::new();
        if !dir.is_dir() {
            return Ok(blocks);
        }
        for file in fs::read_dir(dir)? {
            let file = file?;
            let bytes = Bytes::from(fs::read(file.path())?);
            if file.file_name().to_str() == Some(Cid::raw(&bytes).to_string().as_str()) {
                blocks.push(bytes);
            }
        }
        Ok(blocks)
    }

    fn evidence_path(&self, id: JobId) -> PathBuf {
        self.dir.join(format!("{id}.{EVIDENCE}"))
    }

    fn path(&self, id: JobId) -> PathBuf {
        self.dir.join(format!("{id}.job"))
    }
}

fn interrupted(mut entry: Entry) -> Entry {
    if matches!(entry.record.state, JobState::Planned | JobState::Running) {
        entry.record.state = JobState::Failed;
        let pay = if entry.record.cost.is_some() { ": what it had accepted by then is paid" } else { "" };
        let text = format!("the coordinator stopped while it ran{pay}");
        entry.record.error = Some(Error::unavailable(text).with_hint("run the statement again"));
    }
    entry
}
