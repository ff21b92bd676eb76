//! One query through a stage graph of Ballista's, static or adaptive, driven in process as engine/ drives the static one.
//!
//! The adaptive planner and graph are private (`mod aqe` in ballista-scheduler's `state`). Its task manager makes one from a
//! logical plan and gives it out as `dyn ExecutionGraph`, which is all that driving needs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ballista_core::{
    JobId,
    execution_plans::{
        RangeShuffleReaderExec, ShuffleReaderExec, ShuffleWriter, ShuffleWriterExec, SortShuffleWriterExec,
        compute_global_output_partition_ids,
    },
    serde::{
        BallistaCodec,
        protobuf::{ShuffleWritePartition, SuccessfulTask, TaskStatus, task_status},
        scheduler::{ExecutorMetadata, ExecutorOperatingSystemSpecification, ExecutorSpecification, PartitionLocation},
    },
};
use ballista_scheduler::{
    cluster::memory::InMemoryJobState,
    config::SchedulerConfig,
    state::{
        execution_graph::{ExecutionGraphBox, create_task_info},
        task_builder::restrict_plan_to_partitions,
        task_manager::TaskManager,
    },
};
use bytes::Bytes;
use conun_benches::tpch::Error;
use conun_executor::BlockReaderExec;
use conun_types::{Cid, InputBlock, OutputBlock, Volume};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    error::DataFusionError,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::LogicalPlan,
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, Partitioning, repartition::RepartitionExec,
        sorts::sort_preserving_merge::SortPreservingMergeExec, union::UnionExec,
    },
    prelude::{SessionConfig, SessionContext},
};

/// The one executor that the graph knows.
const EXECUTOR: &str = "bench";

/// What a blind graph is told of each block.
const SAME: Volume = Volume { rows: 1000, bytes: 64 << 10 };

/// The stages of one query.
pub(crate) struct Graph {
    graph: ExecutionGraphBox,
    made: HashMap<BlockKey, InputBlock>,
    plans: BTreeMap<usize, Arc<dyn ExecutionPlan>>,
    blind: bool,
}

/// Stage, partition and task that made a block.
type BlockKey = (usize, usize, u64);

/// A task that is ready: a plan without anything of Ballista's in it, and the blocks that it reads.
pub(crate) struct Task {
    pub(crate) stage: usize,
    task: usize,
    attempt: usize,
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) blocks: Vec<InputBlock>,
    /// The stage's partition behind each block that the task makes.
    partitions: Vec<usize>,
}

impl Graph {
    /// Plans `plan`; `state` says whether once or after each stage. Where `blind`, the graph is told that all blocks are of
    /// the same size.
    pub(crate) async fn new(state: SessionState, plan: &LogicalPlan, blind: bool) -> Result<Self, Error> {
        let sessions = Arc::new(|config| Ok(SessionStateBuilder::new().with_config(config).build()));
        let jobs = InMemoryJobState::new("bench", sessions, Arc::new(SessionConfig::new));
        let codec: BallistaCodec = BallistaCodec::default();
        let config = Arc::new(SchedulerConfig::default());
        let manager = TaskManager::new(Arc::new(jobs), codec, "bench".to_owned(), String::new(), config);
        let job = JobId::from("query");
        manager.queue_job(&job, "", 0)?;
        manager.submit_job(&job, "", Arc::new(SessionContext::new_with_state(state)), plan, 0, None).await?;
        let jobs = manager.get_running_job_cache();
        let graph = jobs.get(&job).ok_or("Ballista does not run the query")?.execution_graph.read().await.cloned();
        Ok(Self { graph, made: HashMap::new(), plans: BTreeMap::new(), blind })
    }

