//! From a task to a verdict: starts replicas as the quorum asks for them, checks what they say, replaces those that
//! fail, and finds inputs again that were lost. A dead or slow node costs a replica, never the job.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use conun_types::{Amount, Cid, Complaint, Error, NodeId, Result, Source, port::CallError, wire::ReadBlock};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use tokio::time::Instant;

use super::{
    Prepared, Settled,
    attempt::{Checked, Ended, Report, attempt},
};
use crate::{
    context::JobContext,
    evidence::Disputed,
    fleet::{Fleet, Seat},
    lineage::Lineage,
    notes::Notes,
    quorum::{Action, Ballot, Quorum},
    stage::TaskKey,
};

/// How often nodes that failed (but did not lie) are asked again once no other is left.
const SECOND_CHANCES: usize = 3;
/// Pause before they are.
const SECOND_CHANCE_AFTER: Duration = Duration::from_millis(500);
/// How often a lost task is run again: nodes that vote right and do not serve must not keep a job going for ever.
const MAX_REBUILDS: usize = 4;
/// How often the time until further replicas are started doubles.
const MOST_DOUBLINGS: u32 = 5;
/// A node that is busy for longer counts as lost: others may have taken all of it, or it only says so.
const BUSY_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a block that are read to check a complaint or a sample: one group of the verified tree.
const SAMPLE: u64 = 16 << 10;

/// Settles the tasks of one job.
#[derive(Clone)]
pub(crate) struct Settler(pub(super) Arc<Parts>);

pub(super) struct Parts {
    pub(super) context: JobContext,
    pub(super) lineage: Lineage,
    pub(super) notes: Notes,
    /// What the tasks in flight will cost at least.
    pub(super) reserved: Mutex<Amount>,
    /// Held while a lost task is run again, so that its many readers do not each do it; counts how often it was. One gate
    /// a task: running it again may need blocks of other lost tasks.
    rebuilding: Mutex<HashMap<TaskKey, Arc<tokio::sync::Mutex<usize>>>>,
}

impl Settler {
    pub(crate) fn new(context: JobContext) -> Self {
        let (lineage, notes, reserved, rebuilding) = Default::default();
        Self(Arc::new(Parts { context, lineage, notes, reserved, rebuilding }))
    }

    pub(crate) fn context(&self) -> &JobContext {
        &self.0.context
    }

    pub(crate) fn lineage(&self) -> &Lineage {
        &self.0.lineage
    }

    pub(crate) fn notes(&self) -> &Notes {
        &self.0.notes
    }

    /// Runs `task` until enough replicas agree.
    ///
    /// # Errors
    /// Budget where the job cannot afford it; Data where the query itself fails on the data or needs more memory than the largest class; Unavailable where no
    /// node is left; Verification where those that are left cannot agree.
    pub(crate) async fn settle(&self, task: Arc<Prepared>) -> Result<Settled> {
        let _reserved = self.reserve(&task).await?;
        let settled = self.agree(task).await?;
        self.0.lineage.record(&settled);
        self.owe(&settled)?;
        self.0.notes.settled(&settled);
        Ok(settled)
    }

    async fn agree(&self, mut task: Arc<Prepared>) -> Result<Settled> {
        let votes = self.0.context.votes_for_a_task();
        loop {
            match Round::new(self.clone(), Arc::clone(&task), votes).run().await? {
                Verdict::Settled(settled) => return Ok(*settled),
                Verdict::TooSmall => task = Arc::new(in_bigger_class(&task, &self.0.context.fleet, votes)?),
            }
        }
    }

    /// Where each input of `task` is found; blocks that nobody has any more are made again first.
    async fn sources(&self, task: &Prepared) -> Result<Vec<Source>> {
        let mut sources = Vec::with_capacity(task.envelope.shards.len() + task.envelope.blocks.len());
        for shard in &task.envelope.shards {
            sources.push(self.0.context.shard_source(&shard.cid)?);
        }
        for block in &task.envelope.blocks {
            sources.push(self.block_source(&block.cid, block.volume.bytes).await?);
        }
        Ok(sources)
    }

