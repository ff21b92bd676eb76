//! How long the replicas of a task are waited for, and which of them were slow. Knows when they began and how long their votes
//! took; what they say and who replaces them is for others.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use conun_types::NodeId;
use tokio::time::Instant;

use crate::config::EngineConfig;

/// How often the time until further replicas are started doubles, where nobody answers.
const MOST_DOUBLINGS: u32 = 5;
/// A replica that takes this many times as long as the fastest of its task is a straggler.
const SLOW: f64 = 2.5;

/// When each replica began, and which of them are not waited for any longer.
///
/// A vote only says how long to wait: it may be a quick lie. Who was slow is told once it is known which votes were right.
pub(super) struct Patience {
    /// No replica is a straggler before that, where another voted.
    least: Duration,
    /// All are, where nobody voted for so long.
    slow_after: Duration,
    running: HashMap<NodeId, Instant>,
    stragglers: HashSet<NodeId>,
    /// How long those took that gave blocks.
    took: HashMap<NodeId, Duration>,
    /// Until when nobody need say anything, where it is not known how long the task takes.
    silent_until: Instant,
    /// How often that time ran out.
    silences: u32,
}

impl Patience {
    pub(super) fn new(config: &EngineConfig, now: Instant) -> Self {
        let (least, slow_after) = (config.patience, config.slow_after);
        let (running, stragglers, took) = Default::default();
        Self { least, slow_after, running, stragglers, took, silent_until: now + slow_after, silences: 0 }
    }

    /// A replica begins on `node`.
    pub(super) fn began(&mut self, node: NodeId, now: Instant) {
        self.running.insert(node, now);
        if self.took.is_empty() {
            self.be_silent(now);
        }
    }

    /// The replica on `node` gave blocks. Who is a straggler is to be asked again: the first such vote shows how long the task
    /// takes.
    pub(super) fn gave(&mut self, node: NodeId, now: Instant) {
        let Some(began) = self.running.remove(&node) else { return };
        self.took.insert(node, now.saturating_duration_since(began));
        self.stragglers.clear();
        self.be_silent(now);
    }

    /// The replica on `node` ended otherwise, with a vote for no blocks or with none.
    pub(super) fn ended(&mut self, node: NodeId) {
        self.running.remove(&node);
        self.stragglers.remove(&node);
    }

    /// Replicas that still run and are not waited for any longer.
    pub(super) fn stragglers(&self) -> &HashSet<NodeId> {
        &self.stragglers
    }

    /// Whether the only reason not to wait is that nobody said anything yet: the task may be long for everybody.
    pub(super) fn guesses(&self) -> bool {
        self.took.is_empty() && !self.stragglers.is_empty()
    }

    /// When another replica becomes a straggler, or it is time to ask whether others joined.
    pub(super) fn deadline(&self) -> Instant {
        let waited_for = self.running.iter().filter(|(node, _)| !self.stragglers.contains(node));
        match (self.limit(), waited_for.map(|(_, began)| *began).min()) {
            (Some(limit), Some(began)) => began + limit,
            _ => self.silent_until,
        }
    }

    /// Takes those for stragglers that run for too long by `now`.
    pub(super) fn run_out(&mut self, now: Instant) {
        let limit = self.limit();
        let is_late = |began: Instant| limit.is_none_or(|limit| now >= began + limit);
        self.stragglers.extend(self.running.iter().filter(|(_, began)| is_late(**began)).map(|(node, _)| *node));
        if now >= self.silent_until {
            // Longer each time: a task that takes long is no reason to run it everywhere, where colluders would meet.
            self.silences = (self.silences + 1).min(MOST_DOUBLINGS);
            self.be_silent(now);
        }
    }

    /// Who ran the task, where `right` gave the blocks that are accepted: those of them, and those that still run. With how many
    /// times as long as the fastest it took them, where that makes them slow. Below the least patience, differences say nothing:
    /// the fastest counts as if it had taken longer.
    pub(super) fn slowdowns(&self, right: &HashSet<NodeId>, now: Instant) -> Vec<(NodeId, Option<f64>)> {
        let took = self.took.iter().filter(|(node, _)| right.contains(node)).map(|(node, took)| (*node, *took));
        let Some(fastest) = took.clone().map(|(_, took)| took).min() else { return Vec::new() };
        let usual = fastest.max(self.least.div_f64(SLOW)).as_secs_f64().max(f64::MIN_POSITIVE);
        let running = self.running.iter().map(|(node, began)| (*node, now.saturating_duration_since(*began)));
        let slowdown = |time: Duration| Some(time.as_secs_f64() / usual).filter(|times| *times >= SLOW);
        took.chain(running).map(|(node, time)| (node, slowdown(time))).collect()
    }

