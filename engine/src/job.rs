//! One job from its plan to its answer: draws ready tasks from the stage graph, settles them, hands verdicts back, then
//! streams the blocks of the answer, each checked and decoded only after its verdict.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use async_trait::async_trait;
use bytes::Bytes;
use conun_executor::canonical;
use conun_storage::holders::{self, Reader};
use conun_types::{
    Cid, Error, Holder, InputBlock, JobId, Lease, LeaseId, LeaseKind, Result, Source,
    port::CallError,
    wire::{ControlRequest, ReadBlock},
};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    datasource::physical_plan::FileScanConfig,
    datasource::source::DataSourceExec,
    physical_plan::ExecutionPlan,
};
use futures::{Stream, StreamExt, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Answer, Block},
    context::JobContext,
    digest::Digest,
    pass::Pass,
    recheck::Replay,
    record::{JobRecord, JobState},
    stage::{StageGraph, StageTask},
    task::{Prepared, Settler},
};

/// How long a planned job waits for somebody to ask for its answer.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// How often the stages run, where accepted answers turn out to be wrong.
const MOST_STARTS: usize = 8;

/// A planned statement.
pub(crate) struct Plan {
    pub(crate) physical: Arc<dyn ExecutionPlan>,
    pub(crate) config: datafusion::prelude::SessionConfig,
    pub(crate) schema: SchemaRef,
    /// Whether the order of the rows is part of the answer.
    pub(crate) ordered: bool,
}

/// A job that is planned, running or done.
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) settler: Settler,
    pub(crate) schema: SchemaRef,
    pub(crate) cancel: CancellationToken,
    may_use_cache: bool,
    /// What it takes to run it again later.
    pub(crate) replay: Option<Replay>,
    ordered: bool,
    progress: Mutex<Progress>,
}

struct Progress {
    record: JobRecord,
    plan: Option<Plan>,
    /// When it began to run.
    started: Duration,
}

impl Job {
    pub(crate) fn new(
        record: JobRecord,
        plan: Plan,
        settler: Settler,
        may_use_cache: bool,
        replay: Option<Replay>,
    ) -> Self {
        Self {
            id: record.id,
            settler,
            schema: Arc::clone(&plan.schema),
            cancel: CancellationToken::new(),
            may_use_cache,
            replay,
            ordered: plan.ordered,
            progress: Mutex::new(Progress { record, plan: Some(plan), started: Duration::ZERO }),
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the plan: a job runs once.
    pub(crate) fn start(&self) -> Result<Plan> {
        let mut progress = self.progress();
        if progress.record.state == JobState::Cancelled {
            return Err(Error::unavailable("the job was cancelled"));
        }
        let plan = progress.plan.take().ok_or_else(|| {
            Error::data(format!("the results of job {} were already read", self.id))
                .with_hint("run the statement again")
        })?;
        progress.record.state = JobState::Running;
        progress.started = self.settler.context().clock.now();
        Ok(plan)
    }

    /// The record as of now.
    pub(crate) fn record(&self) -> JobRecord {
        let (mut record, started) = {
            let progress = self.progress();
            (progress.record.clone(), progress.started)
        };
        let notes = self.settler.notes().snapshot();
        if record.state == JobState::Running {
            record.seconds = self.settler.context().clock.now().saturating_sub(started).as_secs_f64();
        }
        record.stages = notes.stages.into_values().collect();
        record.liars = notes.liars.into_keys().collect();
        record.late = notes.late.into_iter().filter(|n| !record.liars.contains(n)).collect();
        record.receipts = notes.receipts.len() as u64;
        record.cost = self.settler.context().payments.as_ref().map(|_| self.settler.notes().cost());
        record.warnings = notes.warnings;
        record.error_bound = notes.error_bound.or(record.error_bound);
        record
    }

    /// Ends the job with `state`.
    pub(crate) fn end(&self, state: JobState, error: Option<Error>, digest: Option<&Digest>) {
        let mut progress = self.progress();
        let now = self.settler.context().clock.now();
        let started = progress.started;
        let record = &mut progress.record;
        if matches!(record.state, JobState::Done | JobState::Failed | JobState::Cancelled) {
            return;
        }
        record.seconds = if started.is_zero() { 0.0 } else { now.saturating_sub(started).as_secs_f64() };
        record.state = state;
        record.error = error;
        record.digest = digest.map(Digest::finish);
        record.rows = digest.map_or(0, Digest::rows);
    }

    /// Whether it was planned long ago and nobody asked for its answer (tools plan statements to see their schema).
    pub(crate) fn is_forgotten(&self) -> bool {
        let record = &self.progress().record;
        let age = self.settler.context().clock.unix_seconds().saturating_sub(record.submitted);
        record.state == JobState::Planned && age > FORGET_AFTER.as_secs()
    }

    /// Whether its answer may be that of an earlier job.
    pub(crate) fn may_use_cache(&self) -> bool {
        self.may_use_cache
    }

    /// Whether the order of the rows is part of the answer.
    pub(crate) fn ordered(&self) -> bool {
        self.ordered
    }

    /// Runs all stages until nothing of what they made is in doubt; the blocks of the answer, in order.
    ///
    /// # Errors
    /// As [`Settler::settle`].
    pub(crate) async fn run(&self, plan: Plan) -> Result<Vec<InputBlock>> {
        let mut open = BTreeSet::new();
        for _ in 0..MOST_STARTS {
            let graph = StageGraph::new(self.id, Arc::clone(&plan.physical), plan.config.clone())?;
            if let Some(answer) = Pass::new(&self.settler, graph, &mut open).finish().await? {
                return Ok(answer);
            }
            tracing::warn!(job = %self.id, "an accepted answer turned out to be wrong: the stages start over");
            self.settler.notes().started_over();
        }
        Err(Error::verification(format!("accepted answers turned out to be wrong {MOST_STARTS} times"))
            .with_hint("too many of the nodes lie: run it with --max-error 1e-4"))
    }

    /// Does `work` of the job, unless it is cancelled; its blocks are kept on the nodes meanwhile.
    ///
    /// # Errors
    /// Those of `work`; Unavailable where the job was cancelled.
    pub(crate) async fn keep_alive<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.cancel.cancelled() => Err(Error::unavailable("the job was cancelled")),
            never = self.renew_leases() => match never {},
        }
    }

