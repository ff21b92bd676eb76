//! The jobs of a coordinator, live and ended: what is told of them, and cancelling.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use bytes::Bytes;
use conun_types::{Error, JobId, Result, Signature};

use super::Engine;
use crate::{
    job::Job,
    journal::Entry,
    recheck::Replay,
    record::{JobRecord, JobState, ReceiptRecord},
    transcript::Transcript,
};

/// All jobs.
pub(super) struct Jobs {
    pub(super) live: BTreeMap<JobId, Arc<Job>>,
    ended: BTreeMap<JobId, Entry>,
}

impl Jobs {
    /// Those of earlier runs.
    pub(super) fn new(ended: BTreeMap<JobId, Entry>) -> Self {
        Self { live: BTreeMap::new(), ended }
    }
}

impl Engine {
    pub(super) fn move_to_ended(&self, entry: Entry) {
        let mut jobs = self.lock();
        jobs.live.remove(&entry.record.id);
        jobs.ended.insert(entry.record.id, entry);
        let ids: Vec<JobId> = jobs.ended.keys().copied().collect();
        for old in self.journal.trim(&ids) {
            jobs.ended.remove(&old);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An ended job, and what it takes to run it again.
    pub(crate) fn ended(&self, id: JobId) -> Option<(JobRecord, Option<Replay>)> {
        self.lock().ended.get(&id).map(|entry| (entry.record.clone(), entry.replay))
    }

    /// The answer of an ended job is not to be relied on, as `why` says.
    pub(crate) fn recall(&self, id: JobId, why: String) {
        self.cache.forget(id);
        let mut jobs = self.lock();
        // Answers of the cache are no better than the one that they are.
        let rests = |record: &JobRecord| record.id == id || record.cached == Some(id);
        jobs.live.values().filter(|job| rests(&job.record())).for_each(|job| job.recall(&why));
        for entry in jobs.ended.values_mut().filter(|entry| rests(&entry.record)) {
            entry.record.recalled = Some(why.clone());
            if let Err(error) = self.journal.save(entry) {
                tracing::error!(%error, job = %entry.record.id, "a recall is not in the journal");
            }
        }
    }

    pub(crate) fn live(&self, id: JobId) -> Result<Arc<Job>> {
        let jobs = self.lock();
        if jobs.ended.contains_key(&id) {
            return Err(Error::data(format!("job {id} has ended")).with_hint("run the statement again"));
        }
        jobs.live.get(&id).cloned().ok_or_else(|| unknown(&id.to_string()))
    }

    /// All jobs, oldest first.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobRecord> {
        let jobs = self.lock();
        let mut records: Vec<JobRecord> = jobs.ended.values().map(|e| e.record.clone()).collect();
        records.extend(jobs.live.values().map(|j| j.record()));
        records.sort_by_key(|r| r.id);
        records
    }

    /// The job whose id begins with `prefix`.
    ///
    /// # Errors
    /// Data where there is none, or more than one.
    pub fn job(&self, prefix: &str) -> Result<JobRecord> {
        let mut found = self.jobs().into_iter().filter(|r| r.id.to_string().starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(record), None) if !prefix.is_empty() => Ok(record),
            (Some(_), Some(_)) => Err(Error::data(format!("'{prefix}' begins the id of more than one job"))
                .with_hint("give more digits: conun job ls")),
            _ => Err(unknown(prefix)),
        }
    }

    /// The receipts of the job whose id begins with `prefix`.
    ///
    /// # Errors
    /// As [`Engine::job`].
    pub fn receipts(&self, prefix: &str) -> Result<Vec<ReceiptRecord>> {
        let id = self.job(prefix)?.id;
        let jobs = self.lock();
        let live = || jobs.live.get(&id).map(|j| j.settler.notes().snapshot().receipts);
        Ok(jobs.ended.get(&id).map(|e| e.receipts.clone()).or_else(live).unwrap_or_default())
    }

    /// This coordinator's signature over everything that was signed for the job whose id begins with `prefix`.
    ///
    /// # Errors
    /// As [`Engine::job`].
    pub fn seal(&self, prefix: &str) -> Result<Signature> {
        let (record, receipts) = (self.job(prefix)?, self.receipts(prefix)?);
        let transcript =
            Transcript { job: record.id, domain: self.domain(), liars: record.liars, receipts, seal: None };
        Ok(self.parts.key.sign(&transcript.hash()?))
    }

    /// What is needed to run disputed tasks of the job whose id begins with `prefix` again: envelopes, inputs, and blocks
    /// that somebody claimed.
    ///
    /// # Errors
    /// As [`Engine::job`]; Internal where the journal cannot be read.
    pub fn evidence(&self, prefix: &str) -> Result<Vec<Bytes>> {
        self.journal.evidence(self.job(prefix)?.id)
    }

    /// Cancels the job whose id begins with `prefix`: its replicas are killed on the nodes.
    ///
    /// # Errors
    /// As [`Engine::job`], and Data where it has ended.
    pub fn cancel(&self, prefix: &str) -> Result<JobRecord> {
        let job = self.live(self.job(prefix)?.id)?;
        job.cancel.cancel();
        if job.record().state == JobState::Planned {
            job.end(JobState::Cancelled, Some(Error::unavailable("the job was cancelled")), None);
        }
        Ok(job.record())
    }
}

fn unknown(job: &str) -> Error {
    Error::data(format!("there is no job '{job}'")).with_hint("list them with: conun job ls")
}
