//! Who is next when several jobs want the same volunteers: the job that has the fewest places.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use conun_types::JobId;

/// Places that jobs have and want.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<HashMap<JobId, Share>>);

#[derive(Debug, Default, Clone, Copy)]
struct Share {
    held: usize,
    /// Tasks that would take any place that becomes free.
    wanted: usize,
}

impl Shares {
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Share>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, job: JobId, change: impl FnOnce(&mut Share)) {
        let mut shares = self.lock();
        let share = shares.entry(job).or_default();
        change(share);
        if share.held == 0 && share.wanted == 0 {
            shares.remove(&job);
        }
    }

    /// Whether another job that wants a place has fewer than `job`.
    pub(crate) fn is_behind_others(&self, job: JobId) -> bool {
        let shares = self.lock();
        let held = shares.get(&job).map_or(0, |share| share.held);
        shares.iter().any(|(other, share)| *other != job && share.wanted > 0 && share.held < held)
    }

    /// `job` has one place more, until the value is dropped.
    pub(crate) fn hold(self: &Arc<Self>, job: JobId) -> Held {
        self.change(job, |share| share.held += 1);
        Held { shares: Arc::clone(self), job }
    }

    /// A task of `job` that may want a place.
    pub(crate) fn want(self: &Arc<Self>, job: JobId) -> Wanted {
        Wanted { shares: Arc::clone(self), job, counted: false }
    }
}

/// A place of a job.
#[derive(Debug)]
pub(crate) struct Held {
    shares: Arc<Shares>,
    job: JobId,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shares.change(self.job, |share| share.held = share.held.saturating_sub(1));
    }
}

/// A task without a place.
#[derive(Debug)]
pub(crate) struct Wanted {
    shares: Arc<Shares>,
    job: JobId,
    counted: bool,
}

impl Wanted {
    /// Whether it would take any place: only then others wait for it. A task that waits for certain nodes holds nobody up.
    pub(crate) fn any(&mut self, any: bool) {
        if any != self.counted {
            self.counted = any;
            self.shares.change(self.job, |share| match any {
                true => share.wanted += 1,
                false => share.wanted = share.wanted.saturating_sub(1),
            });
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.any(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_more_waits_for_who_has_less_and_wants() {
        let shares = Arc::new(Shares::default());
        let (large, small) = (JobId([1; 16]), JobId([2; 16]));
        let held: Vec<Held> = (0..3).map(|_| shares.hold(large)).collect();
        assert!(!shares.is_behind_others(large), "nobody else wants one");
        let mut wanted = shares.want(small);
        assert!(!shares.is_behind_others(large), "it waits for certain nodes");
        wanted.any(true);
        assert!(shares.is_behind_others(large) && !shares.is_behind_others(small));
        let equal: Vec<Held> = (0..3).map(|_| shares.hold(small)).collect();
        assert!(!shares.is_behind_others(large), "equal shares");
        drop((held, wanted, equal));
        assert!(shares.lock().is_empty(), "nothing is left of jobs that ended");
    }
}
