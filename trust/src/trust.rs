//! The decisions: who gets a task, whether its votes suffice, what an operator's lost vote means for what it did before.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use conun_types::{JobId, Rng};
use serde::{Deserialize, Serialize};

use crate::{
    alarm::Alarm,
    credibility, pairs,
    poll::{Action, Mode, Need, Poll},
    rules::Rules,
    standing::{Outcome, Rank, Standing},
    work::{Audit, JobWork, sample},
};

/// Draws until a list is searched instead.
const DRAWS: usize = 24;
/// Tasks until forgettable operators are looked for.
const FORGET_EVERY: u64 = 10_000;
/// Extra replicas for newcomers that may be saved up.
const MOST_SAVED: f64 = 50.0;

/// A vote is believed where it is likelier right than wrong, whatever error is allowed.
const TOSS_UP: f64 = 0.5;
/// Released lies to expect behind a clean probe that are worth a search.
const HIDDEN: f64 = 0.25;

/// What the requester wants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Demand {
    /// Operators with a record work alone, audited before release; others' votes are compared.
    Audit,
    /// Every task's votes are compared.
    Compare(Need),
}

/// Who begins a task, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan<O> {
    /// The operator that gets the first replica.
    pub lead: O,
    /// Why votes are asked for.
    pub mode: Mode<O>,
    /// What makes a verdict.
    pub need: Need,
}

/// What verification will take, before anything runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Replicas of a task in the mean, audits among them.
    pub replicas: f64,
    /// Probability that the accepted answer of a task is wrong, at most.
    pub bound: f64,
    /// Whether so many operators are there.
    pub reached: bool,
}

/// An operator that lost a vote, and what must be looked at again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caught<O, T> {
    /// Who.
    pub operator: O,
    /// It was its last strike, or it is proven.
    pub convicted: bool,
    /// What was accepted on its word in jobs that are not released: plan it again.
    pub rerun: Vec<(JobId, T)>,
    /// A sample of what was released on its word: run it again, and tell [`Trust::probed`].
    pub probe: Vec<T>,
    /// What else was released on its word, as far as it is remembered.
    pub rest: Vec<T>,
}

/// How much of a caught operator's work was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Tasks of [`Caught::rerun`].
    pub in_rerun: usize,
    /// Tasks of [`Caught::probe`].
    pub in_probe: usize,
}

/// The credibility engine. `O` names operators (not keys: an operator with many nodes has one vote), `T` tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound(
    serialize = "O: Serialize, T: Serialize",
    deserialize = "O: Deserialize<'de> + Ord, T: Deserialize<'de> + Ord"
))]
pub struct Trust<O, T> {
    rules: Rules,
    #[serde(with = "pairs")]
    book: BTreeMap<O, Standing<T>>,
    #[serde(with = "pairs")]
    jobs: BTreeMap<JobId, JobWork<O, T>>,
    alarm: Alarm,
    /// Tasks planned so far.
    tasks: u64,
    /// Extra replicas that newcomers may still cause.
    budget: f64,
    /// Nobody has a record yet: whoever joins is no newcomer.
    founding: bool,
}

