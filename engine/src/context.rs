//! What every part of a running job needs: the network, the fleet, the tables, a key, a clock.

use std::{collections::HashMap, sync::Arc};

use conun_storage::{Table, Tables};
use conun_types::{Cid, Clock, Error, InputShard, JobId, NodeKey, Result, Rng, Source, Volume, port::Network};

use crate::{config::EngineConfig, fleet::Fleet, record::Verify};

/// The parts that all jobs of a coordinator share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) tables: Tables,
    pub(crate) key: NodeKey,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) config: Arc<EngineConfig>,
}

/// The same for one job.
#[derive(Clone)]
pub(crate) struct JobContext {
    parts: Parts,
    pub(crate) job: JobId,
    pub(crate) verify: Verify,
    /// Agreeing votes that a task needs.
    pub(crate) votes: usize,
    shards: Arc<JobShards>,
}

/// The table behind each shard that a job scans, and the shard's volume from the manifest. The job keeps reading the
/// version it was planned on, whatever is put or removed meanwhile.
pub(crate) type JobShards = HashMap<Cid, (Arc<Table>, Volume)>;

impl JobContext {
    pub(crate) fn new(parts: Parts, job: JobId, verify: Verify, votes: usize, shards: Arc<JobShards>) -> Self {
        Self { parts, job, verify, votes, shards }
    }

    fn shard(&self, cid: &Cid) -> Result<&(Arc<Table>, Volume)> {
        self.shards.get(cid).ok_or_else(|| Error::internal(format!("{cid} is in no table of this job")))
    }

    /// Where a shard is found, and how to decode it if it is lost.
    pub(crate) fn shard_source(&self, cid: &Cid) -> Result<Source> {
        let table = &self.shard(cid)?.0;
        let index = table.position(cid).ok_or_else(|| Error::internal(format!("{cid} is not in its table")))?;
        self.tables.source(table, index)
    }

    /// The shard as a task's input.
    pub(crate) fn input_shard(&self, cid: &Cid) -> Result<InputShard> {
        Ok(InputShard { cid: *cid, volume: self.shard(cid)?.1 })
    }

    /// Votes needed for the next task: under `audit` one, but two for a random sample.
    pub(crate) fn votes_for_a_task(&self) -> usize {
        let sampled = || (self.rng.below(1_000_000) as f64) < self.config.audit_rate * 1e6;
        if self.verify == Verify::Audit && sampled() { self.votes.max(2) } else { self.votes }
    }
}

impl std::ops::Deref for JobContext {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.parts
    }
}
