//! Counting what strangers have open here: a total, and a share for each. Decisions only; nothing waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use conun_types::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Locks what no panic can leave half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets in at most `total` at once, and at most `per_peer` of one peer.
pub(crate) struct Gate {
    total: usize,
    per_peer: usize,
    inside: Mutex<HashMap<NodeId, usize>>,
}

impl Gate {
    pub(crate) fn new(total: usize, per_peer: usize) -> Arc<Self> {
        Arc::new(Self { total, per_peer, inside: Mutex::default() })
    }

    /// A pass for one stream of `peer`, or nothing where it or everybody has too many.
    pub(crate) fn enter(self: &Arc<Self>, peer: NodeId) -> Option<Pass> {
        let mut inside = lock(&self.inside);
        let mine = inside.get(&peer).copied().unwrap_or(0);
        if mine >= self.per_peer || inside.values().sum::<usize>() >= self.total {
            return None;
        }
        inside.insert(peer, mine + 1);
        Some(Pass { gate: Arc::clone(self), peer })
    }
}

/// A place inside a [`Gate`], given back when it is dropped.
pub(crate) struct Pass {
    gate: Arc<Gate>,
    peer: NodeId,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = lock(&self.gate.inside);
        if let Some(count) = inside.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inside.remove(&self.peer);
            }
        }
    }
}

/// Queues our own streams to each peer, so that we stay below what an honest peer takes.
pub(crate) struct Queues {
    width: usize,
    peers: Mutex<HashMap<NodeId, Arc<Semaphore>>>,
}

impl Queues {
    /// Queues of more peers than this are swept of idle ones.
    const SWEEP: usize = 1024;

    pub(crate) fn new(width: usize) -> Self {
        Self { width: width.max(1), peers: Mutex::default() }
    }

    /// Waits for a turn towards `peer`. None only where the queue was closed, which never happens.
    pub(crate) async fn turn(&self, peer: NodeId) -> Option<OwnedSemaphorePermit> {
        let queue = {
            let mut peers = lock(&self.peers);
            if peers.len() > Self::SWEEP {
                peers.retain(|_, queue| Arc::strong_count(queue) > 1);
            }
            Arc::clone(peers.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(self.width))))
        };
        queue.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use conun_types::{NodeKey, OsRng};

    use super::*;

    #[test]
    fn a_peer_has_its_share_and_all_have_the_total() {
        let [a, b] = [(); 2].map(|()| NodeKey::generate(&OsRng).id());
        let gate = Gate::new(3, 2);
        let first = gate.enter(a);
        let _second = gate.enter(a);
        assert!(first.is_some() && gate.enter(a).is_none(), "a's share");
        let _third = gate.enter(b);
        assert!(gate.enter(b).is_none(), "the total");
        drop(first);
        assert!(gate.enter(b).is_some(), "a place was given back");
    }
}
