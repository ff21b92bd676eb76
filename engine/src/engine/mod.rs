//! The facade: `submit` plans a statement, `results` runs it and streams the verified answer.

mod jobs;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::datatypes::SchemaRef;
use conun_executor::canonical::canonical_schema;
use conun_planner::{Foresight, Placement};
use conun_storage::Tables;
use conun_trust::Forecast;
use conun_types::{
    Clock, Error, JobId, NodeId, NodeKey, PeerAddr, Result, Rng, Volume,
    eip712::Domain,
    port::Network,
    wire::{Ask, Hello},
};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    datasource::source_as_provider,
    execution::SessionState,
    logical_expr::LogicalPlan,
    physical_plan::{SendableRecordBatchStream, stream::RecordBatchStreamAdapter},
    prelude::SessionContext,
};
use futures::{SinkExt, StreamExt, TryStreamExt, channel::mpsc};

use jobs::Jobs;

use crate::{
    cache::{Answer, Block, Cache, PlanKey},
    catalog::NetworkTables,
    checking::Checking,
    config::EngineConfig,
    context::{JobContext, JobShards, Parts},
    credit::{Credit, Operator, Operators},
    digest::Digest,
    fleet::{Admission, Fleet},
    job::{Job, Plan},
    journal::{Entry, Journal},
    payments::{PayConfig, PayStatus, Payments, Settled},
    pilot::{self, Quote},
    quote,
    recheck::{self, Replay},
    record::{JobOptions, JobRecord, JobState, Verify},
    session,
    stage::StageGraph,
    task::Settler,
};

/// Batches of an answer that wait for their reader.
const ANSWER_BUFFER: usize = 8;

/// How often a running job that is paid is written down.
const NOTED_EVERY: Duration = Duration::from_secs(1);

/// A coordinator.
pub struct Engine {
    parts: Parts,
    state: SessionState,
    journal: Journal,
    cache: Cache,
    jobs: Mutex<Jobs>,
    quoting: tokio::sync::Mutex<()>,
}

/// Lets in who is trusted, and paid where and what we pay.
struct Door {
    credit: Arc<Credit>,
    payments: Option<Arc<Payments>>,
}

impl Admission for Door {
    fn trusts(&self, node: &NodeId) -> bool {
        self.credit.admits(node)
    }

    fn suits(&self, node: &NodeId, ask: Option<&Ask>) -> bool {
        match (&self.payments, ask) {
            (None, None) => true,
            (Some(office), Some(ask)) => office.suits(node, ask),
            _ => false,
        }
    }
}

/// A planned job.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// Its id.
    pub id: JobId,
    /// Schema of its answer.
    pub schema: SchemaRef,
}

impl Engine {
    /// Starts a coordinator over `network` and `tables`, with the jobs of earlier runs from its journal.
    ///
    /// # Errors
    /// Where the journal's folder cannot be read, or this build does not know the execution profile.
    pub fn start(
        config: EngineConfig,
        key: NodeKey,
        network: Arc<dyn Network>,
        tables: Tables,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        pay: Option<PayConfig>,
    ) -> Result<Arc<Self>> {
        let journal = Journal::open(config.dir.clone(), config.jobs_kept)?;
        let cache = Cache::open(config.dir.join("answers"), config.cache_bytes)?;
        let ended = journal.load()?.into_iter().map(|e| (e.record.id, e)).collect();
        let settings = conun_planner::session_config()?;
        let state = conun_planner::session_state(settings, Arc::new(NetworkTables(tables.clone())))?;
        let pay = pay.map(|pay| Payments::start(pay, key.clone(), Arc::clone(&network), Arc::clone(&clock)));
        let payments = pay.transpose()?;
        let office = payments.clone();
        let operators: Operators = Box::new(move |node| match &office {
            Some(office) => office.operator(node).map(Operator::Account),
            None => Some(Operator::Node(*node)),
        });
        let credit =
            Arc::new(Credit::open(&config.dir, config.trust, Arc::clone(&clock), Arc::clone(&rng), operators)?);
        let scored = Arc::clone(&credit);
        // It counts as a vote that its operator lost.
        tables.watch(move |node, _| scored.observe(&node, conun_trust::Outcome::Wrong));
        let admission = Box::new(Door { credit: Arc::clone(&credit), payments: payments.clone() });
        let fleet = Fleet::new(Arc::clone(&network), Arc::clone(&clock), config.avoid_for, admission);
        let parts = Parts { network, fleet, credit, tables, key, clock, rng, config: Arc::new(config), payments };
        let jobs = Mutex::new(Jobs::new(ended));
        let engine = Arc::new(Self { parts, state, journal, cache, jobs, quoting: tokio::sync::Mutex::new(()) });
        tokio::spawn(recheck::run(Arc::downgrade(&engine)));
        Ok(engine)
    }

