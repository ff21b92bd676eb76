//! What a running job notes: progress, receipts, who lied, who was late. The journal and `conun job show` read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use conun_types::{Amount, Cid, NodeId, WorkUnits, task::output_volume};

use crate::{
    record::{ReceiptRecord, StageRow},
    task::Settled,
};

/// Notes of one job.
#[derive(Default)]
pub(crate) struct Notes(Mutex<State>);

#[derive(Default, Clone)]
pub(crate) struct State {
    pub(crate) stages: BTreeMap<u32, StageRow>,
    pub(crate) receipts: Vec<ReceiptRecord>,
    /// Why each was caught: the tasks on which it lost the vote, and nothing for all else.
    pub(crate) liars: BTreeMap<NodeId, BTreeSet<Option<Cid>>>,
    pub(crate) late: BTreeSet<NodeId>,
    pub(crate) warnings: Vec<String>,
    /// Probability that the weakest accepted task is wrong, at most.
    pub(crate) error_bound: Option<f64>,
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything noted so far.
    pub(crate) fn snapshot(&self) -> State {
        self.lock().clone()
    }

    /// Tasks of a stage became known.
    pub(crate) fn tasks(&self, stage: u32, tasks: u64) {
        row(&mut self.lock(), stage).tasks += tasks;
    }

    /// A verdict is in.
    pub(crate) fn settled(&self, settled: &Settled) {
        let mut state = self.lock();
        count(&mut state, settled);
        row(&mut state, settled.task.stage.key.stage).replicas += settled.receipts.len() as u64;
        add(&mut state, settled);
    }

    /// The verdict of an earlier run of the stages stands.
    pub(crate) fn stands(&self, settled: &Settled) {
        count(&mut self.lock(), settled);
    }

    /// The stages run from the start: what stands is counted again.
    pub(crate) fn started_over(&self) {
        for row in self.lock().stages.values_mut() {
            *row = StageRow { replicas: row.replicas, ..empty(row.stage) };
        }
    }

    /// A task was run again: its replicas earned receipts, but its rows count once.
    pub(crate) fn settled_again(&self, settled: &Settled) {
        let mut state = self.lock();
        row(&mut state, settled.task.stage.key.stage).replicas += settled.receipts.len() as u64;
        add(&mut state, settled);
    }

    /// The verdict on a task is another one after all: only what agrees with `root` is accepted.
    pub(crate) fn overturned(&self, task: &Cid, root: Option<[u8; 32]>) {
        let mut state = self.lock();
        for record in state.receipts.iter_mut().filter(|record| record.task_cid == *task) {
            record.accepted = Some(record.receipt.receipt.outputs_root) == root;
        }
    }

    /// Votes on a task of `stage` that made no verdict.
    pub(crate) fn open(&self, stage: u32, receipts: Vec<ReceiptRecord>) {
        let mut state = self.lock();
        row(&mut state, stage).replicas += receipts.len() as u64;
        state.receipts.extend(receipts);
    }

    /// What was accepted for `task` so far, if anything.
    pub(crate) fn accepted(&self, task: &Cid) -> Option<[u8; 32]> {
        let state = self.lock();
        let found = state.receipts.iter().find(|record| record.accepted && record.task_cid == *task);
        found.map(|record| record.receipt.receipt.outputs_root)
    }

    /// Receipts for `task` that say `root` and were not accepted; they are from now on.
    pub(crate) fn accept(&self, task: &Cid, root: [u8; 32]) -> Vec<ReceiptRecord> {
        let mut state = self.lock();
        let says = |record: &&mut ReceiptRecord| {
            !record.accepted && record.task_cid == *task && record.receipt.receipt.outputs_root == root
        };
        let found = state.receipts.iter_mut().filter(says);
        found
            .map(|record| {
                record.accepted = true;
                record.clone()
            })
            .collect()
    }

    /// `node` was caught: it lost the vote `on` a task, or sent wrong bytes or a receipt that fits nothing.
    pub(crate) fn liar(&self, node: NodeId, on: Option<Cid>) {
        self.lock().liars.entry(node).or_default().insert(on);
    }

    /// The vote that `node` lost on `task` was right after all; tells whether nothing else speaks against it.
    pub(crate) fn cleared(&self, node: NodeId, task: Cid) -> bool {
        let mut state = self.lock();
        let Some(reasons) = state.liars.get_mut(&node) else { return false };
        reasons.remove(&Some(task));
        let clean = reasons.is_empty();
        if clean {
            state.liars.remove(&node);
        }
        clean
    }

    /// What was accepted costs so much, without what liars did.
    pub(crate) fn cost(&self) -> Amount {
        let state = self.lock();
        state.receipts.iter().filter(|r| !state.liars.contains_key(&r.node)).map(ReceiptRecord::cost).sum()
    }

    /// Something that the requester should know; each said once.
    pub(crate) fn warn(&self, text: String) {
        let mut state = self.lock();
        if !state.warnings.contains(&text) {
            state.warnings.push(text);
        }
    }
}

/// The task is done.
fn count(state: &mut State, settled: &Settled) {
    let volume = output_volume(&settled.outputs);
    let row = row(state, settled.task.stage.key.stage);
    row.tasks_done += 1;
    row.rows = row.rows.saturating_add(volume.rows);
    row.bytes = row.bytes.saturating_add(volume.bytes);
    let units = WorkUnits::of(settled.task.envelope.input_volume(), volume);
    row.units.0 = row.units.0.saturating_add(units.0);
}

/// Receipts, liars and late nodes of a verdict.
fn add(state: &mut State, settled: &Settled) {
    state.receipts.extend(settled.receipts.iter().cloned());
    for node in &settled.liars {
        state.liars.entry(*node).or_default().insert(Some(settled.task.cid));
    }
    state.late.extend(&settled.late);
    state.error_bound = Some(state.error_bound.unwrap_or_default().max(settled.bound));
}

fn row(state: &mut State, stage: u32) -> &mut StageRow {
    state.stages.entry(stage).or_insert_with(|| empty(stage))
}

fn empty(stage: u32) -> StageRow {
    StageRow { stage, tasks: 0, tasks_done: 0, replicas: 0, rows: 0, bytes: 0, units: WorkUnits(0) }
}
