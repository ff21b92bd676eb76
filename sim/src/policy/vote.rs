//! Two equal votes, and a third node where they differ.

use std::collections::BTreeMap;

use super::{Policy, agreed, poll, punish};
use crate::{
    rng::Seeded,
    world::{Answer, World},
};

/// Two equal votes.
#[derive(Debug)]
pub struct Vote {
    rng: Seeded,
}

impl Vote {
    /// With the coordinator's randomness from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: Seeded::new(seed) }
    }
}

impl Policy for Vote {
    fn name(&self) -> &'static str {
        "vote"
    }

    fn settle(&mut self, task: u64, world: &mut World<'_>) -> Option<Answer> {
        let (answer, votes) = poll(task, world, &self.rng, BTreeMap::new(), |votes| agreed(votes, 2))?;
        punish(&votes, answer, world);
        Some(answer)
    }
}
