//! What operators did for jobs that are not released yet, and which of it is still to be audited.

use std::collections::{BTreeMap, BTreeSet};

use conun_types::Rng;
use serde::{Deserialize, Serialize};

use crate::pairs;

/// A task to run again on another operator, before its job is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit<O, T> {
    /// The task.
    pub task: T,
    /// Who did it alone.
    pub worker: O,
}

/// Tasks that are believed together, once the audits among them have passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stint<O, T> {
    tasks: Vec<T>,
    pending: Vec<T>,
    /// Who looked: each looks once.
    auditors: Vec<O>,
}

/// What one operator did for one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Work<O, T> {
    /// The stint that is open, in order.
    alone: Vec<T>,
    /// Stints that ended, their audits not drawn yet.
    ended: Vec<Vec<T>>,
    audited: Vec<Stint<O, T>>,
    passed: Vec<T>,
    shared: Vec<T>,
}

impl<O, T> Default for Work<O, T> {
    fn default() -> Self {
        Self { alone: Vec::new(), ended: Vec::new(), audited: Vec::new(), passed: Vec::new(), shared: Vec::new() }
    }
}

impl<O, T> Work<O, T> {
    fn into_tasks(self) -> impl Iterator<Item = T> {
        let audited = self.audited.into_iter().flat_map(|stint| stint.tasks);
        let ended = self.ended.into_iter().flatten();
        self.alone.into_iter().chain(ended).chain(audited).chain(self.passed).chain(self.shared)
    }
}

/// What all operators did for one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound(
    serialize = "O: Serialize, T: Serialize",
    deserialize = "O: Deserialize<'de> + Ord, T: Deserialize<'de> + Ord"
))]
pub(crate) struct JobWork<O, T> {
    /// Operators in the middle of a stint.
    open: BTreeSet<O>,
    #[serde(with = "pairs")]
    by: BTreeMap<O, Work<O, T>>,
}

impl<O, T> Default for JobWork<O, T> {
    fn default() -> Self {
        Self { open: BTreeSet::new(), by: BTreeMap::new() }
    }
}

impl<O: Copy + Ord, T: Copy + Ord> JobWork<O, T> {
    /// Operators that began a stint and may go on with it.
    pub(crate) fn crew(&self) -> impl Iterator<Item = O> {
        self.open.iter().copied()
    }

    /// `operator` did `task` alone; that may have been the last task of its stint.
    pub(crate) fn alone(&mut self, operator: O, task: T, last: bool) {
        let work = self.by.entry(operator).or_default();
        work.alone.push(task);
        if last {
            work.ended.push(std::mem::take(&mut work.alone));
            self.open.remove(&operator);
        } else {
            self.open.insert(operator);
        }
    }

    /// `operator` did `task` as others did.
    pub(crate) fn shared(&mut self, operator: O, task: T) {
        self.by.entry(operator).or_default().shared.push(task);
    }

    /// Draws `audits` of each stint that ended. Where the job is `closing`, those are also drawn that it breaks off: one, and
    /// of the others as many less as they are shorter than `stint` tasks.
    pub(crate) fn audits(&mut self, audits: usize, stint: usize, closing: bool, rng: &dyn Rng) -> Vec<Audit<O, T>> {
        let mut drawn = Vec::new();
        for (worker, work) in &mut self.by {
            let mut due: Vec<_> = std::mem::take(&mut work.ended).into_iter().map(|tasks| (tasks, audits)).collect();
            if closing && !work.alone.is_empty() {
                let tasks = std::mem::take(&mut work.alone);
                let share = tasks.len() as f64 / stint as f64;
                let others = rounded(share * audits.saturating_sub(1) as f64, rng);
                due.push((tasks, (1 + others).min(audits.max(1))));
                self.open.remove(worker);
            }
            for (tasks, audits) in due {
                let pending = looked_at(&tasks, audits, rng);
                drawn.extend(pending.iter().map(|task| Audit { task: *task, worker: *worker }));
                work.audited.push(Stint { tasks, pending, auditors: Vec::new() });
            }
        }
        drawn
    }

    fn stint_of(&mut self, worker: O, task: T) -> Option<&mut Stint<O, T>> {
        self.by.get_mut(&worker)?.audited.iter_mut().find(|s| s.pending.contains(&task))
    }

    /// Who looked at the stint that `task` belongs to.
    pub(crate) fn auditors(&mut self, worker: O, task: T) -> &[O] {
        self.stint_of(worker, task).map_or(&[], |stint| &stint.auditors)
    }

    /// `auditor` looks at `task`.
    pub(crate) fn looks(&mut self, worker: O, task: T, auditor: O) {
        if let Some(stint) = self.stint_of(worker, task) {
            stint.auditors.push(auditor);
        }
    }

    /// The audit of `task` found nothing.
    pub(crate) fn passed(&mut self, worker: O, task: T) {
        if let Some(work) = self.by.get_mut(&worker) {
            // It may have done the task twice.
            work.audited.iter_mut().for_each(|stint| stint.pending.retain(|t| *t != task));
            let (pending, done) = std::mem::take(&mut work.audited).into_iter().partition(|s| !s.pending.is_empty());
            work.audited = pending;
            work.passed.extend(done.into_iter().flat_map(|stint: Stint<O, T>| stint.tasks));
        }
    }

