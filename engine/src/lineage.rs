//! Where the blocks of a job are, and how to make them again: block -> task that made it.
//!
//! A lost block is first sought at the other replicas; only when nobody has it is its task run again. The same bytes
//! come out, so the readers' plans, which name blocks by content, stay valid. The stage graph never hears of it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use conun_types::{Cid, Holder, NodeId, OutputBlock, Rng, Source};

use crate::{
    evidence::{Disputed, MAX_DISPUTES},
    stage::TaskKey,
    task::Settled,
};

/// Holders that a reader is told of at most: an empty partition's block is made by very many.
const MAX_HOLDERS: usize = 8;

/// The lineage of one job.
#[derive(Default)]
pub(crate) struct Lineage(Mutex<State>);

#[derive(Default)]
struct State {
    /// Tasks that made each block, the earliest first: a task that passes rows through makes the very block that it reads,
    /// and only the first maker is sure not to need it for itself.
    made_by: HashMap<Cid, Vec<TaskKey>>,
    tasks: HashMap<TaskKey, Settled>,
    /// Tasks on which nodes disagreed, the first of them.
    disputes: Vec<Disputed>,
}

impl State {
    fn makers(&self, cid: &Cid) -> impl Iterator<Item = &TaskKey> {
        self.made_by.get(cid).into_iter().flatten()
    }
}

impl Lineage {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers who holds the blocks of a settled task.
    pub(crate) fn record(&self, settled: &Settled) {
        let key = settled.task.stage.key;
        let mut state = self.lock();
        for block in &settled.outputs {
            let makers = state.made_by.entry(block.cid).or_default();
            if !makers.contains(&key) {
                makers.push(key);
                makers.sort_unstable();
            }
        }
        let now: HashSet<Cid> = settled.outputs.iter().map(|block| block.cid).collect();
        let before = state.tasks.get(&key).map(|before| before.outputs.clone()).unwrap_or_default();
        for block in before.iter().filter(|block| !now.contains(&block.cid)) {
            // It was made of an answer that was overturned.
            state.made_by.entry(block.cid).or_default().retain(|maker| *maker != key);
        }
        state.tasks.insert(key, settled.clone());
        drop(state);
        if !settled.rejected.is_empty() {
            let (task, accepted, claims) =
                (Arc::clone(&settled.task), settled.outputs.clone(), settled.rejected.clone());
            self.dispute(Disputed { task, accepted, claims });
        }
    }

    /// Remembers a task on which nodes disagree.
    pub(crate) fn dispute(&self, disputed: Disputed) {
        let mut state = self.lock();
        if state.disputes.len() < MAX_DISPUTES {
            state.disputes.push(disputed);
        }
    }

    /// Tasks on which nodes disagreed, as far as they are remembered.
    pub(crate) fn disputes(&self) -> Vec<Disputed> {
        self.lock().disputes.clone()
    }

    /// The verdict on `task`, if one is in.
    pub(crate) fn verdict(&self, task: TaskKey) -> Option<Settled> {
        self.lock().tasks.get(&task).cloned()
    }

    /// The first task that made `cid`.
    pub(crate) fn producer(&self, cid: &Cid) -> Option<Settled> {
        let state = self.lock();
        state.makers(cid).find_map(|key| state.tasks.get(key)).cloned()
    }

    /// Everybody who made `cid`, with the capability that opens it there.
    pub(crate) fn holders(&self, cid: &Cid) -> Vec<Holder> {
        let state = self.lock();
        let made = state.makers(cid).filter_map(|key| state.tasks.get(key));
        made.flat_map(|task| task.holders.iter().cloned()).collect()
    }

    /// Where `cid` of `len` bytes is found among `connected` nodes, in random order; `None` where nobody has it.
    pub(crate) fn source(&self, cid: &Cid, len: u64, connected: &HashSet<NodeId>, rng: &dyn Rng) -> Option<Source> {
        let mut holders = self.holders(cid);
        holders.retain(|h| connected.contains(&h.peer.id));
        if holders.is_empty() {
            return None;
        }
        let first = rng.below(holders.len());
        holders.rotate_left(first);
        holders.truncate(MAX_HOLDERS);
        Some(Source { cid: *cid, len, holders, recovery: None })
    }

    /// `node` no longer has the block.
    pub(crate) fn forget(&self, cid: &Cid, node: NodeId) {
        let mut state = self.lock();
        for key in state.made_by.get(cid).cloned().unwrap_or_default() {
            if let Some(task) = state.tasks.get_mut(&key) {
                task.holders.retain(|h| h.peer.id != node);
            }
        }
    }

    /// One block of each node that was the only one to make some, drawn among those of at most `most` bytes.
    pub(crate) fn lone_samples(&self, rng: &dyn Rng, most: u64) -> Vec<(Holder, OutputBlock)> {
        let state = self.lock();
        let mut blocks: HashMap<NodeId, Vec<(Holder, OutputBlock)>> = HashMap::new();
        for task in state.tasks.values() {
            let [holder] = task.holders.as_slice() else { continue };
            let counted = task.outputs.iter().filter(|block| block.bytes <= most);
            blocks.entry(holder.peer.id).or_default().extend(counted.map(|block| (holder.clone(), *block)));
        }
        let filled = blocks.into_values().filter(|blocks| !blocks.is_empty());
        filled.map(|mut blocks| blocks.swap_remove(rng.below(blocks.len()))).collect()
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
