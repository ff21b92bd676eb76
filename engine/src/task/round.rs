//! The replicas of one task in one memory class, until their votes make a verdict: starts them as the credibility engine
//! asks for them, checks what they say, replaces those that fail. A dead or slow node costs a replica, never the job.

mod give_up;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use conun_trust::{Action, Mode, Need, Outcome, Plan, Poll};
use conun_types::{Error, Holder, NodeId, OutputBlock, PeerAddr, Result, Source};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::give_up::Fault;
use super::{
    Prepared, Settled,
    attempt::{Checked, Ended, Report, attempt},
    patience::Patience,
    settle::Settler,
};
use crate::{
    credit::{Ballot, Operator, Votes},
    evidence::Disputed,
    fleet::{Candidate, Choice, Seat},
    record::ReceiptRecord,
};

/// How often nodes that failed (but did not lie) are asked again once no other is left.
const SECOND_CHANCES: usize = 3;
/// Pause before they are.
const SECOND_CHANCE_AFTER: Duration = Duration::from_millis(500);
/// A node that is busy for longer counts as lost: others may have taken all of it, or it only says so.
const BUSY_LIMIT: Duration = Duration::from_secs(60);

/// What came of a round.
pub(super) enum Verdict {
    /// The task's answer.
    Settled(Box<Settled>),
    /// It needs a bigger memory class.
    TooSmall,
}

/// A place for a replica: with a plan, where it is the first.
struct Seated {
    seat: Seat,
    plan: Option<Plan<Operator>>,
    sources: Vec<Source>,
}

type Seating = BoxFuture<'static, Result<Option<Seated>>>;

/// The replicas of a task in one memory class.
pub(super) struct Round {
    settler: Settler,
    task: Arc<Prepared>,
    poll: Votes,
    /// Nobody began yet: who does is for the credibility engine to plan.
    fresh: bool,
    /// Verdicts that are looked at again.
    before: Vec<Settled>,
    /// The node by which each operator takes part.
    nodes: BTreeMap<Operator, NodeId>,
    tried: HashSet<NodeId>,
    /// Tried nodes that failed without lying.
    lost: HashSet<NodeId>,
    /// When nodes first said that they were busy.
    busy_since: HashMap<NodeId, Instant>,
    votes: HashMap<NodeId, Checked>,
    last_fault: Option<Fault>,
    chances: usize,
    patience: Patience,
    running: FuturesUnordered<BoxFuture<'static, Report>>,
}

impl Round {
    /// A task that nobody has run.
    pub(super) fn fresh(settler: Settler, task: Arc<Prepared>) -> Self {
        let unplanned = Poll::new(Mode::Votes, Need::votes(1));
        Self { fresh: true, ..Self::new(settler, task, unplanned) }
    }

    /// `task`, which was settled as `before` says and is looked at again, from the votes in `poll` on.
    pub(super) fn again(settler: Settler, task: Arc<Prepared>, before: Vec<Settled>, poll: Votes) -> Self {
        let nodes: BTreeMap<Operator, NodeId> = before.iter().flat_map(|verdict| verdict.voters.clone()).collect();
        let tried = nodes.values().copied().collect();
        Self { before, nodes, tried, ..Self::new(settler, task, poll) }
    }

    fn new(settler: Settler, task: Arc<Prepared>, poll: Votes) -> Self {
        let patience = Patience::new(&settler.0.context.config, Instant::now());
        Self {
            settler,
            task,
            poll,
            fresh: false,
            before: Vec::new(),
            nodes: BTreeMap::new(),
            tried: HashSet::new(),
            lost: HashSet::new(),
            busy_since: HashMap::new(),
            votes: HashMap::new(),
            last_fault: None,
            chances: SECOND_CHANCES,
            patience,
            running: FuturesUnordered::new(),
        }
    }

