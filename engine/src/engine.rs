//! The facade: `submit` plans a statement, `results` runs it and streams the verified answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrow::datatypes::SchemaRef;
use conun_planner::Placement;
use conun_storage::Tables;
use conun_types::{
    Clock, Error, JobId, NodeId, NodeKey, PeerAddr, Result, Rng, Volume, eip712::Domain, port::Network, wire::Hello,
};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    datasource::source_as_provider,
    error::DataFusionError,
    execution::SessionState,
    logical_expr::LogicalPlan,
    physical_plan::{SendableRecordBatchStream, stream::RecordBatchStreamAdapter},
    prelude::SessionContext,
};
use futures::{SinkExt, StreamExt, TryStreamExt, channel::mpsc};

use crate::{
    catalog::NetworkTables,
    config::EngineConfig,
    context::{JobContext, JobShards, Parts},
    digest::Digest,
    fleet::{Fleet, Suits},
    job::{Job, Plan},
    journal::{Entry, Journal},
    payments::{PayConfig, PayStatus, Payments, Settled},
    pilot::{self, Quote},
    quorum, quote,
    record::{JobOptions, JobRecord, JobState, ReceiptRecord, Verify},
    session,
    task::Settler,
};

/// Batches of an answer that wait for their reader.
const ANSWER_BUFFER: usize = 8;

/// How often a running job is written down.
const NOTED_EVERY: Duration = Duration::from_secs(1);

