//! Randomness from a seed: a stream for decisions, and coins that depend only on what they are tossed for, so that all
//! policies meet the same faults and the same lies.

use std::sync::atomic::{AtomicU64, Ordering};

use conun_types::Rng;

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Debug)]
pub struct Seeded(AtomicU64);

impl Seeded {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(mix(seed)))
    }

    fn next(&self) -> u64 {
        mix(self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA))
    }
}

impl Rng for Seeded {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// SplitMix64's finalizer.
#[must_use]
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number that depends on all of `words` and on nothing else.
#[must_use]
pub fn hash(words: &[u64]) -> u64 {
    words.iter().fold(GAMMA, |state, word| mix(state.wrapping_add(GAMMA) ^ mix(word.wrapping_add(GAMMA))))
}

/// Whether a coin shows heads, which it does with `probability`.
#[must_use]
pub fn coin(hash: u64, probability: f64) -> bool {
    ((hash >> 11) as f64) < probability * (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coins_are_fair_and_depend_on_what_they_are_tossed_for() {
        let heads = (0..100_000).filter(|n| coin(hash(&[7, *n]), 0.1)).count();
        assert!((9_700..10_300).contains(&heads), "{heads}");
        assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
        assert!(coin(hash(&[1]), 1.0) && !coin(hash(&[1]), 0.0));
    }

    #[test]
    fn a_seed_is_a_stream() {
        let (a, b) = (Seeded::new(3), Seeded::new(3));
        assert!((0..100).all(|_| a.below(1000) == b.below(1000)));
    }
}
