//! Binary numbers of any length, and the one rounding at the end.

use std::cmp::Ordering;

/// A finite number: `magnitude * 2^exponent`, with a sign. Normalized: the magnitude is odd, without leading zero limbs;
/// zero has no limbs, exponent 0 and no sign. Equal numbers are therefore equal values of this type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Big {
    negative: bool,
    limbs: Vec<u64>,
    exponent: i32,
}

/// A float with a range of its own: `mantissa * 2^exponent`, the mantissa in `[1, 2)` or zero, with its sign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaled {
    /// In `(-2, -1]`, `[1, 2)` or zero.
    pub mantissa: f64,
    /// Power of two.
    pub exponent: i32,
}

impl Big {
    /// `magnitude * 2^exponent`, little-endian limbs.
    #[must_use]
    pub fn new(negative: bool, mut limbs: Vec<u64>, exponent: i32) -> Self {
        trim(&mut limbs);
        let Some(zeros) = trailing_zeros(&limbs) else { return Self::default() };
        shift_right(&mut limbs, zeros);
        Self { negative, limbs, exponent: exponent + zeros as i32 }
    }

    /// `value * 2^exponent`.
    #[must_use]
    pub fn from_i128(value: i128, exponent: i32) -> Self {
        let magnitude = value.unsigned_abs();
        Self::new(value < 0, vec![magnitude as u64, (magnitude >> 64) as u64], exponent)
    }

    /// A count.
    #[must_use]
    pub fn from_count(count: u64) -> Self {
        Self::new(false, vec![count], 0)
    }

    /// Whether it is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.limbs.is_empty()
    }

    /// Whether it is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// The odd magnitude, little-endian.
    #[must_use]
    pub fn limbs(&self) -> &[u64] {
        &self.limbs
    }

    /// The odd number, where it has at most 127 bits.
    #[must_use]
    pub fn to_i128(&self) -> Option<i128> {
        let low = self.limbs.first().copied().unwrap_or(0);
        let high = self.limbs.get(1).copied().unwrap_or(0);
        let magnitude = i128::from(high) << 64 | i128::from(low);
        let fits = self.limbs.len() <= 2 && magnitude >= 0;
        fits.then_some(if self.negative { -magnitude } else { magnitude })
    }

    /// The power of two.
    #[must_use]
    pub fn exponent(&self) -> i32 {
        self.exponent
    }

    /// `-self`.
    #[must_use]
    pub fn negated(mut self) -> Self {
        self.negative = !self.negative && !self.is_zero();
        self
    }

    /// The exact sum.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        if self.is_zero() {
            return other.clone();
        }
        if other.is_zero() {
            return self.clone();
        }
        let exponent = self.exponent.min(other.exponent);
        let (a, b) = (self.aligned(exponent), other.aligned(exponent));
        if self.negative == other.negative {
            return Self::new(self.negative, add(a, &b), exponent);
        }
        match compare(&a, &b) {
            Ordering::Less => Self::new(other.negative, subtract(b, &a), exponent),
            _ => Self::new(self.negative, subtract(a, &b), exponent),
        }
    }

    /// The exact difference.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.plus(&other.clone().negated())
    }

    /// The exact product.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        let mut product = vec![0u64; self.limbs.len() + other.limbs.len()];
        for (i, a) in self.limbs.iter().enumerate() {
            let mut carry = 0u128;
            for (place, b) in product[i..].iter_mut().zip(other.limbs.iter().chain(std::iter::once(&0))) {
                carry += u128::from(*place) + u128::from(*a) * u128::from(*b);
                *place = carry as u64;
                carry >>= 64;
            }
        }
        Self::new(self.negative != other.negative, product, self.exponent + other.exponent)
    }

    /// The nearest float, ties to even; infinite beyond the largest.
    #[must_use]
    pub fn round(&self) -> f64 {
        let (top, sticky) = self.leading_bits();
        compose(self.negative, top, sticky, self.bits() - 64 + self.exponent)
    }

    /// `self / divisor`, rounded once to the nearest float, ties to even. NaN where the divisor is zero.
    #[must_use]
    pub fn divided_by(&self, divisor: &Self) -> f64 {
        match self.quotient(divisor) {
            Some((top, sticky, exponent)) => compose(self.negative != divisor.negative, top, sticky, exponent),
            None if divisor.is_zero() => f64::NAN,
            None => 0.0,
        }
    }

    /// `self / divisor` rounded to 53 bits, with an exponent that cannot overflow; `None` where the divisor is zero.
    #[must_use]
    pub fn ratio(&self, divisor: &Self) -> Option<Scaled> {
        let Some((top, sticky, exponent)) = self.quotient(divisor) else {
            return (!divisor.is_zero()).then_some(Scaled { mantissa: 0.0, exponent: 0 });
        };
        // As an integer of 64 bits it is far from both ends of the range: one rounding, and none by scaling.
        let mantissa = compose(self.negative != divisor.negative, top, sticky, -63);
        Some(if mantissa.abs() < 2.0 {
            Scaled { mantissa, exponent: exponent + 63 }
        } else {
            Scaled { mantissa: mantissa / 2.0, exponent: exponent + 64 }
        })
    }

    /// The first 64 bits of the quotient (the highest is set), whether anything follows, and the power of two of the
    /// last bit. `None` for zero, and for division by zero.
    fn quotient(&self, divisor: &Self) -> Option<(u64, bool, i32)> {
        if self.is_zero() || divisor.is_zero() {
            return None;
        }
        // Shifted so that the quotient of the magnitudes lies in [2^63, 2^65).
        let shift = 64 - (self.bits() - divisor.bits());
        let (mut rest, mut by) = (self.limbs.clone(), divisor.limbs.clone());
        if shift >= 0 {
            shift_left(&mut rest, shift as u32)
        } else {
            shift_left(&mut by, shift.unsigned_abs())
        }
        let (quotient, exact) = divide(rest, by);
        let exponent = self.exponent - divisor.exponent - shift;
        if quotient >> 64 == 0 {
            Some((quotient as u64, !exact, exponent))
        } else {
            Some(((quotient >> 1) as u64, !exact || quotient & 1 == 1, exponent + 1))
        }
    }

    /// Length of the magnitude.
    fn bits(&self) -> i32 {
        length(&self.limbs) as i32
    }

    /// The highest 64 bits, shifted up where there are fewer, and whether any other bit is set.
    fn leading_bits(&self) -> (u64, bool) {
        let Some((top, rest)) = self.limbs.split_last() else { return (0, false) };
        let (next, low) = rest.split_last().map_or((0, rest), |(next, low)| (*next, low));
        let wide = (u128::from(*top) << 64 | u128::from(next)) << top.leading_zeros();
        ((wide >> 64) as u64, wide as u64 != 0 || low.iter().any(|limb| *limb != 0))
    }

    fn aligned(&self, exponent: i32) -> Vec<u64> {
        let mut limbs = self.limbs.clone();
        shift_left(&mut limbs, (self.exponent - exponent).unsigned_abs());
        limbs
    }
}

