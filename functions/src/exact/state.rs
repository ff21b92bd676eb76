//! Sums as bytes, in partial states: normalized, so that equal sums are equal bytes.
//!
//! - 16 bytes: a slot's word ([`slot::normal`]), with an odd sum; all zeros for zero. Nearly all states.
//! - 1 byte: not finite.
//! - else: two bytes (little-endian) of `2 * (exponent + 8192) + sign`, then the odd magnitude in 64-bit limbs, the
//!   highest not zero. Only for what does not fit into a word.

use datafusion::error::{DataFusionError, Result};

use super::{
    big::Big,
    slot,
    sums::{Sums, Total},
};

const WORD: usize = 16;
const BIAS: i32 = 8192;
/// Exponents and lengths of what floats and their products can add up to lie well within.
const MAX_EXPONENT: i32 = 4096;
const MAX_LIMBS: usize = 80;

const NAN: u8 = 0;
const POSITIVE: u8 = 1;
const NEGATIVE: u8 = 2;

/// Appends `group`'s sum to `buffer`.
pub fn encode_group(sums: &Sums, group: usize, buffer: &mut Vec<u8>) {
    match sums.slot(group).normal() {
        Some(word) => buffer.extend_from_slice(&word.to_le_bytes()),
        None => encode(&sums.total(group), buffer),
    }
}

/// Appends `total`.
pub fn encode(total: &Total, buffer: &mut Vec<u8>) {
    let number = match total {
        Total::Special(value) if value.is_nan() => return buffer.push(NAN),
        Total::Special(value) => return buffer.push(if *value > 0.0 { POSITIVE } else { NEGATIVE }),
        Total::Finite(number) => number,
    };
    if let Some(word) = number.to_i128().and_then(|sum| slot::normal(sum, number.exponent())) {
        return buffer.extend_from_slice(&word.to_le_bytes());
    }
    let head = (number.exponent() + BIAS) << 1 | i32::from(number.is_negative());
    buffer.extend_from_slice(&(head as u16).to_le_bytes());
    number.limbs().iter().for_each(|limb| buffer.extend_from_slice(&limb.to_le_bytes()));
}

/// Adds an encoded sum to `group`.
///
/// # Errors
/// Where the bytes are no sum: they may come from a stranger.
#[inline]
pub fn merge(sums: &mut Sums, group: usize, bytes: &[u8]) -> Result<()> {
    let Ok(word) = <[u8; WORD]>::try_from(bytes) else { return merge_rare(sums, group, bytes) };
    let (sum, base) = slot::of_normal(i128::from_le_bytes(word)).ok_or_else(malformed)?;
    sums.add_long(group, sum, base);
    Ok(())
}

#[cold]
fn merge_rare(sums: &mut Sums, group: usize, bytes: &[u8]) -> Result<()> {
    let (head, magnitude) = match bytes {
        [kind] => {
            sums.add_special(group, special(*kind)?, 1);
            return Ok(());
        }
        [low, high, magnitude @ ..] => (i32::from(u16::from_le_bytes([*low, *high])), magnitude),
        [] => return Err(malformed()),
    };
    let (limbs, rest) = magnitude.as_chunks::<8>();
    let limbs: Vec<u64> = limbs.iter().map(|limb| u64::from_le_bytes(*limb)).collect();
    let exponent = (head >> 1) - BIAS;
    let odd = limbs.first().is_some_and(|limb| limb & 1 == 1) && limbs.last() != Some(&0);
    if !odd || !rest.is_empty() || limbs.len() > MAX_LIMBS || exponent.abs() > MAX_EXPONENT {
        return Err(malformed());
    }
    sums.add_big(group, &Big::new(head & 1 == 1, limbs, exponent));
    Ok(())
}

fn special(kind: u8) -> Result<f64> {
    match kind {
        NAN => Ok(f64::NAN),
        POSITIVE => Ok(f64::INFINITY),
        NEGATIVE => Ok(f64::NEG_INFINITY),
        _ => Err(malformed()),
    }
}

fn malformed() -> DataFusionError {
    DataFusionError::Execution("a malformed state of a float aggregate".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(sums: &Sums) -> Vec<u8> {
        let mut buffer = Vec::new();
        encode_group(sums, 0, &mut buffer);
        buffer
    }

    fn sums(values: &[f64]) -> Sums {
        let mut sums = Sums::default();
        sums.reserve_groups(1);
        values.iter().for_each(|value| sums.add(0, *value));
        sums
    }

    #[test]
    fn states_come_back() {
        let inf = f64::INFINITY;
        for values in [
            vec![],
            vec![0.0, -0.0],
            vec![1.0],
            vec![-0.1, 7e22],
            vec![1e300, -1e-300, 5e-324],
            vec![f64::MAX; 9],
            vec![inf, 1.0],
            vec![-inf],
            vec![inf, -inf],
            vec![f64::NAN, 1e300],
        ] {
            let sums = sums(&values);
            let bytes = encoded(&sums);
            let mut merged = Sums::default();
            merged.reserve_groups(1);
            merge(&mut merged, 0, &bytes).unwrap();
            assert_eq!(encoded(&merged), bytes, "{values:?}");
            assert_eq!(merged.round(0).to_bits(), sums.round(0).to_bits(), "{values:?}");
            let mut again = Vec::new();
            encode(&sums.total(0), &mut again);
            assert_eq!(again, bytes, "one form, whichever tier holds the sum: {values:?}");
        }
    }

    #[test]
    fn strangers_states_are_checked() {
        let mut one = sums(&[]);
        let mut even = vec![0; 16];
        even[2] = 1;
        for bytes in [vec![], vec![9], vec![0, 64], vec![0, 64, 1], vec![0; 10], even, vec![1; 802], vec![1; 17]] {
            assert!(merge(&mut one, 0, &bytes).is_err(), "{bytes:?}");
        }
    }
}
