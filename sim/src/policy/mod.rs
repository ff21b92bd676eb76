//! Ways to decide whom to believe, behind one trait.

mod boinc;
mod conun;
mod poco;
mod vote;

pub use boinc::Boinc;
pub use conun::Conun;
pub use poco::Poco;
pub use vote::Vote;

use std::collections::BTreeMap;

use conun_types::Rng;

use crate::world::{Answer, Key, World};

/// Decides on answers.
pub trait Policy {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// Has `task` done and decides on its answer; `None` where it cannot.
    fn settle(&mut self, task: u64, world: &mut World<'_>) -> Option<Answer>;

    /// The tasks of a job are done, the first of them is `first`: what is left to check before the job is released may
    /// change its answers.
    fn close(&mut self, _first: u64, _answers: &mut [Answer], _world: &mut World<'_>) {}
}

/// Any node that has not voted yet, at random.
fn other(world: &World<'_>, votes: &BTreeMap<Key, Answer>, lost: &[Key], rng: &dyn Rng) -> Option<Key> {
    let present = world.present();
    if votes.len() + lost.len() >= present.len() {
        return None;
    }
    (0..).find_map(|_| {
        let key = *present.get(rng.below(present.len()))?;
        (!votes.contains_key(&key) && !lost.contains(&key)).then_some(key)
    })
}

/// Asks random nodes, beside those whose `votes` are known, until `decide` accepts an answer.
fn poll(
    task: u64,
    world: &mut World<'_>,
    rng: &dyn Rng,
    mut votes: BTreeMap<Key, Answer>,
    decide: impl Fn(&BTreeMap<Key, Answer>) -> Option<Answer>,
) -> Option<(Answer, BTreeMap<Key, Answer>)> {
    let mut lost = Vec::new();
    loop {
        if let Some(answer) = decide(&votes) {
            return Some((answer, votes));
        }
        let key = other(world, &votes, &lost, rng)?;
        match world.ask(key, task) {
            Some(answer) => _ = votes.insert(key, answer),
            None => lost.push(key),
        }
    }
}

/// The answer that `quorum` votes agree on.
fn agreed(votes: &BTreeMap<Key, Answer>, quorum: usize) -> Option<Answer> {
    let count = |answer: &Answer| votes.values().filter(|a| *a == answer).count();
    votes.values().find(|answer| count(answer) >= quorum).copied()
}

/// Those who voted otherwise learn of it; these schemes have no gentler judgement than "invalid".
fn punish(votes: &BTreeMap<Key, Answer>, accepted: Answer, world: &mut World<'_>) {
    for (key, answer) in votes.iter().filter(|(_, answer)| **answer != accepted) {
        world.outvoted(*key, *answer);
        if *answer == crate::world::RIGHT {
            world.convicted(*key);
        }
    }
}