    /// Runs it to its verdict.
    ///
    /// # Errors
    /// As [`Settler::settle`].
    pub(super) async fn run(mut self) -> Result<Verdict> {
        let mut seating: Option<Seating> = None;
        // What kind of replica it is for.
        let mut kind = (false, false);
        loop {
            match self.next() {
                Action::Accept { ballot, bound } => match self.compared(&ballot) {
                    true => return self.accept(ballot, bound),
                    false => continue,
                },
                // Even where nobody failed: on a machine that stalls, all nodes may be out of sight for a moment.
                Action::GiveUp { .. } if self.chances > 0 && (self.running.is_empty() || !self.lost.is_empty()) => {
                    self.second_chance().await;
                    continue;
                }
                // Those that are overdue may still vote.
                Action::GiveUp { .. } if !self.running.is_empty() => {}
                Action::GiveUp { .. } if self.settles_for_less() => continue,
                Action::GiveUp { bound } => {
                    self.keep_votes("the votes make no verdict");
                    return Err(self.give_up(bound));
                }
                Action::Launch => {
                    let wanted = (self.fresh, self.is_speculative());
                    let waiting = seating.take().filter(|_| kind == wanted);
                    kind = wanted;
                    seating = Some(waiting.unwrap_or_else(|| self.seat(kind.1)));
                }
                Action::Wait => {}
            }
            tokio::select! {
                // Who has answered is not late, though this round comes to it only now.
                biased;
                Some(report) = self.running.next() => self.hear(report).await,
                seated = next_seat(&mut seating) => {
                    seating = None;
                    match seated? {
                        Some(seated) => self.start(seated),
                        None => self.poll.exhausted(true),
                    }
                }
                () = tokio::time::sleep_until(self.patience.deadline()), if !self.poll.running().is_empty() => self.out_of_patience(),
            }
        }
    }

    /// Whether the next replica would be started only since nobody said anything yet: if those that run answer, it was in vain.
    fn is_speculative(&self) -> bool {
        self.patience.guesses() && {
            let mut patient = self.poll.clone();
            patient.out_of_patience(&[]);
            self.settler.0.context.credit.next(&patient) != Action::Launch
        }
    }

    fn next(&mut self) -> Action<Ballot> {
        let credit = &self.settler.0.context.credit;
        self.poll.retain(|operator| credit.is_admitted(operator));
        credit.next(&self.poll)
    }

    /// Whether an answer may be believed without blocks to audit: that a query fails, or needs more memory, is not for one
    /// node alone to say, unless nothing is compared at all. Asks for a second vote otherwise.
    fn compared(&mut self, ballot: &Ballot) -> bool {
        let alone = !matches!(ballot, Ballot::Done(_)) && self.poll.votes().len() < 2;
        if !alone || self.settler.0.context.checking.is_off() {
            return true;
        }
        self.poll.at_least(2);
        false
    }

    /// Where the requester named no error, the best that those who are there can give is an answer: two equal votes.
    fn settles_for_less(&mut self) -> bool {
        let less = Need::votes(2);
        let checking = &self.settler.0.context.checking;
        if checking.max_error().is_some() || checking.is_off() || self.poll.votes().len() < less.votes {
            return false;
        }
        self.poll.settle_for(less);
        matches!(self.next(), Action::Accept { .. })
    }

    /// Finds a node: for the first replica one that holds inputs and that the credibility engine draws, for the others any
    /// that it draws. Places are waited for, and whoever held the inputs may be gone by then.
    ///
    /// A `speculative` replica is started only since nobody said anything yet. It leaves places to others for a while: where all
    /// tasks are long, doubling them holds up the job. Nor is anything made again for it.
    fn seat(&self, speculative: bool) -> Seating {
        let until = Instant::now() + self.settler.0.context.config.slow_after;
        let (settler, task, tried) = (self.settler.clone(), Arc::clone(&self.task), self.tried.clone());
        let (fresh, poll) = (self.fresh, self.poll.clone());
        async move {
            let memory = task.envelope.memory;
            let (fleet, job) = (&settler.0.context.fleet, settler.0.context.job);
            loop {
                let sources = if speculative { Vec::new() } else { settler.sources(&task).await? };
                let _needed = (!speculative).then(|| settler.needed());
                let waits = || speculative && settler.others_are_needed() && Instant::now() < until;
                let seated = if fresh {
                    let holders = holders_of_most(&sources);
                    fleet.seat(job, memory, &tried, |candidates| settler.lead(candidates, &holders)).await
                } else {
                    let choose = |candidates: &[Candidate]| match waits() {
                        true => Choice::Wait,
                        false => settler.further(&task, &poll, candidates),
                    };
                    fleet.seat(job, memory, &tried, choose).await
                };
                let Some((seat, plan)) = seated else { return Ok(None) };
                match settler.known_sources(&task)? {
                    Some(sources) => return Ok(Some(Seated { seat, plan, sources })),
                    None if speculative => return Ok(None),
                    None => {}
                }
            }
        }
        .boxed()
    }