impl Scaled {
    /// The square root; NaN below zero. Within one ulp of the root of what `self` was rounded from.
    #[must_use]
    pub fn sqrt(self) -> Self {
        let odd = self.exponent.rem_euclid(2);
        let mantissa = if odd == 1 { self.mantissa * 2.0 } else { self.mantissa };
        Self { mantissa: mantissa.sqrt(), exponent: (self.exponent - odd) / 2 }
    }

    /// As a float.
    #[must_use]
    pub fn value(self) -> f64 {
        // In two steps, so that neither factor leaves the range on its own.
        let exponent = self.exponent.clamp(-2200, 2200);
        let first = exponent.clamp(-1000, 1000);
        let rest = exponent - first;
        let second = rest.clamp(-600, 600);
        self.mantissa * power_of_two(first) * power_of_two(second) * power_of_two(rest - second)
    }
}

/// `2^exponent`, exactly, where it is a float.
#[must_use]
pub fn power_of_two(exponent: i32) -> f64 {
    match exponent {
        ..-1074 => 0.0,
        -1074..-1022 => f64::from_bits(1 << (exponent + 1074)),
        -1022..1024 => f64::from_bits(((exponent + 1023) as u64) << 52),
        _ => f64::INFINITY,
    }
}

/// The float nearest to `top * 2^exponent` plus a little more if `sticky`. `top` is zero or has its highest bit set.
fn compose(negative: bool, top: u64, sticky: bool, exponent: i32) -> f64 {
    if top == 0 {
        return 0.0;
    }
    // Bits below the last one of the result: 11, and more where it is subnormal.
    let dropped = (-1074 - exponent).max(11);
    let magnitude = if dropped > 64 || exponent > 1024 {
        if exponent > 1024 { f64::INFINITY } else { 0.0 }
    } else {
        let wide = u128::from(top);
        let (kept, rest, half) = ((wide >> dropped) as u64, wide & ((1 << dropped) - 1), 1u128 << (dropped - 1));
        let up = rest > half || (rest == half && (sticky || kept & 1 == 1));
        // At most 2^53, times a power of two: exact, or infinite.
        (kept + u64::from(up)) as f64 * power_of_two(exponent + dropped)
    };
    if negative { -magnitude } else { magnitude }
}

/// Quotient of magnitudes (below 2^66) and whether nothing remains.
fn divide(mut rest: Vec<u64>, mut by: Vec<u64>) -> (u128, bool) {
    const STEPS: u32 = 66;
    shift_left(&mut by, STEPS - 1);
    let mut quotient = 0u128;
    for step in 0..STEPS {
        quotient <<= 1;
        trim(&mut rest);
        if compare(&rest, &by) != Ordering::Less {
            rest = subtract(rest, &by);
            quotient |= 1;
        }
        if step + 1 < STEPS {
            shift_right(&mut by, 1);
        }
    }
    (quotient, rest.iter().all(|limb| *limb == 0))
}

fn trim(limbs: &mut Vec<u64>) {
    while limbs.last() == Some(&0) {
        limbs.pop();
    }
}