    /// Where a block of an earlier stage is found.
    ///
    /// # Errors
    /// As [`Settler::settle`], where it has to be made again and cannot be.
    pub(crate) async fn block_source(&self, cid: &Cid, len: u64) -> Result<Source> {
        loop {
            if let Some(source) = self.known_source(cid, len) {
                return Ok(source);
            }
            self.rebuild(*cid).await?;
        }
    }

    fn known_source(&self, cid: &Cid, len: u64) -> Option<Source> {
        let connected: HashSet<NodeId> = self.0.context.fleet.connected().into_iter().map(|p| p.id).collect();
        self.0.lineage.source(cid, len, &connected, self.0.context.rng.as_ref())
    }

    fn producer(&self, cid: &Cid) -> Result<Settled> {
        self.0.lineage.producer(cid).ok_or_else(|| Error::internal(format!("nobody made {cid}")))
    }

    fn gate(&self, task: TaskKey) -> Arc<tokio::sync::Mutex<usize>> {
        let mut gates = self.0.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(task).or_default())
    }

    fn rebuild(&self, cid: Cid) -> BoxFuture<'_, Result<()>> {
        async move {
            let lost = self.producer(&cid)?;
            let stage = lost.task.stage.key.stage;
            let gate = self.gate(lost.task.stage.key);
            let mut times = gate.lock().await;
            if self.known_source(&cid, 0).is_some() {
                return Ok(());
            }
            *times += 1;
            if *times > MAX_REBUILDS {
                let what =
                    format!("stage {stage}: a block was lost again and again, though its task was run {times} times");
                return Err(
                    Error::unavailable(what).with_hint("the nodes that make it do not serve it: connect more nodes")
                );
            }
            tracing::info!(%cid, stage, "a block was lost with its nodes: running its task again");
            let again = self.agree(Arc::clone(&lost.task)).await?;
            if again.outputs != lost.outputs {
                let what = format!("stage {stage} gave other bytes when a lost task was run again");
                return Err(Error::verification(what));
            }
            self.0.lineage.record(&again);
            self.owe(&again)?;
            self.0.notes.settled_again(&again);
            self.0.notes.warn(format!("stage {stage}: blocks were lost with their nodes and made again"));
            Ok(())
        }
        .boxed()
    }

    /// Reads a piece of `cid` from every holder, and forgets those that do not give it; tells whether any was forgotten.
    /// What a node says that it has is not asked: it may say so and not serve.
    async fn probe(&self, cid: &Cid) -> bool {
        let reads = self.0.lineage.holders(cid).into_iter().map(|holder| async move {
            let read = ReadBlock { cid: *cid, offset: 0, len: SAMPLE, capability: holder.capability };
            let read = self.0.context.network.read_block(&holder.peer, read);
            let served = matches!(tokio::time::timeout(self.0.context.config.patience, read).await, Ok(Ok(_)));
            if !served {
                self.0.context.fleet.avoid(holder.peer.id);
                self.0.lineage.forget(cid, holder.peer.id);
            }
            !served
        });
        join_all(reads).await.contains(&true)
    }

    /// Checks what a node complains of: only what we saw ourselves counts. Bounded in time, as the accused may dribble.
    async fn check_complaints(&self, complaints: &[Complaint]) {
        let checks = complaints.iter().map(|complaint| self.check_complaint(complaint));
        let _ = tokio::time::timeout(self.0.context.config.patience, join_all(checks)).await;
    }

    /// Reads the block that a node complains about, from the accused.
    async fn check_complaint(&self, complaint: &Complaint) {
        let context = &self.0.context;
        let accused = context.fleet.connected().into_iter().find(|p| p.id == complaint.peer);
        let Some(peer) = accused else { return };
        let holders = self.0.lineage.holders(&complaint.cid);
        let capability = holders.iter().find(|h| h.peer.id == complaint.peer).and_then(|h| h.capability);
        let read = ReadBlock { cid: complaint.cid, offset: 0, len: u64::MAX, capability };
        if let Err(CallError::Misbehaved { reason, .. }) = context.network.read_block(&peer, read).await {
            self.caught(complaint.peer, &reason);
        }
    }

    /// Reads a piece of one block of every node that voted: a node that agreed must also serve what it agreed on.
    pub(crate) async fn sample_holders(&self) {
        let checks: FuturesUnordered<_> = self
            .0
            .lineage
            .samples(self.0.context.rng.as_ref())
            .into_iter()
            .map(|sample| async move {
                let (holder, cid) = sample;
                let read = ReadBlock { cid, offset: 0, len: SAMPLE, capability: holder.capability };
                if let Err(CallError::Misbehaved { reason, .. }) =
                    self.0.context.network.read_block(&holder.peer, read).await
                {
                    self.caught(holder.peer.id, &reason);
                }
            })
            .collect();
        let _ = tokio::time::timeout(self.0.context.config.patience, checks.collect::<Vec<()>>()).await;
    }

    /// `node` did what no honest node does.
    pub(crate) fn caught(&self, node: NodeId, how: &str) {
        tracing::warn!(%node, how, "caught");
        self.0.context.fleet.quarantine(node);
        self.0.notes.liar(node);
        if let Some(payments) = &self.0.context.payments {
            payments.caught(self.0.context.job, node, how);
        }
    }

    /// `node` sent wrong bytes for `cid`, or has it no more: read it elsewhere.
    pub(crate) fn forget(&self, cid: &Cid, node: NodeId) {
        self.0.lineage.forget(cid, node);
    }
}