impl<O: Copy + Ord + Debug, T: Copy + Ord> Trust<O, T> {
    /// Knows nobody.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let (book, jobs, alarm) = Default::default();
        Self { rules: rules.sane(), book, jobs, alarm, tasks: 0, budget: 0.0, founding: true }
    }

    /// The same under `rules`, after what ran when it was written was lost.
    #[must_use]
    pub fn resumed(mut self, rules: Rules) -> Self {
        self.rules = rules.sane();
        self.jobs.clear();
        self
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What is remembered of `operator`.
    #[must_use]
    pub fn standing(&self, operator: &O) -> Option<&Standing<T>> {
        self.book.get(operator)
    }

    /// What `operator` may do at `now`.
    #[must_use]
    pub fn rank(&self, operator: &O, now: Duration) -> Rank {
        let unknown = if self.founding { Rank::Founder } else { Rank::Newcomer };
        self.book.get(operator).map_or(unknown, |s| s.rank(now, self.rules.solo_after()))
    }

    /// So many lies got out lately that nobody works alone.
    #[must_use]
    pub fn is_alarmed(&self) -> bool {
        self.alarm.sounds(self.tasks)
    }

    /// Who begins the next task of `job`, among the operators in `candidates`; `None` where none may.
    ///
    /// The lead is drawn from all alike, so that the share of liars among leads is their share among operators; newcomers
    /// are passed over once their budget is spent. Who works alone goes on with the job until its stint ends: a few audits
    /// then cover many tasks.
    pub fn plan(
        &mut self,
        job: JobId,
        demand: Demand,
        candidates: &[O],
        now: Duration,
        rng: &dyn Rng,
    ) -> Option<Plan<O>> {
        self.tasks += 1;
        self.budget = (self.budget + self.rules.probation_share).min(MOST_SAVED);
        if self.tasks.is_multiple_of(FORGET_EVERY) {
            self.forget(now);
        }
        let (lead, rank) = self.draw_lead(candidates, now, rng)?;
        let compare = Need::error(self.rules.max_error);
        let (lead, mode, need) = match (demand, rank) {
            (Demand::Compare(need), _) => (lead, Mode::Votes, need),
            (Demand::Audit, Rank::Established) if !self.is_alarmed() => {
                (self.crew(job, candidates, now, rng).unwrap_or(lead), Mode::Solo, Need::votes(1))
            }
            (Demand::Audit, Rank::Newcomer) if self.budget >= 1.0 => {
                self.budget -= 1.0;
                (lead, Mode::Probation, compare)
            }
            (Demand::Audit, _) => (lead, Mode::Votes, compare),
        };
        Some(Plan { lead, mode, need })
    }

    fn draw_lead(&self, candidates: &[O], now: Duration, rng: &dyn Rng) -> Option<(O, Rank)> {
        let admits = self.budget >= 1.0;
        let suits = |rank: Rank| rank >= Rank::Founder || (rank == Rank::Newcomer && admits);
        let lead = draw(candidates, rng, |o| suits(self.rank(o, now)))
            .or_else(|| draw(candidates, rng, |o| self.rank(o, now) == Rank::Newcomer))?;
        Some((lead, self.rank(&lead, now)))
    }

    /// Who is in the middle of a stint.
    fn crew(&self, job: JobId, candidates: &[O], now: Duration, rng: &dyn Rng) -> Option<O> {
        let free = |o: &O| self.rank(o, now) == Rank::Established && candidates.contains(o);
        let crew: Vec<O> = self.jobs.get(&job)?.crew().filter(free).collect();
        crew.get(rng.below(crew.len())).copied()
    }

    /// A poll on what a plan began.
    #[must_use]
    pub fn poll<A: Clone + Ord>(&self, plan: &Plan<O>) -> Poll<O, A> {
        Poll::new(plan.mode, plan.need)
    }

    /// A poll that begins with what `worker` said when it was alone.
    #[must_use]
    pub fn audit<A: Clone + Ord>(&self, worker: O, ballot: A) -> Poll<O, A> {
        Self::again(Mode::Audit(worker), worker, ballot)
    }

    /// A poll that begins with what a caught `worker` had said.
    #[must_use]
    pub fn probe<A: Clone + Ord>(&self, worker: O, ballot: A) -> Poll<O, A> {
        Self::again(Mode::Probe(worker), worker, ballot)
    }

    fn again<A: Clone + Ord>(mode: Mode<O>, worker: O, ballot: A) -> Poll<O, A> {
        let mut poll = Poll::new(mode, Need::votes(2));
        poll.voted(worker, ballot);
        poll
    }

    /// A poll on a task of a job with `demand` whose accepted answer is in doubt: nobody answers it alone.
    #[must_use]
    pub fn doubt<A: Clone + Ord>(&self, demand: Demand) -> Poll<O, A> {
        let need = match demand {
            Demand::Audit => Need::error(self.rules.max_error),
            Demand::Compare(need) => need,
        };
        Poll::new(Mode::Votes, need)
    }

    /// Who gets a further replica of `task`: drawn by the coordinator's own randomness, so that nobody knows whom it
    /// shares a task with. Newcomers only where nobody else is left.
    pub fn replica<A: Clone + Ord>(
        &mut self,
        job: JobId,
        task: T,
        poll: &Poll<O, A>,
        candidates: &[O],
        now: Duration,
        rng: &dyn Rng,
    ) -> Option<O> {
        let looked: Vec<O> = match poll.mode {
            Mode::Audit(worker) => self.jobs.get_mut(&job).map_or(Vec::new(), |j| j.auditors(worker, task).to_vec()),
            _ => Vec::new(),
        };
        let least = |least: Rank, but: &[O]| {
            draw(candidates, rng, |o| !poll.knows(o) && !but.contains(o) && self.rank(o, now) >= least)
        };
        // Where too few are there, one auditor looks twice.
        let chosen = least(Rank::Founder, &looked)
            .or_else(|| least(Rank::Newcomer, &looked))
            .or_else(|| least(Rank::Newcomer, &[]))?;
        if let (Mode::Audit(worker), Some(work)) = (poll.mode, self.jobs.get_mut(&job)) {
            work.looks(worker, task, chosen);
        }
        Some(chosen)
    }

    /// Whether the votes suffice, and else what to do.
    ///
    /// Replicas are started only while those that run could not complete the verdict even if all of them agreed with the
    /// largest group so far. Once two votes differ, records count no more: one of them was a lie.
    #[must_use]
    pub fn next<A: Clone + Ord>(&self, poll: &Poll<O, A>) -> Action<A> {
        let need = self.need(poll);
        let tally = self.tally(poll);
        if let Some(ballot) = tally.ballot
            && tally.votes >= need.votes
            && tally.bound <= need.max_error.min(TOSS_UP)
        {
            return Action::Accept { ballot: ballot.clone(), bound: tally.bound };
        }
        let (count, group) = poll.prompt().fold((tally.votes, tally.group), |(count, group), operator| {
            (count + 1, group * self.odds(&operator, tally.contested))
        });
        let hope = credibility::result_error(group, group + tally.all - tally.group);
        poll.undecided(count >= need.votes && hope <= need.max_error.min(TOSS_UP), tally.bound)
    }

    /// Who works alone needs no second vote, unless one came and differs, or another stepped in who has no record.
    fn need<A: Clone + Ord>(&self, poll: &Poll<O, A>) -> Need {
        let unproven = || poll.votes().keys().any(|o| !self.has_record(o));
        let need = match (poll.enough, poll.mode) {
            (Some(enough), _) => enough,
            (None, Mode::Solo) if poll.contested() || unproven() => Need::error(self.rules.max_error),
            (None, Mode::Audit(_) | Mode::Probe(_)) if poll.contested() => Need::error(self.rules.max_error),
            _ => poll.need,
        };
        Need { votes: need.votes.max(poll.least), ..need }
    }

    fn has_record(&self, operator: &O) -> bool {
        self.book.get(operator).is_some_and(|s| s.checks >= self.rules.solo_after())
    }

    fn odds(&self, operator: &O, contested: bool) -> f64 {
        let checks = if contested { 0 } else { self.book.get(operator).map_or(0, |s| s.checks) };
        credibility::odds(credibility::worker_error(self.rules.liars, checks))
    }

    fn tally<'a, A: Clone + Ord>(&self, poll: &'a Poll<O, A>) -> Tally<'a, A> {
        let contested = poll.contested();
        let mut tally = Tally { ballot: None, votes: 0, group: 1.0, all: 0.0, bound: 1.0, contested };
        for (ballot, voters) in poll.groups() {
            let group: f64 = voters.iter().map(|o| self.odds(o, contested)).product();
            tally.all += group;
            if tally.ballot.is_none() || group > tally.group {
                (tally.ballot, tally.votes, tally.group) = (Some(ballot), voters.len(), group);
            }
        }
        match (tally.votes, poll.mode, poll.votes().keys().next()) {
            (0, ..) => {}
            (1, Mode::Solo, Some(operator)) if !contested => tally.bound = self.solo_error(operator),
            _ => tally.bound = credibility::result_error(tally.group, tally.all),
        }
        tally
    }

    fn solo_error(&self, operator: &O) -> f64 {
        credibility::solo_error(self.rules.liars, self.book.get(operator).map_or(0, |s| s.checks))
    }

    /// `accepted` is the answer of `task`: who agreed passed a check (if anybody could compare), who did not lost its
    /// record. `excused` says which other answers are no lies (a worker may run out of memory).
    ///
    /// Returns whoever is caught; after an audit, its task needs no further look.
    #[expect(clippy::too_many_arguments, reason = "time and randomness are arguments")]
    pub fn settle<A: Clone + Ord>(
        &mut self,
        job: JobId,
        task: T,
        poll: &Poll<O, A>,
        accepted: &A,
        excused: impl Fn(&A) -> bool,
        now: Duration,
        rng: &dyn Rng,
    ) -> Vec<Caught<O, T>> {
        if poll.mode == Mode::Probation {
            self.budget -= poll.votes().len().saturating_sub(2) as f64;
        }
        let judged = |operator: &O| poll.mode != Mode::Probe(*operator);
        let agreeing: Vec<O> = poll.votes().iter().filter(|(_, b)| *b == accepted).map(|(o, _)| *o).collect();
        if agreeing.len() > 1 {
            agreeing.iter().filter(|o| judged(o)).for_each(|o| self.passed(*o));
        }
        self.record(job, task, poll, &agreeing, rng);
        let wrong = |ballot: &A| ballot != accepted && !excused(ballot);
        let dissent = poll.votes().iter().filter(|(o, b)| judged(o) && wrong(b)).map(|(o, _)| *o);
        let caught = dissent.map(|operator| self.caught(operator, 1, now, rng));
        caught.map(|c| c.without(job, task)).collect()
    }

    /// What `demand` takes of the operators in `candidates` for a job of so many `tasks` (very many where that is not known), in
    /// the mean, if none of them lies.
    #[must_use]
    pub fn forecast(&self, demand: Demand, candidates: &[O], tasks: Option<u64>, now: Duration) -> Forecast {
        let admitted: Vec<O> = candidates.iter().filter(|o| self.rank(o, now) >= Rank::Newcomer).copied().collect();
        match demand {
            Demand::Compare(need) => self.forecast_votes(need, &admitted),
            Demand::Audit => self.forecast_audits(&admitted, tasks),
        }
    }

    fn forecast_votes(&self, need: Need, operators: &[O]) -> Forecast {
        let log_odds: f64 = operators.iter().map(|o| self.odds(o, false).ln()).sum();
        let unknown = credibility::odds(credibility::worker_error(self.rules.liars, 0)).ln();
        let mean = if operators.is_empty() { unknown } else { log_odds / operators.len() as f64 };
        // One group of votes errs with 1 / (1 + its odds).
        let enough = ((1.0 - need.max_error) / need.max_error).max(f64::MIN_POSITIVE).ln();
        let votes = need.votes.max((enough / mean).ceil() as usize);
        let bound = 1.0 / (1.0 + (mean * votes as f64).exp());
        let reached = operators.len() >= need.votes && log_odds >= enough;
        Forecast { replicas: votes as f64, bound, reached }
    }

    fn forecast_audits(&self, operators: &[O], tasks: Option<u64>) -> Forecast {
        let compared = self.forecast_votes(Need::error(self.rules.max_error), operators);
        let most = operators.len().max(1) as f64;
        let (records, others): (Vec<O>, Vec<O>) =
            operators.iter().partition(|o| self.has_record(o) && !self.is_alarmed());
        let alone = records.len() as f64 / most;
        // Tasks are spread evenly.
        let audited = match tasks.map(|tasks| tasks as f64 / most) {
            Some(each) if each > 0.0 => self.rules.audits_of(each) / each,
            _ => self.rules.audit_rate(),
        };
        let replicas = alone * (1.0 + audited) + (1.0 - alone) * compared.replicas.min(most);
        let solo = records.iter().map(|o| self.solo_error(o)).fold(0.0, f64::max);
        let bound = if others.is_empty() { solo } else { solo.max(compared.bound) };
        Forecast { replicas, bound, reached: operators.len() > 1 }
    }

    /// Remembers on whose word `task` is believed.
    fn record<A: Clone + Ord>(&mut self, job: JobId, task: T, poll: &Poll<O, A>, agreeing: &[O], rng: &dyn Rng) {
        match (poll.mode, agreeing) {
            (Mode::Audit(worker), _) => {
                if let Some(work) = self.jobs.get_mut(&job).filter(|_| agreeing.contains(&worker)) {
                    work.passed(worker, task);
                }
            }
            (Mode::Probe(_), _) => {}
            (Mode::Solo, [alone]) => {
                let last = rng.below(self.rules.stint) == 0;
                self.jobs.entry(job).or_default().alone(*alone, task, last);
            }
            // One liar's partner may be another, unless the votes bound the error where somebody disagreed.
            (_, [_, _, ..]) if !poll.contested() || poll.need.max_error >= 1.0 => {
                let work = self.jobs.entry(job).or_default();
                agreeing.iter().for_each(|o| work.shared(*o, task));
            }
            _ => {}
        }
    }

    fn passed(&mut self, operator: O) {
        let founding = self.founding;
        let standing = self.book.entry(operator).or_insert_with(|| Standing::new(founding));
        if standing.passed(self.rules.solo_after()) && founding {
            self.founding = !self.most_are_established();
        }
    }

    fn most_are_established(&self) -> bool {
        let solo_after = self.rules.solo_after();
        let (records, others): (Vec<_>, Vec<_>) =
            self.book.values().filter(|s| s.founder && !s.convicted).partition(|s| s.checks >= solo_after);
        records.len() >= others.len()
    }

    /// What `operator` did beside voting. Being offline, late or faulty costs promptness, never a record; two signatures
    /// that contradict each other convict.
    pub fn observe(&mut self, operator: O, outcome: Outcome, now: Duration, rng: &dyn Rng) -> Option<Caught<O, T>> {
        let founding = self.founding;
        let standing = self.book.entry(operator).or_insert_with(|| Standing::new(founding));
        match outcome {
            Outcome::Prompt => standing.answered(true),
            Outcome::Offline | Outcome::Late | Outcome::Faulty => standing.answered(false),
            Outcome::Wrong => return Some(self.caught(operator, 1, now, rng)),
            Outcome::Equivocation => return Some(self.caught(operator, self.rules.strikes, now, rng)),
        }
        None
    }

    /// A vote that `operator` lost was right after all: whoever outvoted it was caught. It is what it was before.
    pub fn cleared(&mut self, operator: &O) {
        if let Some(standing) = self.book.get_mut(operator) {
            standing.cleared();
        }
    }

    fn caught(&mut self, operator: O, strikes: u32, now: Duration, rng: &dyn Rng) -> Caught<O, T> {
        let Rules { strikes: limit, quarantine, probe, .. } = self.rules;
        let solo_after = self.rules.solo_after();
        let standing = self.book.entry(operator).or_insert_with(|| Standing::new(false));
        let had_record = standing.checks >= solo_after;
        // Several tasks that were in flight at once may show one fault.
        let known = strikes == 1 && standing.quarantined_until > now;
        for _ in 0..if known { 0 } else { strikes } {
            standing.strike(now + quarantine * (standing.strikes + 1), limit);
        }
        if known {
            standing.struck_again();
        }
        let (convicted, released) = (standing.convicted, std::mem::take(&mut standing.released));
        if had_record && self.alarm.sounds(self.tasks) {
            self.alarm.caught(self.tasks, self.quiet());
        }
        let probe = sample(&released, probe, rng);
        let rest = released.into_iter().filter(|task| !probe.contains(task)).collect();
        let withdrawn = |(job, work): (&JobId, &mut JobWork<O, T>)| {
            let job = *job;
            work.withdraw(operator).into_iter().map(move |task| (job, task)).collect::<Vec<_>>()
        };
        let rerun = self.jobs.iter_mut().flat_map(withdrawn).collect();
        Caught { operator, convicted, rerun, probe, rest }
    }

    /// What came of running the tasks of `caught` again. Returns further released tasks to run again, all that are
    /// remembered or none; whatever was wrong is told to [`Trust::leaked`] then.
    ///
    /// All where a probe was wrong. Where none was, the rate of lying in what was not released yet says how many lies a
    /// clean probe still leaves to expect: some for who lies rarely, none for who always does since it woke.
    pub fn probed<'a>(&self, caught: &'a Caught<O, T>, found: Found) -> &'a [T] {
        // The task that it was caught at was wrong, too.
        let rate = ((found.in_rerun as f64 + 1.0) / (caught.rerun.len() as f64 + 1.0)).min(1.0);
        let hidden = caught.rest.len() as f64 * rate * (1.0 - rate).powf(caught.probe.len() as f64);
        if found.in_probe > 0 || hidden >= HIDDEN { &caught.rest } else { &[] }
    }

    /// So many released answers turned out to be wrong; their requesters were told. Enough of them in a short time, and
    /// nobody works alone until liars are no longer found.
    pub fn leaked(&mut self, lies: usize) {
        if lies > 0 {
            let (window, level) = (self.rules.alarm_window, self.rules.alarm_level());
            self.alarm.add(lies as f64, self.tasks, window, level, self.quiet());
        }
    }

    /// Tasks without a caught liar until the alarm ends.
    fn quiet(&self) -> u64 {
        let active = self.book.values().filter(|s| s.checks > 0).count();
        self.rules.alarm_quiet * active as u64
    }

    /// Audits to run now: of stints that ended, and where the job is `closing` of the open ones.
    pub fn audits(&mut self, job: JobId, closing: bool, rng: &dyn Rng) -> Vec<Audit<O, T>> {
        let Rules { audits, stint, .. } = self.rules;
        self.jobs.get_mut(&job).map_or_else(Vec::new, |work| work.audits(audits, stint, closing, rng))
    }

    /// What `worker` answered to `task` is not used any more: no audit of it is needed.
    pub fn void(&mut self, job: JobId, worker: O, task: T) {
        if let Some(work) = self.jobs.get_mut(&job) {
            work.passed(worker, task);
        }
    }

    /// Releases `job` if every audit has passed; tells whether it did. From then on, a lie in it can only be recalled.
    pub fn release(&mut self, job: JobId) -> bool {
        if !self.jobs.get(&job).is_none_or(JobWork::is_clean) {
            return false;
        }
        for (operator, solos) in self.jobs.remove(&job).into_iter().flat_map(JobWork::into_solos) {
            if let Some(standing) = self.book.get_mut(&operator) {
                standing.remember(solos, self.rules.memory);
            }
        }
        true
    }

    /// The job failed or was cancelled: nothing of it is believed.
    pub fn drop_job(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// Drops operators of whom nothing is known that would change a decision.
    fn forget(&mut self, now: Duration) {
        let blank = |s: &Standing<T>| s.checks == 0 && !s.convicted && s.quarantined_until <= now && !s.founder;
        self.book.retain(|_, standing| !blank(standing));
    }
}

impl<O, T: PartialEq> Caught<O, T> {
    fn without(mut self, job: JobId, task: T) -> Self {
        self.rerun.retain(|(j, t)| *j != job || *t != task);
        self
    }
}

struct Tally<'a, A> {
    ballot: Option<&'a A>,
    votes: usize,
    /// Odds of the best group.
    group: f64,
    /// Odds of all groups.
    all: f64,
    bound: f64,
    contested: bool,
}

/// One of `candidates` that `suits`, each with the same probability.
fn draw<O: Copy>(candidates: &[O], rng: &dyn Rng, suits: impl Fn(&O) -> bool) -> Option<O> {
    let any = || candidates.get(rng.below(candidates.len())).filter(|o| suits(o)).copied();
    (0..DRAWS).find_map(|_| any()).or_else(|| {
        let suiting: Vec<O> = candidates.iter().filter(|o| suits(o)).copied().collect();
        suiting.get(rng.below(suiting.len())).copied()
    })
}
