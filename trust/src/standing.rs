//! What is remembered of an operator.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a replica ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It voted in time.
    Prompt,
    /// It could not be reached, or went away.
    Offline,
    /// It answered too late or not at all, while others did.
    Late,
    /// It failed in a way that no liar gains by: a crash, no memory, a broken block that it admits.
    Faulty,
    /// It voted against the accepted answer: a lie, or a bit that flipped.
    Wrong,
    /// It signed two different votes for one replica: no accident does that, and the two signatures prove it.
    Equivocation,
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rank {
    /// It lied, provably or again and again: it gets no task.
    Convicted,
    /// It lost a vote lately: it gets no task for a while.
    Quarantined,
    /// Its work is compared and paid from the budget for newcomers.
    Newcomer,
    /// Nobody has a record yet, or it joined while that was so: its work is compared.
    Founder,
    /// It may work alone, and is audited.
    Established,
}

/// The record of an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing<T> {
    /// Checks passed since the last strike: answers that others gave, too.
    pub checks: u32,
    /// Votes lost, less one for each probation passed since.
    pub strikes: u32,
    /// Share of late replicas that it answered in time, the last ones counting most (1 is best). For choosing, not for
    /// believing.
    pub promptness: f64,
    /// It joined before anybody had a record.
    pub founder: bool,
    /// It gets no task until then.
    pub quarantined_until: Duration,
    /// It gets no task again.
    pub convicted: bool,
    /// The last tasks that were released on its word alone, the newest last.
    pub released: Vec<T>,
    /// What the last strike took, for the case that the vote which it lost was right after all.
    #[serde(default)]
    struck: Option<Struck>,
}

/// What an operator was before a strike.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Struck {
    /// Votes that it lost, or other breaches, which make one strike together.
    faults: u32,
    checks: u32,
    founder: bool,
    quarantined_until: Duration,
    convicted: bool,
}

impl<T> Standing<T> {
    pub(crate) fn new(founder: bool) -> Self {
        Self {
            checks: 0,
            strikes: 0,
            promptness: 1.0,
            founder,
            quarantined_until: Duration::ZERO,
            convicted: false,
            released: Vec::new(),
            struck: None,
        }
    }

    /// What it may do at `now`, where `solo_after` checks establish it.
    #[must_use]
    pub fn rank(&self, now: Duration, solo_after: u32) -> Rank {
        match self {
            _ if self.convicted => Rank::Convicted,
            _ if self.quarantined_until > now => Rank::Quarantined,
            _ if self.checks >= solo_after => Rank::Established,
            _ if self.founder => Rank::Founder,
            _ => Rank::Newcomer,
        }
    }

    /// It passed a check; tells whether that established it.
    pub(crate) fn passed(&mut self, solo_after: u32) -> bool {
        self.checks = self.checks.saturating_add(1);
        let established = self.checks == solo_after;
        if established {
            self.strikes = self.strikes.saturating_sub(1);
        }
        established
    }

    /// It lost a vote: its record is void, and it starts as a newcomer after its quarantine.
    pub(crate) fn strike(&mut self, until: Duration, limit: u32) {
        let Self { checks, founder, quarantined_until, convicted, .. } = *self;
        self.struck = Some(Struck { faults: 1, checks, founder, quarantined_until, convicted });
        self.strikes += 1;
        self.checks = 0;
        self.founder = false;
        self.quarantined_until = until;
        self.convicted |= self.strikes >= limit;
    }

    /// It lost another vote while it is in quarantine: no strike of its own.
    pub(crate) fn struck_again(&mut self) {
        if let Some(struck) = &mut self.struck {
            struck.faults += 1;
        }
    }

    /// A vote that it lost was right after all. Its last strike is taken back, where nothing else was behind it.
    pub(crate) fn cleared(&mut self) {
        let Some(struck) = self.struck.take() else { return };
        if struck.faults > 1 {
            self.struck = Some(Struck { faults: struck.faults - 1, ..struck });
            return;
        }
        self.strikes = self.strikes.saturating_sub(1);
        self.checks = self.checks.saturating_add(struck.checks);
        self.founder = struck.founder;
        self.quarantined_until = struck.quarantined_until;
        self.convicted = struck.convicted;
    }

    /// Whether it answered in time.
    pub(crate) fn answered(&mut self, prompt: bool) {
        const WEIGHT: f64 = 0.1;
        self.promptness += WEIGHT * (f64::from(u8::from(prompt)) - self.promptness);
    }

    /// `tasks` were released on its word; at most `memory` are remembered.
    pub(crate) fn remember(&mut self, tasks: impl IntoIterator<Item = T>, memory: usize) {
        self.released.extend(tasks);
        let old = self.released.len().saturating_sub(memory);
        self.released.drain(..old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn ranks() {
        let base = Standing::<u64>::new(false);
        for (change, rank) in [
            ((|_| ()) as fn(&mut Standing<u64>), Rank::Newcomer),
            (|s| s.founder = true, Rank::Founder),
            (|s| s.checks = 9, Rank::Newcomer),
            (|s| s.checks = 10, Rank::Established),
            (|s| s.quarantined_until = NOW, Rank::Newcomer),
            (|s| s.quarantined_until = NOW * 2, Rank::Quarantined),
            (|s| s.convicted = true, Rank::Convicted),
        ] {
            let mut standing = base.clone();
            change(&mut standing);
            assert_eq!(standing.rank(NOW, 10), rank, "{standing:?}");
        }
    }

    #[test]
    fn a_strike_for_a_vote_that_was_right_is_taken_back() {
        let mut standing = Standing::<u64>::new(true);
        (0..9).for_each(|_| _ = standing.passed(10));
        let before = standing.clone();
        standing.strike(NOW, 1);
        assert!(standing.convicted);
        standing.cleared();
        assert_eq!(standing, before);
        standing.cleared();
        assert_eq!(standing, before, "once");
        standing.strike(NOW, 3);
        standing.struck_again();
        standing.cleared();
        assert_eq!((standing.strikes, standing.quarantined_until), (1, NOW), "another fault is left");
        standing.cleared();
        assert_eq!(standing, before);
    }

    #[test]
    fn one_strike_voids_the_record_and_three_convict() {
        let mut standing = Standing::<u64>::new(true);
        (0..10).for_each(|_| _ = standing.passed(10));
        standing.strike(NOW, 3);
        assert_eq!((standing.checks, standing.founder, standing.convicted), (0, false, false));
        (0..10).for_each(|_| _ = standing.passed(10));
        assert_eq!(standing.strikes, 0, "a passed probation atones for one strike");
        (0..3).for_each(|_| standing.strike(NOW, 3));
        assert!(standing.convicted);
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_newest() {
        let mut standing = Standing::new(false);
        standing.remember(0..10u64, 4);
        assert_eq!(standing.released, [6, 7, 8, 9]);
    }
}