fn in_bigger_class(task: &Prepared, fleet: &Fleet, votes: usize) -> Result<Prepared> {
    let (memory, stage) = (task.envelope.memory, task.stage.key.stage);
    let exceeded = || {
        let most = memory.bytes() >> 20;
        Error::data(format!("memory exceeded: a task of stage {stage} needs more than {most} MiB"))
    };
    let smaller = "filter earlier, aggregate over fewer groups, or join smaller sides";
    let next = memory.next().ok_or_else(|| exceeded().with_hint(smaller))?;
    if fleet.most_memory(votes) < next {
        let more = format!("too few nodes lend a task more (conun node --memory); {smaller}");
        return Err(exceeded().with_hint(more));
    }
    task.in_class(next)
}

enum Verdict {
    Settled(Box<Settled>),
    TooSmall,
}

type Seating = BoxFuture<'static, Result<Option<(Seat, Vec<Source>)>>>;

/// The replicas of a task in one memory class.
struct Round {
    settler: Settler,
    task: Arc<Prepared>,
    quorum: Quorum,
    needed: usize,
    tried: HashSet<NodeId>,
    /// Tried nodes that failed without lying.
    lost: HashSet<NodeId>,
    /// When nodes first said that they were busy.
    busy_since: HashMap<NodeId, Instant>,
    votes: HashMap<NodeId, Checked>,
    last_fault: Option<String>,
    chances: usize,
    started: Instant,
    deadline: Instant,
    /// How often patience ran out.
    expiries: u32,
    running: FuturesUnordered<BoxFuture<'static, Report>>,
}

impl Round {
    fn new(settler: Settler, task: Arc<Prepared>, needed: usize) -> Self {
        let now = Instant::now();
        let deadline = now + settler.0.context.config.slow_after;
        Self {
            settler,
            task,
            quorum: Quorum::new(needed),
            needed,
            tried: HashSet::new(),
            lost: HashSet::new(),
            busy_since: HashMap::new(),
            votes: HashMap::new(),
            last_fault: None,
            chances: SECOND_CHANCES,
            started: now,
            deadline,
            expiries: 0,
            running: FuturesUnordered::new(),
        }
    }

    async fn run(mut self) -> Result<Verdict> {
        let mut seating: Option<Seating> = None;
        loop {
            match self.quorum.next() {
                Action::Accept(ballot) => return self.accept(ballot),
                // Even where nobody failed: on a machine that stalls, all nodes may be out of sight for a moment.
                Action::GiveUp if self.chances > 0 => {
                    self.second_chance().await;
                    continue;
                }
                Action::GiveUp if self.running.is_empty() => {
                    self.leave_open();
                    return Err(self.give_up());
                }
                // Those that are overdue may still vote.
                Action::GiveUp => {}
                Action::Launch => seating = Some(seating.unwrap_or_else(|| self.seat())),
                Action::Wait => {}
            }
            tokio::select! {
                seat = next_seat(&mut seating) => {
                    seating = None;
                    match seat? {
                        Some((seat, sources)) => self.start(seat, sources),
                        None => self.quorum.exhausted(true),
                    }
                }
                Some(report) = self.running.next() => self.hear(report).await,
                () = tokio::time::sleep_until(self.deadline), if !self.quorum.running().is_empty() => self.out_of_patience(),
            }
        }
    }

