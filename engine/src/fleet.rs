//! The volunteers as this coordinator sees them: who is connected, who is busy with our tasks, whom to avoid.
//!
//! What it must not know: tasks, votes, blocks.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conun_types::{
    Clock, MemoryClass, NodeId, PeerAddr, Rng,
    port::Network,
    wire::{Ask, Hello},
};
use tokio::sync::Notify;

/// How long a waiter sleeps before it looks again for volunteers that joined or are no longer busy.
const LOOK_AGAIN: Duration = Duration::from_millis(40);

/// Tasks that one node gets from us at once, whatever it says of its cores: who says more must not draw more of them.
const MAX_SEATS: u32 = 64;

/// Whether a node that asks so much for its work, or nothing, suits this coordinator.
pub(crate) type Suits = Box<dyn Fn(&NodeId, Option<&Ask>) -> bool + Send + Sync>;

/// All volunteers.
pub(crate) struct Fleet {
    network: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    avoid_for: Duration,
    suits: Suits,
    state: Mutex<HashMap<NodeId, Standing>>,
    freed: Notify,
}

/// What we remember of a node.
#[derive(Debug, Default, Clone)]
struct Standing {
    in_flight: u32,
    /// Gets no task while others are free, until then.
    avoid_until: Duration,
    /// It said that others keep it busy, until then.
    busy_until: Duration,
    /// It lied: it gets no task from us again.
    quarantined: bool,
}

/// A place on a node, given back when dropped.
pub(crate) struct Seat {
    fleet: Arc<Fleet>,
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
        rng: Arc<dyn Rng>,
        avoid_for: Duration,
        suits: Suits,
    ) -> Arc<Self> {
        Arc::new(Self { network, clock, rng, avoid_for, suits, state: Mutex::default(), freed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Standing>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a node that says this of itself can run our tasks.
    fn is_useful(&self, node: &NodeId, hello: &Hello) -> bool {
        let profile = conun_types::profile::hash();
        hello.profiles.iter().any(|p| **p == profile) && (self.suits)(node, hello.pay.as_ref())
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
        let state = self.lock();
        let trusted = |id: &NodeId| !state.get(id).is_some_and(|s| s.quarantined);
        self.network.volunteers().into_iter().map(|(peer, _)| peer).filter(|p| trusted(&p.id)).collect()
    }

    /// The largest memory class that at least `votes` nodes of our profile give a task: with fewer there is no verdict.
    pub(crate) fn most_memory(&self, votes: usize) -> MemoryClass {
        let state = self.lock();
        let volunteers = self.network.volunteers().into_iter();
        let useful = volunteers.filter(|(peer, hello)| {
            !state.get(&peer.id).is_some_and(|s| s.quarantined) && self.is_useful(&peer.id, hello)
        });
        let mut lent: Vec<MemoryClass> = useful.map(|(_, hello)| hello.memory).collect();
        lent.sort_unstable_by(|a, b| b.cmp(a));
        lent.get(votes.max(1) - 1).or(lent.last()).copied().unwrap_or(MemoryClass::Large)
    }

    /// Which of them run tasks of the profile that we plan under in so much memory.
    fn candidates(&self, memory: MemoryClass, exclude: &HashSet<NodeId>) -> Vec<Candidate> {
        let now = self.clock.now();
        let state = self.lock();
        let mut found = Vec::new();
        for (peer, hello) in self.network.volunteers() {
            let standing = state.get(&peer.id).cloned().unwrap_or_default();
            if standing.quarantined
                || !self.is_useful(&peer.id, &hello)
                || hello.memory < memory
                || exclude.contains(&peer.id)
            {
                continue;
            }
            let free = hello.cores.clamp(1, MAX_SEATS) > standing.in_flight && standing.busy_until <= now;
            found.push(Candidate { peer, free, avoided: standing.avoid_until > now, load: standing.in_flight });
        }
        found
    }

    /// A place on a node outside `exclude` that gives a task `memory`: one of `prefer` if one is free, else any free one
    /// at random. Waits while all are busy; `None` once there is no such node at all.
    pub(crate) async fn seat(
        self: &Arc<Self>,
        memory: MemoryClass,
        prefer: &HashSet<NodeId>,
        exclude: &HashSet<NodeId>,
    ) -> Option<Seat> {
        loop {
            let freed = self.freed.notified();
            let candidates = self.candidates(memory, exclude);
            if candidates.is_empty() {
                return None;
            }
            if let Some(peer) = self.choose(&candidates, prefer) {
                self.lock().entry(peer.id).or_default().in_flight += 1;
                return Some(Seat { fleet: Arc::clone(self), peer });
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, freed).await;
        }
    }

    /// The draw is secret and random: a node cannot know which tasks it will share with which other.
    fn choose(&self, candidates: &[Candidate], prefer: &HashSet<NodeId>) -> Option<PeerAddr> {
        let rank =
            |c: &Candidate| (c.avoided, !prefer.contains(&c.peer.id), if prefer.is_empty() { 0 } else { c.load });
        let free: Vec<&Candidate> = candidates.iter().filter(|c| c.free).collect();
        let best = free.iter().map(|c| rank(c)).min()?;
        // While every prompt node is busy, an avoided one is no better than waiting for them.
        if best.0 && candidates.iter().any(|c| !c.avoided) {
            return None;
        }
        let equal: Vec<&&Candidate> = free.iter().filter(|c| rank(c) == best).collect();
        equal.get(self.rng.below(equal.len())).map(|c| c.peer.clone())
    }

    /// `node` has no room for `pause`: other coordinators may use it, too.
    pub(crate) fn busy(&self, node: NodeId, pause: Duration) {
        let until = self.clock.now() + pause;
        self.lock().entry(node).or_default().busy_until = until;
    }

    /// `node` was late, busy for too long or unreachable.
    pub(crate) fn avoid(&self, node: NodeId) {
        let until = self.clock.now() + self.avoid_for;
        self.lock().entry(node).or_default().avoid_until = until;
    }

    /// `node` lied.
    pub(crate) fn quarantine(&self, node: NodeId) {
        self.lock().entry(node).or_default().quarantined = true;
    }
}

struct Candidate {
    peer: PeerAddr,
    free: bool,
    avoided: bool,
    load: u32,
}
