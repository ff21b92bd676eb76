//! One group's sum in 16 bytes: 114 bits of fixed point and where they lie.

use super::big::power_of_two;

/// Bits of the tag: 12 for the base, one for [`WIDE`], one for [`SEEN`].
const TAG_BITS: u32 = 14;
const TAG: i128 = (1 << TAG_BITS) - 1;
const BASE: i128 = 0xfff;
const WIDE: i128 = 1 << 12;
const SEEN: i128 = 1 << 13;
/// Bits of the sum, its sign included.
const SUM_BITS: i32 = 128 - TAG_BITS as i32;
/// What the base is stored as: base + BIAS, so that 0 is no base yet.
const BIAS: i32 = 2300;

/// Bits kept free below the first value of a group, for smaller ones to come.
const ROOM_BELOW: i32 = 28;
/// Most bits by which a value is shifted up into a slot: 53 + 49 leaves eleven for carries.
const ROOM_ABOVE: u32 = 49;
/// Highest base of a slot. The exponent of NaNs and infinities ([`parts`]) lies beyond its reach: they need no test.
const MAX_BASE: i32 = 972 - ROOM_ABOVE as i32 - 1;
/// Lowest base from which a mean cannot be subnormal.
const MIN_QUICK_BASE: i32 = -900;

/// `sum * 2^base`, in one word: the sum above, the tag below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot(i128);

/// A float as `mantissa * 2^exponent`. For NaN and infinities the exponent is 972, above that of any finite one.
#[must_use]
#[inline(always)]
pub fn parts(value: f64) -> (i64, i32) {
    let bits = value.to_bits();
    let field = ((bits >> 52) & 0x7ff) as i32;
    let normal = i32::from(field != 0);
    let magnitude = (bits & ((1 << 52) - 1)) | (normal as u64) << 52;
    let sign = (bits as i64) >> 63;
    ((magnitude as i64 ^ sign) - sign, field - normal - 1074)
}

impl Slot {
    /// Whether a row was added.
    #[must_use]
    pub fn seen(self) -> bool {
        self.0 & SEEN != 0
    }

    /// Notes that a row was added.
    pub fn see(&mut self) {
        self.0 |= SEEN;
    }

    /// Whether more of the sum is elsewhere.
    #[must_use]
    pub fn is_wide(self) -> bool {
        self.0 & WIDE != 0
    }

    /// Notes that more of the sum is elsewhere.
    pub fn set_wide(&mut self) {
        self.0 |= WIDE;
    }

    /// `sum * 2^base`; where the sum is zero, the base means nothing.
    #[must_use]
    pub fn sum(self) -> (i128, i32) {
        (self.0 >> TAG_BITS, self.base())
    }

    fn base(self) -> i32 {
        (self.0 & BASE) as i32 - BIAS
    }

    fn set(&mut self, sum: i128, base: i32) {
        self.0 = sum << TAG_BITS | (self.0 & TAG & !BASE) | i128::from(base + BIAS);
    }

    /// Starts again, at a base for values like one with this `exponent`.
    pub fn restart(&mut self, exponent: i32) {
        self.set(0, first_base(exponent, ROOM_BELOW));
    }

    /// Adds one row, if it is within reach; true if it was. Zeros, subnormal and first values never are: they are the
    /// few for which more would have to be computed.
    #[inline(always)]
    pub fn add_float(&mut self, value: f64) -> bool {
        let bits = value.to_bits();
        let field = ((bits >> 52) & 0x7ff) as i32;
        let magnitude = ((bits & ((1 << 52) - 1)) | 1 << 52) as i64;
        let sign = (bits as i64) >> 63;
        let shift = (field - 1075).wrapping_sub(self.base()) as u32;
        if shift > ROOM_ABOVE || field == 0 {
            return false;
        }
        let (sum, overflow) = self.0.overflowing_add(raised((magnitude ^ sign) - sign, shift));
        if !overflow {
            self.0 = sum | SEEN;
        }
        !overflow
    }

