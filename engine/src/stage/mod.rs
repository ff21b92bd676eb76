//! Stages of a job, through Ballista's planner and stage graph.
//!
//! What it knows: Ballista. It is the only module that does: `StaticExecutionGraph` decides where stages end, which are
//! ready and how finished ones feed the next, and we drive it in process, one graph a job. There is no scheduler server,
//! no virtual executor and no port: a verdict is handed in as the one task status that the graph needs.
//! What it must not know: nodes, replicas, votes. To the graph there is one executor, called [`EXECUTOR`].

mod disguise;
mod joins;
mod lower;
mod orders;
mod planner;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ballista_core::{
    config::BallistaConfig,
    execution_plans::{ShuffleReaderExec, UnresolvedShuffleExec, compute_global_output_partition_ids},
    serde::{
        protobuf::{ShuffleWritePartition, SuccessfulTask, TaskStatus, task_status},
        scheduler::{ExecutorMetadata, ExecutorOperatingSystemSpecification, ExecutorSpecification},
    },
};
use ballista_scheduler::state::{
    execution_graph::{ExecutionGraph, StaticExecutionGraph, create_task_info},
    execution_stage::ExecutionStage,
    task_builder::restrict_plan_to_partitions,
};
use conun_types::{Error, InputBlock, JobId, OutputBlock, OutputSpec, Result, Volume};
use datafusion::{
    physical_plan::{ExecutionPlan, ExecutionPlanProperties},
    prelude::SessionConfig,
};

/// The one executor that the graph knows.
const EXECUTOR: &str = "volunteers";

/// A task's place in its job: stage from 1, task from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskKey {
    pub(crate) stage: u32,
    pub(crate) task: u32,
}

/// A task that is ready to run: a plan without anything of Ballista's in it.
#[derive(Debug, Clone)]
pub(crate) struct StageTask {
    pub(crate) key: TaskKey,
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) output: OutputSpec,
    /// Blocks of earlier stages that the plan reads, each once.
    pub(crate) blocks: Vec<InputBlock>,
    /// The stage's partition behind each output block.
    partitions: Vec<u64>,
    attempt: u32,
}

impl StageTask {
    /// Blocks that the task must make.
    pub(crate) fn outputs(&self) -> usize {
        self.partitions.len()
    }
}

/// A block of an earlier stage, as the graph names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct BlockKey {
    stage: usize,
    partition: usize,
    task: u64,
}

/// The stages of one job.
pub(crate) struct StageGraph {
    graph: StaticExecutionGraph,
    executor: ExecutorMetadata,
    agreed: HashMap<BlockKey, InputBlock>,
}

impl StageGraph {
    /// Cuts a physical plan into stages.
    pub(crate) fn new(job: JobId, plan: Arc<dyn ExecutionPlan>, config: SessionConfig) -> Result<Self> {
        let plan = orders::restore_orders(joins::gather_right_sides(plan)?)?;
        let config = Arc::new(config.with_option_extension(BallistaConfig::default()));
        let mut planner = planner::Planner::new();
        let id = job.to_string().into();
        let mut graph =
            StaticExecutionGraph::new("conun", &id, "", "", plan, 0, config, &mut planner, None).map_err(plan_error)?;
        graph.revive();
        Ok(Self { graph, executor: executor(), agreed: HashMap::new() })
    }

    /// Tasks that became ready since the last call: one a partition, or one for all partitions of a stage that
    /// collapses them.
    pub(crate) fn ready_tasks(&mut self) -> Result<Vec<StageTask>> {
        let mut tasks = Vec::new();
        while let Some(drawn) = self.draw() {
            tasks.push(self.lower(drawn)?);
        }
        tasks.sort_by_key(|t| t.key);
        Ok(tasks)
    }

