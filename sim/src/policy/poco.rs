//! iExec's proof of contribution: a vote weighs `max(score / 3, 3) - 1`, the weights of a group are multiplied, and a group
//! is accepted once `group * trust > total * (trust - 1)`, where `total` is 1 plus all groups. A verified contribution adds
//! one to a score, a wrong one costs a third of it; only replicated tasks count.
//!
//! Source: `IexecPocoDelegate.sol` (contribute, checkConsensus, distributeRewards) of iExec's PoCo v5, and
//! <https://github.com/iExecBlockchainComputing/iexec-doc>, `pocosrc/poco-trust.rst`.

use std::collections::BTreeMap;

use super::{Policy, poll, punish};
use crate::{
    rng::Seeded,
    world::{Answer, Key, World},
};

/// Proof of contribution.
#[derive(Debug)]
pub struct Poco {
    rng: Seeded,
    trust: f64,
    scores: BTreeMap<Key, u64>,
}

impl Poco {
    /// With the coordinator's randomness from `seed`; the requester asks for a confidence of `1 - 1/trust`.
    #[must_use]
    pub fn new(seed: u64, trust: f64) -> Self {
        Self { rng: Seeded::new(seed), trust, scores: BTreeMap::new() }
    }
}

fn weight(score: u64) -> f64 {
    ((score / 3).max(3) - 1) as f64
}

fn consensus(votes: &BTreeMap<Key, Answer>, scores: &BTreeMap<Key, u64>, trust: f64) -> Option<Answer> {
    let mut groups: BTreeMap<Answer, f64> = BTreeMap::new();
    for (key, answer) in votes {
        *groups.entry(*answer).or_insert(1.0) *= weight(scores.get(key).copied().unwrap_or(0));
    }
    let total: f64 = 1.0 + groups.values().sum::<f64>();
    groups.into_iter().find(|(_, group)| group * trust > total * (trust - 1.0)).map(|(answer, _)| answer)
}

impl Policy for Poco {
    fn name(&self) -> &'static str {
        "poco"
    }

    fn settle(&mut self, task: u64, world: &mut World<'_>) -> Option<Answer> {
        let (scores, trust) = (&self.scores, self.trust);
        let (answer, votes) = poll(task, world, &self.rng, BTreeMap::new(), |votes| consensus(votes, scores, trust))?;
        for (key, vote) in &votes {
            let score = self.scores.entry(*key).or_default();
            match *vote == answer {
                true if votes.len() > 1 => *score += 1,
                true => {}
                false => *score = *score * 2 / 3,
            }
        }
        punish(&votes, answer, world);
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_need_more_votes_than_those_with_a_score() {
        let needed = |score: u64| {
            let scores: BTreeMap<Key, u64> = (0..64).map(|key| (key, score)).collect();
            let votes = |n: u32| (0..n).map(|key| (key, 0)).collect::<BTreeMap<_, _>>();
            (1..64).find(|n| consensus(&votes(*n), &scores, 100.0).is_some())
        };
        assert_eq!([0, 30, 300].map(needed), [Some(7), Some(3), Some(2)]);
    }
}
