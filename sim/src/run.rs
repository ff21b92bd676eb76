//! One run: a network, a policy, so many tasks; and what came of it.

use serde::Serialize;

use crate::{
    adversary::Adversary,
    policy::Policy,
    world::{Answer, RIGHT, Setting, World},
};

/// The warm-up is at most so many tasks a node, for every policy.
const WARM_UP: u64 = 200;
/// And at most this share of a run.
const WARM_UP_SHARE: u64 = 5;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The network.
    pub setting: Setting,
    /// Tasks in all.
    pub tasks: u64,
    /// Tasks of a job: its answers are released together.
    pub job_tasks: u64,
}

/// What came of a run. Rates are per task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Name of the policy.
    pub policy: &'static str,
    /// Name of the adversary.
    pub kind: &'static str,
    /// Share of nodes that lie.
    pub liars: f64,
    /// Tasks a node, in the mean.
    pub tasks_per_node: u64,
    /// Tasks in all.
    pub tasks: u64,
    /// Seed of the network.
    pub seed: u64,
    /// Share of tasks whose answer was wrong when their job was released.
    pub accepted_wrong: f64,
    /// The same, as a number.
    pub accepted_wrong_tasks: u64,
    /// The same without the warm-up, as a share.
    pub accepted_wrong_after_warm_up: f64,
    /// Share of tasks whose answer is wrong at the end, after what was called back.
    pub finally_wrong: f64,
    /// Replicas beyond one a task, per task, after the warm-up.
    pub extra_work: f64,
    /// The same in the warm-up.
    pub warm_up_work: f64,
    /// Tasks of the warm-up.
    pub warm_up_tasks: u64,
    /// Replicas beyond one a task, per task, warm-up and all.
    pub total_extra_work: f64,
    /// Honest nodes that were convicted of lying.
    pub honest_convicted: u64,
    /// Honest nodes that lost a vote although they were right.
    pub honest_outvoted: u64,
    /// Tasks that honest nodes did right.
    pub honest_tasks: u64,
    /// Keys of liars that were caught.
    pub liars_caught: u64,
    /// Tasks without a verdict.
    pub undecided: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Phase {
    tasks: u64,
    executions: u64,
    wrong: u64,
}

impl Phase {
    fn extra(&self) -> f64 {
        share(self.executions as f64 - self.tasks as f64, self.tasks)
    }
}

fn share(of: f64, tasks: u64) -> f64 {
    if tasks == 0 { 0.0 } else { of / tasks as f64 }
}

impl Run {
    /// Tasks a node of the warm-up, which is the same for every policy: the network's first 200, at most a fifth of the run.
    #[must_use]
    pub fn warm_up(&self) -> u64 {
        (WARM_UP * u64::from(self.setting.nodes)).min(self.tasks / WARM_UP_SHARE)
    }

    /// Has `policy` run all tasks among liars that behave as `adversary` says.
    #[must_use]
    pub fn run(&self, policy: &mut dyn Policy, adversary: &dyn Adversary) -> Report {
        let mut world = World::new(self.setting, adversary);
        let mut phases = [Phase::default(); 2];
        let mut first = 0;
        while first < self.tasks {
            let end = (first + self.job_tasks.max(1)).min(self.tasks);
            let before = world.tally.executions;
            let wrong = job(first..end, policy, &mut world);
            let phase = &mut phases[usize::from(first >= self.warm_up())];
            phase.tasks += end - first;
            phase.executions += world.tally.executions - before;
            phase.wrong += wrong;
            first = end;
        }
        self.report(phases, &world, policy.name(), adversary.name())
    }

    fn report(
        &self,
        [warm_up, after]: [Phase; 2],
        world: &World<'_>,
        policy: &'static str,
        kind: &'static str,
    ) -> Report {
        let (wrong, tally) = (warm_up.wrong + after.wrong, world.tally);
        Report {
            policy,
            kind,
            liars: self.setting.liars,
            tasks_per_node: self.tasks / u64::from(self.setting.nodes.max(1)),
            tasks: self.tasks,
            seed: self.setting.seed,
            accepted_wrong: share(wrong as f64, self.tasks),
            accepted_wrong_tasks: wrong,
            accepted_wrong_after_warm_up: share(after.wrong as f64, after.tasks),
            finally_wrong: share(world.still_wrong() as f64, self.tasks),
            extra_work: after.extra(),
            warm_up_work: warm_up.extra(),
            warm_up_tasks: warm_up.tasks,
            total_extra_work: share(tally.executions as f64 - self.tasks as f64, self.tasks),
            honest_convicted: tally.honest_convicted,
            honest_outvoted: tally.honest_outvoted,
            honest_tasks: tally.honest_tasks,
            liars_caught: tally.liars_caught,
            undecided: tally.undecided,
        }
    }
}

/// Runs one job and releases it; returns how many of its answers are wrong.
fn job(tasks: std::ops::Range<u64>, policy: &mut dyn Policy, world: &mut World<'_>) -> u64 {
    let first = tasks.start;
    let mut answers: Vec<Answer> = Vec::new();
    for task in tasks {
        world.tick(task);
        let answer = policy.settle(task, world);
        world.tally.undecided += u64::from(answer.is_none());
        answers.push(answer.unwrap_or(RIGHT));
    }
    policy.close(first, &mut answers, world);
    world.release(first, &answers);
    answers.iter().filter(|answer| **answer != RIGHT).count() as u64
}
