//! BOINC's adaptive replication: a host whose last `n` results were valid works alone with probability `1 - 1/n` once
//! `n >= 10`; everything else is a quorum of two.
//!
//! Source: <https://github.com/BOINC/boinc/wiki/AdaptiveReplication>.

use std::collections::BTreeMap;

use conun_types::Rng;

use super::{Policy, agreed, other, poll, punish};
use crate::{
    rng::Seeded,
    world::{Answer, Key, World},
};

/// Valid results in a row until a host is trusted.
const TRUSTED: u32 = 10;

/// Adaptive replication.
#[derive(Debug)]
pub struct Boinc {
    rng: Seeded,
    valid: BTreeMap<Key, u32>,
}

impl Boinc {
    /// With the coordinator's randomness from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: Seeded::new(seed), valid: BTreeMap::new() }
    }

    fn trusts(&self, key: Key) -> bool {
        let valid = self.valid.get(&key).copied().unwrap_or(0);
        valid >= TRUSTED && self.rng.below(valid as usize) > 0
    }

    fn record(&mut self, votes: &BTreeMap<Key, Answer>, accepted: Answer) {
        for (key, answer) in votes {
            let valid = self.valid.entry(*key).or_default();
            *valid = if *answer == accepted { *valid + 1 } else { 0 };
        }
    }
}

impl Policy for Boinc {
    fn name(&self) -> &'static str {
        "boinc"
    }

    fn settle(&mut self, task: u64, world: &mut World<'_>) -> Option<Answer> {
        let first = other(world, &BTreeMap::new(), &[], &self.rng)?;
        if self.trusts(first)
            && let Some(answer) = world.ask(first, task)
        {
            // A result that nobody compared counts as valid.
            *self.valid.entry(first).or_default() += 1;
            return Some(answer);
        }
        let votes = world.ask(first, task).map(|answer| (first, answer)).into_iter().collect();
        let (answer, votes) = poll(task, world, &self.rng, votes, |votes| agreed(votes, 2))?;
        self.record(&votes, answer);
        punish(&votes, answer, world);
        Some(answer)
    }
}
