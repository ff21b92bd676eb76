//! The settings of trust, with their defaults and what follows from them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::credibility;

/// What a coordinator assumes and demands. Everything else is derived.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// The share of operators that lie, as assumed.
    pub liars: f64,
    /// Votes are counted until the probability that the accepted answer is wrong is at most this.
    pub max_error: f64,
    /// An operator works alone once [`credibility::solo_error`] of its record is at most this.
    pub solo_error: f64,
    /// Tasks of one job that an operator does alone until some of them are audited, in the mean: after each, the stint
    /// ends with probability `1 / stint`, so that nobody knows which are the last.
    pub stint: usize,
    /// How many tasks of a stint are run again, on different operators, before the job is released. The same for every
    /// record: audits never decay.
    pub audits: usize,
    /// Extra replicas that newcomers may cause, as a share of all tasks: whoever comes back under new keys again and
    /// again must not make everybody's work dearer.
    pub probation_share: f64,
    /// Lost votes after which an operator is convicted. The first may be a bit that flipped.
    pub strikes: u32,
    /// How long an operator gets no task after a lost vote (times its strikes).
    pub quarantine: Duration,
    /// Released tasks of an operator that are remembered, to be looked at again when it is caught.
    pub memory: usize,
    /// How many of them are run again first.
    pub probe: usize,
    /// Lies that got out are forgotten at this pace (tasks, e-fold). Once half of what `max_error` allows in as many
    /// tasks is remembered, nobody works alone for a while.
    pub alarm_window: f64,
    /// That is until no liar was found during so many tasks per operator.
    pub alarm_quiet: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            liars: 0.1,
            max_error: 1e-4,
            solo_error: 2e-4,
            stint: 80,
            audits: 3,
            probation_share: 0.025,
            strikes: 3,
            quarantine: Duration::from_hours(24),
            memory: 512,
            probe: 32,
            alarm_window: 20_000.0,
            alarm_quiet: 20,
        }
    }
}

impl Rules {
    /// The same rules with values that make sense: at least one audit a stint, shares between 0 and 1.
    #[must_use]
    pub fn sane(mut self) -> Self {
        self.liars = self.liars.clamp(1e-6, 0.49);
        self.max_error = self.max_error.clamp(1e-12, 1.0);
        self.solo_error = self.solo_error.clamp(1e-12, 1.0);
        self.audits = self.audits.max(1);
        self.stint = self.stint.max(self.audits);
        self.probation_share = self.probation_share.clamp(0.0, 1.0);
        self.strikes = self.strikes.max(1);
        self.alarm_window = self.alarm_window.max(1.0);
        self
    }

    /// Checks to pass until an operator works alone.
    #[must_use]
    pub fn solo_after(&self) -> u32 {
        credibility::checks_for(self.liars, self.solo_error)
    }

    /// The smallest share of an operator's tasks that is checked, whatever its record.
    #[must_use]
    pub fn audit_rate(&self) -> f64 {
        self.audits as f64 / self.stint as f64
    }

    /// Audits in the mean of what an operator does alone for one job, where that is so many tasks: of each stint that ends, and of
    /// the one that the end of the job breaks off.
    #[must_use]
    pub fn audits_of(&self, tasks: f64) -> f64 {
        let (audits, stint) = (self.audits as f64, self.stint as f64);
        // After each task the stint ends with probability 1 / stint, so the last one has so many tasks in the mean.
        let open = stint * (1.0 - (-tasks / stint).exp());
        let broken_off = 1.0 + (audits - 1.0) * open / stint;
        (tasks / stint * audits + broken_off).min(tasks)
    }

    /// Whether lying does not pay under these audits ([`credibility::deterrent_rate`]), for a `cost` that a lie saves, a
    /// `reward` and a `stake` in the same unit. A check misses a lie if the partner is a liar, too.
    #[must_use]
    pub fn deters(&self, cost: f64, reward: f64, stake: f64) -> bool {
        self.audit_rate() > credibility::deterrent_rate(cost, self.liars, reward, stake)
    }

    /// Lies that may be remembered before the alarm goes.
    #[must_use]
    pub fn alarm_level(&self) -> f64 {
        self.alarm_window * self.max_error / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audits_never_vanish() {
        let none = Rules { audits: 0, stint: 0, ..Rules::default() }.sane();
        assert!(none.audit_rate() > 0.0);
        assert!((Rules::default().audit_rate() - 0.0375).abs() < 1e-12);
        assert_eq!(Rules::default().solo_after(), 205);
        let share = |tasks: f64| Rules::default().audits_of(tasks) / tasks;
        assert_eq!(share(1.0), 1.0, "a single task is looked at");
        assert!((share(12.0) - 0.144).abs() < 1e-3, "0.45 of stints that ended, 1.28 of the last");
        assert!((share(1e6) - 0.0375).abs() < 1e-4);
    }

    #[test]
    fn a_stake_of_some_thirty_tasks_deters() {
        assert!(!Rules::default().deters(1.0, 1.0, 0.0));
        assert!(Rules::default().deters(1.0, 1.0, 30.0));
    }

    #[test]
    fn rules_read_back() {
        let text = serde_json::to_string(&Rules::default()).unwrap();
        assert_eq!(serde_json::from_str::<Rules>(&text).unwrap(), Rules::default());
        assert_eq!(serde_json::from_str::<Rules>(r#"{"liars":0.2}"#).unwrap().liars, 0.2);
    }
}