    /// Finds a node: for the first replica one that holds inputs, for the others any, drawn at random.
    fn seat(&self) -> Seating {
        let (settler, task, tried) = (self.settler.clone(), Arc::clone(&self.task), self.tried.clone());
        async move {
            let sources = settler.sources(&task).await?;
            let prefer = if tried.is_empty() { holders_of_most(&sources) } else { HashSet::new() };
            let seat = settler.0.context.fleet.seat(task.envelope.memory, &prefer, &tried).await;
            Ok(seat.map(|seat| (seat, sources)))
        }
        .boxed()
    }

    fn start(&mut self, seat: Seat, sources: Vec<Source>) {
        if self.quorum.next() != Action::Launch {
            return;
        }
        let node = seat.peer.id;
        self.tried.insert(node);
        self.quorum.started(node);
        if self.votes.is_empty() {
            self.deadline = Instant::now() + self.slow_after();
        }
        let (settler, task) = (self.settler.clone(), Arc::clone(&self.task));
        self.running.push(async move { attempt(&settler.0.context, &task, sources, seat).await }.boxed());
    }

    async fn hear(&mut self, report: Report) {
        self.settler.check_complaints(&report.complaints).await;
        let node = report.node;
        match report.ended {
            Ended::Voted(checked) => {
                self.quorum.voted(node, Ballot::Done(checked.root));
                self.votes.insert(node, *checked);
                self.be_patient();
            }
            Ended::Said(ballot) => {
                self.quorum.voted(node, ballot);
                self.be_patient();
            }
            Ended::Cheated(how) => {
                self.quorum.ended(node);
                self.settler.caught(node, &how);
            }
            Ended::Busy(pause) => self.postpone(node, pause),
            Ended::Lost(reason) => self.lose(node, reason),
            Ended::Missing(cid) => {
                let gone = self.settler.probe(&cid).await;
                self.lose(node, format!("{node} found {cid} nowhere"));
                if gone {
                    self.retry(node);
                }
            }
        }
    }

    /// A busy node is asked again, unless it has been busy for too long to be believed.
    fn postpone(&mut self, node: NodeId, pause: Duration) {
        let since = *self.busy_since.entry(node).or_insert_with(Instant::now);
        if since.elapsed() > BUSY_LIMIT {
            return self.lose(node, format!("{node} stays busy"));
        }
        self.quorum.ended(node);
        self.settler.0.context.fleet.busy(node, pause);
        self.retry(node);
    }

    /// `node` may be asked again.
    fn retry(&mut self, node: NodeId) {
        self.tried.remove(&node);
        self.quorum.exhausted(false);
    }

    fn lose(&mut self, node: NodeId, reason: String) {
        tracing::debug!(%node, reason, "replica lost");
        self.quorum.ended(node);
        self.settler.0.context.fleet.avoid(node);
        self.lost.insert(node);
        self.last_fault = Some(reason);
    }

    /// The first answer shows how long the task takes; the others get a few times as long.
    fn be_patient(&mut self) {
        let patience = self.settler.0.context.config.patience.max(self.started.elapsed() * 4);
        self.deadline = Instant::now() + patience;
    }

    fn out_of_patience(&mut self) {
        for node in self.quorum.running() {
            self.settler.0.context.fleet.avoid(*node);
        }
        self.quorum.out_of_patience();
        // Nodes may have joined since.
        self.quorum.exhausted(false);
        // Longer each time: a task that takes long is no reason to run it everywhere, where colluders would meet.
        self.expiries = (self.expiries + 1).min(MOST_DOUBLINGS);
        self.deadline = Instant::now() + self.slow_after();
    }

    fn slow_after(&self) -> Duration {
        self.settler.0.context.config.slow_after * (1 << self.expiries)
    }

    async fn second_chance(&mut self) {
        self.chances -= 1;
        tokio::time::sleep(SECOND_CHANCE_AFTER).await;
        for node in self.lost.drain() {
            self.tried.remove(&node);
        }
        self.quorum.exhausted(false);
    }

