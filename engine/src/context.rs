//! What every part of a running job needs: the network, the fleet, the tables, a key, a clock.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use conun_storage::{Table, Tables};
use conun_types::{
    Amount, Cid, Clock, Error, ErrorKind, InputShard, JobId, NodeKey, Result, Rng, Source, Volume, eip712::Domain,
    port::Network,
};

use crate::{checking::Checking, config::EngineConfig, credit::Credit, fleet::Fleet, payments::Payments};

/// The parts that all jobs of a coordinator share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) credit: Arc<Credit>,
    pub(crate) tables: Tables,
    pub(crate) key: NodeKey,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) config: Arc<EngineConfig>,
    /// Where work is paid, if it is.
    pub(crate) payments: Option<Arc<Payments>>,
}

impl Parts {
    /// The chain and escrow in whose domain orders and receipts are signed.
    pub(crate) fn domain(&self) -> Domain {
        self.payments.as_ref().map(|p| p.domain()).unwrap_or_default()
    }
}

/// The same for one job.
#[derive(Clone)]
pub(crate) struct JobContext {
    parts: Parts,
    pub(crate) job: JobId,
    pub(crate) checking: Checking,
    /// Most that the job may cost.
    pub(crate) budget: Option<Amount>,
    shards: Arc<JobShards>,
}

/// The table behind each shard that a job scans, and the shard's volume from the manifest. The job keeps reading the
/// version it was planned on, whatever is put or removed meanwhile.
pub(crate) type JobShards = HashMap<Cid, (Arc<Table>, Volume)>;

impl JobContext {
    pub(crate) fn new(
        parts: Parts,
        job: JobId,
        checking: Checking,
        budget: Option<Amount>,
        shards: Arc<JobShards>,
    ) -> Self {
        Self { parts, job, checking, budget, shards }
    }

    /// Whether the job may go on after it has cost so much, where the next task costs `more` at least.
    ///
    /// # Errors
    /// Budget where it may not.
    pub(crate) fn afford(&self, cost: Amount, more: Amount) -> Result<()> {
        if let Some(budget) = self.budget
            && cost.plus(more) > budget
        {
            let text = format!("the job has cost {cost} and would pass its budget of {budget}");
            return Err(
                Error::new(ErrorKind::Budget, text).with_hint("ask for a quote with EXPLAIN COST, or raise --budget")
            );
        }
        Ok(())
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

    /// The bytes of a shard, from whoever has it, or decoded.
    pub(crate) async fn read_shard(&self, cid: &Cid) -> Result<Bytes> {
        let table = &self.shard(cid)?.0;
        let index = table.position(cid).ok_or_else(|| Error::internal(format!("{cid} is not in its table")))?;
        self.tables.read_shard(table, index).await
    }

    /// Name of the table that a shard is of.
    pub(crate) fn table_of(&self, cid: &Cid) -> Result<&str> {
        Ok(self.shard(cid)?.0.name())
    }

    /// `cid` as people know it: with its table, where it is a shard.
    pub(crate) fn name_of(&self, cid: &Cid) -> String {
        match self.table_of(cid) {
            Ok(table) => format!("shard {cid} of table '{table}'"),
            Err(_) => format!("block {cid} of an earlier stage"),
        }
    }

    /// Bytes of the shards that the job scans, by table.
    pub(crate) fn scanned_bytes(&self) -> HashMap<String, u64> {
        let mut bytes: HashMap<String, u64> = HashMap::new();
        for (table, volume) in self.shards.values() {
            *bytes.entry(table.name().to_owned()).or_default() += volume.bytes;
        }
        bytes
    }
}

impl std::ops::Deref for JobContext {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.parts
    }
}