    fn start(&mut self, seated: Seated) {
        let Seated { seat, plan, sources } = seated;
        let credit = Arc::clone(&self.settler.0.context.credit);
        let node = seat.peer.id;
        let Some(operator) = credit.operator(&node) else { return };
        if let Some(plan) = plan {
            self.poll = credit.poll(&plan);
        }
        if self.next() != Action::Launch || self.poll.knows(&operator) {
            return;
        }
        self.fresh = false;
        self.tried.insert(node);
        self.nodes.insert(operator, node);
        self.poll.started(operator);
        self.patience.began(node, Instant::now());
        tracing::debug!(%node, task = ?self.task.stage.key, "replica started");
        let (settler, task) = (self.settler.clone(), Arc::clone(&self.task));
        // A task of its own: when it ended is noted while this round waits for something else.
        let attempt = tokio::spawn(async move { attempt(&settler.0.context, &task, sources, seat).await });
        let attempt = AbortOnDropHandle::new(attempt);
        let attempt =
            attempt.map(|report| report.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
        self.running.push(attempt.boxed());
    }

    async fn hear(&mut self, report: Report) {
        self.settler.check_complaints(&report.complaints).await;
        let node = report.node;
        match report.ended {
            Ended::Voted(checked) => {
                self.vote(node, Ballot::Done(checked.root), report.at);
                self.votes.insert(node, *checked);
            }
            Ended::Said(ballot) => self.vote(node, ballot, report.at),
            Ended::Cheated(how) => {
                self.end(node);
                self.settler.caught(node, &how);
            }
            Ended::Busy(pause) => self.postpone(node, pause),
            Ended::Lost(reason) => self.lose(node, Fault::Replica(reason), Outcome::Offline),
            Ended::Missing(source) => {
                let fault = format!("{node} found {} nowhere", self.settler.0.context.name_of(&source.cid));
                let fault = Fault::Input(fault);
                if self.settler.probe(&source).await {
                    // Its holders are to blame: the reader is as good as it was.
                    self.end(node);
                    self.retry(node);
                    self.last_fault = Some(fault);
                } else {
                    self.lose(node, fault, Outcome::Faulty);
                }
            }
        }
    }

    fn operator(&self, node: NodeId) -> Option<Operator> {
        self.nodes.iter().find(|(_, n)| **n == node).map(|(operator, _)| *operator)
    }

    fn vote(&mut self, node: NodeId, ballot: Ballot, at: Instant) {
        tracing::debug!(%node, task = ?self.task.stage.key, "replica voted");
        self.patience.voted(node, at);
        if let Some(operator) = self.operator(node) {
            self.poll.voted(operator, ballot);
        }
        self.wait_for_the_prompt();
    }

    /// `node` ended without a vote.
    fn end(&mut self, node: NodeId) {
        self.patience.ended(node);
        if let Some(operator) = self.operator(node) {
            self.poll.ended(operator);
            self.nodes.remove(&operator);
        }
        // A plan was for who began: whoever steps in is drawn as the first was.
        self.fresh = self.before.is_empty() && self.poll.votes().is_empty() && self.poll.running().is_empty();
    }

    /// A busy node is asked again, unless it has been busy for too long to be believed.
    fn postpone(&mut self, node: NodeId, pause: Duration) {
        let since = *self.busy_since.entry(node).or_insert_with(Instant::now);
        if since.elapsed() > BUSY_LIMIT {
            return self.lose(node, Fault::Replica(format!("{node} stays busy")), Outcome::Late);
        }
        self.end(node);
        self.settler.0.context.fleet.busy(node, pause);
        self.retry(node);
    }

    /// `node` may be asked again.
    fn retry(&mut self, node: NodeId) {
        self.tried.remove(&node);
        self.poll.exhausted(false);
    }

    fn lose(&mut self, node: NodeId, fault: Fault, outcome: Outcome) {
        tracing::debug!(%node, task = ?self.task.stage.key, ?fault, "replica lost");
        self.end(node);
        self.settler.0.context.fleet.failed(node);
        self.settler.observe(node, outcome);
        self.lost.insert(node);
        self.last_fault = Some(fault);
    }

    fn out_of_patience(&mut self) {
        self.patience.run_out(Instant::now());
        tracing::debug!(task = ?self.task.stage.key, stragglers = ?self.patience.stragglers(), "out of patience");
        self.wait_for_the_prompt();
        // Nodes may have joined since.
        self.poll.exhausted(false);
    }

    /// Tells the poll who is waited for.
    fn wait_for_the_prompt(&mut self) {
        let stragglers: Vec<Operator> =
            self.patience.stragglers().iter().filter_map(|node| self.operator(*node)).collect();
        self.poll.out_of_patience(&stragglers);
    }

    /// Notes who of those that voted `accepted`, or still run, was prompt and who was slow; the latter. A slow node gets no task
    /// for a while, the longer the slower it is. Votes that were not accepted say nothing of what the task takes.
    fn grade(&mut self, accepted: &Ballot) -> Vec<NodeId> {
        // Whoever answered while this round was busy does not run any more.
        while let Some(Some(report)) = self.running.next().now_or_never() {
            self.patience.voted(report.node, report.at);
        }
        let agreed = self.poll.votes().iter().filter(|(_, ballot)| *ballot == accepted);
        let right = agreed.filter_map(|(operator, _)| self.nodes.get(operator)).copied().collect();
        let (fleet, mut slow) = (&self.settler.0.context.fleet, Vec::new());
        for (node, slowdown) in self.patience.slowdowns(&right, Instant::now()) {
            if let Some(times) = slowdown {
                fleet.slow(node, times);
                self.settler.observe(node, Outcome::Late);
                slow.push(node);
            } else if right.contains(&node) {
                fleet.prompt(node);
                self.settler.observe(node, Outcome::Prompt);
            }
        }
        slow
    }

    async fn second_chance(&mut self) {
        self.chances -= 1;
        tokio::time::sleep(SECOND_CHANCE_AFTER).await;
        for node in self.lost.drain() {
            self.tried.remove(&node);
        }
        self.poll.exhausted(false);
    }

    fn accept(mut self, ballot: Ballot, bound: f64) -> Result<Verdict> {
        let liars = self.convict(&ballot);
        let late = self.grade(&ballot);
        let root = match ballot {
            Ballot::QueryError(message) => {
                self.keep_votes("others say that the query fails on its data");
                return Err(Error::data(message));
            }
            Ballot::MemoryExceeded => {
                self.keep_votes("others ran out of memory");
                return Ok(Verdict::TooSmall);
            }
            Ballot::Done(root) => root,
        };
        let (right, wrong): (Vec<Settled>, Vec<Settled>) =
            std::mem::take(&mut self.before).into_iter().partition(|before| before.root() == Some(root));
        let right = right.into_iter().next();
        let (mut outputs, mut holders) = right.map(|b| (b.outputs, b.holders)).unwrap_or_default();
        holders.retain(|holder| !liars.contains(&holder.peer.id));
        let mut receipts = Vec::new();
        let mut rejected: Vec<_> = wrong.into_iter().flat_map(claims).collect();
        for checked in self.votes.into_values() {
            let accepted = checked.root == root;
            receipts.push(ReceiptRecord { accepted, ..checked.receipt });
            if accepted {
                outputs = checked.outputs;
                holders.push(checked.holder);
            } else {
                rejected.push((checked.holder, checked.outputs));
            }
        }
        let agreed = |operator: &Operator| self.poll.votes().get(operator) == Some(&Ballot::Done(root));
        let voters = self.nodes.into_iter().filter(|(operator, _)| agreed(operator)).collect();
        let (task, asked) = (self.task.clone(), self.task.cid);
        let settled = Settled { asked, task, outputs, holders, rejected, receipts, liars, late, voters, bound };
        Ok(Verdict::Settled(Box::new(settled)))
    }

    /// Has whoever lost the vote lose its record; the nodes by which it voted. Where memory was short nobody did: some had
    /// enough.
    fn convict(&self, accepted: &Ballot) -> Vec<NodeId> {
        if *accepted == Ballot::MemoryExceeded {
            return Vec::new();
        }
        let context = &self.settler.0.context;
        let caught = context.credit.settle(context.job, self.task.stage.key, &self.poll, accepted);
        let nodes: Vec<NodeId> = caught.iter().filter_map(|operator| self.nodes.get(operator)).copied().collect();
        for node in &nodes {
            self.settler.lied(*node, "its answer differs from the one that was accepted", Some(self.task.cid));
        }
        nodes
    }

    /// No blocks are accepted, and none of before any more, for this reason: what nodes signed is kept, so that whoever runs
    /// the task again can tell who is right.
    fn keep_votes(&mut self, why: &str) {
        let before = std::mem::take(&mut self.before);
        if !before.is_empty() {
            self.settler.take_back(&self.task.cid, why);
        }
        let (mut receipts, mut rejected) = (Vec::new(), before.into_iter().flat_map(claims).collect::<Vec<_>>());
        for vote in std::mem::take(&mut self.votes).into_values() {
            receipts.push(vote.receipt);
            rejected.push((vote.holder, vote.outputs));
        }
        self.settler.keep(&self.task, receipts);
        if rejected.iter().any(|(_, outputs)| *outputs != rejected[0].1) {
            let task = Arc::clone(&self.task);
            self.settler.0.lineage.dispute(Disputed { task, accepted: Vec::new(), claims: rejected });
        }
    }
}

impl Settler {
    /// Who begins a task: one that holds most of its inputs, if such a one is free. Which of them is drawn by the
    /// coordinator's own randomness, and so is how its answer will be checked.
    fn lead(&self, candidates: &[Candidate], holders: &HashSet<NodeId>) -> Choice<PeerAddr, Option<Plan<Operator>>> {
        let free: Vec<&Candidate> = candidates.iter().filter(|c| c.free).collect();
        let holding = || free.iter().filter(|c| holders.contains(&c.peer.id));
        let least = holding().map(|c| c.load).min();
        let preferred: Vec<&Candidate> = holding().filter(|c| Some(c.load) == least).copied().collect();
        let pool = if preferred.is_empty() { free } else { preferred };
        if pool.is_empty() {
            return Choice::Wait;
        }
        let context = &self.0.context;
        let by = self.by_operator(&pool);
        let operators: Vec<Operator> = by.keys().copied().collect();
        let planned = context.credit.plan(context.job, context.checking.demand, &operators);
        let chosen = planned.and_then(|plan| Some((by.get(&plan.lead)?, plan)));
        chosen.map_or(Choice::Nobody, |(candidate, plan)| Choice::Take(candidate.peer.clone(), Some(plan)))
    }

