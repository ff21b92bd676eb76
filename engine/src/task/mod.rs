//! One task: its envelope, its replicas, its verdict.

mod attempt;
mod look;
mod patience;
mod pay;
mod round;
mod settle;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use conun_types::{Cid, InputShard, JobId, MemoryClass, NodeId, OutputBlock, Result, TaskEnvelope, Volume, codec};

use crate::{credit::Operator, record::ReceiptRecord, stage::StageTask};

pub(crate) use settle::Settler;

/// A task as it is sent: the exact bytes are the evidence, their hash its name.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) stage: StageTask,
    pub(crate) envelope: TaskEnvelope,
    pub(crate) bytes: Bytes,
    pub(crate) cid: Cid,
}

impl Prepared {
    /// Encodes `stage` of `job`, which scans `shards`, for nodes that lend a task `most` memory.
    pub(crate) fn new(job: JobId, stage: StageTask, shards: Vec<InputShard>, most: MemoryClass) -> Result<Self> {
        let plan = conun_executor::encode_plan(&stage.plan)?;
        if conun_executor::nests_too_deeply(&plan) {
            return Err(conun_executor::plan_too_deep());
        }
        let input: Volume = shards.iter().map(|s| s.volume).chain(stage.blocks.iter().map(|b| b.volume)).sum();
        let envelope = TaskEnvelope {
            memory: first_class(input).min(most),
            output: stage.output,
            shards,
            blocks: stage.blocks.clone(),
            ..TaskEnvelope::new(job, stage.key.stage, stage.key.task, plan)
        };
        // What every node would refuse is told here, once and by name.
        conun_executor::whitelist::check(stage.plan.as_ref(), &envelope).map_err(|refusal| {
            conun_types::Error::data(refusal.to_string()).with_hint("write the statement without it")
        })?;
        Self::of(stage, envelope)
    }

    fn of(stage: StageTask, envelope: TaskEnvelope) -> Result<Self> {
        let bytes = Bytes::from(codec::encode(&envelope)?);
        if bytes.len() > conun_types::task::MAX_ENVELOPE {
            return Err(conun_types::Error::data(format!("a task of {} bytes is too large to send", bytes.len()))
                .with_hint("write a shorter statement: fewer literals, fewer columns"));
        }
        let cid = Cid::raw(&bytes);
        Ok(Self { stage, envelope, bytes, cid })
    }

    /// The same task in a bigger pool.
    pub(crate) fn in_class(&self, memory: MemoryClass) -> Result<Self> {
        let stage = self.stage.clone();
        Self::of(stage, TaskEnvelope { memory, ..self.envelope.clone() })
    }
}

/// The class that a task starts in: hash tables and sorts hold a few times their (compressed) input.
fn first_class(input: Volume) -> MemoryClass {
    if input.bytes > 32 << 20 { MemoryClass::Medium } else { MemoryClass::Small }
}

/// A verdict: what the quorum agreed on and who said what.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    /// Name of the task as it was asked for.
    pub(crate) asked: Cid,
    /// The task in the memory class that sufficed.
    pub(crate) task: Arc<Prepared>,
    pub(crate) outputs: Vec<OutputBlock>,
    /// Replicas that agreed, and how to read their blocks.
    pub(crate) holders: Vec<conun_types::Holder>,
    /// Replicas that did not, with what they made instead.
    pub(crate) rejected: Vec<(conun_types::Holder, Vec<OutputBlock>)>,
    pub(crate) receipts: Vec<ReceiptRecord>,
    pub(crate) liars: Vec<NodeId>,
    pub(crate) late: Vec<NodeId>,
    /// Operators that agreed, each by the node that voted.
    pub(crate) voters: BTreeMap<Operator, NodeId>,
    /// Probability that it is wrong, at most.
    pub(crate) bound: f64,
}
