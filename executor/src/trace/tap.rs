//! A tap: an operator's stream passes through it unchanged and is written down.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use conun_types::{Cid, Failure};
use datafusion::{
    arrow::array::RecordBatch,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream};

use super::{Batches, MAX_BATCHES, MOST_BATCH_BYTES, OperatorTrace, Trace};
use crate::{canonical, inputs::fault};

/// Of which operators batches are kept, not only their hashes.
#[derive(Debug, Default, PartialEq, Eq)]
enum Keep {
    #[default]
    None,
    One(u32),
    All,
}

/// Writes down what taps see.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    keep: Keep,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    operators: HashMap<u32, OperatorTrace>,
    kept: HashMap<Cid, Bytes>,
    kept_bytes: usize,
    batches: usize,
}

impl Recorder {
    /// A recorder that keeps the batches of one operator.
    pub(crate) fn keeping(operator: u32) -> Self {
        Self { keep: Keep::One(operator), state: Mutex::default() }
    }

    /// A recorder that keeps all batches.
    pub(crate) fn keeping_all() -> Self {
        Self { keep: Keep::All, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen, by operator.
    pub(crate) fn trace(&self) -> Trace {
        let mut state = self.lock();
        let operators = (1..=state.operators.len() as u32).filter_map(|n| state.operators.remove(&n)).collect();
        Trace { operators }
    }

    /// The batches that were kept.
    pub(crate) fn kept(&self) -> HashMap<Cid, Bytes> {
        std::mem::take(&mut self.lock().kept)
    }

    /// Operator `number` is going to be seen, each of its partitions: a trace has the plan's shape even where nobody asks
    /// for a partition.
    pub(crate) fn expect(&self, number: u32, operator: &Arc<dyn ExecutionPlan>) {
        let partitions = vec![Batches::default(); operator.output_partitioning().partition_count()];
        self.lock().operators.insert(number, OperatorTrace { partitions });
    }

    fn batch(&self, number: u32, partition: usize, batch: &RecordBatch, plan: &dyn ExecutionPlan) -> Result<()> {
        let encoded = canonical::encode(&plan.schema(), std::slice::from_ref(batch));
        // The query may be well: it is the trace that does not go further.
        let bytes = encoded.map_err(|e| untraceable(&e.message))?;
        let cid = Cid::raw(&bytes);
        let mut state = self.lock();
        state.batches += 1;
        if self.keep == Keep::All || self.keep == Keep::One(number) {
            let len = bytes.len();
            if state.kept.insert(cid, bytes).is_none() {
                state.kept_bytes += len;
            }
        }
        if state.batches > MAX_BATCHES {
            return Err(untraceable(&format!("its operators give more than {MAX_BATCHES} batches")));
        }
        if state.kept_bytes > MOST_BATCH_BYTES {
            return Err(untraceable(&format!("its batches have more than {} MiB", MOST_BATCH_BYTES >> 20)));
        }
        if let Some(seen) = state.partition(number, partition) {
            seen.batches.push(cid);
        }
        Ok(())
    }

    fn ended(&self, number: u32, partition: usize) {
        if let Some(seen) = self.lock().partition(number, partition) {
            seen.ended = true;
        }
    }
}

fn untraceable(why: &str) -> DataFusionError {
    fault(Failure::Node(format!("it cannot be traced: {why}")))
}

impl State {
    fn partition(&mut self, number: u32, partition: usize) -> Option<&mut Batches> {
        self.operators.get_mut(&number)?.partitions.get_mut(partition)
    }
}

/// Passes on what its input gives, and has it written down.
#[derive(Debug, Clone)]
pub(crate) struct TapExec {
    input: Arc<dyn ExecutionPlan>,
    number: u32,
    recorder: Arc<Recorder>,
}

impl TapExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, number: u32, recorder: Arc<Recorder>) -> Self {
        Self { input, number, recorder }
    }
}

impl DisplayAs for TapExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TapExec: operator={}", self.number)
    }
}

impl ExecutionPlan for TapExec {
    fn name(&self) -> &'static str {
        "TapExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    crate::one_input_plan!(|plan: &Self, input| Self::new(input, plan.number, plan.recorder.clone()));

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (tap, end) = (self.clone(), self.clone());
        let batches = self.input.execute(partition, context)?.map(move |batch| {
            let batch = batch?;
            tap.recorder.batch(tap.number, partition, &batch, tap.input.as_ref())?;
            Ok(batch)
        });
        // Asked for only once the input has ended.
        let end = stream::poll_fn(move |_| {
            end.recorder.ended(end.number, partition);
            std::task::Poll::Ready(None)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches.chain(end))))
    }
}
