//! Traces: what every operator of a task gave, batch by batch, as hashes.
//!
//! A task is one thread's work over fixed inputs, so that not only its output but every batch on the way is the same on
//! every honest machine, boundaries included. Two parties that claim different outputs for one task can therefore be
//! compared operator by operator ([`crate::referee`]).
//!
//! Operators are numbered in pre-order over the pinned plan, from 1; number 0 is the writer that makes blocks of what the
//! first gives. Below a shuffle the plan starts under its `RepartitionExec`, which is the writer's work. A batch is named by
//! the hash of its canonical encoding.

mod outline;
mod tap;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use conun_types::{Cid, Failure, TaskEnvelope};
use datafusion::physical_plan::ExecutionPlan;
use serde::{Deserialize, Serialize};

use crate::{
    inputs::TaskInputs,
    run::{TaskOutput, run_rewritten},
};

pub(crate) use self::outline::{Outline, isolate, rewrite_all};
pub(crate) use self::tap::{Recorder, TapExec};

/// Most batches of a trace.
pub const MAX_BATCHES: usize = 1 << 20;
/// Bytes of batches that are kept of a trace at most: a task whose operators give more cannot be traced with its batches.
pub const MOST_BATCH_BYTES: usize = 1 << 30;

/// What one partition of an operator gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batches {
    /// Address of each batch's canonical encoding.
    pub batches: Vec<Cid>,
    /// Whether its reader saw the end: a limit above may have had enough before.
    pub ended: bool,
}

/// What one operator gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorTrace {
    /// By partition.
    pub partitions: Vec<Batches>,
}

impl OperatorTrace {
    /// The root over all batches: who has told it cannot tell other batches afterwards.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("conun operator root v1");
        for partition in &self.partitions {
            hasher.update(&(partition.batches.len() as u64).to_le_bytes());
            hasher.update(&[u8::from(partition.ended)]);
            for batch in &partition.batches {
                hasher.update(batch.digest());
            }
        }
        *hasher.finalize().as_bytes()
    }
}

/// What every operator of a task gave; operator `n` is at `n - 1`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The operators.
    pub operators: Vec<OperatorTrace>,
}

impl Trace {
    /// Operator `number`.
    #[must_use]
    pub fn operator(&self, number: u32) -> Option<&OperatorTrace> {
        self.operators.get((number as usize).checked_sub(1)?)
    }

    /// The root of each operator.
    #[must_use]
    pub fn roots(&self) -> Vec<[u8; 32]> {
        self.operators.iter().map(OperatorTrace::root).collect()
    }
}

/// Runs the task that `envelope` describes as [`crate::run_task`] does, and tells what every operator gave.
///
/// # Errors
/// As [`crate::run_task`]; [`Failure::Node`] where it takes more than [`MAX_BATCHES`] batches, or a batch is of a type that
/// has no canonical form (unions).
pub async fn record(envelope: &TaskEnvelope, inputs: Arc<dyn TaskInputs>) -> Result<(TaskOutput, Trace), Failure> {
    let recorder = Arc::new(Recorder::default());
    let output = run_rewritten(envelope, inputs, |plan| tap_all(plan, &recorder)).await?;
    Ok((output, recorder.trace()))
}

/// A task's output, its trace, and the batches that the trace names.
#[derive(Debug, Clone, Default)]
pub struct Traced {
    /// What the task made.
    pub output: TaskOutput,
    /// Names of the operators, for people.
    pub operators: Vec<String>,
    /// What every operator gave.
    pub trace: Trace,
    /// The batches.
    pub batches: HashMap<Cid, Bytes>,
}

/// As [`record`], with all batches.
///
/// # Errors
/// As [`record`]; also [`Failure::Node`] where the batches are more than [`MOST_BATCH_BYTES`].
pub async fn record_all(envelope: &TaskEnvelope, inputs: Arc<dyn TaskInputs>) -> Result<Traced, Failure> {
    let recorder = Arc::new(Recorder::keeping_all());
    let mut operators = Vec::new();
    let tap = |plan| {
        operators = outline::operators(&plan).into_iter().map(|operator| operator.name).collect();
        tap_all(plan, &recorder)
    };
    let output = run_rewritten(envelope, inputs, tap).await?;
    Ok(Traced { output, operators, batches: recorder.kept(), trace: recorder.trace() })
}

/// `plan` with a tap on each of its operators.
pub(crate) fn tap_all(
    plan: Arc<dyn ExecutionPlan>,
    recorder: &Arc<Recorder>,
) -> Result<Arc<dyn ExecutionPlan>, Failure> {
    rewrite_all(plan, &mut |number, operator| {
        recorder.expect(number, &operator);
        Arc::new(TapExec::new(operator, number, recorder.clone()))
    })
}