    /// Adds `value * 2^exponent`, a value of at most 53 bits, if it is within reach; true if it was.
    #[inline(always)]
    pub fn add(&mut self, value: i64, exponent: i32) -> bool {
        let first = self.0 & BASE == 0 && value != 0;
        let base = if first { first_base(exponent, ROOM_BELOW) } else { self.base() };
        let shift = exponent.wrapping_sub(base) as u32;
        // A zero is within reach of any slot: shifted by anything, it adds nothing.
        let fits = shift <= ROOM_ABOVE || value == 0;
        self.place(raised(value, shift), base, first, fits)
    }

    /// Adds `value * 2^exponent`, of any size, if it is within reach; true if it was.
    #[inline(always)]
    pub fn add_long(&mut self, value: i128, exponent: i32) -> bool {
        let room = value.unsigned_abs().leading_zeros() as i32 - TAG_BITS as i32 - 1;
        let first = self.0 & BASE == 0 && value != 0;
        let base = if first { first_base(exponent, room.clamp(0, ROOM_BELOW)) } else { self.base() };
        let shift = exponent.wrapping_sub(base) as u32;
        let fits = (room >= 0 && shift <= room.unsigned_abs()) || value == 0;
        self.place(value << (TAG_BITS.wrapping_add(shift) % 128), base, first, fits)
    }

    #[inline(always)]
    fn place(&mut self, addend: i128, base: i32, first: bool, fits: bool) -> bool {
        let (sum, overflow) = self.0.overflowing_add(addend);
        let fits = fits && !overflow;
        if fits {
            self.0 = sum | if first { i128::from(base + BIAS) } else { 0 };
        }
        fits
    }

    /// Adds a number that is not within reach, by a lower base or a longer shift; false where that takes too many bits.
    pub fn realign(&mut self, value: i128, exponent: i32) -> bool {
        let (sum, old) = self.sum();
        if value == 0 {
            return true;
        }
        let zeros = value.trailing_zeros();
        let (value, exponent) = (value >> zeros, exponent + zeros as i32);
        let base = if sum == 0 { exponent } else { old.min(exponent) };
        let both = shifted(sum, old - base).zip(shifted(value, exponent - base));
        match both.and_then(|(a, b)| a.checked_add(b)).filter(|sum| bits(*sum) < SUM_BITS) {
            Some(sum) if base <= MAX_BASE && base + BIAS > 0 => {
                self.set(sum, base);
                true
            }
            _ => false,
        }
    }

    /// The float nearest to the sum, where the slot can tell.
    #[must_use]
    pub fn round(self) -> Option<f64> {
        let (sum, base) = self.sum();
        match sum {
            _ if self.is_wide() => None,
            0 => Some(0.0),
            // Multiples of the smallest float: the conversion rounds (to nearest, ties to even), scaling is exact.
            sum => (base >= -1074).then(|| sum as f64 * power_of_two(base)),
        }
    }

    /// The float nearest to the sum divided by `rows`, where the slot can tell.
    #[must_use]
    pub fn mean(self, rows: u64) -> Option<f64> {
        let (sum, base) = self.sum();
        match sum {
            _ if self.is_wide() || rows == 0 => return None,
            0 => return Some(0.0),
            _ if base < MIN_QUICK_BASE => return None,
            _ => {}
        }
        // A quotient of at least 64 bits, its last one set where anything follows, rounds as the whole would.
        let zeros = sum.unsigned_abs().leading_zeros();
        let (dividend, rows) = (sum.unsigned_abs() << zeros, u128::from(rows));
        let quotient = (dividend / rows) | u128::from(dividend % rows != 0);
        let magnitude = quotient as f64 * power_of_two(base - zeros as i32);
        Some(if sum < 0 { -magnitude } else { magnitude })
    }

    /// The sum in its one normal form, an odd number or zero, as it is in states; `None` where it has other parts.
    #[must_use]
    pub fn normal(self) -> Option<i128> {
        let (sum, base) = self.sum();
        (!self.is_wide()).then(|| normal(sum, base)).flatten()
    }
}