/// A coordinator.
pub struct Engine {
    parts: Parts,
    state: SessionState,
    journal: Journal,
    jobs: Mutex<Jobs>,
    quoting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Jobs {
    live: BTreeMap<JobId, Arc<Job>>,
    ended: BTreeMap<JobId, Entry>,
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
        let ended = journal.load()?.into_iter().map(|e| (e.record.id, e)).collect();
        let state =
            conun_planner::session_state(conun_planner::session_config()?, Arc::new(NetworkTables(tables.clone())))?;
        let pay = pay.map(|pay| Payments::start(pay, key.clone(), Arc::clone(&network), Arc::clone(&clock)));
        let payments = pay.transpose()?;
        let office = payments.clone();
        let suits: Suits = Box::new(move |node, ask| match (&office, ask) {
            (None, None) => true,
            (Some(office), Some(ask)) => office.suits(node, ask),
            _ => false,
        });
        let fleet = Fleet::new(Arc::clone(&network), Arc::clone(&clock), Arc::clone(&rng), config.avoid_for, suits);
        let parts = Parts { network, fleet, tables, key, clock, rng, config: Arc::new(config), payments };
        let jobs = Mutex::new(Jobs { live: BTreeMap::new(), ended });
        Ok(Arc::new(Self { parts, state, journal, jobs, quoting: tokio::sync::Mutex::new(()) }))
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
    fn fresh_state(&self) -> SessionState {
        conun_planner::at_moment(&self.state, self.parts.clock.now())
    }

    /// Plans one statement.
    ///
    /// # Errors
    /// Data: wrong SQL, unknown tables or columns, or what cannot be reproduced. Verification: fewer operators than
    /// `max_error` needs.
    pub async fn submit(self: &Arc<Self>, sql: &str, options: &JobOptions) -> Result<Submitted> {
        let state = self.fresh_state();
        let plan = match conun_planner::cost_of(sql) {
            Some(statement) => self.explain_cost(&state, &statement, options).await?,
            None => conun_planner::logical_plan(&state, sql).await?,
        };
        self.submit_plan(&state, plan, sql, options).await
    }

    /// What a statement would cost, as rows that can be queried: one a stage, then the sum.
    async fn explain_cost(&self, state: &SessionState, sql: &str, options: &JobOptions) -> Result<LogicalPlan> {
        let plan = conun_planner::logical_plan(state, sql).await?;
        if conun_planner::placement(&plan)? == Placement::Local {
            return quote::rows(&Quote::nothing(), 0.0, None);
        }
        let verify = options.verify.unwrap_or(self.parts.config.verify);
        let votes = self.votes(verify, options.max_error)?;
        let id = JobId::generate(self.parts.clock.as_ref(), self.parts.rng.as_ref());
        let shards = Arc::new(self.shards(&plan)?);
        let context = JobContext::new(self.parts.clone(), id, (verify, votes), None, shards);
        let plan = planned(state, &plan).await?;
        // One at a time: it runs on this machine's cores and in its memory.
        let _one = self.quoting.lock().await;
        let quote = pilot::quote(&context, plan).await?;
        let price = self.parts.payments.as_ref().map(|p| p.price());
        quote::rows(&quote, context.votes_on_average(), price)
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
        let placement = conun_planner::placement(&plan)?;
        let physical = planned(state, &plan).await?;
        let verify = options.verify.unwrap_or(self.parts.config.verify);
        let votes = self.votes(verify, options.max_error)?;
        self.check_pay(placement, options).await?;
        let id = JobId::generate(self.parts.clock.as_ref(), self.parts.rng.as_ref());
        let record = self.record(id, text, &plan, placement, verify);
        let schema = Arc::clone(&physical.schema);
        let shards = Arc::new(self.shards(&plan)?);
        let context = JobContext::new(self.parts.clone(), id, (verify, votes), options.budget, shards);
        let settler = Settler::new(context);
        let mut jobs = self.lock();
        jobs.live.retain(|_, job| !job.is_forgotten());
        jobs.live.insert(id, Arc::new(Job::new(record, physical, settler)));
        Ok(Submitted { id, schema })
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

    /// Agreeing votes that a task needs.
    fn votes(&self, verify: Verify, max_error: Option<f64>) -> Result<usize> {
        let least = if verify == Verify::Quorum { 2 } else { 1 };
        let Some(bound) = max_error else { return Ok(least) };
        if !(bound > 0.0 && bound < 1.0) {
            return Err(Error::usage(format!("--max-error {bound} is not a probability between 0 and 1")));
        }
        let votes = quorum::votes_for(bound, self.parts.config.assumed_liars).max(least);
        let nodes = self.parts.fleet.connected().len();
        if nodes < votes {
            return Err(Error::verification(format!(
                "--max-error {bound} needs {votes} agreeing operators, {nodes} are connected"
            ))
            .with_hint("connect more nodes or accept a larger error"));
        }
        Ok(votes)
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
            DataFusionError::External(Box::new(e))
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
        let blocks = job.run(plan).await?;
        if job.settler.context().verify != Verify::Off {
            job.settler.sample_holders().await;
            job.settler.cross_examine().await;
        }
        job.settler.count_rows().await;
        {
            let mut stream = std::pin::pin!(job.stream(blocks, &mut digest));
            while let Some(batch) = stream.next().await {
                deliver(sender, batch?).await?;
            }
        }
        Ok(digest)
    }

    /// Writes a job that is paid to the journal while it runs: should this process be killed, its bill can still be checked.
    async fn note_while_running(&self, job: &Job) -> std::convert::Infallible {
        if self.parts.payments.is_none() {
            return std::future::pending().await;
        }
        loop {
            if let Err(error) = self.journal.save(&entry(job)) {
                tracing::warn!(%error, job = %job.id, "the running job is not in the journal");
            }
            tokio::time::sleep(NOTED_EVERY).await;
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

    fn move_to_ended(&self, entry: Entry) {
        let mut jobs = self.lock();
        jobs.live.remove(&entry.record.id);
        jobs.ended.insert(entry.record.id, entry);
        let ids: Vec<JobId> = jobs.ended.keys().copied().collect();
        for old in self.journal.trim(&ids) {
            jobs.ended.remove(&old);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self, id: JobId) -> Result<Arc<Job>> {
        let jobs = self.lock();
        if jobs.ended.contains_key(&id) {
            return Err(Error::data(format!("job {id} has ended")).with_hint("run the statement again"));
        }
        jobs.live.get(&id).cloned().ok_or_else(|| unknown(&id.to_string()))
    }

    /// All jobs, oldest first.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobRecord> {
        let jobs = self.lock();
        let mut records: Vec<JobRecord> = jobs.ended.values().map(|e| e.record.clone()).collect();
        records.extend(jobs.live.values().map(|j| j.record()));
        records.sort_by_key(|r| r.id);
        records
    }

    /// The job whose id begins with `prefix`.
    ///
    /// # Errors
    /// Data where there is none, or more than one.
    pub fn job(&self, prefix: &str) -> Result<JobRecord> {
        let mut found = self.jobs().into_iter().filter(|r| r.id.to_string().starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(record), None) if !prefix.is_empty() => Ok(record),
            (Some(_), Some(_)) => Err(Error::data(format!("'{prefix}' begins the id of more than one job"))
                .with_hint("give more digits: conun job ls")),
            _ => Err(unknown(prefix)),
        }
    }

    /// The receipts of the job whose id begins with `prefix`.
    ///
    /// # Errors
    /// As [`Engine::job`].
    pub fn receipts(&self, prefix: &str) -> Result<Vec<ReceiptRecord>> {
        let id = self.job(prefix)?.id;
        let jobs = self.lock();
        let live = || jobs.live.get(&id).map(|j| j.settler.notes().snapshot().receipts);
        Ok(jobs.ended.get(&id).map(|e| e.receipts.clone()).or_else(live).unwrap_or_default())
    }

    /// Cancels the job whose id begins with `prefix`: its replicas are killed on the nodes.
    ///
    /// # Errors
    /// As [`Engine::job`], and Data where it has ended.
    pub fn cancel(&self, prefix: &str) -> Result<JobRecord> {
        let job = self.live(self.job(prefix)?.id)?;
        job.cancel.cancel();
        if job.record().state == JobState::Planned {
            job.end(JobState::Cancelled, Some(Error::unavailable("the job was cancelled")), None);
        }
        Ok(job.record())
    }
}

/// `plan` as it is run: physical, with the schema of the answer.
async fn planned(state: &SessionState, plan: &LogicalPlan) -> Result<Plan> {
    let physical = conun_planner::physical_plan(state, plan).await?;
    let schema = Arc::new(conun_executor::canonical::canonical_schema(&physical.schema())?);
    Ok(Plan { physical, config: state.config().clone(), schema, ordered: conun_planner::orders_rows(plan) })
}

/// A job as the journal keeps it.
fn entry(job: &Job) -> Entry {
    Entry { record: job.record(), receipts: job.settler.notes().snapshot().receipts }
}

fn unknown(job: &str) -> Error {
    Error::data(format!("there is no job '{job}'")).with_hint("list them with: conun job ls")
}

/// A reader that went away cancels the job.
async fn deliver(
    sender: &mut mpsc::Sender<Result<arrow::record_batch::RecordBatch>>,
    batch: arrow::record_batch::RecordBatch,
) -> Result<()> {
    sender.send(Ok(batch)).await.map_err(|_| Error::unavailable("the reader of the answer went away"))
}