    /// All that was believed on the word of `operator`, which is forgotten.
    pub(crate) fn withdraw(&mut self, operator: O) -> Vec<T> {
        self.open.remove(&operator);
        let mut tasks: Vec<T> = self.by.remove(&operator).into_iter().flat_map(Work::into_tasks).collect();
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }

    /// Whether every audit was drawn and passed.
    pub(crate) fn is_clean(&self) -> bool {
        let clean = |work: &Work<O, T>| work.alone.is_empty() && work.ended.is_empty() && work.audited.is_empty();
        self.by.values().all(clean)
    }

    /// What was done alone, by operator.
    pub(crate) fn into_solos(self) -> impl Iterator<Item = (O, Vec<T>)> {
        self.by.into_iter().map(|(operator, work)| (operator, work.passed))
    }
}

/// `x` up or down to a whole number, so that the mean is `x`.
fn rounded(x: f64, rng: &dyn Rng) -> usize {
    const PARTS: usize = 1 << 20;
    let up = rng.below(PARTS) < (x.fract() * PARTS as f64) as usize;
    x as usize + usize::from(up)
}

/// The tasks of a stint to look at: half of them the last ones, and one at least, as whoever turned liar during the stint was one
/// by then; the others anywhere.
fn looked_at<T: Copy>(tasks: &[T], audits: usize, rng: &dyn Rng) -> Vec<T> {
    let last = rounded(audits as f64 / 2.0, rng).max(1);
    let (before, last) = tasks.split_at(tasks.len().saturating_sub(last));
    let mut chosen = last.to_vec();
    chosen.extend(sample(before, audits.saturating_sub(last.len()), rng));
    chosen
}

/// `count` of `items` (all, if there are not as many), at random.
pub(crate) fn sample<T: Copy>(items: &[T], count: usize, rng: &dyn Rng) -> Vec<T> {
    let mut items = items.to_vec();
    let count = count.min(items.len());
    for at in 0..count {
        let other = at + rng.below(items.len() - at);
        items.swap(at, other);
    }
    items.truncate(count);
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Seeded;

    #[test]
    fn audits_cover_the_end_of_a_stint_and_something_before() {
        let rng = Seeded::new(1);
        let mut first: Vec<u64> = (0..200).map(|_| looked_at(&(0..50).collect::<Vec<_>>(), 3, &rng)[2]).collect();
        first.sort_unstable();
        first.dedup();
        assert!(first.len() > 40, "the third is drawn from all others");
        assert_eq!(looked_at(&[1u64, 2, 3, 4], 2, &rng)[0], 4);
        assert_eq!(looked_at(&[1u64], 3, &rng), [1]);
        let looks_at_the_end = |audits| (0..200).all(|_| looked_at(&[1u64, 2, 3, 4], audits, &rng).contains(&4));
        assert!((1..4).all(looks_at_the_end), "whoever woke in the stint is a liar by its end");
    }

    #[test]
    fn a_stint_that_is_broken_off_is_audited_by_its_length() {
        let rng = Seeded::new(1);
        let drawn = |tasks: u64| -> usize {
            let of = || {
                let mut work = JobWork::<u32, u64>::default();
                (0..tasks).for_each(|task| work.alone(7, task, false));
                work.audits(3, 80, true, &rng).len()
            };
            (0..100).map(|_| of()).sum()
        };
        assert!((100..110).contains(&drawn(1)), "one at least");
        assert!((110..150).contains(&drawn(12)), "1.3 in the mean");
        assert_eq!(drawn(40), 200);
        assert_eq!(drawn(500), 300);
    }

    #[test]
    fn a_job_is_clean_once_all_audits_passed() {
        let rng = Seeded::new(1);
        let mut work = JobWork::<u32, u64>::default();
        (0..10).for_each(|task| work.alone(7, task, task == 4));
        assert!(!work.is_clean());
        assert_eq!(work.audits(2, 20, false, &rng).len(), 2, "the stint that ended");
        assert!(work.audits(2, 20, false, &rng).is_empty(), "drawn once");
        assert_eq!(work.audits(2, 2, true, &rng).len(), 2, "the open one, as the job closes");
        let pending: Vec<u64> = work.by[&7].audited.iter().flat_map(|s| s.pending.clone()).collect();
        pending.iter().for_each(|task| work.passed(7, *task));
        assert!(work.is_clean());
        let solos: Vec<_> = work.into_solos().collect();
        assert_eq!((solos[0].0, solos[0].1.len()), (7, 10));
    }

    #[test]
    fn a_task_that_was_done_twice_is_audited_once() {
        let rng = Seeded::new(1);
        let mut work = JobWork::<u32, u64>::default();
        (0..2).for_each(|_| work.alone(7, 1, true));
        assert_eq!(work.audits(1, 20, false, &rng).len(), 2);
        work.passed(7, 1);
        assert!(work.is_clean());
    }

    #[test]
    fn all_that_rests_on_a_word_is_withdrawn() {
        let rng = Seeded::new(1);
        let mut work = JobWork::<u32, u64>::default();
        (0..4).for_each(|task| work.alone(7, task, task == 1));
        work.audits(1, 20, false, &rng);
        work.shared(7, 9);
        work.shared(8, 9);
        assert_eq!(work.withdraw(7), [0, 1, 2, 3, 9]);
        assert!(work.withdraw(7).is_empty());
        assert_eq!(work.withdraw(8), [9]);
    }
}
