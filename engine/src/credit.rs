//! Whom this coordinator believes: the credibility engine of `conun-trust`, shared by all jobs and kept on disk.
//!
//! What it knows: operators, their standing, which accepted tasks are in doubt, what was released on a liar's word.
//! What it must not know: plans, blocks, sockets, money.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conun_storage::{Durability, durable};
use conun_trust::{Action, Audit, Caught, Demand, Forecast, Found, Outcome, Plan, Poll, Rank, Rules, Trust};
use conun_types::{Address, Clock, Error, JobId, NodeId, Result, Rng, codec};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::stage::TaskKey;

/// Whose vote it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Operator {
    /// Without a chain every node stands for itself.
    Node(NodeId),
    /// Whom the chain names for a node: its operator, else the node's own address.
    Account(Address),
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "{node}"),
            Self::Account(address) => write!(f, "{address}"),
        }
    }
}

/// Names the operator of a node.
pub(crate) type Operators = Box<dyn Fn(&NodeId) -> Option<Operator> + Send + Sync>;

/// File of the state, beside the jobs.
const FILE: &str = "trust.state";

/// What a replica says, so that two can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Ballot {
    /// It ran: the root over its output blocks.
    Done([u8; 32]),
    /// The query fails on this data, with this message.
    QueryError(String),
    /// The memory class is too small.
    MemoryExceeded,
}

/// A task of any job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TaskRef {
    pub(crate) job: JobId,
    stage: u32,
    task: u32,
}

impl TaskRef {
    fn new(job: JobId, key: TaskKey) -> Self {
        Self { job, stage: key.stage, task: key.task }
    }

    fn key(self) -> TaskKey {
        TaskKey { stage: self.stage, task: self.task }
    }
}

/// The votes on one task.
pub(crate) type Votes = Poll<Operator, Ballot>;

/// What an operator that was caught had done in jobs that were released.
pub(crate) type Past = Caught<Operator, TaskRef>;

/// A task to be looked at again before its job is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Look {
    /// What this operator did alone is run again.
    Audit(TaskKey, Operator),
    /// It was accepted on the word of an operator that was caught since.
    Doubt(TaskKey),
}

impl Look {
    pub(crate) fn task(self) -> TaskKey {
        match self {
            Look::Audit(task, _) | Look::Doubt(task) => task,
        }
    }
}

/// The credibility engine of a coordinator.
pub(crate) struct Credit {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    operators: Operators,
    state: Mutex<State>,
    past: Notify,
}

struct State {
    trust: Trust<Operator, TaskRef>,
    /// Tasks of running jobs that were accepted on a caught operator's word.
    doubts: BTreeMap<JobId, BTreeSet<TaskKey>>,
    /// How many of an operator's doubted tasks came out otherwise.
    changed: BTreeMap<Operator, usize>,
    /// Whose released work is to be looked at again.
    past: VecDeque<Past>,
}

