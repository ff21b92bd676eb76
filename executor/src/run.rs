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
    pin,
    session::{self, ClassPool},
    whitelist,
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
    run_rewritten(envelope, inputs, Ok).await
}

/// Runs a task whose plan, once it is checked and pinned, is replaced by what `rewrite` makes of it: that is how a trace
/// listens in, and how a referee puts agreed rows in the plan's place.
pub(crate) async fn run_rewritten(
    envelope: &TaskEnvelope,
    inputs: Arc<dyn TaskInputs>,
    rewrite: impl FnOnce(Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, Failure>,
) -> Result<TaskOutput, Failure> {
    let task = Ready::new(envelope, inputs)?;
    let plan = rewrite(task.plan.clone())?;
    let shared: Arc<dyn MemoryPool> = task.pool.clone();
    let reservation = MemoryConsumer::new("output").register(&shared);
    let result = match &task.shuffle {
        Some(partitioning) => run_hashed(&plan, partitioning.clone(), &task.context, &reservation).await,
        None => run_passthrough(&plan, &task.context, &reservation).await,
    };
    task.check()?;
    result
}

/// A task that is ready to run: its plan decoded, checked and pinned.
pub(crate) struct Ready {
    /// The plan below the shuffle, where there is one.
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    /// By what the rows are spread over blocks.
    shuffle: Option<Partitioning>,
    pub(crate) context: Arc<TaskContext>,
    pool: Arc<ClassPool>,
    inputs: Arc<Recorded>,
}

impl Ready {
    pub(crate) fn new(envelope: &TaskEnvelope, inputs: Arc<dyn TaskInputs>) -> Result<Self, Failure> {
        if envelope.profile != profile::hash() {
            return Err(Failure::Refused("another execution profile".into()));
        }
        let inputs = Arc::new(Recorded::new(inputs));
        let (context, pool) = session::task_context(envelope, inputs.clone())?;
        let plan = codec::decode_plan(&envelope.plan, &context).map_err(|e| Failure::Refused(e.message))?;
        whitelist::check(plan.as_ref(), envelope)?;
        let (plan, shuffle) = match envelope.output {
            OutputSpec::Passthrough => (plan, None),
            OutputSpec::Hash(_) => split_shuffle(&plan)?,
        };
        Ok(Self { plan: pin::pin(plan)?, shuffle, context, pool, inputs })
    }

    /// What operators may have recovered from, though their output depends on it: an input that is missing, and a refusal
    /// by the pool.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if let Some(failure) = self.inputs.failure() {
            return Err(failure);
        }
        if self.pool.exceeded() { Err(Failure::MemoryExceeded) } else { Ok(()) }
    }
}

fn split_shuffle(plan: &Arc<dyn ExecutionPlan>) -> Result<(Arc<dyn ExecutionPlan>, Option<Partitioning>), Failure> {
    match plan.downcast_ref::<RepartitionExec>() {
        Some(root) => Ok((root.input().clone(), Some(root.partitioning().clone()))),
        None => Err(Failure::Refused("the root of a shuffled task is no RepartitionExec".into())),
    }
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
