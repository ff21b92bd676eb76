//! How long the replicas of a task are waited for. Knows when they began and how long the fastest took; what they say and
//! who replaces them is for others.

use std::{collections::HashMap, time::Duration};

use conun_types::NodeId;
use tokio::time::Instant;

use crate::config::EngineConfig;

/// How often the time until further replicas are started doubles, where nobody answers.
const MOST_DOUBLINGS: u32 = 5;
/// A replica that runs this many times as long as the fastest of its task took is late.
const LATE_AFTER: f64 = 2.5;

/// When each replica began, and which of them are late.
pub(super) struct Patience {
    /// No replica is late before that, where another voted.
    least: Duration,
    /// All are, where nobody voted for so long.
    slow_after: Duration,
    running: HashMap<NodeId, Replica>,
    /// The shortest time that a replica took to its vote.
    fastest: Option<Duration>,
    /// Until when nobody need say anything, where it is not known how long the task takes.
    silent_until: Instant,
    /// How often that time ran out.
    silences: u32,
}

struct Replica {
    began: Instant,
    late: bool,
}

/// A replica that is not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Late {
    pub(super) node: NodeId,
    /// As [`Patience::times`].
    pub(super) times: Option<f64>,
}

impl Patience {
    pub(super) fn new(config: &EngineConfig, now: Instant) -> Self {
        let (least, slow_after) = (config.patience, config.slow_after);
        let (running, fastest, silent_until) = (HashMap::new(), None, now + slow_after);
        Self { least, slow_after, running, fastest, silent_until, silences: 0 }
    }

    /// A replica begins on `node`.
    pub(super) fn began(&mut self, node: NodeId, now: Instant) {
        self.running.insert(node, Replica { began: now, late: false });
        if self.fastest.is_none() {
            self.be_silent(now);
        }
    }

    /// The replica on `node` voted.
    pub(super) fn voted(&mut self, node: NodeId, now: Instant) {
        let Some(replica) = self.running.remove(&node) else { return };
        let took = now - replica.began;
        self.fastest = Some(self.fastest.map_or(took, |fastest| fastest.min(took)));
        self.be_silent(now);
    }

    /// The replica on `node` ended without a vote.
    pub(super) fn ended(&mut self, node: NodeId) {
        self.running.remove(&node);
    }

    /// Whether one runs that is not waited for any longer.
    pub(super) fn is_out(&self) -> bool {
        self.running.values().any(|replica| replica.late)
    }

    /// How many times as long as the fastest took the replica on `node` has run by now, where that makes it slow. Where nobody
    /// voted, the task is long, for all that is known. Of short tasks, the fastest counts as if it had taken longer.
    pub(super) fn times(&self, node: NodeId, now: Instant) -> Option<f64> {
        let ran = now - self.running.get(&node)?.began;
        let limit = self.limit()?;
        (ran >= limit).then(|| ran.as_secs_f64() * LATE_AFTER / limit.as_secs_f64().max(f64::MIN_POSITIVE))
    }

    /// When somebody is late, or it is time to ask whether others joined.
    pub(super) fn deadline(&self) -> Instant {
        let first = self.running.values().filter(|replica| !replica.late).map(|replica| replica.began).min();
        match (self.limit(), first) {
            (Some(limit), Some(began)) => began + limit,
            _ => self.silent_until,
        }
    }

    /// Those that are late by now, and were not before.
    pub(super) fn run_out(&mut self, now: Instant) -> Vec<Late> {
        let limit = self.limit();
        let is_late = |replica: &Replica| !replica.late && limit.is_none_or(|limit| now >= replica.began + limit);
        let late: Vec<NodeId> = self.running.iter().filter(|(_, r)| is_late(r)).map(|(node, _)| *node).collect();
        for node in &late {
            self.running.entry(*node).and_modify(|replica| replica.late = true);
        }
        if now >= self.silent_until {
            // Longer each time: a task that takes long is no reason to run it everywhere, where colluders would meet.
            self.silences = (self.silences + 1).min(MOST_DOUBLINGS);
            self.be_silent(now);
        }
        late.into_iter().map(|node| Late { node, times: self.times(node, now) }).collect()
    }

    /// How long a replica may take, once one has voted.
    fn limit(&self) -> Option<Duration> {
        self.fastest.map(|fastest| self.least.max(fastest.mul_f64(LATE_AFTER)))
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
        assert_eq!(patience.run_out(at(33.0)), []);
        assert_eq!(patience.run_out(at(34.0)), [Late { node: slow, times: Some(2.5) }]);
        assert_eq!(patience.run_out(at(35.0)), [], "it is late once");
        assert!(patience.is_out());
        assert_eq!(patience.times(slow, at(94.0)), Some(10.0));
    }

    #[test]
    fn where_nobody_votes_all_are_late_and_the_time_doubles() {
        let ([first, second, _], mut patience, at) = begin();
        patience.began(first, at(0.0));
        assert_eq!(patience.run_out(at(15.0)), [Late { node: first, times: None }]);
        patience.began(second, at(15.0));
        assert_eq!(patience.deadline(), at(45.0));
        patience.voted(second, at(19.0));
        assert_eq!(patience.times(first, at(40.0)), Some(10.0));
        assert_eq!(patience.times(first, at(9.0)), None, "it took as long as others, though nobody waited for it");
        assert_eq!(patience.deadline(), at(49.0), "nobody is waited for, but others may join");
        assert_eq!(patience.run_out(at(49.0)), []);
        assert_eq!(patience.deadline(), at(49.0 + 60.0));
    }

    #[test]
    fn short_tasks_say_nothing_of_a_node() {
        let ([fast, other, _], mut patience, at) = begin();
        patience.began(fast, at(0.0));
        patience.began(other, at(0.0));
        patience.voted(fast, at(0.01));
        assert_eq!(patience.deadline(), at(2.0));
        assert_eq!(patience.run_out(at(1.9)), []);
        assert_eq!(patience.times(other, at(1.9)), None);
        assert_eq!(patience.times(other, at(4.0)), Some(5.0));
    }
}