    /// How long a replica may take, once one gave blocks.
    fn limit(&self) -> Option<Duration> {
        self.took.values().min().map(|fastest| self.least.max(fastest.mul_f64(SLOW)))
    }

    fn be_silent(&mut self, now: Instant) {
        self.silent_until = now + self.slow_after * (1 << self.silences);
    }
}

#[cfg(test)]
mod tests {
    use conun_types::{NodeKey, OsRng};

    use super::*;

    /// A node each, the default times, and a moment with the seconds after it.
    fn begin() -> ([NodeId; 3], Patience, impl Fn(f64) -> Instant) {
        let (start, config) = (Instant::now(), EngineConfig::new("unused".into()));
        let nodes = [(), (), ()].map(|()| NodeKey::generate(&OsRng).id());
        (nodes, Patience::new(&config, start), move |seconds| start + Duration::from_secs_f64(seconds))
    }

    fn set(nodes: &[NodeId]) -> HashSet<NodeId> {
        nodes.iter().copied().collect()
    }

    #[test]
    fn a_replica_has_its_time_from_its_own_start() {
        let ([gone, fast, slow], mut patience, at) = begin();
        patience.began(gone, at(0.0));
        patience.ended(gone);
        patience.began(fast, at(10.0));
        patience.began(slow, at(14.0));
        assert_eq!(patience.deadline(), at(29.0), "nobody voted: 15 s from the last start");
        patience.gave(fast, at(18.0));
        assert_eq!(patience.deadline(), at(34.0), "2.5 times the 8 s of the fastest, after its start");
        patience.run_out(at(33.0));
        assert_eq!(*patience.stragglers(), set(&[]));
        patience.run_out(at(34.0));
        assert_eq!((patience.stragglers(), patience.guesses()), (&set(&[slow]), false));
        let slowdowns: HashMap<_, _> = patience.slowdowns(&set(&[fast]), at(94.0)).into_iter().collect();
        assert_eq!(slowdowns, HashMap::from([(fast, None), (slow, Some(10.0))]));
    }

    #[test]
    fn where_nobody_votes_all_are_stragglers_until_somebody_does() {
        let ([first, second, _], mut patience, at) = begin();
        patience.began(first, at(0.0));
        patience.run_out(at(15.0));
        assert_eq!((patience.stragglers(), patience.guesses()), (&set(&[first]), true));
        patience.began(second, at(15.0));
        assert_eq!(patience.deadline(), at(45.0), "the time doubles");
        patience.gave(second, at(25.0));
        assert_eq!(patience.deadline(), at(25.0), "10 s is what it takes");
        patience.run_out(at(25.0));
        assert_eq!((patience.stragglers(), patience.guesses()), (&set(&[first]), false));
        assert_eq!(patience.deadline(), at(55.0), "nobody is waited for, but others may join");
        patience.run_out(at(55.0));
        assert_eq!(patience.deadline(), at(55.0 + 60.0));
    }

    #[test]
    fn a_task_that_is_long_for_everybody_makes_nobody_slow() {
        let ([first, second, _], mut patience, at) = begin();
        patience.began(first, at(0.0));
        patience.began(second, at(0.0));
        patience.run_out(at(15.0));
        patience.gave(first, at(20.0));
        assert_eq!(*patience.stragglers(), set(&[]), "it is within its limit");
        patience.gave(second, at(21.0));
        assert!(patience.slowdowns(&set(&[first, second]), at(21.0)).iter().all(|(_, slow)| slow.is_none()));
    }

    #[test]
    fn short_tasks_say_little_of_a_node() {
        let ([fast, other, _], mut patience, at) = begin();
        patience.began(fast, at(0.0));
        patience.began(other, at(0.0));
        patience.gave(fast, at(0.01));
        assert_eq!(patience.deadline(), at(2.0));
        assert!(patience.slowdowns(&set(&[fast]), at(1.9)).iter().all(|(_, slow)| slow.is_none()));
        let late = patience.slowdowns(&set(&[fast]), at(4.0));
        assert!(late.contains(&(other, Some(5.0))), "as if the fastest had taken 0.8 s: {late:?}");
    }

    #[test]
    fn a_quick_vote_that_is_not_accepted_makes_nobody_slow() {
        let ([liar, honest, other], mut patience, at) = begin();
        [liar, honest, other].into_iter().for_each(|node| patience.began(node, at(0.0)));
        patience.gave(liar, at(0.01));
        patience.run_out(at(2.0));
        assert_eq!(*patience.stragglers(), set(&[honest, other]), "others are started");
        patience.gave(honest, at(20.0));
        patience.gave(other, at(21.0));
        let slowdowns: HashMap<_, _> = patience.slowdowns(&set(&[honest, other]), at(21.0)).into_iter().collect();
        assert_eq!(slowdowns, HashMap::from([(honest, None), (other, None)]));
    }
}