/// `sum * 2^base` as one word; `None` where it does not fit.
#[must_use]
pub fn normal(sum: i128, base: i32) -> Option<i128> {
    if sum == 0 {
        return Some(0);
    }
    let zeros = sum.trailing_zeros();
    let (sum, code) = (sum >> zeros, base + zeros as i32 + BIAS);
    let fits = bits(sum) < SUM_BITS && (1..=BASE as i32).contains(&code);
    fits.then(|| sum << TAG_BITS | i128::from(code))
}

/// What [`normal`] made, back again; `None` where it did not make it.
#[must_use]
pub fn of_normal(word: i128) -> Option<(i128, i32)> {
    let (sum, code) = (word >> TAG_BITS, word & TAG);
    let valid = word == 0 || (sum & 1 == 1 && (1..=BASE).contains(&code));
    valid.then_some((sum, code as i32 - BIAS))
}

fn first_base(exponent: i32, room: i32) -> i32 {
    (exponent - room).min(MAX_BASE)
}

/// Bits without the sign.
fn bits(value: i128) -> i32 {
    128 - value.unsigned_abs().leading_zeros() as i32
}

/// `value << (TAG_BITS + shift)`, by 14 to 63: two shifts of words, where one of a long number would have to tell more
/// cases apart.
#[inline(always)]
fn raised(value: i64, shift: u32) -> i128 {
    let by = TAG_BITS.wrapping_add(shift) & 63;
    i128::from(value >> (63 - by) >> 1) << 64 | i128::from((value as u64) << by)
}

/// `value << by` if nothing is lost.
fn shifted(value: i128, by: i32) -> Option<i128> {
    if value == 0 { Some(0) } else { (bits(value) + by < 128).then(|| value << by) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_in_parts() {
        assert_eq!(parts(1.0), (1 << 52, -52));
        assert_eq!(parts(-5e-324), (-1, -1074));
        assert_eq!(parts(-0.0), (0, -1074));
        assert_eq!(parts(f64::NAN).1, 972);
        assert_eq!(parts(f64::MAX), ((1 << 53) - 1, 971));
    }

    #[test]
    fn what_is_out_of_reach_is_refused() {
        let mut slot = Slot::default();
        for value in [1.0, 3e-8, 0.0, -1e6] {
            let (value, exponent) = parts(value);
            assert!(slot.add(value, exponent));
        }
        for value in [1e-300, 1e300, f64::NAN, f64::INFINITY, f64::MAX] {
            let (value, exponent) = parts(value);
            assert!(!slot.add(value, exponent) && !Slot::default().add(1 << 52, 972));
        }
        assert_eq!(slot.round(), Some(1.0 + 3e-8 - 1e6));
        let mut low = Slot::default();
        assert!(low.add(1, -1074) && !low.add_float(0.0) && !low.add_float(5e-324), "near a low base, too");
        assert!(slot.realign(1, -60), "a small value without many digits fits");
        assert!(!slot.realign(1, -500));
    }

    #[test]
    fn carries_do_not_reach_the_tag_nor_leave_the_sum() {
        let mut slot = Slot::default();
        let (big, exponent) = parts(-f64::from_bits(0x41ef_ffff_ffff_ffff));
        let mut added = 0u32;
        slot.see();
        assert!(slot.add(1 << 52, -52));
        while slot.add(big, exponent) {
            added += 1;
            assert!(added < 1 << 30);
        }
        assert_eq!(slot.mean(1), Some(f64::from(added) * -f64::from_bits(0x41ef_ffff_ffff_ffff) + 1.0));
        assert!(slot.seen() && !slot.is_wide());
    }

    #[test]
    fn normal_forms_come_back() {
        for (sum, base) in [(0, 5), (1, 0), (-96, -3), (i128::MAX >> 15, -1074), (i128::MIN >> 15, 3)] {
            let word = normal(sum, base).unwrap();
            let (sum_back, base_back) = of_normal(word).unwrap();
            assert_eq!(sum_back << (base_back - base).max(0), if sum == 0 { 0 } else { sum });
        }
        assert_eq!(normal(1 << 126 | 1, 0), None);
        assert_eq!(of_normal(2 << TAG_BITS | 9), None);
        assert_eq!(of_normal(1 << TAG_BITS), None);
    }
}
