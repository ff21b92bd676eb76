//! The executor: plans encoded and decoded, checked, pinned; canonical blocks, addressed when written and when read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_benches::tpch::Error;
use conun_executor::{BlockReaderExec, TaskInputs, canonical, encode_plan, run_task};
use conun_types::{
    Cid, Failure, InputBlock, InputShard, JobId, MemoryClass, OutputBlock, OutputSpec, TaskEnvelope, Volume,
};
use datafusion::physical_plan::{ExecutionPlan, repartition::RepartitionExec};

use crate::{
    stages::{Seen, Side},
    workload::Workload,
};

/// One query's run.
pub(crate) struct Pinned {
    store: Arc<Store>,
    shards: Vec<InputShard>,
}

/// Shards and blocks by address.
struct Store {
    shards: Arc<HashMap<Cid, Bytes>>,
    blocks: Mutex<HashMap<Cid, Bytes>>,
}

impl Store {
    fn blocks(&self) -> std::sync::MutexGuard<'_, HashMap<Cid, Bytes>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TaskInputs for Store {
    fn load(&self, cid: &Cid) -> Result<Bytes, Failure> {
        if let Some(shard) = self.shards.get(cid) {
            return Ok(shard.clone());
        }
        // A node checks what it gets; shards are read from disk on both sides.
        let block = self.blocks().get(cid).cloned();
        block.filter(|bytes| Cid::raw(bytes) == *cid).ok_or(Failure::InputMissing(*cid))
    }
}

impl Pinned {
    pub(crate) fn new(workload: &Workload) -> Self {
        let store = Store { shards: workload.shards(), blocks: Mutex::default() };
        let volume = |bytes: &Bytes| Volume { rows: 0, bytes: bytes.len() as u64 };
        let shards = store.shards.iter().map(|(cid, bytes)| InputShard { cid: *cid, volume: volume(bytes) }).collect();
        Self { store: Arc::new(store), shards }
    }

    /// The blocks of every stage.
    pub(crate) fn addresses(&self) -> Vec<Cid> {
        let mut addresses: Vec<Cid> = self.store.blocks().keys().copied().collect();
        addresses.sort();
        addresses
    }

    fn describe(&self, cid: Cid, bytes: &Bytes) -> Result<InputBlock, Error> {
        let rows = canonical::row_count(bytes)?;
        Ok(InputBlock { cid, volume: Volume { rows, bytes: bytes.len() as u64 } })
    }

    /// Bytes of a block.
    pub(crate) fn block(&self, cid: &Cid) -> Result<Bytes, Error> {
        Ok(self.store.load(cid).map_err(|failure| failure.to_string())?)
    }

    /// Runs a task that reads `blocks`, and keeps what it makes.
    pub(crate) async fn task(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        blocks: Vec<InputBlock>,
    ) -> Result<Vec<(OutputBlock, Bytes)>, Error> {
        let envelope = self.envelope(plan, blocks)?;
        let output = run_task(&envelope, Arc::clone(&self.store) as _).await.map_err(|failure| failure.to_string())?;
        self.store.blocks().extend(output.blocks.iter().map(|(block, bytes)| (block.cid, bytes.clone())));
        Ok(output.blocks)
    }

    fn envelope(&self, plan: &Arc<dyn ExecutionPlan>, blocks: Vec<InputBlock>) -> Result<TaskEnvelope, Error> {
        let output = match plan.downcast_ref::<RepartitionExec>() {
            Some(root) => OutputSpec::Hash(root.partitioning().partition_count() as u32),
            None => OutputSpec::Passthrough,
        };
        Ok(TaskEnvelope {
            memory: MemoryClass::Large,
            output,
            shards: self.shards.clone(),
            blocks,
            ..TaskEnvelope::new(JobId([0; 16]), 1, 0, encode_plan(plan)?)
        })
    }
}

#[async_trait(?Send)]
impl Side for Pinned {
    async fn run(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Bytes>, Error> {
        let blocks =
            self.store.blocks().iter().map(|(cid, bytes)| self.describe(*cid, bytes)).collect::<Result<_, _>>()?;
        Ok(self.task(plan, blocks).await?.into_iter().map(|(_, bytes)| bytes).collect())
    }

    fn reader(&self, blocks: Vec<Bytes>, seen: Seen) -> Result<Arc<dyn ExecutionPlan>, Error> {
        // The address is known: `run` has just computed it.
        let known: HashMap<*const u8, Cid> = self.store.blocks().iter().map(|(cid, b)| (b.as_ptr(), *cid)).collect();
        let one = |bytes: &Bytes| {
            let cid = known.get(&bytes.as_ptr()).copied().unwrap_or_else(|| Cid::raw(bytes));
            self.describe(cid, bytes).map(|block| vec![block])
        };
        let partitions = blocks.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        let reader = BlockReaderExec::try_new(seen.schema, partitions, seen.partitioning)?;
        Ok(Arc::new(match seen.ordering {
            Some(ordering) => reader.with_ordering(ordering),
            None => reader,
        }))
    }
}
