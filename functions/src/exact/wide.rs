//! The tier of rare values: a fixed-point integer that grows to the range it needs.

use super::big::Big;

/// Bits that the highest limb keeps free, so that one addition cannot overflow it.
const GUARD: u32 = 2;

/// An exact sum in two's complement, and how many values were not finite.
#[derive(Debug, Clone, Default)]
pub struct Wide {
    /// Weight of `limbs[0]` is `2^(64 * low)`. The last limb carries the sign.
    low: i32,
    limbs: Vec<u64>,
    nans: i64,
    positive: i64,
    negative: i64,
    misses: u32,
}

impl Wide {
    /// Counts the values that came here because a slot could not take them.
    pub fn miss(&mut self) -> u32 {
        self.misses = self.misses.wrapping_add(1);
        self.misses
    }

    /// Adds `value * 2^exponent`.
    pub fn add(&mut self, value: i128, exponent: i32) {
        let (limb, bits) = (exponent.div_euclid(64), exponent.rem_euclid(64) as u32);
        let high = if bits == 0 { value >> 127 } else { value >> (128 - bits) };
        let shifted = (value as u128) << bits;
        let first = self.reach(limb, 3);
        let sign = (value >> 127) as u64;
        let addend = [shifted as u64, (shifted >> 64) as u64, high as u64];
        let mut carry = false;
        for (i, place) in self.limbs[first..].iter_mut().enumerate() {
            let (sum, one) = place.overflowing_add(addend.get(i).copied().unwrap_or(sign));
            let (sum, two) = sum.overflowing_add(u64::from(carry));
            (*place, carry) = (sum, one || two);
        }
        self.guard();
    }

    /// Adds a normalized number.
    pub fn add_big(&mut self, number: &Big) {
        for (i, limb) in (0..).zip(number.limbs()) {
            let value = i128::from(*limb);
            self.add(if number.is_negative() { -value } else { value }, number.exponent() + i * 64);
        }
    }

    /// Adds (`times` = 1) or takes back (-1) a NaN or an infinity.
    pub fn add_special(&mut self, value: f64, times: i64) {
        let count = if value.is_nan() {
            &mut self.nans
        } else if value > 0.0 {
            &mut self.positive
        } else {
            &mut self.negative
        };
        *count += times;
    }

    /// What the values that are not finite add up to.
    #[must_use]
    pub fn special(&self) -> Option<f64> {
        match (self.nans != 0, self.positive != 0, self.negative != 0) {
            (false, false, false) => None,
            (false, true, false) => Some(f64::INFINITY),
            (false, false, true) => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }

    /// The sum of the finite values.
    #[must_use]
    pub fn finite(&self) -> Big {
        let negative = self.limbs.last().is_some_and(|top| (*top as i64) < 0);
        let mut limbs = self.limbs.clone();
        if negative {
            let mut carry = true;
            for limb in &mut limbs {
                (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
            }
        }
        Big::new(negative, limbs, self.low * 64)
    }

    /// Bytes of memory.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.limbs.capacity() * size_of::<u64>()
    }

    /// Makes place for `count` limbs from `limb` on and one above; the index of the first.
    fn reach(&mut self, limb: i32, count: i32) -> usize {
        if self.limbs.is_empty() {
            self.low = limb;
        }
        if limb < self.low {
            let below = (self.low - limb) as usize;
            self.limbs.splice(..0, std::iter::repeat_n(0, below));
            self.low = limb;
        }
        let first = (limb - self.low) as usize;
        let needed = first + count as usize + 1;
        if self.limbs.len() < needed {
            let sign = self.limbs.last().map_or(0, |top| ((*top as i64) >> 63) as u64);
            self.limbs.resize(needed, sign);
        }
        first
    }

    fn guard(&mut self) {
        let Some(top) = self.limbs.last().map(|top| *top as i64) else { return };
        if (top >> (64 - GUARD)) != (top >> 63) {
            self.limbs.push((top >> 63) as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_both_ways_and_comes_back() {
        let mut wide = Wide::default();
        let numbers =
            [(1i128, 0), (-7, 900), (i128::MIN / 2, -1074), (i128::MAX / 2, 63), (-1, -64), (3, 1), (5, -2100)];
        let mut sum = Big::default();
        for (value, exponent) in numbers {
            wide.add(value, exponent);
            sum = sum.plus(&Big::from_i128(value, exponent));
            assert_eq!(wide.finite(), sum);
        }
        for (value, exponent) in numbers.iter().rev() {
            wide.add(-value, *exponent);
        }
        assert!(wide.finite().is_zero());
        wide.add_big(&sum);
        assert_eq!(wide.finite(), sum);
    }

    #[test]
    fn many_additions_do_not_overflow() {
        let mut wide = Wide::default();
        for _ in 0..1000 {
            wide.add(i128::MAX, 63);
        }
        assert_eq!(wide.finite(), Big::from_i128(i128::MAX, 63).times(&Big::from_count(1000)));
    }

    #[test]
    fn special_values_are_counted() {
        let mut wide = Wide::default();
        assert_eq!(wide.special(), None);
        wide.add_special(f64::INFINITY, 1);
        assert_eq!(wide.special(), Some(f64::INFINITY));
        wide.add_special(f64::NEG_INFINITY, 1);
        assert!(wide.special().is_some_and(f64::is_nan));
        wide.add_special(f64::INFINITY, -1);
        assert_eq!(wide.special(), Some(f64::NEG_INFINITY));
        wide.add_special(f64::NEG_INFINITY, -1);
        assert_eq!(wide.special(), None);
    }
}
