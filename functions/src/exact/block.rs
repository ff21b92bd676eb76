//! Many rows of one group: partial sums that are exact floats, by vector instructions.
//!
//! Error-free extraction (Rump, Ogita, Oishi 2008, `ExtractVector`; with a running sum as in J. Demmel, H. D. Nguyen,
//! *Parallel reproducible summation*, 2015): added to a running sum in `[sigma, 2 sigma)`, a value is rounded to a
//! multiple of `2^-52 sigma`; what was taken is the difference of the running sum, exactly, and so is what is left.
//! `sigma` is so much larger than the block's largest value that the running sum stays in that range. The rests are
//! small, and where the smallest value is not too small either they add up without rounding: two exact sums a lane.
//! Blocks that spread farther are extracted twice, and what is then left of a value is handed out by itself. Nothing is
//! ever rounded, so that the number of lanes is not visible in the result.

use super::big::power_of_two;

/// Most rows of a block.
pub const ROWS: usize = 512;
/// `log2(ROWS)`.
const ROWS_BITS: i32 = 9;
/// Bits that one extraction takes from the largest value on.
const STEP: i32 = 53 - ROWS_BITS;
/// Sums that are kept side by side.
const LANES: usize = 8;
/// `log2(ROWS / LANES)`.
const LANE_BITS: i32 = 6;
/// Values between the largest and `2^-SPREAD` of it need one extraction. The rests of a lane are below
/// `2^(exponent - 45 + LANE_BITS)`, those of a block below `2^(exponent - 36)`, and multiples of
/// `2^(exponent - SPREAD - 52)`: 53 bits.
const SPREAD: i32 = 37;

/// Hands out floats that add up exactly to the sum of `values` (at most [`ROWS`]).
pub fn extract(values: &[f64], emit: &mut impl FnMut(f64)) {
    let (blocks, rest) = values.as_chunks::<LANES>();
    rest.iter().for_each(|value| emit(*value));
    let (smallest, largest) = range(blocks);
    let exponent = exponent(largest);
    let exact = if smallest >= power_of_two(exponent - SPREAD) { one_step(blocks, exponent) } else { None };
    match exact {
        Some((high, low)) => [high, low].into_iter().for_each(emit),
        None => extract_twice(blocks, exponent, emit),
    }
}

/// The smallest and the largest magnitude, zeros and NaNs passed over (a sum shows NaNs).
fn range(blocks: &[[f64; LANES]]) -> (f64, f64) {
    match range_of(blocks, |value| value) {
        (0.0, _) => range_of(blocks, |value| if value == 0.0 { f64::INFINITY } else { value }),
        found => found,
    }
}

#[inline(always)]
fn range_of(blocks: &[[f64; LANES]], for_least: impl Fn(f64) -> f64) -> (f64, f64) {
    let (mut least, mut most) = ([f64::INFINITY; LANES], [0.0f64; LANES]);
    for block in blocks {
        for lane in 0..LANES {
            let value = block[lane].abs();
            most[lane] = if value > most[lane] { value } else { most[lane] };
            let value = for_least(value);
            least[lane] = if value < least[lane] { value } else { least[lane] };
        }
    }
    (least.into_iter().fold(f64::INFINITY, f64::min), most.into_iter().fold(0.0, f64::max))
}

/// The `e` with `largest < 2^e`.
fn exponent(largest: f64) -> i32 {
    ((largest.to_bits() >> 52) as i32) - 1022
}

/// Two exact sums, for values below `2^exponent` and not below `2^(exponent - SPREAD)` but for zeros; `None` near the
/// ends of the range of floats, and where a value is none.
fn one_step(blocks: &[[f64; LANES]], exponent: i32) -> Option<(f64, f64)> {
    let sigma = exponent + LANE_BITS + 2;
    if sigma > 1022 || exponent - SPREAD - 52 < -1074 {
        return None;
    }
    let start = 1.5 * power_of_two(sigma);
    let (mut high, mut low) = ([start; LANES], [0.0; LANES]);
    for block in blocks {
        for lane in 0..LANES {
            let sum = high[lane] + block[lane];
            low[lane] += block[lane] - (sum - high[lane]);
            high[lane] = sum;
        }
    }
    let high: f64 = high.into_iter().map(|sum| sum - start).sum();
    high.is_finite().then(|| (high, low.into_iter().sum()))
}

/// Two extractions, and what is left of each value.
fn extract_twice(blocks: &[[f64; LANES]], exponent: i32, emit: &mut impl FnMut(f64)) {
    let values = blocks.as_flattened();
    let sigmas = sigmas(exponent);
    let sums = sigmas.map(|sigmas| two_steps(blocks, sigmas)).filter(|(high, _, _)| high.is_finite());
    let Some(((first, second), (high, low, left))) = sigmas.zip(sums) else {
        return values.iter().for_each(|value| emit(*value));
    };
    [high, low].into_iter().for_each(&mut *emit);
    if left {
        let left = values.iter().map(|value| step(step(*value, first).1, second).1);
        left.filter(|value| *value != 0.0).for_each(emit);
    }
}

/// Both `sigma`s for values below `2^exponent`; `None` near the ends of the range of floats.
fn sigmas(exponent: i32) -> Option<(f64, f64)> {
    let first = exponent + ROWS_BITS;
    let second = first - STEP;
    (first <= 1022 && second - 53 >= -1074).then(|| (power_of_two(first), power_of_two(second)))
}

/// `value` rounded to a multiple of `2^-53 sigma`, and what is left.
#[inline(always)]
fn step(value: f64, sigma: f64) -> (f64, f64) {
    let taken = (sigma + value) - sigma;
    (taken, value - taken)
}

/// The sums of what each `sigma` extracts, and whether anything is left.
fn two_steps(blocks: &[[f64; LANES]], sigmas: (f64, f64)) -> (f64, f64, bool) {
    let (mut high, mut low, mut left) = ([0.0; LANES], [0.0; LANES], [0u64; LANES]);
    for block in blocks {
        for lane in 0..LANES {
            let (first, rest) = step(block[lane], sigmas.0);
            let (second, rest) = step(rest, sigmas.1);
            high[lane] += first;
            low[lane] += second;
            left[lane] |= rest.to_bits();
        }
    }
    // All but the sign.
    let left = left.into_iter().fold(0, |all, bits| all | bits) << 1;
    (high.into_iter().sum(), low.into_iter().sum(), left != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_values_leave_two_floats() {
        let values: Vec<f64> = (0..ROWS).map(|i| (i as f64).mul_add(0.1, -20.0)).collect();
        let mut parts = Vec::new();
        extract(&values, &mut |part| parts.push(part));
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn a_nan_is_not_lost() {
        let mut values = vec![0.0; 16];
        values[9] = f64::NAN;
        let mut parts = Vec::new();
        extract(&values, &mut |part| parts.push(part));
        assert!(parts.iter().any(|part| part.is_nan()));
        values[9] = f64::NEG_INFINITY;
        parts.clear();
        extract(&values, &mut |part| parts.push(part));
        assert!(parts.contains(&f64::NEG_INFINITY));
    }
}
