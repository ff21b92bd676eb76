//! The volunteers as this coordinator sees them: who is connected, who is busy with our tasks, whom to avoid.
//!
//! What it must not know: tasks, votes, blocks.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conun_types::{
    Clock, JobId, MemoryClass, NodeId, PeerAddr,
    port::Network,
    wire::{Ask, Hello},
};
use tokio::sync::Notify;

use crate::shares::{Held, Shares, Wanted};

/// How long a waiter sleeps before it looks again for volunteers that joined or are no longer busy.
const LOOK_AGAIN: Duration = Duration::from_millis(40);

/// Tasks that one node gets from us at once, whatever it says of its cores: who says more must not draw more of them.
const MAX_SEATS: u32 = 64;

/// How often the time doubles for which a node is avoided.
const MOST_DOUBLINGS: u32 = 6;

/// Which nodes a coordinator works with.
pub(crate) trait Admission: Send + Sync {
    /// Whether `node` may get tasks, and its blocks be read.
    fn trusts(&self, node: &NodeId) -> bool;
    /// Whether a node that asks so much for its work, or nothing, suits this coordinator.
    fn suits(&self, node: &NodeId, ask: Option<&Ask>) -> bool;
}

/// All volunteers.
pub(crate) struct Fleet {
    network: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
    avoid_for: Duration,
    admission: Box<dyn Admission>,
    state: Mutex<HashMap<NodeId, Standing>>,
    /// Held while a place is chosen and taken, so that it is taken once.
    choosing: Mutex<()>,
    shares: Arc<Shares>,
    freed: Notify,
}

/// What we remember of a node.
#[derive(Debug, Default, Clone)]
struct Standing {
    in_flight: u32,
    /// Since when it gets no task while others are there.
    avoid_from: Duration,
    /// Until when.
    avoid_until: Duration,
    /// It is avoided since it is slow, and did answer.
    slow: bool,
    /// How often it was to be avoided lately: each time it is for twice as long.
    lapses: u32,
    /// It said that others keep it busy, until then.
    busy_until: Duration,
}

impl Standing {
    /// It gets no task for `usual`, doubled with each further time.
    fn failed(&mut self, now: Duration, usual: Duration) {
        self.slow = false;
        self.avoid(now, usual, 1.0);
    }

    /// As one that failed; and as it took `times` as long as another, for so many times as long, if that is longer: one long task
    /// on it holds up its job for more than all the short ones save.
    fn slow(&mut self, now: Duration, usual: Duration, times: f64) {
        self.slow = true;
        self.avoid(now, usual, times);
    }

    fn avoid(&mut self, now: Duration, usual: Duration, times: f64) {
        // Several tasks that end at once are one lapse.
        if self.avoid_until <= now {
            self.avoid_from = now;
            self.lapses += 1;
        }
        let doubled = f64::from(1 << self.lapses.saturating_sub(1).min(MOST_DOUBLINGS));
        let times = times.max(doubled).min(f64::from(1 << MOST_DOUBLINGS));
        self.avoid_until = self.avoid_until.max(self.avoid_from + usual.mul_f64(times));
    }
}

/// Which nodes are avoided `now`: those that failed, and of all nodes half at most for being slow, those that are to be for
/// longest. Among nodes of very different speed the fast ones would else do all the work, and whoever is quick could choose who
/// works beside it.
fn avoided(standings: &[(NodeId, Standing)], now: Duration) -> HashSet<NodeId> {
    let avoided = standings.iter().filter(|(_, standing)| standing.avoid_until > now);
    let (slow, failed): (Vec<_>, Vec<_>) = avoided.partition(|(_, standing)| standing.slow);
    let mut slow: Vec<(Duration, NodeId)> =
        slow.into_iter().map(|(node, standing)| (standing.avoid_until, *node)).collect();
    slow.sort_unstable_by(|a, b| b.cmp(a));
    let slow = slow.into_iter().take(standings.len() / 2).map(|(_, node)| node);
    failed.into_iter().map(|(node, _)| *node).chain(slow).collect()
}

/// A place on a node, given back when dropped.
pub(crate) struct Seat {
    fleet: Arc<Fleet>,
    _share: Held,
    pub(crate) peer: PeerAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(standing) = self.fleet.lock().get_mut(&self.peer.id) {
            standing.in_flight = standing.in_flight.saturating_sub(1);
        }
        self.fleet.freed.notify_waiters();
    }
}