fn length(limbs: &[u64]) -> u32 {
    limbs.last().map_or(0, |top| limbs.len() as u32 * 64 - top.leading_zeros())
}

fn trailing_zeros(limbs: &[u64]) -> Option<u32> {
    let first = limbs.iter().position(|limb| *limb != 0)?;
    Some(first as u32 * 64 + limbs[first].trailing_zeros())
}

fn shift_right(limbs: &mut Vec<u64>, by: u32) {
    limbs.drain(..(by as usize / 64).min(limbs.len()));
    let bits = by % 64;
    if bits > 0 {
        let mut above = 0;
        for limb in limbs.iter_mut().rev() {
            (*limb, above) = (*limb >> bits | above, *limb << (64 - bits));
        }
    }
    trim(limbs);
}

fn shift_left(limbs: &mut Vec<u64>, by: u32) {
    let bits = by % 64;
    if bits > 0 {
        let mut below = 0;
        for limb in limbs.iter_mut() {
            (*limb, below) = (*limb << bits | below, *limb >> (64 - bits));
        }
        if below > 0 {
            limbs.push(below);
        }
    }
    limbs.splice(..0, std::iter::repeat_n(0, by as usize / 64));
}

/// Both without leading zero limbs.
fn compare(a: &[u64], b: &[u64]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.iter().rev().cmp(b.iter().rev()))
}

fn add(mut a: Vec<u64>, b: &[u64]) -> Vec<u64> {
    a.resize(a.len().max(b.len()) + 1, 0);
    let mut carry = false;
    for (i, place) in a.iter_mut().enumerate() {
        let (sum, first) = place.overflowing_add(b.get(i).copied().unwrap_or(0));
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        (*place, carry) = (sum, first || second);
    }
    a
}

/// `a - b`, where `a >= b`.
fn subtract(mut a: Vec<u64>, b: &[u64]) -> Vec<u64> {
    let mut borrow = false;
    for (i, place) in a.iter_mut().enumerate() {
        let (rest, first) = place.overflowing_sub(b.get(i).copied().unwrap_or(0));
        let (rest, second) = rest.overflowing_sub(u64::from(borrow));
        (*place, borrow) = (rest, first || second);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn big(value: i128, exponent: i32) -> Big {
        Big::from_i128(value, exponent)
    }

    #[test]
    fn equal_numbers_are_equal_values() {
        assert_eq!(big(12, 0), big(3, 2));
        assert_eq!(big(0, 7), Big::default());
        assert_eq!(big(5, 0).minus(&big(5, 0)), Big::default());
        assert_eq!(big(1, 70).plus(&big(-1, 0)).plus(&big(1, 0)), big(1, 70));
        assert_eq!(big(-6, 3).times(&big(7, -200)), big(-42, -197));
    }

    #[test]
    fn rounding_is_to_nearest_even_also_at_the_ends() {
        let odd = (1i128 << 53) + 1;
        for (number, expected) in [
            (big(odd, 0), (1u64 << 53) as f64),
            (big(odd + 2, 0), ((1u64 << 53) + 4) as f64),
            (big(odd * 2 + 1, 0), ((1u64 << 54) + 4) as f64),
            (big(1, -1074), f64::from_bits(1)),
            (big(1, -1075), 0.0),
            (big(3, -1075), f64::from_bits(2)),
            (big(5, -1076), f64::from_bits(1)),
            (big(-1, 1023), -power_of_two(1023)),
            (big(1, 1024), f64::INFINITY),
            (big((1 << 54) - 1, 970), f64::INFINITY),
            (big((1 << 55) - 3, 969), f64::MAX),
            (big(1, 4000), f64::INFINITY),
            (big(1, -4000), 0.0),
        ] {
            assert_eq!(number.round().to_bits(), expected.to_bits(), "{number:?}");
        }
    }

    #[test]
    fn quotients_round_once() {
        for (a, b) in [(1.0, 3.0), (2.0, 3.0), (1e300, 7.0), (5.0, 1e-300), (22.0, -7.0), (1.0, 1.0), (6.0, 3.0)] {
            let (x, y): (f64, f64) = (a, b);
            let (n, d) = (of(x), of(y));
            assert_eq!(n.divided_by(&d).to_bits(), (x / y).to_bits(), "{a} / {b}");
            let ratio = n.ratio(&d).unwrap();
            assert!((1.0..2.0).contains(&ratio.mantissa.abs()));
            assert_eq!(ratio.value().to_bits(), (x / y).to_bits(), "{a} / {b}");
        }
        assert!(big(1, 0).divided_by(&Big::default()).is_nan());
        assert_eq!(Big::default().divided_by(&big(3, 0)), 0.0);
        assert_eq!(big(1, 2001).ratio(&big(1, 0)).unwrap().sqrt().value(), 2f64.sqrt() * power_of_two(1000));
        assert_eq!(big(9, -2000).ratio(&big(1, 0)).unwrap().sqrt().value(), 3.0 * power_of_two(-1000));
    }

    fn of(value: f64) -> Big {
        let (mantissa, exponent) = crate::exact::slot::parts(value);
        Big::from_i128(i128::from(mantissa), exponent)
    }
}