    async fn renew_leases(&self) -> std::convert::Infallible {
        let context = self.settler.context();
        loop {
            tokio::time::sleep(context.config.job_lease / 3).await;
            let lease = Lease {
                id: LeaseId(self.id.0),
                kind: LeaseKind::Job,
                expires: context.clock.unix_seconds() + context.config.job_lease.as_secs(),
            };
            self.tell_all(ControlRequest::Renew { cids: Vec::new(), lease }).await;
        }
    }

    /// The nodes may drop the job's blocks.
    pub(crate) async fn release(&self) {
        self.tell_all(ControlRequest::EndLease(LeaseId(self.id.0))).await;
    }

    async fn tell_all(&self, request: ControlRequest) {
        let context = self.settler.context();
        let peers: Vec<_> = context.network.volunteers();
        let calls: FuturesUnordered<_> =
            peers.iter().map(|(peer, _)| context.network.control(peer, request.clone())).collect();
        let _ = tokio::time::timeout(Duration::from_secs(5), calls.collect::<Vec<_>>()).await;
    }

    /// The blocks of the answer that are not empty, in order.
    pub(crate) fn stream<'a>(&'a self, blocks: &[InputBlock]) -> impl Stream<Item = Result<Block>> + 'a {
        let filled: Vec<InputBlock> = blocks.iter().filter(|b| b.volume.rows > 0).copied().collect();
        let read = async move |block: InputBlock| Ok(Block::new(block.cid, self.read(&block).await?));
        futures::stream::iter(filled).map(read).buffered(READ_AHEAD)
    }

    /// Reads a block of the answer from whoever has it, and makes it again if nobody does.
    async fn read(&self, block: &InputBlock) -> Result<Bytes> {
        loop {
            let source = self.settler.block_source(&block.cid, block.volume.bytes).await?;
            match holders::ask_holders(self, &source).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => tracing::debug!(%error, "a block of the answer is made again"),
            }
            // Those that were given up, too.
            for holder in &source.holders {
                self.settler.forget(&block.cid, holder.peer.id);
            }
        }
    }

    /// The rows of a block of the answer.
    pub(crate) fn batches(&self, block: &Block) -> Result<Vec<RecordBatch>> {
        let (_, batches) = canonical::decode(block.bytes())?;
        batches
            .into_iter()
            .map(|batch| canonical::adapt(&batch, &self.schema).map_err(|e| e.context("answer")))
            .collect()
    }

    /// The answer is not to be relied on, as `why` says.
    pub(crate) fn recall(&self, why: &str) {
        self.progress().record.recalled = Some(why.to_owned());
    }

    /// The answer is that of an earlier job.
    pub(crate) fn is_cached(&self, answer: &Answer) {
        let mut progress = self.progress();
        progress.record.cached = Some(answer.job);
        progress.record.verified = answer.verify.to_string();
        progress.record.error_bound = answer.error_bound;
    }
}

#[async_trait]
impl Reader for Job {
    async fn ask(&self, source: &Source, holder: &Holder) -> Result<Bytes> {
        let request = ReadBlock::whole(source.cid, holder.capability);
        let read = self.settler.context().network.read_block(&holder.peer, request).await;
        if let Err(error) = &read {
            if let CallError::Misbehaved { reason, .. } = error {
                self.settler.caught(holder.peer.id, reason);
            }
            self.settler.forget(&source.cid, holder.peer.id);
        }
        Ok(read?)
    }

    fn line(&self) -> u64 {
        holders::COORDINATOR_LINE
    }
}

/// The task of `stage` as it is sent to nodes.
pub(crate) fn prepare(context: &JobContext, stage: StageTask) -> Result<Prepared> {
    let shards = scanned_shards(&stage.plan)?;
    let shards = shards.into_iter().map(|cid| context.input_shard(&cid)).collect::<Result<_>>()?;
    Prepared::new(context.job, stage, shards, context.fleet.most_memory(context.checking.votes()))
}

/// Blocks of the answer that are fetched ahead.
const READ_AHEAD: usize = 4;

/// The shards that a task's plan scans, each once, in plan order.
pub(crate) fn scanned_shards(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Cid>> {
    let (mut seen, mut shards) = (HashSet::new(), Vec::new());
    plan.apply(|node| {
        let scan = node.downcast_ref::<DataSourceExec>().and_then(|s| s.data_source().downcast_ref::<FileScanConfig>());
        for file in scan.iter().flat_map(|s| &s.file_groups).flat_map(|g| g.files()) {
            let cid: Cid = file.object_meta.location.as_ref().parse().map_err(conun_planner::external)?;
            if seen.insert(cid) {
                shards.push(cid);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|e| conun_planner::plan_error(&e))?;
    Ok(shards)
}