impl Credit {
    /// Reads the state in `dir`, or starts with nobody known.
    ///
    /// # Errors
    /// Where the file is there and cannot be read or set aside.
    pub(crate) fn open(
        dir: &Path,
        rules: Rules,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        operators: Operators,
    ) -> Result<Self> {
        let path = dir.join(FILE);
        let (trust, past) = match load(&path)? {
            Some((trust, past)) => (trust.resumed(rules), past),
            None => (Trust::new(rules), VecDeque::new()),
        };
        let (doubts, changed) = Default::default();
        let state = Mutex::new(State { trust, doubts, changed, past });
        Ok(Self { path, clock, rng, operators, state, past: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wall time: quarantine outlasts this process.
    fn now(&self) -> Duration {
        Duration::from_secs(self.clock.unix_seconds())
    }

    /// Whose node it is; `None` where that is not known yet.
    pub(crate) fn operator(&self, node: &NodeId) -> Option<Operator> {
        (self.operators)(node)
    }

    /// Whether `node` may get tasks, and its blocks be read: its operator was not caught lately.
    pub(crate) fn admits(&self, node: &NodeId) -> bool {
        self.operator(node).is_some_and(|operator| self.is_admitted(&operator))
    }

    /// The same of an operator.
    pub(crate) fn is_admitted(&self, operator: &Operator) -> bool {
        let now = self.now();
        self.lock().trust.rank(operator, now) >= Rank::Newcomer
    }

    /// Whether `operator` is more than a newcomer.
    pub(crate) fn is_senior(&self, operator: &Operator) -> bool {
        let now = self.now();
        self.lock().trust.rank(operator, now) >= Rank::Founder
    }

    /// What `demand` will take among the operators of `candidates`, for a job of so many `tasks` where that is known.
    pub(crate) fn forecast(&self, demand: Demand, candidates: &[Operator], tasks: Option<u64>) -> Forecast {
        let now = self.now();
        self.lock().trust.forecast(demand, candidates, tasks, now)
    }

    /// Who begins a task of `job`, and how.
    pub(crate) fn plan(&self, job: JobId, demand: Demand, candidates: &[Operator]) -> Option<Plan<Operator>> {
        let now = self.now();
        self.lock().trust.plan(job, demand, candidates, now, self.rng.as_ref())
    }

    /// A poll on what a plan began.
    pub(crate) fn poll(&self, plan: &Plan<Operator>) -> Votes {
        self.lock().trust.poll(plan)
    }

    /// A poll that begins with what `worker` said when it was alone.
    pub(crate) fn audit(&self, worker: Operator, ballot: Ballot) -> Votes {
        self.lock().trust.audit(worker, ballot)
    }

    /// A poll on a task of a job with `demand` whose accepted answer is in doubt.
    pub(crate) fn doubted(&self, demand: Demand) -> Votes {
        self.lock().trust.doubt(demand)
    }

    /// What to do next.
    pub(crate) fn next(&self, poll: &Votes) -> Action<Ballot> {
        self.lock().trust.next(poll)
    }

    /// Who gets a further replica.
    pub(crate) fn replica(&self, job: JobId, task: TaskKey, poll: &Votes, candidates: &[Operator]) -> Option<Operator> {
        let now = self.now();
        self.lock().trust.replica(job, TaskRef::new(job, task), poll, candidates, now, self.rng.as_ref())
    }

    /// `accepted` is the answer of a task; whoever lied is caught.
    pub(crate) fn settle(&self, job: JobId, task: TaskKey, poll: &Votes, accepted: &Ballot) -> Vec<Operator> {
        let now = self.now();
        // Running out of memory is no lie: pools are fixed, yet a runner may die of other causes.
        let excused = |ballot: &Ballot| *ballot == Ballot::MemoryExceeded;
        let mut state = self.lock();
        let task = TaskRef::new(job, task);
        let caught = state.trust.settle(job, task, poll, accepted, excused, now, self.rng.as_ref());
        let operators = caught.iter().map(|c| c.operator).collect();
        caught.into_iter().for_each(|caught| self.doubt(&mut state, caught));
        operators
    }

    /// What the operator of `node` did beside voting.
    pub(crate) fn observe(&self, node: &NodeId, outcome: Outcome) {
        let Some(operator) = self.operator(node) else { return };
        let now = self.now();
        let mut state = self.lock();
        if let Some(caught) = state.trust.observe(operator, outcome, now, self.rng.as_ref()) {
            self.doubt(&mut state, caught);
        }
    }

    /// A vote that the operator of `node` lost was right after all.
    pub(crate) fn cleared(&self, node: &NodeId) {
        let Some(operator) = self.operator(node) else { return };
        let mut state = self.lock();
        state.trust.cleared(&operator);
        self.save(&state);
    }

    fn doubt(&self, state: &mut State, caught: Past) {
        tracing::warn!(operator = %caught.operator, convicted = caught.convicted, tasks = caught.rerun.len(), "caught");
        for (job, task) in &caught.rerun {
            state.doubts.entry(*job).or_default().insert(task.key());
        }
        if !caught.probe.is_empty() {
            state.past.push_back(caught);
            self.past.notify_one();
        }
        self.save(state);
    }

    /// Tasks of `job` to be looked at now; where it is `closing`, all that must be before it is released.
    pub(crate) fn looks(&self, job: JobId, closing: bool) -> Vec<Look> {
        let mut state = self.lock();
        let doubts = state.doubts.remove(&job).into_iter().flatten().map(Look::Doubt).collect::<Vec<_>>();
        let audits = state.trust.audits(job, closing, self.rng.as_ref());
        let audits = audits.into_iter().map(|Audit { task, worker }| Look::Audit(task.key(), worker));
        doubts.into_iter().chain(audits).collect()
    }

    /// What `worker` answered to a task is not used any more.
    pub(crate) fn void(&self, job: JobId, worker: Operator, task: TaskKey) {
        self.lock().trust.void(job, worker, TaskRef::new(job, task));
    }

    /// A task in doubt came out otherwise; `operators` had answered for it.
    pub(crate) fn came_out_otherwise(&self, operators: impl IntoIterator<Item = Operator>) {
        let mut state = self.lock();
        for operator in operators {
            *state.changed.entry(operator).or_default() += 1;
        }
    }

    /// Releases `job`, if nothing of it is to be looked at again; tells whether it did.
    pub(crate) fn release(&self, job: JobId) -> bool {
        let mut state = self.lock();
        let released = !state.doubts.contains_key(&job) && state.trust.release(job);
        if released {
            self.save(&state);
        }
        released
    }

    /// Whether something that `job` rests on is in doubt.
    pub(crate) fn has_doubts(&self, job: JobId) -> bool {
        self.lock().doubts.contains_key(&job)
    }

    /// Nothing of `job` is believed. What is on disk need not say so: running jobs are not taken up again.
    pub(crate) fn drop_job(&self, job: JobId) {
        let mut state = self.lock();
        state.trust.drop_job(job);
        state.doubts.remove(&job);
    }

    /// Waits for an operator to be caught that has a past; the same one until [`Credit::leaked`] is told what came of it.
    pub(crate) async fn next_past(&self) -> Past {
        loop {
            if let Some(past) = self.lock().past.front() {
                return past.clone();
            }
            self.past.notified().await;
        }
    }

    /// So many of the probed tasks were wrong; further ones to run again.
    pub(crate) fn probed(&self, past: &Past, in_probe: usize) -> Vec<TaskRef> {
        let state = self.lock();
        let in_rerun = state.changed.get(&past.operator).copied().unwrap_or_default().min(past.rerun.len());
        state.trust.probed(past, Found { in_rerun, in_probe }).to_vec()
    }

    /// So many released answers of the next past turned out to be wrong.
    pub(crate) fn leaked(&self, lies: usize) {
        let mut state = self.lock();
        state.past.pop_front();
        state.trust.leaked(lies);
        self.save(&state);
    }

    /// A state that cannot be written is no reason to fail a job: it is written again with the next change.
    fn save(&self, state: &State) {
        let written = codec::encode(&(&state.trust, &state.past))
            .and_then(|bytes| Ok(durable::replace(&self.path, &bytes, Durability::Durable)?));
        if let Err(error) = written {
            tracing::error!(%error, path = %self.path.display(), "whom to believe is not written down");
        }
    }
}

/// What is on disk: whom to believe, and whose past is to be looked at.
type OnDisk = (Trust<Operator, TaskRef>, VecDeque<Past>);

/// The state on disk. One that cannot be read is set aside: who lied before is then not remembered, but jobs can run.
fn load(path: &Path) -> Result<Option<OnDisk>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::from(error).context(path.display())),
    };
    match codec::decode(&bytes) {
        Ok(state) => Ok(Some(state)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "unreadable: set aside; liars of earlier runs are not remembered");
            std::fs::rename(path, path.with_extension("unreadable"))?;
            Ok(None)
        }
    }
}
