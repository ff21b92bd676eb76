//! What several tests share: a seeded generator and a clock that stands until it is moved.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use conun_types::{Clock, NodeId, NodeKey, Rng};

/// Random bytes that follow from a seed.
pub(crate) struct SeededRng {
    seed: u64,
    next: AtomicU64,
}

impl SeededRng {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }
}

impl Rng for SeededRng {
    fn fill(&self, out: &mut [u8]) {
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&call.to_le_bytes());
        hasher.finalize_xof().fill(out);
    }
}

/// A clock in Unix seconds that tests move by hand.
pub(crate) struct ManualClock(pub(crate) AtomicU64);

impl ManualClock {
    pub(crate) fn at(seconds: u64) -> Self {
        Self(AtomicU64::new(seconds))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// The `n`th key of a fixed row of keys.
pub(crate) fn key(n: u64) -> NodeKey {
    NodeKey::generate(&SeededRng::new(1_000_000 + n))
}

/// Its public id.
pub(crate) fn node(n: u64) -> NodeId {
    key(n).id()
}
