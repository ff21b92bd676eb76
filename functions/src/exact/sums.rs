//! Exact sums of many groups: a [`Slot`] each, and a [`Wide`] for the few whose values spread too far.

use datafusion::common::HashMap;

use super::{
    big::Big,
    block,
    slot::{Slot, parts},
    wide::Wide,
};

/// One value in so many that a slot cannot take makes it start again around that value.
const PATIENCE: u32 = 8;

/// Groups whose slots are fetched together.
pub const AHEAD: usize = 32;
/// Slots that stay in the processor's nearest caches anyway.
const CACHED: usize = 1 << 15;

/// A sum at its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Total {
    /// The exact sum.
    Finite(Big),
    /// There were NaNs or infinities: what they add up to.
    Special(f64),
}

impl Total {
    /// The nearest float.
    #[must_use]
    pub fn round(&self) -> f64 {
        match self {
            Self::Finite(sum) => sum.round(),
            Self::Special(value) => *value,
        }
    }

    /// The sum of two sums.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => Self::Finite(a.plus(b)),
            (Self::Special(a), Self::Special(b)) if a == b => Self::Special(*a),
            (Self::Special(_), Self::Special(_)) => Self::Special(f64::NAN),
            (Self::Special(a), _) | (_, Self::Special(a)) => Self::Special(*a),
        }
    }
}

/// Sums of groups that are numbered from 0.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    slots: Vec<Slot>,
    wides: HashMap<usize, Wide>,
    wide_bytes: usize,
}

impl Sums {
    /// Makes place for groups `0..groups`.
    pub fn reserve_groups(&mut self, groups: usize) {
        if groups > self.slots.len() {
            self.slots.resize(groups, Slot::default());
        }
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether `group` has a row.
    #[must_use]
    pub fn seen(&self, group: usize) -> bool {
        self.slots[group].seen()
    }

    /// Notes that `group` has a row.
    pub fn see(&mut self, group: usize) {
        self.slots[group].see();
    }

    /// Adds one row. The groups must have been reserved.
    #[inline(always)]
    pub fn add(&mut self, group: usize, value: f64) {
        if !self.slots[group].add_float(value) {
            self.add_rare(group, value);
        }
    }

    /// Adds `values[i]` to `groups[i]`.
    pub fn add_all(&mut self, groups: &[usize], values: &[f64]) {
        for (groups, values) in groups.chunks(AHEAD).zip(values.chunks(AHEAD)) {
            self.fetch(groups);
            for (group, value) in groups.iter().zip(values) {
                self.add(*group, *value);
            }
        }
    }

    /// Touches the slots of `groups` (best [`AHEAD`] of them) all at once: additions would wait for one after the other.
    #[inline(always)]
    pub fn fetch(&self, groups: &[usize]) {
        if self.slots.len() > CACHED {
            let touched = groups.iter().fold(false, |any, group| any ^ self.slots[*group].seen());
            std::hint::black_box(touched);
        }
    }

    /// Adds many rows to one group.
    pub fn add_block(&mut self, group: usize, values: &[f64]) {
        for chunk in values.chunks(block::ROWS) {
            block::extract(chunk, &mut |part| self.add(group, part));
        }
    }

    /// Takes one row back that was added before.
    pub fn retract(&mut self, group: usize, value: f64) {
        if value.is_finite() {
            let (mantissa, exponent) = parts(value);
            self.add_part(group, -mantissa, exponent);
        } else {
            self.add_special(group, value, -1);
        }
    }

    /// Adds `value * 2^exponent`, a value of at most 53 bits.
    #[inline]
    pub fn add_part(&mut self, group: usize, value: i64, exponent: i32) {
        if !self.slots[group].add(value, exponent) {
            self.add_far(group, i128::from(value), exponent);
        }
    }

    /// Adds `value * 2^exponent`, of any size.
    #[inline]
    pub fn add_long(&mut self, group: usize, value: i128, exponent: i32) {
        if !self.slots[group].add_long(value, exponent) {
            self.add_far(group, value, exponent);
        }
    }

    /// Adds a NaN or an infinity; `times` is -1 to take it back.
    pub fn add_special(&mut self, group: usize, value: f64, times: i64) {
        self.with_wide(group, |wide| wide.add_special(value, times));
    }

    /// Adds a long number.
    pub fn add_big(&mut self, group: usize, number: &Big) {
        self.with_wide(group, |wide| wide.add_big(number));
    }

    #[inline(never)]
    fn add_rare(&mut self, group: usize, value: f64) {
        self.slots[group].see();
        if value.is_finite() {
            let (mantissa, exponent) = parts(value);
            self.add_part(group, mantissa, exponent);
        } else {
            self.add_special(group, value, 1);
        }
    }

    #[cold]
    #[inline(never)]
    fn add_far(&mut self, group: usize, value: i128, exponent: i32) {
        let slot = &mut self.slots[group];
        if slot.realign(value, exponent) {
            return;
        }
        let (sum, base) = slot.sum();
        let misses = self.with_wide(group, |wide| {
            wide.add(value, exponent);
            wide.miss()
        });
        if misses % PATIENCE == 1 {
            // The next values are probably more like this one than like those in the slot.
            self.slots[group].restart(exponent);
            if sum != 0 {
                self.with_wide(group, |wide| wide.add(sum, base));
            }
        }
    }

    /// The sum of `group`.
    #[must_use]
    pub fn total(&self, group: usize) -> Total {
        let (sum, base) = self.slots[group].sum();
        let near = Big::from_i128(sum, base);
        match self.wides.get(&group) {
            None => Total::Finite(near),
            Some(wide) => match wide.special() {
                Some(value) => Total::Special(value),
                None => Total::Finite(wide.finite().plus(&near)),
            },
        }
    }

    /// The slot of `group`.
    #[must_use]
    pub fn slot(&self, group: usize) -> Slot {
        self.slots[group]
    }

    /// The sum of `group`, rounded.
    #[must_use]
    pub fn round(&self, group: usize) -> f64 {
        self.slots[group].round().unwrap_or_else(|| self.total(group).round())
    }

    /// The sum of `group` divided by `rows`, rounded once; NaN where that is zero.
    #[must_use]
    pub fn mean(&self, group: usize, rows: u64) -> f64 {
        self.slots[group].mean(rows).unwrap_or_else(|| match self.total(group) {
            Total::Finite(sum) => sum.divided_by(&Big::from_count(rows)),
            Total::Special(value) => value,
        })
    }

    /// The first `groups` groups leave; the others move down.
    #[must_use]
    pub fn take(&mut self, groups: usize) -> Self {
        if groups >= self.slots.len() {
            return std::mem::take(self);
        }
        let rest = self.slots.split_off(groups);
        let mut taken = Self { slots: std::mem::replace(&mut self.slots, rest), ..Self::default() };
        for (group, wide) in std::mem::take(&mut self.wides) {
            let (sums, group) = if group < groups { (&mut taken, group) } else { (&mut *self, group - groups) };
            sums.wides.insert(group, wide);
        }
        for sums in [self, &mut taken] {
            sums.wide_bytes = sums.wides.values().map(Wide::size).sum();
        }
        taken
    }

    /// Bytes of memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.wides.capacity() * size_of::<usize>() + self.wide_bytes
    }

    fn with_wide<T>(&mut self, group: usize, change: impl FnOnce(&mut Wide) -> T) -> T {
        let new = !self.slots[group].is_wide();
        self.slots[group].set_wide();
        let wide = self.wides.entry(group).or_default();
        let before = if new { 0 } else { wide.size() };
        let result = change(wide);
        self.wide_bytes += wide.size() - before;
        result
    }
}
