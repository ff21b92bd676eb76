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
    /// How long those took that voted.
    took: HashMap<NodeId, Duration>,
    /// Whether there were stragglers since the last vote. A vote makes some once: a quick lie must not have the task run
    /// everywhere, where its teller's fellows are.
    judged: bool,
    /// Whether stragglers are so only since nobody said anything.
    guessed: bool,
    /// Until when nobody need say anything, where it is not known how long the task takes.
    silent_until: Instant,
    /// How often that time ran out.
    silences: u32,
}

impl Patience {
    pub(super) fn new(config: &EngineConfig, now: Instant) -> Self {
        let (least, slow_after) = (config.patience, config.slow_after);
        let (running, stragglers, took, judged, guessed, silences) = Default::default();
        let silent_until = now + slow_after;
        Self { least, slow_after, running, stragglers, took, judged, guessed, silent_until, silences }
    }

    /// A replica begins on `node`.
    pub(super) fn began(&mut self, node: NodeId, now: Instant) {
        self.running.insert(node, now);
        if self.took.is_empty() {
            self.be_silent(now);
        }
    }

    /// The replica on `node` voted. Whoever was taken for a straggler since nobody did is waited for again: now it is known how
    /// long the task takes.
    pub(super) fn voted(&mut self, node: NodeId, now: Instant) {
        let Some(began) = self.running.remove(&node) else { return };
        self.took.insert(node, now.saturating_duration_since(began));
        self.judged = false;
        self.stragglers.remove(&node);
        if std::mem::take(&mut self.guessed) {
            self.stragglers.clear();
        }
        self.be_silent(now);
    }

    /// The replica on `node` ended without a vote.
    pub(super) fn ended(&mut self, node: NodeId) {
        self.running.remove(&node);
        self.stragglers.remove(&node);
    }

    /// Replicas that still run and are not waited for any longer.
    pub(super) fn stragglers(&self) -> &HashSet<NodeId> {
        &self.stragglers
    }

    /// Whether the only reason not to wait is that nobody said anything for long: the task may be long for everybody.
    pub(super) fn guesses(&self) -> bool {
        self.guessed
    }

    /// When another replica becomes a straggler, or it is time to ask whether others joined.
    pub(super) fn deadline(&self) -> Instant {
        self.next_late().unwrap_or(self.silent_until)
    }

    /// When the next replica is over the limit, if there is one.
    fn next_late(&self) -> Option<Instant> {
        let waited_for = self.running.iter().filter(|(node, _)| !self.stragglers.contains(node));
        Some(*waited_for.map(|(_, began)| began).min()? + self.limit()?)
    }

    /// Takes those for stragglers that run for too long by `now`.
    pub(super) fn run_out(&mut self, now: Instant) {
        if self.next_late().is_none() && now >= self.silent_until {
            self.stragglers.extend(self.running.keys());
            self.guessed = true;
            // Longer each time: a task that takes long is no reason to run it everywhere, where colluders would meet.
            self.silences = (self.silences + 1).min(MOST_DOUBLINGS);
            self.be_silent(now);
        } else if let Some(limit) = self.limit() {
            let late = self.running.iter().filter(|(_, began)| now >= **began + limit).map(|(node, _)| *node);
            self.stragglers.extend(late);
            self.judged = !self.stragglers.is_empty();
        }
    }

    /// Who ran the task, where `right` voted what is accepted: those of them, and those that still run. With how many
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

    /// How long a replica may take, once one voted; `None` once the last vote has made stragglers.
    fn limit(&self) -> Option<Duration> {
        self.took.values().min().filter(|_| !self.judged).map(|fastest| self.least.max(fastest.mul_f64(SLOW)))
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

    fn slowdowns(patience: &Patience, right: &[NodeId], now: Instant) -> HashMap<NodeId, Option<f64>> {
        patience.slowdowns(&set(right), now).into_iter().collect()
    }

    #[test]
    fn a_replica_has_its_time_from_its_own_start() {
        let ([gone, fast, slow], mut patience, at) = begin();
        patience.began(gone, at(0.0));
        patience.ended(gone);
        patience.began(fast, at(10.0));
        patience.began(slow, at(14.0));
        assert_eq!(patience.deadline(), at(29.0), "nobody voted: 15 s from the last start");
        patience.voted(fast, at(18.0));
        assert_eq!(patience.deadline(), at(34.0), "2.5 times the 8 s of the fastest, after its start");
        patience.run_out(at(33.0));
        assert_eq!(*patience.stragglers(), set(&[]));
        patience.run_out(at(34.0));
        assert_eq!((patience.stragglers(), patience.guesses()), (&set(&[slow]), false));
        let slowdowns = slowdowns(&patience, &[fast], at(94.0));
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
        patience.voted(second, at(25.0));
        assert_eq!((patience.stragglers(), patience.guesses()), (&set(&[]), false));
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
        patience.voted(first, at(20.0));
        assert_eq!(*patience.stragglers(), set(&[]), "it is within its limit");
        patience.voted(second, at(21.0));
        let slowdowns = slowdowns(&patience, &[first, second], at(21.0));
        assert_eq!(slowdowns, HashMap::from([(first, None), (second, None)]));
    }

    #[test]
    fn short_tasks_say_little_of_a_node() {
        let ([fast, other, _], mut patience, at) = begin();
        patience.began(fast, at(0.0));
        patience.began(other, at(0.0));
        patience.voted(fast, at(0.01));
        assert_eq!(patience.deadline(), at(2.0));
        assert_eq!(slowdowns(&patience, &[fast], at(1.9)), HashMap::from([(fast, None), (other, None)]));
        let late = slowdowns(&patience, &[fast], at(4.0));
        assert_eq!(late[&other], Some(5.0), "as if the fastest had taken 0.8 s");
    }

    #[test]
    fn a_quick_lie_makes_nobody_slow_and_has_the_task_run_once_more() {
        let ([liar, honest, third], mut patience, at) = begin();
        [liar, honest].into_iter().for_each(|node| patience.began(node, at(0.0)));
        patience.voted(liar, at(0.01));
        patience.run_out(at(2.0));
        assert_eq!((patience.stragglers(), patience.guesses()), (&set(&[honest]), false), "another is started");
        patience.began(third, at(2.0));
        assert_eq!(patience.deadline(), at(15.01), "that is all that a quick vote does");
        patience.run_out(at(15.01));
        assert_eq!((patience.stragglers(), patience.guesses()), (&set(&[honest, third]), true));
        patience.voted(honest, at(20.0));
        patience.voted(third, at(23.0));
        let slowdowns = slowdowns(&patience, &[honest, third], at(23.0));
        assert_eq!(slowdowns, HashMap::from([(honest, None), (third, None)]));
    }
}