impl Fleet {
    pub(crate) fn new(
        network: Arc<dyn Network>,
        clock: Arc<dyn Clock>,
        avoid_for: Duration,
        admission: Box<dyn Admission>,
    ) -> Arc<Self> {
        let (state, choosing, shares, freed) = Default::default();
        Arc::new(Self { network, clock, avoid_for, admission, state, choosing, shares, freed })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Standing>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a node that says this of itself can run our tasks, and may.
    fn is_useful(&self, node: &NodeId, hello: &Hello) -> bool {
        let profile = conun_types::profile::hash();
        hello.profiles.iter().any(|p| **p == profile)
            && self.admission.suits(node, hello.pay.as_ref())
            && self.admission.trusts(node)
    }

    /// Why nobody runs our tasks, for people.
    pub(crate) fn nobody(&self) -> String {
        let volunteers = self.network.volunteers();
        if volunteers.is_empty() {
            return "no volunteer is connected".to_owned();
        }
        let unsuited = volunteers.iter().filter(|(peer, hello)| !self.is_useful(&peer.id, hello));
        match unsuited.count() {
            0 => format!("none of the {} nodes that are connected is free, trusted and large enough", volunteers.len()),
            n => format!(
                "{n} of the {} nodes that are connected do not suit: they ask for a higher price, work on another chain (or \
                 for nothing where we pay), or are of another version",
                volunteers.len()
            ),
        }
    }

    /// Volunteers that are connected and not in quarantine.
    pub(crate) fn connected(&self) -> Vec<PeerAddr> {
        let peers = self.network.volunteers().into_iter().map(|(peer, _)| peer);
        peers.filter(|peer| self.admission.trusts(&peer.id)).collect()
    }

    /// The largest memory class that at least `votes` nodes of our profile give a task: with fewer there is no verdict.
    pub(crate) fn most_memory(&self, votes: usize) -> MemoryClass {
        let volunteers = self.network.volunteers().into_iter();
        let useful = volunteers.filter(|(peer, hello)| self.is_useful(&peer.id, hello));
        let mut lent: Vec<MemoryClass> = useful.map(|(_, hello)| hello.memory).collect();
        lent.sort_unstable_by(|a, b| b.cmp(a));
        lent.get(votes.max(1) - 1).or(lent.last()).copied().unwrap_or(MemoryClass::Large)
    }

    /// Which of them run tasks of the profile that we plan under in so much memory. Those that are avoided only where there is
    /// nobody else: while every other node is busy, a slow one is no better than waiting for them.
    fn candidates(&self, memory: MemoryClass, exclude: &HashSet<NodeId>) -> Vec<Candidate> {
        let mut useful = self.network.volunteers();
        useful.retain(|(peer, hello)| hello.memory >= memory && self.is_useful(&peer.id, hello));
        let now = self.clock.now();
        let state = self.lock();
        let standings: Vec<(NodeId, Standing)> =
            useful.iter().map(|(peer, _)| (peer.id, state.get(&peer.id).cloned().unwrap_or_default())).collect();
        drop(state);
        let avoided = avoided(&standings, now);
        let (mut others, mut late) = (Vec::new(), Vec::new());
        for ((peer, hello), (_, standing)) in useful.into_iter().zip(standings) {
            if exclude.contains(&peer.id) {
                continue;
            }
            let free = hello.cores.clamp(1, MAX_SEATS) > standing.in_flight && standing.busy_until <= now;
            let found = if avoided.contains(&peer.id) { &mut late } else { &mut others };
            found.push(Candidate { peer, free, load: standing.in_flight });
        }
        if others.is_empty() { late } else { others }
    }

    /// A place for a task of `job` on the node outside `exclude` that `choose` takes among those that give a task `memory`,
    /// with what it says beside. Waits as long as it says so, and while another job has fewer places and wants one; `None`
    /// once there is no such node at all, or it takes none.
    pub(crate) async fn seat<T>(
        self: &Arc<Self>,
        job: JobId,
        memory: MemoryClass,
        exclude: &HashSet<NodeId>,
        choose: impl Fn(&[Candidate]) -> Choice<PeerAddr, T>,
    ) -> Option<(Seat, T)> {
        let mut wanted = self.shares.want(job);
        loop {
            let freed = self.freed.notified();
            match self.take(job, memory, exclude, &choose, &mut wanted) {
                Choice::Take(seat, beside) => return Some((seat, beside)),
                Choice::Wait => _ = tokio::time::timeout(LOOK_AGAIN, freed).await,
                Choice::Nobody => return None,
            }
        }
    }

    fn take<T>(
        self: &Arc<Self>,
        job: JobId,
        memory: MemoryClass,
        exclude: &HashSet<NodeId>,
        choose: impl Fn(&[Candidate]) -> Choice<PeerAddr, T>,
        wanted: &mut Wanted,
    ) -> Choice<Seat, T> {
        let _alone = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates = self.candidates(memory, exclude);
        if candidates.is_empty() {
            return Choice::Nobody;
        }
        if self.shares.is_behind_others(job) {
            wanted.any(true);
            return Choice::Wait;
        }
        if !candidates.iter().any(|candidate| candidate.free) {
            // It would take any place only if there is none at all: others need not wait for who waits for certain nodes.
            let all = self.candidates(MemoryClass::Small, &HashSet::new());
            wanted.any(!all.iter().any(|candidate| candidate.free));
            return Choice::Wait;
        }
        // What is free now does not suit it: whoever waited for it need not.
        wanted.any(false);
        match choose(&candidates) {
            Choice::Take(peer, beside) => {
                self.lock().entry(peer.id).or_default().in_flight += 1;
                let _share = self.shares.hold(job);
                Choice::Take(Seat { fleet: Arc::clone(self), _share, peer }, beside)
            }
            Choice::Wait => Choice::Wait,
            Choice::Nobody => Choice::Nobody,
        }
    }

    /// `node` has no room for `pause`: other coordinators may use it, too.
    pub(crate) fn busy(&self, node: NodeId, pause: Duration) {
        let until = self.clock.now() + pause;
        self.lock().entry(node).or_default().busy_until = until;
    }

    /// `node` lost a task, or was busy for too long or unreachable.
    pub(crate) fn failed(&self, node: NodeId) {
        let now = self.clock.now();
        self.lock().entry(node).or_default().failed(now, self.avoid_for);
    }

    /// `node` took `times` as long as another.
    pub(crate) fn slow(&self, node: NodeId, times: f64) {
        let now = self.clock.now();
        self.lock().entry(node).or_default().slow(now, self.avoid_for, times);
    }

    /// `node` answered in time.
    pub(crate) fn prompt(&self, node: NodeId) {
        if let Some(standing) = self.lock().get_mut(&node) {
            standing.lapses = standing.lapses.saturating_sub(1);
        }
    }
}

/// What to do about the candidates.
pub(crate) enum Choice<P, T> {
    /// Take this one.
    Take(P, T),
    /// One that is not free now suits better.
    Wait,
    /// None of them suits.
    Nobody,
}

/// A node that could run a task.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub(crate) peer: PeerAddr,
    pub(crate) free: bool,
    /// Our tasks that it runs now.
    pub(crate) load: u32,
}

