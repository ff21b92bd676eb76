//! The network: nodes that come, go, fail and lie. The same seed gives every policy the same one.

use std::collections::BTreeMap;

use crate::{
    adversary::{Adversary, Lie, Moment},
    rng::{coin, hash},
};

/// A key; each node is its own operator.
pub type Key = u32;

/// An answer; which number a wrong one has says who gives it.
pub type Answer = u64;

/// The right answer of every task.
pub const RIGHT: Answer = 0;
/// The wrong answer that a ring shares.
const SHARED: Answer = 1;

/// What kinds of coins there are.
#[derive(Clone, Copy)]
enum Toss {
    Liar = 1,
    Ring,
    Own,
    Fault,
    Lost,
    Replaced,
    Answer,
}

/// The settings of a network.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Nodes, at any time.
    pub nodes: u32,
    /// Share of them that lie.
    pub liars: f64,
    /// Tasks that the network does a day, per node.
    pub tasks_per_day: u64,
    /// Share of nodes replaced a day.
    pub replaced: f64,
    /// Probability that an honest node gives a wrong answer: a bit that flipped.
    pub faults: f64,
    /// Probability that a replica is lost with its node, which does not answer.
    pub lost: f64,
    /// Makes it another network.
    pub seed: u64,
}

impl Default for Setting {
    fn default() -> Self {
        Self { nodes: 1000, liars: 0.1, tasks_per_day: 100, replaced: 0.01, faults: 1e-6, lost: 2e-3, seed: 1 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Node {
    key: Key,
    liar: bool,
    age: u64,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Replicas that answered.
    pub executions: u64,
    /// Right answers of honest nodes.
    pub honest_tasks: u64,
    /// Keys of liars that lost a vote.
    pub liars_caught: u64,
    /// Honest nodes that lost a vote although they were right.
    pub honest_outvoted: u64,
    /// Honest nodes that were convicted.
    pub honest_convicted: u64,
    /// Wrong answers that were released and later called back.
    pub recalled: u64,
    /// Answers that no policy could decide on.
    pub undecided: u64,
}

/// The network.
pub struct World<'a> {
    setting: Setting,
    adversary: &'a dyn Adversary,
    nodes: Vec<Node>,
    present: Vec<Key>,
    /// The node of each key ever given out, while it has it.
    slots: Vec<Option<u32>>,
    wrong: BTreeMap<u64, Answer>,
    released: u64,
    /// What happened so far.
    pub tally: Tally,
}

impl<'a> World<'a> {
    /// The network of a setting, with liars that behave as `adversary` says.
    #[must_use]
    pub fn new(setting: Setting, adversary: &'a dyn Adversary) -> Self {
        let mut liars: Vec<u32> = (0..setting.nodes).collect();
        liars.sort_unstable_by_key(|n| hash(&[setting.seed, Toss::Liar as u64, u64::from(*n)]));
        liars.truncate((f64::from(setting.nodes) * setting.liars).round() as usize);
        liars.sort_unstable();
        let node = |n| Node { key: n, liar: liars.binary_search(&n).is_ok(), age: 0 };
        Self {
            setting,
            adversary,
            nodes: (0..setting.nodes).map(node).collect(),
            present: (0..setting.nodes).collect(),
            slots: (0..setting.nodes).map(Some).collect(),
            wrong: BTreeMap::new(),
            released: 0,
            tally: Tally::default(),
        }
    }

    /// Keys of all nodes.
    #[must_use]
    pub fn present(&self) -> &[Key] {
        &self.present
    }

    /// Seconds since the network began, when `task` is planned.
    #[must_use]
    pub fn seconds(&self, task: u64) -> u64 {
        task * 86_400 / (self.setting.tasks_per_day * u64::from(self.setting.nodes)).max(1)
    }

    fn toss(&self, toss: Toss, a: u64, b: u64) -> u64 {
        hash(&[self.setting.seed, toss as u64, a, b])
    }

    /// `task` is about to be planned: time goes on, and perhaps a node is replaced by another of its kind.
    pub fn tick(&mut self, task: u64) {
        let a_day = (self.setting.tasks_per_day * u64::from(self.setting.nodes)) as f64;
        let every = a_day / (self.setting.replaced * f64::from(self.setting.nodes));
        if every.is_finite() && task > 0 && task.is_multiple_of((every as u64).max(1)) {
            let slot = self.toss(Toss::Replaced, task, 0) % u64::from(self.setting.nodes);
            self.rekey(slot as u32);
        }
    }

    fn rekey(&mut self, slot: u32) {
        let key = self.slots.len() as Key;
        if let Some(node) = self.nodes.get_mut(slot as usize) {
            self.slots[node.key as usize] = None;
            (node.key, node.age) = (key, 0);
            self.present[slot as usize] = key;
        }
        self.slots.push(Some(slot));
    }

    fn node(&self, key: Key) -> Option<(u32, Node)> {
        let slot = self.slots.get(key as usize).copied().flatten()?;
        self.nodes.get(slot as usize).map(|node| (slot, *node))
    }

    /// The answer of `key`'s node to `task`; `None` where it gives none.
    pub fn ask(&mut self, key: Key, task: u64) -> Option<Answer> {
        let (slot, node) = self.node(key)?;
        if coin(self.toss(Toss::Lost, task, u64::from(key)), self.setting.lost) {
            return None;
        }
        self.nodes[slot as usize].age += 1;
        self.tally.executions += 1;
        let own = || 2 + (self.toss(Toss::Answer, task, u64::from(key)) >> 1);
        if node.liar {
            let lie = self.adversary.lie(&self.moment(&node, task));
            return Some(lie.map_or(RIGHT, |lie| if lie == Lie::Shared { SHARED } else { own() }));
        }
        if coin(self.toss(Toss::Fault, task, u64::from(key)), self.setting.faults) {
            return Some(own());
        }
        self.tally.honest_tasks += 1;
        Some(RIGHT)
    }

    fn moment(&self, node: &Node, task: u64) -> Moment {
        Moment {
            task,
            ring: self.toss(Toss::Ring, task, 0),
            own: self.toss(Toss::Own, task, u64::from(node.key)),
            age: node.age,
            released: self.released,
        }
    }

    /// `key` lost a vote on `task`. A liar comes back under a new key at once.
    pub fn outvoted(&mut self, key: Key, answer: Answer) {
        match self.node(key) {
            Some((slot, node)) if node.liar => {
                self.tally.liars_caught += 1;
                self.rekey(slot);
            }
            Some(_) => self.tally.honest_outvoted += u64::from(answer == RIGHT),
            None => {}
        }
    }

    /// `key` was convicted.
    pub fn convicted(&mut self, key: Key) {
        self.tally.honest_convicted += u64::from(self.node(key).is_some_and(|(_, node)| !node.liar));
    }

    /// A job's answers go to its requester, the first of them of task `first`.
    pub fn release(&mut self, first: u64, answers: &[Answer]) {
        for (task, answer) in (first..).zip(answers).filter(|(_, answer)| **answer != RIGHT) {
            self.wrong.insert(task, *answer);
        }
        self.released += answers.len() as u64;
    }

    /// What was released for `task`.
    #[must_use]
    pub fn answer(&self, task: u64) -> Answer {
        self.wrong.get(&task).copied().unwrap_or(RIGHT)
    }

    /// The requester of a released `task` is told that its answer is another one.
    pub fn recall(&mut self, task: u64, answer: Answer) {
        let known = self.wrong.remove(&task);
        if answer != RIGHT {
            self.wrong.insert(task, answer);
        }
        self.tally.recalled += u64::from(known.is_some() && answer == RIGHT);
    }

    /// Wrong answers that were released and not called back.
    #[must_use]
    pub fn still_wrong(&self) -> u64 {
        self.wrong.len() as u64
    }
}
