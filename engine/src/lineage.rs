//! Where the blocks of a job are, and how to make them again: block -> task that made it.
//!
//! A lost block is first sought at the other replicas; only when nobody has it is its task run again. The same bytes
//! come out, so the readers' plans, which name blocks by content, stay valid. The stage graph never hears of it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use conun_types::{Cid, Holder, NodeId, Rng, Source};

use crate::{stage::TaskKey, task::Settled};

/// The lineage of one job.
#[derive(Default)]
pub(crate) struct Lineage(Mutex<State>);

#[derive(Default)]
struct State {
    made_by: HashMap<Cid, TaskKey>,
    tasks: HashMap<TaskKey, Settled>,
}

impl Lineage {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers who holds the blocks of a settled task. Equal blocks of several tasks are held by all their replicas.
    pub(crate) fn record(&self, settled: &Settled) {
        let key = settled.task.stage.key;
        let mut state = self.lock();
        for block in &settled.outputs {
            state.made_by.insert(block.cid, key);
        }
        state.tasks.insert(key, settled.clone());
    }

    /// The task that made `cid`.
    pub(crate) fn producer(&self, cid: &Cid) -> Option<Settled> {
        let state = self.lock();
        state.made_by.get(cid).and_then(|key| state.tasks.get(key)).cloned()
    }

    /// Where `cid` of `len` bytes is found among `connected` nodes, in random order; `None` where nobody has it.
    pub(crate) fn source(&self, cid: &Cid, len: u64, connected: &HashSet<NodeId>, rng: &dyn Rng) -> Option<Source> {
        let mut holders: Vec<Holder> = self.producer(cid)?.holders;
        holders.retain(|h| connected.contains(&h.peer.id));
        if holders.is_empty() {
            return None;
        }
        let first = rng.below(holders.len());
        holders.rotate_left(first);
        Some(Source { cid: *cid, len, holders, recovery: None })
    }

    /// `node` no longer has the block.
    pub(crate) fn forget(&self, cid: &Cid, node: NodeId) {
        let mut state = self.lock();
        let Some(key) = state.made_by.get(cid).copied() else { return };
        if let Some(task) = state.tasks.get_mut(&key) {
            task.holders.retain(|h| h.peer.id != node);
        }
    }

    /// One block of each node that holds any, for a spot check of whether it serves what it voted for.
    pub(crate) fn samples(&self, rng: &dyn Rng) -> Vec<(Holder, Cid)> {
        let state = self.lock();
        let mut samples: HashMap<NodeId, (Holder, Cid)> = HashMap::new();
        for task in state.tasks.values() {
            let Some(block) = task.outputs.get(rng.below(task.outputs.len())) else { continue };
            for holder in &task.holders {
                samples.entry(holder.peer.id).or_insert_with(|| (holder.clone(), block.cid));
            }
        }
        samples.into_values().collect()
    }
}