    fn draw(&mut self) -> Option<Drawn> {
        let stage = self.graph.fetch_running_stage(&[])?;
        let most = if collapses(&stage.plan) { usize::MAX } else { 1 };
        let slice = stage.pending.next_slice(most);
        if slice.is_empty() {
            return None;
        }
        let task = stage.task_infos.len();
        let mut info = create_task_info(EXECUTOR.to_owned(), task);
        info.global_input_partition_ids.clone_from(&slice);
        info.vcores_consumed = 1;
        stage.task_infos.push(info);
        let key = TaskKey { stage: stage.stage_id as u32, task: task as u32 };
        Some(Drawn { key, attempt: stage.stage_attempt_num as u32, slice, plan: Arc::clone(&stage.plan) })
    }

    fn lower(&self, drawn: Drawn) -> Result<StageTask> {
        let partitions = compute_global_output_partition_ids(&drawn.plan, &drawn.slice);
        let restricted = restrict_plan_to_partitions(drawn.plan, &drawn.slice)
            .map_err(|e| Error::internal(format!("stage {}: {e}", drawn.key.stage)))?;
        let lowered = lower::lower(&restricted, &|reader| self.blocks_of(reader))?;
        let made = match lowered.output {
            OutputSpec::Hash(n) => n as usize,
            OutputSpec::Passthrough => lowered.plan.output_partitioning().partition_count(),
        };
        if made != partitions.len() {
            return Err(Error::internal(format!(
                "stage {} makes {made} partitions, its readers expect {}",
                drawn.key.stage,
                partitions.len()
            )));
        }
        Ok(StageTask {
            key: drawn.key,
            plan: lowered.plan,
            output: lowered.output,
            blocks: lowered.blocks,
            partitions: partitions.into_iter().map(|p| p as u64).collect(),
            attempt: drawn.attempt,
        })
    }

    /// The agreed blocks behind each partition of a shuffle reader, in the order of the tasks that made them: the graph
    /// lists locations in the order in which tasks ended, which differs from run to run. Empty blocks are left out.
    fn blocks_of(&self, reader: &ShuffleReaderExec) -> Result<Vec<Vec<InputBlock>>> {
        let mut partitions = Vec::with_capacity(reader.partition.len());
        for locations in &reader.partition {
            let mut keys: Vec<BlockKey> = locations.iter().map(block_key).collect::<Result<_>>()?;
            keys.sort_unstable();
            let blocks = keys.iter().map(|key| self.agreed_block(key)).collect::<Result<Vec<_>>>()?;
            partitions.push(blocks.into_iter().filter(|b| b.volume.rows > 0).collect());
        }
        Ok(partitions)
    }

    fn agreed_block(&self, key: &BlockKey) -> Result<InputBlock> {
        self.agreed.get(key).copied().ok_or_else(|| Error::internal(format!("no verdict on {key:?}")))
    }

    /// Tells the graph that a verdict is in.
    pub(crate) fn complete(&mut self, task: &StageTask, outputs: &[OutputBlock]) -> Result<()> {
        for (block, partition) in outputs.iter().zip(&task.partitions) {
            let key = BlockKey {
                stage: task.key.stage as usize,
                partition: *partition as usize,
                task: u64::from(task.key.task),
            };
            let volume = Volume { rows: block.rows, bytes: block.bytes };
            self.agreed.insert(key, InputBlock { cid: block.cid, volume });
        }
        let status = success(self.graph.job_id().as_str(), task, outputs);
        self.graph.update_task_status(&self.executor, vec![status], 1, 1).map_err(plan_error)?;
        Ok(())
    }