    /// Who gets a further replica: drawn in secret, so that no node knows which tasks it shares with which other. A newcomer
    /// only where no other is left, busy ones among them.
    fn further(
        &self,
        task: &Prepared,
        poll: &Votes,
        candidates: &[Candidate],
    ) -> Choice<PeerAddr, Option<Plan<Operator>>> {
        let context = &self.0.context;
        let candidates: Vec<&Candidate> = candidates.iter().collect();
        let mut all = self.unasked(&candidates, poll);
        if all.is_empty() {
            return Choice::Nobody;
        }
        if all.keys().any(|operator| context.credit.is_senior(operator)) {
            all.retain(|operator, _| context.credit.is_senior(operator));
        }
        let free: Vec<&Candidate> = candidates.into_iter().filter(|c| c.free).collect();
        let by = self.unasked(&free, poll);
        let operators: Vec<Operator> = by.keys().filter(|operator| all.contains_key(operator)).copied().collect();
        let chosen = context.credit.replica(context.job, task.stage.key, poll, &operators);
        let candidate = chosen.and_then(|operator| by.get(&operator));
        candidate.map_or(Choice::Wait, |candidate| Choice::Take(candidate.peer.clone(), None))
    }

    /// Candidates by operator, of those that have no replica.
    fn unasked<'a>(&self, candidates: &[&'a Candidate], poll: &Votes) -> BTreeMap<Operator, &'a Candidate> {
        let mut by = self.by_operator(candidates);
        by.retain(|operator, _| !poll.knows(operator));
        by
    }

    /// Candidates by operator: its node with the fewest tasks.
    fn by_operator<'a>(&self, candidates: &[&'a Candidate]) -> BTreeMap<Operator, &'a Candidate> {
        let mut by: BTreeMap<Operator, &Candidate> = BTreeMap::new();
        for candidate in candidates {
            let Some(operator) = self.0.context.credit.operator(&candidate.peer.id) else { continue };
            let best = by.entry(operator).or_insert(candidate);
            if candidate.load < best.load {
                *best = candidate;
            }
        }
        by
    }
}

/// What `verdict` says, by who holds it.
fn claims(verdict: Settled) -> impl Iterator<Item = (Holder, Vec<OutputBlock>)> {
    let Settled { holders, outputs, .. } = verdict;
    holders.into_iter().map(move |holder| (holder, outputs.clone()))
}

async fn next_seat(seating: &mut Option<Seating>) -> Result<Option<Seated>> {
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
