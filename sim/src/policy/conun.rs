//! Ours: the code of `conun-trust`, driven as a coordinator drives it.

use std::{collections::VecDeque, time::Duration};

use conun_trust::{Action, Caught, Demand, Found, Outcome, Poll, Rank, Rules, Trust};
use conun_types::JobId;

use super::Policy;
use crate::{
    rng::Seeded,
    world::{Answer, Key, World},
};

/// The credibility engine.
#[derive(Debug)]
pub struct Conun {
    rng: Seeded,
    job_tasks: u64,
    trust: Trust<Key, u64>,
    /// Answers of the job that is running, by task.
    answers: Vec<Answer>,
    first: u64,
    /// Whose work is to be looked at again.
    doubts: VecDeque<Caught<Key, u64>>,
    /// Tasks during which nobody worked alone although some had a record.
    alarmed: u64,
}

impl Conun {
    /// With the coordinator's randomness from `seed`, for jobs of `job_tasks` tasks.
    #[must_use]
    pub fn new(seed: u64, rules: Rules, job_tasks: u64) -> Self {
        Self {
            rng: Seeded::new(seed),
            job_tasks,
            trust: Trust::new(rules),
            answers: Vec::new(),
            first: 0,
            doubts: VecDeque::new(),
            alarmed: 0,
        }
    }

    /// The engine's state.
    #[must_use]
    pub fn trust(&self) -> &Trust<Key, u64> {
        &self.trust
    }

    /// Tasks that were planned under alarm.
    #[must_use]
    pub fn alarmed(&self) -> u64 {
        self.alarmed
    }

    fn job(&self, task: u64) -> JobId {
        JobId(u128::from(task / self.job_tasks).to_be_bytes())
    }

    /// Asks operators, the first of them `lead`, until the votes of `poll` suffice or nobody is left.
    fn run(
        &mut self,
        task: u64,
        mut poll: Poll<Key, Answer>,
        mut lead: Option<Key>,
        world: &mut World<'_>,
    ) -> Option<Answer> {
        let now = Duration::from_secs(world.seconds(task));
        let mut lost = Vec::new();
        loop {
            match self.trust.next(&poll) {
                Action::Launch => match lead.take().or_else(|| self.further(task, &poll, &lost, world, now)) {
                    Some(key) => lost.extend(self.ask(key, task, &mut poll, world, now)),
                    None => poll.exhausted(true),
                },
                Action::Accept { ballot, .. } => {
                    self.accept(task, &poll, ballot, world, now);
                    return Some(ballot);
                }
                Action::Wait | Action::GiveUp { .. } => return None,
            }
        }
    }

    /// One more operator, none of those that did not answer.
    fn further(
        &mut self,
        task: u64,
        poll: &Poll<Key, Answer>,
        lost: &[Key],
        world: &World<'_>,
        now: Duration,
    ) -> Option<Key> {
        let job = self.job(task);
        if lost.is_empty() {
            return self.trust.replica(job, task, poll, world.present(), now, &self.rng);
        }
        let left: Vec<Key> = world.present().iter().filter(|key| !lost.contains(key)).copied().collect();
        self.trust.replica(job, task, poll, &left, now, &self.rng)
    }

    /// Has `key` vote; returns it where it does not.
    fn ask(
        &mut self,
        key: Key,
        task: u64,
        poll: &mut Poll<Key, Answer>,
        world: &mut World<'_>,
        now: Duration,
    ) -> Option<Key> {
        poll.started(key);
        if let Some(answer) = world.ask(key, task) {
            poll.voted(key, answer);
            return None;
        }
        poll.ended(key);
        self.trust.observe(key, Outcome::Offline, now, &self.rng);
        Some(key)
    }

    fn accept(&mut self, task: u64, poll: &Poll<Key, Answer>, answer: Answer, world: &mut World<'_>, now: Duration) {
        let job = self.job(task);
        for caught in self.trust.settle(job, task, poll, &answer, |_| false, now, &self.rng) {
            let vote = poll.votes().get(&caught.operator).copied().unwrap_or(answer);
            world.outvoted(caught.operator, vote);
            if caught.convicted {
                world.convicted(caught.operator);
            }
            self.doubts.push_back(caught);
        }
    }

