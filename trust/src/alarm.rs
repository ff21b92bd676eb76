//! Remembers lies that got out, and says when so many did that nobody should work alone, until liars are no longer found.

use serde::{Deserialize, Serialize};

/// An estimate of released lies, which fades with the tasks that were planned since, and whether it is too high.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    leaked: f64,
    at: u64,
    /// It sounds before this task.
    until: u64,
}

impl Alarm {
    /// Lies still remembered after `tasks` tasks, where an e-fold is forgotten in `window`.
    #[must_use]
    pub fn leaked(&self, tasks: u64, window: f64) -> f64 {
        self.leaked * (-(tasks.saturating_sub(self.at) as f64) / window).exp()
    }

    /// Whether nobody should work alone.
    #[must_use]
    pub fn sounds(&self, tasks: u64) -> bool {
        tasks < self.until
    }

    /// `lies` more were found to have got out: from `level` on, the alarm sounds for `quiet` tasks.
    pub(crate) fn add(&mut self, lies: f64, tasks: u64, window: f64, level: f64, quiet: u64) {
        self.leaked = self.leaked(tasks, window) + lies;
        self.at = tasks;
        if self.leaked >= level {
            // What is remembered has had its effect.
            self.leaked = 0.0;
            self.until = tasks + quiet;
        }
    }

    /// A liar was found. While the alarm sounds, it goes on for `quiet` tasks from here.
    pub(crate) fn caught(&mut self, tasks: u64, quiet: u64) {
        if self.sounds(tasks) {
            self.until = tasks + quiet;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fades() {
        let mut alarm = Alarm::default();
        alarm.add(4.0, 100, 1000.0, 10.0, 50);
        assert_eq!(alarm.leaked(100, 1000.0), 4.0);
        assert!((alarm.leaked(1100, 1000.0) - 4.0 / std::f64::consts::E).abs() < 1e-9);
        assert!(!alarm.sounds(1100));
    }

    #[test]
    fn it_sounds_until_no_liar_was_found_for_a_while() {
        let mut alarm = Alarm::default();
        alarm.caught(0, 50);
        assert!(!alarm.sounds(0), "who is caught before anything got out is no reason");
        alarm.add(4.0, 100, 1000.0, 1.0, 50);
        assert!(alarm.sounds(149) && !alarm.sounds(150));
        alarm.caught(140, 50);
        assert!(alarm.sounds(189) && !alarm.sounds(190));
    }
}
