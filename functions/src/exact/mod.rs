//! Exact sums of floats: the value of a sum is that of its rows, rounded once.
//!
//! **Method.** A finite `f64` is an integer of 53 bits times a power of two, so a sum of any number of them is one long
//! integer times 2^-1074: Kulisch's long accumulator (U. Kulisch, W. L. Miranker, *The arithmetic of the digital
//! computer*, SIAM Review 28, 1986), as in R. M. Neal, *Fast exact summation using small and large superaccumulators*
//! (2015). Integers add up to the same in any order, so neither order nor partitioning nor batch size nor SIMD width is
//! visible. Kept whole it takes half a kilobyte, which a million groups cannot afford. Hence two tiers, exact both:
//!
//! - [`slot`]: 114 bits of it for each group, around the first value seen, in one word of 16 bytes. The bulk of real
//!   data falls there.
//! - [`wide`]: what does not, in as many 64-bit limbs as its range needs; only for the groups that have such values.
//!
//! Many rows of one group take the [`block`] path: error-free vector extraction (S. M. Rump, T. Ogita, S. Oishi,
//! *Accurate floating-point summation, part I*, SIAM J. Sci. Comput. 31, 2008), whose partial sums are exact floats.
//!
//! **Bound.** None but the last rounding: the result is the exact sum, rounded to the nearest float, ties to even
//! (0.5 ulp). No intermediate overflow exists: only a sum beyond the largest float is infinite.
//!
//! **Special values.** Any NaN, or infinities of both signs: the one canonical NaN. Infinities of one sign: that
//! infinity. An exact zero is `+0.0`, whatever signs of zeros were added.
//!
//! **State.** [`state`] encodes the exact sum, normalized: the same rows in any order are the same bytes.

pub mod big;
pub mod block;
pub mod slot;
pub mod state;
pub mod sums;
pub mod wide;

pub use big::Big;
pub use sums::{Sums, Total};
