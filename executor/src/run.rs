//! Runs one task: decode, check, pin, execute in order, encode.

use std::sync::Arc;

use bytes::Bytes;
use conun_types::{Cid, Failure, OutputBlock, OutputSpec, TaskEnvelope, profile, task::MAX_BLOCKS};
use datafusion::{
    arrow::array::RecordBatch,
    error::DataFusionError,
    execution::{
        TaskContext,
        memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation},
    },
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, Partitioning,
        metrics::Time,
        repartition::{BatchPartitioner, RepartitionExec},
    },
};
use futures::StreamExt;

use crate::{
    canonical::{Encoded, Encoder},
    codec, failure,
    inputs::{Recorded, TaskInputs},
    pin, session, whitelist,
};

/// What a task made: its blocks in partition order, each with its bytes.
#[derive(Debug, Clone, Default)]
pub struct TaskOutput {
    /// Blocks and their bytes.
    pub blocks: Vec<(OutputBlock, Bytes)>,
}

/// Runs the task that `envelope` describes.
///
/// One thread should drive it (a current-thread runtime): then nothing in it depends on timing. Dropping the future
/// cancels it at its next wait; a runner process is killed instead.
///
/// # Errors
/// [`Failure`], by who is at fault.
pub async fn run_task(envelope: &TaskEnvelope, inputs: Arc<dyn TaskInputs>) -> Result<TaskOutput, Failure> {
    if envelope.profile != profile::hash() {
        return Err(Failure::Refused("another execution profile".into()));
    }
    let inputs = Arc::new(Recorded::new(inputs));
    let (context, pool) = session::task_context(envelope, inputs.clone())?;
    let plan = prepare(envelope, &context)?;
    let shared: Arc<dyn MemoryPool> = pool.clone();
    let reservation = MemoryConsumer::new("output").register(&shared);
    let result = match hash_root(&plan) {
        Some((input, partitioning)) => run_hashed(&input, partitioning, &context, &reservation).await,
        None => run_passthrough(&plan, &context, &reservation).await,
    };
    if let Some(failure) = inputs.failure() {
        return Err(failure);
    }
    // Even where an operator recovered from a refusal: its output would depend on what else was reserved then.
    if pool.exceeded() { Err(Failure::MemoryExceeded) } else { result }
}

/// The decoded, checked and pinned plan.
fn prepare(envelope: &TaskEnvelope, context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>, Failure> {
    let plan = codec::decode_plan(&envelope.plan, context).map_err(|e| Failure::Refused(e.message))?;
    whitelist::check(plan.as_ref(), envelope)?;
    if let OutputSpec::Hash(_) = envelope.output {
        return match plan.downcast_ref::<RepartitionExec>() {
            Some(root) => {
                let input = pin::pin(root.input().clone())?;
                let pinned = RepartitionExec::try_new(input, root.partitioning().clone());
                Ok(Arc::new(pinned.map_err(|e| failure::of(&e))?))
            }
            None => Err(Failure::Refused("the root of a shuffled task is no RepartitionExec".into())),
        };
    }
    pin::pin(plan)
}

fn hash_root(plan: &Arc<dyn ExecutionPlan>) -> Option<(Arc<dyn ExecutionPlan>, Partitioning)> {
    let root = plan.downcast_ref::<RepartitionExec>()?;
    Some((root.input().clone(), root.partitioning().clone()))
}

/// Block `i` is partition `i`, each executed to its end before the next starts.
async fn run_passthrough(
    plan: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    reservation: &MemoryReservation,
) -> Result<TaskOutput, Failure> {
    let mut blocks = Blocks::new(reservation);
    for partition in 0..plan.output_partitioning().partition_count() {
        let mut encoder = Encoder::new(&plan.schema()).map_err(failure::of_encoding)?;
        let mut batches = plan.execute(partition, context.clone()).map_err(|e| failure::of(&e))?;
        while let Some(batch) = batches.next().await {
            encoder.push(&batch.map_err(|e| failure::of(&e))?).map_err(failure::of_encoding)?;
            blocks.account(encoder.len())?;
        }
        blocks.push(encoder.finish().map_err(failure::of_encoding)?)?;
    }
    Ok(blocks.finish())
}

/// Block `i` takes the rows whose keys hash to `i`, in the order of the input's partitions.
async fn run_hashed(
    input: &Arc<dyn ExecutionPlan>,
    partitioning: Partitioning,
    context: &Arc<TaskContext>,
    reservation: &MemoryReservation,
) -> Result<TaskOutput, Failure> {
    let fail = |e: DataFusionError| failure::of(&e);
    let schema = input.schema();
    let encoders: Result<Vec<_>, _> = (0..partitioning.partition_count()).map(|_| Encoder::new(&schema)).collect();
    let mut encoders = encoders.map_err(failure::of_encoding)?;
    let mut partitioner = BatchPartitioner::try_new(partitioning, Time::default(), 0, 1).map_err(fail)?;
    let mut blocks = Blocks::new(reservation);
    for partition in 0..input.output_partitioning().partition_count() {
        let mut batches = input.execute(partition, context.clone()).map_err(fail)?;
        while let Some(batch) = batches.next().await {
            scatter(&mut partitioner, batch.map_err(fail)?, &mut encoders)?;
            blocks.account(encoders.iter().map(Encoder::len).sum())?;
        }
    }
    for encoder in encoders {
        blocks.push(encoder.finish().map_err(failure::of_encoding)?)?;
    }
    Ok(blocks.finish())
}

fn scatter(partitioner: &mut BatchPartitioner, batch: RecordBatch, encoders: &mut [Encoder]) -> Result<(), Failure> {
    let mut verdict = Ok(());
    let scattered = partitioner.partition(batch, |partition, rows| {
        if verdict.is_ok() {
            verdict = encoders[partition].push(&rows);
        }
        Ok(())
    });
    scattered.map_err(|e| failure::of(&e))?;
    verdict.map_err(failure::of_encoding)
}

/// Finished blocks, whose bytes count against the task's memory.
struct Blocks<'a> {
    output: TaskOutput,
    finished: usize,
    reservation: &'a MemoryReservation,
}

impl<'a> Blocks<'a> {
    fn new(reservation: &'a MemoryReservation) -> Self {
        Self { output: TaskOutput::default(), finished: 0, reservation }
    }

    /// Reserves for all finished blocks and `unfinished` bytes of others.
    fn account(&self, unfinished: usize) -> Result<(), Failure> {
        self.reservation.try_resize(self.finished + unfinished).map_err(|e| failure::of(&e))
    }

    fn push(&mut self, block: Encoded) -> Result<(), Failure> {
        let partition = u32::try_from(self.output.blocks.len()).unwrap_or(u32::MAX);
        if partition as usize >= MAX_BLOCKS {
            return Err(Failure::Refused(format!("more than {MAX_BLOCKS} output partitions")));
        }
        let bytes = block.bytes.len();
        let described = OutputBlock { partition, cid: Cid::raw(&block.bytes), rows: block.rows, bytes: bytes as u64 };
        self.finished += bytes;
        self.output.blocks.push((described, block.bytes));
        Ok(())
    }

    fn finish(self) -> TaskOutput {
        self.output
    }
}