    /// Tasks that became ready since the last call, by stage and partition.
    pub(crate) fn ready(&mut self) -> Result<Vec<Task>, Error> {
        let mut tasks = Vec::new();
        while let Some(stage) = self.graph.fetch_running_stage(&[]) {
            let most = if collapses(&stage.plan) { usize::MAX } else { 1 };
            let slice = stage.pending.next_slice(most);
            let task = stage.task_infos.len();
            let mut info = create_task_info(EXECUTOR.to_owned(), task);
            info.global_input_partition_ids.clone_from(&slice);
            info.vcores_consumed = 1;
            stage.task_infos.push(info);
            let (id, attempt, plan) = (stage.stage_id, stage.stage_attempt_num, Arc::clone(&stage.plan));
            self.plans.insert(id, Arc::clone(&plan));
            let partitions = compute_global_output_partition_ids(&plan, &slice);
            let (plan, blocks) = self.lower(&restrict_plan_to_partitions(plan, &slice)?)?;
            tasks.push(Task { stage: id, task, attempt, plan, blocks, partitions });
        }
        tasks.sort_by_key(|task| (task.stage, task.task));
        Ok(tasks)
    }

    /// Replaces Ballista's writer and readers.
    fn lower(&self, root: &Arc<dyn ExecutionPlan>) -> Result<(Arc<dyn ExecutionPlan>, Vec<InputBlock>), Error> {
        let [input] = root.children().try_into().map_err(|_| "a stage's writer has one input")?;
        let mut blocks = Vec::new();
        let input = Arc::clone(input).transform_up(|node| self.read(node, &mut blocks))?.data;
        blocks.sort_by_key(|block: &InputBlock| block.cid);
        blocks.dedup_by_key(|block| block.cid);
        if root.is::<ShuffleWriterExec>() {
            return Ok((input, blocks));
        }
        match root.downcast_ref::<SortShuffleWriterExec>().and_then(ShuffleWriter::shuffle_output_partitioning) {
            Some(hash @ Partitioning::Hash(..)) => {
                Ok((Arc::new(RepartitionExec::try_new(input, hash.clone())?), blocks))
            }
            _ => Err(format!("no volunteer can run {}", root.name()).into()),
        }
    }

    fn read(
        &self,
        node: Arc<dyn ExecutionPlan>,
        blocks: &mut Vec<InputBlock>,
    ) -> Result<Transformed<Arc<dyn ExecutionPlan>>, DataFusionError> {
        let reader: Arc<dyn ExecutionPlan> = if let Some(reader) = node.downcast_ref::<ShuffleReaderExec>() {
            let partitions = self.blocks_of(&reader.partition)?;
            blocks.extend(partitions.iter().flatten());
            let partitioning = reader.properties().output_partitioning().clone();
            Arc::new(BlockReaderExec::try_new(reader.schema(), partitions, partitioning)?)
        } else if let Some(reader) = node.downcast_ref::<RangeShuffleReaderExec>() {
            let partitions = self.blocks_of(&reader.partition)?;
            blocks.extend(partitions.iter().flatten());
            merge(reader, partitions)?
        } else {
            return Ok(Transformed::no(node));
        };
        Ok(Transformed::yes(reader))
    }

    /// The blocks behind each partition, in the order of the tasks that made them; empty ones are left out.
    fn blocks_of(&self, partitions: &[Vec<PartitionLocation>]) -> Result<Vec<Vec<InputBlock>>, DataFusionError> {
        let block = |key: &BlockKey| {
            self.made.get(key).copied().ok_or_else(|| DataFusionError::Internal(format!("nobody made {key:?}")))
        };
        let one = |locations: &Vec<PartitionLocation>| {
            let mut keys: Vec<BlockKey> = locations.iter().map(key).collect();
            keys.sort_unstable();
            let blocks = keys.iter().map(block).collect::<Result<Vec<_>, _>>()?;
            Ok(blocks.into_iter().filter(|block| block.volume.rows > 0).collect())
        };
        partitions.iter().map(one).collect()
    }