    fn accept(self, ballot: Ballot) -> Result<Verdict> {
        let liars = self.dissenters(&ballot);
        for node in &liars {
            self.settler.caught(*node, "its answer differs from the one that the quorum accepted");
        }
        let root = match ballot {
            Ballot::QueryError(message) => return Err(Error::data(message)),
            Ballot::MemoryExceeded => return Ok(Verdict::TooSmall),
            Ballot::Done(root) => root,
        };
        let late = self.quorum.overdue().to_vec();
        let (mut outputs, mut holders, mut rejected, mut receipts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for checked in self.votes.into_values() {
            let accepted = checked.root == root;
            receipts.push(crate::record::ReceiptRecord { accepted, ..checked.receipt });
            if accepted {
                outputs = checked.outputs;
                holders.push(checked.holder);
            } else {
                rejected.push((checked.holder, checked.outputs));
            }
        }
        let votes = holders.len();
        let dissent = liars.len();
        let task = self.task;
        Ok(Verdict::Settled(Box::new(Settled {
            task,
            outputs,
            holders,
            rejected,
            receipts,
            liars,
            late,
            votes,
            dissent,
        })))
    }

    /// Who voted otherwise. Running out of memory is no lie: pools are fixed, yet a runner may die of other causes. Nor is
    /// having had enough where others had not.
    fn dissenters(&self, accepted: &Ballot) -> Vec<NodeId> {
        if *accepted == Ballot::MemoryExceeded {
            return Vec::new();
        }
        let honest = |ballot: &Ballot| ballot == accepted || *ballot == Ballot::MemoryExceeded;
        self.quorum.votes().iter().filter(|(_, ballot)| !honest(ballot)).map(|(node, _)| *node).collect()
    }

    /// Where the votes differ and make no verdict, they are kept: whoever runs the task again can tell who is right.
    fn leave_open(&mut self) {
        let votes: Vec<Checked> = std::mem::take(&mut self.votes).into_values().collect();
        if votes.iter().all(|vote| vote.root == votes[0].root) {
            return;
        }
        let receipts = votes.iter().map(|vote| vote.receipt.clone()).collect();
        let claims = votes.into_iter().map(|vote| (vote.holder, vote.outputs)).collect();
        self.settler.0.notes.open(receipts);
        self.settler.0.lineage.dispute(Disputed { task: Arc::clone(&self.task), accepted: Vec::new(), claims });
    }

    fn give_up(&self) -> Error {
        let stage = self.task.stage.key.stage;
        let answers: HashSet<&Ballot> = self.quorum.votes().values().collect();
        let voters = self.quorum.votes().len();
        if answers.len() > 1 {
            return Error::verification(format!(
                "stage {stage}: {voters} replicas gave {} different answers and no further node can break the tie",
                answers.len()
            ))
            .with_hint("connect more nodes and try again");
        }
        if voters > 0 {
            let why = self.last_fault.as_ref().map(|fault| format!(" ({fault})")).unwrap_or_default();
            return Error::verification(format!(
                "stage {stage}: {} agreeing replicas are needed, only {voters} independent nodes can give one{why}",
                self.needed
            ))
            .with_hint("connect more nodes, or accept unverified answers with --verify off");
        }
        let reason = self.last_fault.clone().unwrap_or_else(|| self.settler.0.context.fleet.nobody());
        Error::unavailable(format!("stage {stage}: no node can run it: {reason}"))
            .with_hint("check that nodes are running: conun devnet status, or conun node --bootstrap ADDR")
    }
}

async fn next_seat(seating: &mut Option<Seating>) -> Result<Option<(Seat, Vec<Source>)>> {
    match seating {
        Some(seating) => seating.await,
        None => std::future::pending().await,
    }
}

/// Nodes that hold the largest share of a task's inputs.
fn holders_of_most(sources: &[Source]) -> HashSet<NodeId> {
    let mut held: HashMap<NodeId, u64> = HashMap::new();
    for source in sources {
        for holder in &source.holders {
            *held.entry(holder.peer.id).or_default() += source.len;
        }
    }
    let most = held.values().copied().max().unwrap_or_default();
    held.into_iter().filter(|(_, bytes)| *bytes == most).map(|(node, _)| node).collect()
}