    /// The tables of the network.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.parts.tables
    }

    /// Volunteers that are connected, with what they say of themselves.
    #[must_use]
    pub fn volunteers(&self) -> Vec<(PeerAddr, Hello)> {
        self.parts.network.volunteers()
    }

    /// Who this coordinator is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.parts.network.local_id()
    }

    /// A session whose SQL and dataframes run on the network: plans that read its tables become jobs, the rest
    /// (`EXPLAIN`, `SHOW TABLES`, constants) runs here.
    #[must_use]
    pub fn session(self: &Arc<Self>) -> SessionContext {
        SessionContext::new_with_state(session::network_session(self.fresh_state(), Arc::downgrade(self)))
    }

    /// A copy of the planning session; `now()` is the moment at which it is made.
    pub(crate) fn fresh_state(&self) -> SessionState {
        conun_planner::at_moment(&self.state, self.parts.clock.now())
    }

    /// Whom this coordinator believes.
    pub(crate) fn credit(&self) -> &Arc<Credit> {
        &self.parts.credit
    }

    /// Plans one statement.
    ///
    /// # Errors
    /// Data: wrong SQL, unknown tables or columns, or what cannot be reproduced. Verification: fewer operators than
    /// `max_error` needs.
    pub async fn submit(self: &Arc<Self>, sql: &str, options: &JobOptions) -> Result<Submitted> {
        self.submit_at(&self.fresh_state(), sql, options).await
    }

    /// The same in `state`, whose `now()` may be another one.
    pub(crate) async fn submit_at(
        self: &Arc<Self>,
        state: &SessionState,
        sql: &str,
        options: &JobOptions,
    ) -> Result<Submitted> {
        let plan = match conun_planner::foreseen(sql) {
            Some((Foresight::Cost, statement)) => self.explain_cost(state, &statement, options).await?,
            Some((Foresight::Verify, statement)) => self.explain_verify(state, &statement, options).await?,
            None => conun_planner::logical_plan(state, sql).await?,
        };
        self.enter(state, plan, sql, options, true).await
    }

    /// Columns of a statement's answer, without making a job of it.
    ///
    /// # Errors
    /// Data: what cannot be planned.
    pub async fn answer_schema(&self, sql: &str) -> Result<SchemaRef> {
        if let Some(schema) = quote::quote_schema(sql) {
            return Ok(Arc::new(canonical_schema(&schema)?));
        }
        let state = self.fresh_state();
        let plan = conun_planner::logical_plan(&state, sql).await?;
        Ok(self.planned(&state, &plan).await?.schema)
    }

    /// What a statement would cost, as rows that can be queried: one a stage, then the sum.
    async fn explain_cost(&self, state: &SessionState, sql: &str, options: &JobOptions) -> Result<LogicalPlan> {
        let plan = conun_planner::logical_plan(state, sql).await?;
        if conun_planner::placement(&plan)? == Placement::Local {
            return quote::rows(&Quote::nothing(), 0.0, None);
        }
        let checking = self.checking(options)?;
        let id = JobId::generate(self.parts.clock.as_ref(), self.parts.rng.as_ref());
        let shards = Arc::new(self.shards(&plan)?);
        let context = JobContext::new(self.parts.clone(), id, checking, None, shards);
        let plan = self.planned(state, &plan).await?;
        // One at a time: it runs on this machine's cores and in its memory.
        let _one = self.quoting.lock().await;
        let quote = pilot::quote(&context, plan).await?;
        let price = self.parts.payments.as_ref().map(|p| p.price());
        let forecast = self.forecast(&checking, quote.stages.iter().map(|stage| stage.tasks).sum());
        quote::rows(&quote, forecast.replicas, price)
    }

    /// What the verification of a statement would take, as rows that can be queried. Nothing runs for it.
    async fn explain_verify(&self, state: &SessionState, statement: &str, options: &JobOptions) -> Result<LogicalPlan> {
        let plan = conun_planner::logical_plan(state, statement).await?;
        let checking = self.checking(options)?;
        let tasks = match conun_planner::placement(&plan)? {
            Placement::Local => BTreeMap::new(),
            Placement::Network => {
                let id = JobId::generate(self.parts.clock.as_ref(), self.parts.rng.as_ref());
                let plan = self.planned(state, &plan).await?;
                StageGraph::new(id, plan.physical, plan.config)?.tasks()
            }
        };
        quote::verify_rows(&tasks, self.forecast(&checking, tasks.values().sum()))
    }

    /// What `checking` takes for a job of so many `tasks`.
    fn forecast(&self, checking: &Checking, tasks: u64) -> Forecast {
        self.parts.credit.forecast(checking.demand, &self.operators(), Some(tasks))
    }

    /// Plans a job from a logical plan (of a dataframe, say); `text` is what people see of it.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn submit_plan(
        self: &Arc<Self>,
        state: &SessionState,
        plan: LogicalPlan,
        text: &str,
        options: &JobOptions,
    ) -> Result<Submitted> {
        self.enter(state, plan, text, options, false).await
    }

    /// What `text` says can be planned again later where it is SQL.
    async fn enter(
        self: &Arc<Self>,
        state: &SessionState,
        plan: LogicalPlan,
        text: &str,
        options: &JobOptions,
        is_sql: bool,
    ) -> Result<Submitted> {
        let placement = conun_planner::placement(&plan)?;
        let physical = self.planned(state, &plan).await?;
        let checking = self.checking(options)?;
        self.check_pay(placement, options).await?;
        let id = JobId::generate(self.parts.clock.as_ref(), self.parts.rng.as_ref());
        let record = self.record(id, text, &plan, placement, checking.verify);
        let schema = Arc::clone(&physical.schema);
        let shards = Arc::new(self.shards(&plan)?);
        let replay = if is_sql { Replay::of(state, &shards) } else { None };
        let context = JobContext::new(self.parts.clone(), id, checking, options.budget, shards);
        let settler = Settler::new(context);
        let mut jobs = self.lock();
        jobs.live.retain(|_, job| !job.is_forgotten());
        jobs.live.insert(id, Arc::new(Job::new(record, physical, settler, !options.no_cache, replay)));
        Ok(Submitted { id, schema })
    }

    /// `plan` as it is run: physical, with the schema of the answer.
    async fn planned(&self, state: &SessionState, plan: &LogicalPlan) -> Result<Plan> {
        let state = conun_planner::sized(state, plan, self.parts.config.shuffle_partitions)?;
        let physical = conun_planner::physical_plan(&state, plan).await?;
        let schema = Arc::new(canonical_schema(&physical.schema())?);
        Ok(Plan { physical, config: state.config().clone(), schema, ordered: conun_planner::orders_rows(plan) })
    }

    fn record(&self, id: JobId, sql: &str, plan: &LogicalPlan, placement: Placement, verify: Verify) -> JobRecord {
        JobRecord {
            id,
            state: JobState::Planned,
            sql: sql.trim().to_owned(),
            submitted: self.parts.clock.unix_seconds(),
            seconds: 0.0,
            rows: 0,
            digest: None,
            digest_kind: Digest::kind(conun_planner::orders_rows(plan)).to_owned(),
            verified: if placement == Placement::Local { "local".to_owned() } else { verify.to_string() },
            error_bound: None,
            error: None,
            liars: Vec::new(),
            late: Vec::new(),
            stages: Vec::new(),
            receipts: 0,
            cost: None,
            warnings: Vec::new(),
            cached: None,
            recalled: None,
        }
    }

    /// Nothing is begun that cannot be paid.
    async fn check_pay(&self, placement: Placement, options: &JobOptions) -> Result<()> {
        match &self.parts.payments {
            Some(payments) if placement == Placement::Network => payments.require_funds().await,
            None if options.budget.is_some() => {
                Err(Error::usage("this coordinator does not pay: a budget means nothing")
                    .with_hint("leave --budget out, or start the coordinator with --chain"))
            }
            _ => Ok(()),
        }
    }

    /// How the account stands from which work is paid.
    ///
    /// # Errors
    /// Usage where this coordinator does not pay; else the ledger's.
    pub async fn pay_status(&self) -> Result<PayStatus> {
        self.payments()?.status().await
    }

    /// Settles on the chain what is owed.
    ///
    /// # Errors
    /// As [`Engine::pay_status`]. Trying again never pays twice.
    pub async fn settle(&self) -> Result<Vec<Settled>> {
        self.payments()?.settle().await
    }

    /// The domain in which orders and receipts are signed.
    #[must_use]
    pub fn domain(&self) -> Domain {
        self.parts.domain()
    }

    fn payments(&self) -> Result<&Arc<Payments>> {
        self.parts.payments.as_ref().ok_or_else(|| {
            Error::usage("this coordinator has no chain")
                .with_hint("start it with --chain embedded, or the URL of a node")
        })
    }

    /// How a job with `options` is verified.
    fn checking(&self, options: &JobOptions) -> Result<Checking> {
        Checking::new(options, self.parts.config.verify, &self.parts.credit, &self.operators())
    }

    /// Operators of the nodes that are connected.
    fn operators(&self) -> Vec<Operator> {
        let Parts { fleet, credit, .. } = &self.parts;
        let operators: BTreeSet<Operator> =
            fleet.connected().iter().filter_map(|peer| credit.operator(&peer.id)).collect();
        operators.into_iter().collect()
    }

    /// The shards of every table that `plan` reads.
    fn shards(&self, plan: &LogicalPlan) -> Result<JobShards> {
        let mut names = Vec::new();
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && source_as_provider(&scan.source)?.is::<conun_planner::ShardTable>()
            {
                names.push(scan.table_name.table().to_owned());
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(|e| conun_planner::plan_error(&e))?;
        let mut shards = JobShards::new();
        for name in names {
            let table = self.parts.tables.table(&name)?;
            for shard in table.shards() {
                let volume = Volume { rows: shard.rows, bytes: shard.len };
                shards.insert(shard.cid, (Arc::clone(&table), volume));
            }
        }
        Ok(shards)
    }

    /// Runs a planned job and streams its answer; each batch was verified. Dropping the stream cancels what still runs.
    ///
    /// # Errors
    /// Data where the job is unknown or was run already.
    pub fn results(self: &Arc<Self>, id: JobId) -> Result<SendableRecordBatchStream> {
        let job = self.live(id)?;
        let plan = job.start()?;
        let (schema, cancel) = (Arc::clone(&job.schema), job.cancel.clone().drop_guard());
        let (sender, receiver) = mpsc::channel(ANSWER_BUFFER);
        let engine = Arc::clone(self);
        tokio::spawn(async move { engine.drive(job, plan, sender).await });
        // Who drops the stream cancels the job; once it has ended, that means nothing.
        let batches = receiver.map_err(move |e: Error| {
            let _ = &cancel;
            conun_planner::external(e)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    async fn drive(
        self: Arc<Self>,
        job: Arc<Job>,
        plan: Plan,
        mut sender: mpsc::Sender<Result<arrow::record_batch::RecordBatch>>,
    ) {
        let noting = self.note_while_running(&job);
        let answered = tokio::select! {
            answered = job.keep_alive(self.answer(&job, plan, &mut sender)) => answered,
            never = noting => match never {},
        };
        self.keep_evidence(&job).await;
        // Released, or of no use: tasks that were run again for the reader alone are nobody's record.
        self.parts.credit.drop_job(job.id);
        match answered {
            Ok(digest) => {
                job.end(JobState::Done, None, Some(&digest));
                self.keep(&job);
            }
            Err(error) => {
                let state = if job.cancel.is_cancelled() { JobState::Cancelled } else { JobState::Failed };
                job.end(state, Some(error.clone()), None);
                self.keep(&job);
                let _ = sender.send(Err(error)).await;
            }
        }
        // Its reader need not wait until every node has let go of its blocks.
        drop(sender);
        job.release().await;
    }

    async fn answer(
        &self,
        job: &Job,
        plan: Plan,
        sender: &mut mpsc::Sender<Result<arrow::record_batch::RecordBatch>>,
    ) -> Result<Digest> {
        let mut digest = Digest::new(&job.schema, job.ordered())?;
        if job.record().verified == "local" {
            let stream = datafusion::physical_plan::execute_stream(plan.physical, self.state.task_ctx());
            let mut stream = stream.map_err(|e| conun_planner::plan_error(&e))?;
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(|e| conun_planner::plan_error(&e))?;
                let batch = conun_executor::canonical::adapt(&batch, &job.schema)?;
                digest.update(&batch)?;
                deliver(sender, batch).await?;
            }
            return Ok(digest);
        }
        let key = PlanKey::of(&plan);
        if let Some(answer) = key.filter(|_| job.may_use_cache()).and_then(|key| self.known(job, key)) {
            for block in &answer.blocks {
                tell(job, block, &mut digest, sender).await?;
            }
            return Ok(digest);
        }
        let blocks = job.run(plan).await?;
        let size: u64 = blocks.iter().map(|block| block.volume.bytes).sum();
        let mut kept = key.filter(|_| size <= self.cache.largest()).map(|key| (key, Vec::new()));
        let mut stream = std::pin::pin!(job.stream(&blocks));
        while let Some(block) = stream.next().await {
            let block = block?;
            tell(job, &block, &mut digest, sender).await?;
            if let Some((_, blocks)) = &mut kept {
                blocks.push(block);
            }
        }
        if let Some((key, blocks)) = kept {
            self.keep_answer(job, key, blocks);
        }
        Ok(digest)
    }

    /// The answer to `key`, if an earlier job computed it and it is worth what this one asks for.
    fn known(&self, job: &Job, key: PlanKey) -> Option<Answer> {
        let answer = self.cache.get(key, &job.settler.context().checking)?;
        job.is_cached(&answer);
        Some(answer)
    }

    fn keep_answer(&self, job: &Job, key: PlanKey, blocks: Vec<Block>) {
        if job.record().recalled.is_some() {
            return;
        }
        let error_bound = job.settler.notes().snapshot().error_bound;
        let verify = job.settler.context().checking.verify;
        self.cache.put(key, &Answer { job: job.id, verify, error_bound, blocks });
    }

    /// Writes a job to the journal while it runs: should this process be killed, it is not forgotten, and its bill can still be checked.
    async fn note_while_running(&self, job: &Job) -> std::convert::Infallible {
        let paid = self.parts.payments.is_some();
        if !paid {
            // Most jobs end sooner, and need not wait for the disk twice.
            tokio::time::sleep(NOTED_EVERY).await;
        }
        loop {
            if let Err(error) = self.journal.save(&entry(job)) {
                tracing::warn!(%error, job = %job.id, "the running job is not in the journal");
            }
            if !paid {
                return std::future::pending().await;
            }
            tokio::time::sleep(NOTED_EVERY).await;
        }
    }

    /// What is needed to run disputed tasks again is read while the nodes still have it.
    async fn keep_evidence(&self, job: &Job) {
        let blocks = job.settler.gather_evidence().await;
        if !blocks.is_empty()
            && let Err(error) = self.journal.save_evidence(job.id, &blocks)
        {
            tracing::warn!(%error, job = %job.id, "evidence is not in the journal");
        }
    }

    /// Writes an ended job to the journal; what it accepted is owed from now on, whether it ended well or not.
    fn keep(&self, job: &Job) {
        if let Some(payments) = &self.parts.payments {
            payments.end(job.id);
        }
        let entry = entry(job);
        if let Err(error) = self.journal.save(&entry) {
            tracing::error!(%error, job = %job.id, "the job is not in the journal");
        }
        self.move_to_ended(entry);
    }
}

/// A job as the journal keeps it.
fn entry(job: &Job) -> Entry {
    Entry { record: job.record(), receipts: job.settler.notes().snapshot().receipts, replay: job.replay }
}

/// Sends the rows of a block on.
async fn tell(
    job: &Job,
    block: &Block,
    digest: &mut Digest,
    sender: &mut mpsc::Sender<Result<arrow::record_batch::RecordBatch>>,
) -> Result<()> {
    for batch in job.batches(block)? {
        digest.update(&batch)?;
        deliver(sender, batch).await?;
    }
    Ok(())
}

/// A reader that went away cancels the job.
async fn deliver(
    sender: &mut mpsc::Sender<Result<arrow::record_batch::RecordBatch>>,
    batch: arrow::record_batch::RecordBatch,
) -> Result<()> {
    sender.send(Ok(batch)).await.map_err(|_| Error::unavailable("the reader of the answer went away"))
}
