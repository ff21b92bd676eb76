//! What is kept of tasks on which nodes disagreed, so that anyone can run them again later: the envelope, the inputs, and
//! the blocks that somebody claims and the verdict does not have.
//!
//! It is read from the nodes before they may drop the job's blocks, within bounds of time and bytes: a transcript without
//! evidence still shows who signed what.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use conun_types::{Cid, Holder, OutputBlock, wire::ReadBlock};

use crate::task::{Prepared, Settler};

/// Disputed tasks of a job whose evidence is kept at most.
pub(crate) const MAX_DISPUTES: usize = 16;
/// Bytes of a job's evidence at most.
const MOST_BYTES: u64 = 64 << 20;
/// Bytes of one block of it at most: it must fit into a message to a client.
const MOST_BLOCK: u64 = 32 << 20;
/// How long evidence is gathered at most.
const GATHER_FOR: Duration = Duration::from_secs(10);

/// A task on which nodes disagreed.
#[derive(Debug, Clone)]
pub(crate) struct Disputed {
    pub(crate) task: Arc<Prepared>,
    /// Blocks that were accepted; none where the votes made no verdict.
    pub(crate) accepted: Vec<OutputBlock>,
    /// What was not accepted, and where it can be read.
    pub(crate) claims: Vec<(Holder, Vec<OutputBlock>)>,
}

/// Blocks of evidence so far.
#[derive(Default)]
struct Found {
    blocks: BTreeMap<Cid, Bytes>,
    used: u64,
}

impl Found {
    /// Whether `bytes` more in blocks of `largest` at most have room.
    fn has_room(&self, bytes: u64, largest: u64) -> bool {
        largest <= MOST_BLOCK && self.used.saturating_add(bytes) <= MOST_BYTES
    }

    fn add(&mut self, cid: Cid, bytes: Bytes) {
        let len = bytes.len() as u64;
        if !self.blocks.contains_key(&cid) && self.has_room(len, len) {
            self.used += len;
            self.blocks.insert(cid, bytes);
        }
    }
}

impl Settler {
    /// The evidence of every disputed task, as far as it can be had.
    pub(crate) async fn gather_evidence(&self) -> Vec<Bytes> {
        let mut found = Found::default();
        let gathering = async {
            for disputed in self.lineage().disputes() {
                self.gather(&disputed, &mut found).await;
            }
        };
        if tokio::time::timeout(GATHER_FOR, gathering).await.is_err() {
            tracing::warn!("evidence of disputed tasks is incomplete: it took too long to read");
        }
        found.blocks.into_values().collect()
    }

    async fn gather(&self, disputed: &Disputed, found: &mut Found) {
        found.add(disputed.task.cid, disputed.task.bytes.clone());
        let accepted: HashSet<Cid> = disputed.accepted.iter().map(|block| block.cid).collect();
        for (holder, outputs) in &disputed.claims {
            for block in outputs.iter().filter(|block| !accepted.contains(&block.cid)) {
                self.gather_block(block.cid, block.bytes, std::slice::from_ref(holder), found).await;
            }
        }
        let envelope = &disputed.task.envelope;
        let volumes = envelope.shards.iter().map(|s| s.volume).chain(envelope.blocks.iter().map(|b| b.volume));
        // All inputs or none: with some of them a task cannot be run again.
        if !found.has_room(envelope.input_volume().bytes, volumes.map(|v| v.bytes).max().unwrap_or(0)) {
            return;
        }
        for shard in &envelope.shards {
            if let Ok(bytes) = self.context().read_shard(&shard.cid).await {
                found.add(shard.cid, bytes);
            }
        }
        for block in &envelope.blocks {
            self.gather_block(block.cid, block.volume.bytes, &self.lineage().holders(&block.cid), found).await;
        }
    }

    async fn gather_block(&self, cid: Cid, len: u64, holders: &[Holder], found: &mut Found) {
        if found.blocks.contains_key(&cid) || !found.has_room(len, len) {
            return;
        }
        for holder in holders {
            let read = self.context().network.read_block(&holder.peer, ReadBlock::whole(cid, holder.capability));
            if let Ok(Ok(bytes)) = tokio::time::timeout(self.context().config.patience, read).await {
                return found.add(cid, bytes);
            }
        }
        tracing::info!(%cid, "a block of evidence is not to be had");
    }
}
