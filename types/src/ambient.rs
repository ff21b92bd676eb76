//! Time and randomness as values that are handed in, so that decisions can be replayed from a seed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock of wall time.
pub trait Clock: Send + Sync {
    /// Time since the Unix epoch.
    fn now(&self) -> Duration;

    /// Whole seconds since the Unix epoch, the unit of leases and deadlines.
    fn unix_seconds(&self) -> u64 {
        self.now().as_secs()
    }
}

/// A source of random bytes.
pub trait Rng: Send + Sync {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);

    /// A uniformly random number below `bound` (0 where `bound` is 0). The modulo bias is below 2^-32 for the small
    /// bounds (numbers of nodes) this is used with.
    fn below(&self, bound: usize) -> usize {
        let mut bytes = [0u8; 8];
        self.fill(&mut bytes);
        if bound == 0 { 0 } else { (u64::from_le_bytes(bytes) % bound as u64) as usize }
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// The operating system's random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRng;

impl Rng for OsRng {
    /// # Panics
    /// When the operating system has no random numbers to give: nothing here can be safe without them.
    #[expect(clippy::expect_used, reason = "keys and capabilities must never come from a broken generator")]
    fn fill(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system gives random numbers");
    }
}