    fn set(&mut self, task: u64, answer: Answer) {
        if let Some(slot) = task.checked_sub(self.first).and_then(|at| self.answers.get_mut(at as usize)) {
            *slot = answer;
        }
    }

    fn audit(&mut self, closing: bool, world: &mut World<'_>) {
        let job = self.job(self.first);
        let now = Duration::from_secs(world.seconds(self.first));
        for audit in self.trust.audits(job, closing, &self.rng) {
            // Another audit caught it: all that it did is run again.
            if self.trust.rank(&audit.worker, now) <= Rank::Quarantined {
                continue;
            }
            let Some(said) = self.answers.get((audit.task - self.first) as usize).copied() else { continue };
            let poll = self.trust.audit(audit.worker, said);
            match self.run(audit.task, poll, None, world) {
                Some(answer) => self.set(audit.task, answer),
                None => world.tally.undecided += 1,
            }
        }
    }

    fn resolve(&mut self, world: &mut World<'_>) {
        while let Some(caught) = self.doubts.pop_front() {
            let rerun = caught.rerun.iter().map(|(_, task)| *task).collect::<Vec<_>>();
            let in_rerun = rerun.into_iter().filter(|task| self.rerun(*task, world)).count();
            let look = |ours: &mut Self, tasks: &[u64], world: &mut World<'_>| {
                tasks.iter().filter(|task| ours.look_again(**task, caught.operator, world)).count()
            };
            let in_probe = look(self, &caught.probe, world);
            let rest = self.trust.probed(&caught, Found { in_rerun, in_probe });
            let in_rest = look(self, rest, world);
            self.trust.leaked(in_probe + in_rest);
        }
    }

    /// Has `task` done, or done again, by whoever the plan names.
    fn begin(&mut self, task: u64, world: &mut World<'_>) -> Option<Answer> {
        let (job, now) = (self.job(task), Duration::from_secs(world.seconds(task)));
        let plan = self.trust.plan(job, Demand::Audit, world.present(), now, &self.rng)?;
        self.run(task, self.trust.poll(&plan), Some(plan.lead), world)
    }

    /// Has `task` of the running job done again; tells whether its answer changed.
    fn rerun(&mut self, task: u64, world: &mut World<'_>) -> bool {
        let before = task.checked_sub(self.first).and_then(|at| self.answers.get(at as usize)).copied();
        let answer = self.begin(task, world);
        answer.into_iter().for_each(|answer| self.set(task, answer));
        answer.is_some() && answer != before
    }

    /// Runs a released task of `worker` again and calls it back where it was wrong; tells whether it was.
    fn look_again(&mut self, task: u64, worker: Key, world: &mut World<'_>) -> bool {
        let released = world.answer(task);
        let Some(answer) = self.run(task, self.trust.probe(worker, released), None, world) else { return false };
        if answer != released {
            world.recall(task, answer);
        }
        answer != released
    }
}

impl Policy for Conun {
    fn name(&self) -> &'static str {
        "conun"
    }

    fn settle(&mut self, task: u64, world: &mut World<'_>) -> Option<Answer> {
        if task.is_multiple_of(self.job_tasks) {
            self.first = task;
            self.answers.clear();
        }
        self.alarmed += u64::from(self.trust.is_alarmed());
        let answer = self.begin(task, world);
        self.answers.push(answer.unwrap_or(Answer::MAX));
        self.audit(false, world);
        self.resolve(world);
        answer
    }

    fn close(&mut self, _first: u64, answers: &mut [Answer], world: &mut World<'_>) {
        let job = self.job(self.first);
        while !self.trust.release(job) {
            self.audit(true, world);
            self.resolve(world);
        }
        for (answer, ours) in answers.iter_mut().zip(&self.answers) {
            *answer = *ours;
        }
    }
}