    /// Tells the graph what `task` made.
    pub(crate) fn complete(&mut self, task: &Task, made: &[(OutputBlock, Bytes)]) -> Result<(), Error> {
        if made.len() != task.partitions.len() {
            return Err(format!("{} blocks for {} partitions", made.len(), task.partitions.len()).into());
        }
        for ((block, _), partition) in made.iter().zip(&task.partitions) {
            let block = InputBlock { cid: block.cid, volume: volume(block) };
            self.made.insert((task.stage, *partition, task.task as u64), block);
        }
        let volumes = made.iter().map(|(block, _)| if self.blind { SAME } else { volume(block) });
        let status = success(self.graph.job_id(), task, volumes);
        self.graph.update_task_status(&executor(), vec![status], 1, 1)?;
        Ok(())
    }

    pub(crate) fn is_done(&self) -> bool {
        self.graph.is_successful()
    }

    /// The blocks of the answer.
    pub(crate) fn answer(&self) -> Result<Vec<Cid>, Error> {
        let mut keys: Vec<BlockKey> = self.graph.output_locations().iter().map(key).collect();
        keys.sort_unstable();
        keys.iter().map(|key| Ok(self.made.get(key).ok_or("an answer that nobody made")?.cid)).collect()
    }

    /// The plans of all stages that ran.
    pub(crate) fn into_plans(self) -> Vec<Arc<dyn ExecutionPlan>> {
        self.plans.into_values().collect()
    }
}

fn key(location: &PartitionLocation) -> BlockKey {
    let id = &location.partition_id;
    (id.stage_id, id.partition_id, location.file_id.unwrap_or_default())
}

/// A reader that keeps the order which each block of `partitions` has.
fn merge(
    reader: &RangeShuffleReaderExec,
    partitions: Vec<Vec<InputBlock>>,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let ordering = reader.merge_ordering();
    let sorted = |blocks: Vec<Vec<InputBlock>>| -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let partitioning = Partitioning::UnknownPartitioning(blocks.len());
        let reader = BlockReaderExec::try_new(reader.schema(), blocks, partitioning)?;
        Ok(Arc::new(reader.with_ordering(ordering.clone())))
    };
    if partitions.iter().all(|blocks| blocks.len() < 2) {
        return sorted(partitions);
    }
    let merged = |blocks: Vec<InputBlock>| -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let blocks = sorted(blocks.into_iter().map(|block| vec![block]).collect())?;
        Ok(Arc::new(SortPreservingMergeExec::new(ordering.clone(), blocks)))
    };
    let mut merged = partitions.into_iter().map(merged).collect::<Result<Vec<_>, _>>()?;
    if merged.len() == 1 { Ok(merged.remove(0)) } else { UnionExec::try_new(merged) }
}

/// Whether one task must read all partitions of a stage, as Ballista decides it (`stage_has_input_collapse`, private).
fn collapses(root: &Arc<dyn ExecutionPlan>) -> bool {
    let mut node = root;
    while let [child] = node.children().as_slice() {
        node = *child;
        if node.is::<ShuffleReaderExec>() || node.is::<RangeShuffleReaderExec>() {
            return false;
        }
        if node.output_partitioning().partition_count() == 1 {
            return true;
        }
    }
    false
}

fn volume(block: &OutputBlock) -> Volume {
    Volume { rows: block.rows, bytes: block.bytes }
}

fn success(job: &JobId, task: &Task, volumes: impl Iterator<Item = Volume>) -> TaskStatus {
    let partition = |(volume, partition): (Volume, &usize)| ShuffleWritePartition {
        partition_id: *partition as u64,
        num_batches: volume.rows.div_ceil(conun_types::profile::BATCH_ROWS as u64),
        num_rows: volume.rows,
        num_bytes: volume.bytes,
        file_id: Some(task.task as u64),
        is_sort_shuffle: false,
    };
    let done = SuccessfulTask {
        executor_id: EXECUTOR.to_owned(),
        partitions: volumes.zip(&task.partitions).map(partition).collect(),
        ..SuccessfulTask::default()
    };
    TaskStatus {
        task_id: task.task as u32,
        job_id: job.as_str().to_owned(),
        stage_id: task.stage as u32,
        stage_attempt_num: task.attempt as u32,
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