    /// Tasks of each stage.
    pub(crate) fn tasks(&self) -> BTreeMap<u32, u64> {
        let plan = |stage: &ExecutionStage| match stage {
            ExecutionStage::UnResolved(stage) => Arc::clone(&stage.plan),
            ExecutionStage::Resolved(stage) => Arc::clone(&stage.plan),
            ExecutionStage::Running(stage) => Arc::clone(&stage.plan),
            ExecutionStage::Successful(stage) => Arc::clone(&stage.plan),
            ExecutionStage::Failed(stage) => Arc::clone(&stage.plan),
        };
        let count = |plan: Arc<dyn ExecutionPlan>| {
            if collapses(&plan) {
                1
            } else {
                plan.children().first().map_or(1, |p| p.output_partitioning().partition_count())
            }
        };
        self.graph.stages().iter().map(|(id, stage)| (*id as u32, count(plan(stage)) as u64)).collect()
    }

    /// Whether every stage is done.
    pub(crate) fn is_done(&self) -> bool {
        self.graph.is_successful()
    }

    /// The blocks of the answer, in the order of its partitions.
    pub(crate) fn answer(&self) -> Result<Vec<InputBlock>> {
        let mut keys: Vec<BlockKey> = self.graph.output_locations().iter().map(block_key).collect::<Result<_>>()?;
        keys.sort_unstable();
        keys.iter().map(|key| self.agreed_block(key)).collect()
    }
}

struct Drawn {
    key: TaskKey,
    attempt: u32,
    slice: Vec<usize>,
    plan: Arc<dyn ExecutionPlan>,
}

fn block_key(location: &ballista_core::serde::scheduler::PartitionLocation) -> Result<BlockKey> {
    let id = &location.partition_id;
    let task = location.file_id.ok_or_else(|| Error::internal("a location without a task"))?;
    Ok(BlockKey { stage: id.stage_id, partition: id.partition_id, task })
}

/// The status by which the graph learns of a verdict. `file_id` is the task: several tasks make the same partition.
fn success(job: &str, task: &StageTask, outputs: &[OutputBlock]) -> TaskStatus {
    let partition = |(block, partition): (&OutputBlock, &u64)| ShuffleWritePartition {
        partition_id: *partition,
        num_batches: block.rows.div_ceil(conun_types::profile::BATCH_ROWS as u64),
        num_rows: block.rows,
        num_bytes: block.bytes,
        file_id: Some(u64::from(task.key.task)),
        is_sort_shuffle: false,
    };
    let done = SuccessfulTask {
        executor_id: EXECUTOR.to_owned(),
        partitions: outputs.iter().zip(&task.partitions).map(partition).collect(),
        ..SuccessfulTask::default()
    };
    TaskStatus {
        task_id: task.key.task,
        job_id: job.to_owned(),
        stage_id: task.key.stage,
        stage_attempt_num: task.attempt,
        status: Some(task_status::Status::Successful(done)),
        ..TaskStatus::default()
    }
}

fn executor() -> ExecutorMetadata {
    ExecutorMetadata {
        id: EXECUTOR.to_owned(),
        host: String::new(),
        port: 0,
        grpc_port: 0,
        specification: ExecutorSpecification::default(),
        os_info: ExecutorOperatingSystemSpecification::default(),
    }
}

/// Whether one task must read all partitions of a stage: some operator on the way from its root to its readers has a
/// single output partition, so a split input would give partial results. Ballista decides the same way when it binds
/// tasks (`stage_has_input_collapse`, ballista-scheduler 55 `cluster/mod.rs`, which is private).
fn collapses(root: &Arc<dyn ExecutionPlan>) -> bool {
    let mut node = root;
    while let [child] = node.children().as_slice() {
        node = *child;
        if node.is::<ShuffleReaderExec>() || node.is::<UnresolvedShuffleExec>() {
            return false;
        }
        if node.output_partitioning().partition_count() == 1 {
            return true;
        }
    }
    false
}

/// Ballista's planning errors: what it cannot plan is the statement's fault, unless it calls it internal.
fn plan_error(error: ballista_core::error::BallistaError) -> Error {
    use ballista_core::error::BallistaError as B;
    match error {
        B::DataFusionError(e) => conun_planner::plan_error(&e),
        B::NotImplemented(text) | B::General(text) => Error::data(text),
        other => Error::internal(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