#[cfg(test)]
mod tests {
    use conun_types::{NodeKey, OsRng};

    use super::*;

    const USUAL: Duration = Duration::from_secs(30);

    #[test]
    fn who_lapses_again_is_avoided_for_longer() {
        let mut standing = Standing::default();
        standing.failed(Duration::ZERO, USUAL);
        assert_eq!(standing.avoid_until, USUAL);
        standing.failed(USUAL / 2, USUAL);
        assert_eq!(standing.avoid_until, USUAL, "tasks that end at once are one lapse");
        standing.failed(USUAL, USUAL);
        assert_eq!(standing.avoid_until, USUAL * 3);
    }

    #[test]
    fn half_of_the_nodes_are_avoided_at_most() {
        let nodes = [(); 5].map(|()| NodeKey::generate(&OsRng).id());
        let until = |seconds: &[u64]| -> Vec<(NodeId, Standing)> {
            let standing = |s: &u64| Standing {
                avoid_until: Duration::from_secs(*s),
                slow: s.is_multiple_of(2),
                ..Standing::default()
            };
            nodes.into_iter().zip(seconds.iter().map(standing)).collect()
        };
        let found = |seconds: &[u64]| avoided(&until(seconds), Duration::from_secs(10));
        assert_eq!(found(&[0, 12, 0, 10, 8]), HashSet::from([nodes[1]]));
        assert_eq!(found(&[0, 50, 90, 70, 60]), HashSet::from([nodes[2], nodes[3]]), "those that are slowest");
        assert_eq!(found(&[90]), HashSet::new(), "nobody else is there");
        let failed = found(&[11, 11, 11, 90, 60]);
        assert_eq!(failed, HashSet::from(nodes), "three that failed, and two slow ones");
    }

    #[test]
    fn the_slower_a_node_is_the_longer_it_is_avoided() {
        let mut standing = Standing::default();
        standing.slow(Duration::ZERO, USUAL, 2.5);
        assert_eq!(standing.avoid_until, Duration::from_secs(75));
        standing.slow(Duration::from_secs(10), USUAL, 10.0);
        assert_eq!(standing.avoid_until, Duration::from_secs(300), "the same task, which still runs");
        standing.slow(Duration::from_secs(20), USUAL, f64::INFINITY);
        assert_eq!(standing.avoid_until, USUAL * 64, "within bounds");
    }
}
