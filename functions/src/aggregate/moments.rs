//! The sums behind a function, for many groups at once.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, UInt64Array},
    buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Float64Type, UInt64Type},
};
use datafusion::error::{DataFusionError, Result};

use super::{
    finish::finish,
    kind::{Kind, Moment},
};
use crate::exact::{Sums, Total, slot::parts, state, sums::AHEAD};

/// Low bits of a product of two mantissas that are summed apart from the high ones.
const HALF: u32 = 53;

/// To which group each row belongs.
#[derive(Debug, Clone, Copy)]
pub enum Groups<'a> {
    /// All to group 0.
    One,
    /// One number a row.
    Each(&'a [usize]),
}

/// Exact sums of all moments of a function.
#[derive(Debug, Clone)]
pub struct Moments {
    kind: Kind,
    /// Whether rows are counted, not only seen: where the function asks for it, or where rows leave again.
    counting: bool,
    counts: Vec<u64>,
    groups: usize,
    columns: Vec<Column>,
}

/// Sums of one moment. Products have 106 bits: their halves are summed apart, since a slot is made for 53.
#[derive(Debug, Clone)]
struct Column {
    moment: Moment,
    high: Sums,
    low: Sums,
}

impl Moments {
    /// Those of `kind`, without groups.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let column = |moment: &Moment| Column { moment: *moment, high: Sums::default(), low: Sums::default() };
        let columns = kind.moments().iter().map(column).collect();
        Self { kind, counting: kind.has_count(), counts: Vec::new(), groups: 0, columns }
    }

    /// Those of `kind` for one group, from which rows can be taken back.
    #[must_use]
    pub fn of_one_group(kind: Kind) -> Self {
        let mut moments = Self { counting: true, ..Self::new(kind) };
        moments.reserve_groups(1);
        moments
    }

    /// Makes place for groups `0..groups`.
    pub fn reserve_groups(&mut self, groups: usize) {
        if groups <= self.groups {
            return;
        }
        self.groups = groups;
        if self.counting {
            self.counts.resize(groups, 0);
        }
        self.columns.iter_mut().for_each(|column| column.reserve_groups(groups));
    }

    /// How many groups there are.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Adds the rows in which all arguments are valid and `filter` is true. The groups must have been reserved.
    ///
    /// # Errors
    /// Where the arguments are no floats.
    pub fn add(&mut self, arguments: &[ArrayRef], groups: Groups, filter: Option<&BooleanArray>) -> Result<()> {
        let rows = Rows::new(self.kind, arguments, groups, filter)?;
        if self.counting {
            rows.count(&mut self.counts);
        }
        self.columns.iter_mut().for_each(|column| column.add_rows(&rows));
        Ok(())
    }

    /// Takes rows back that were added before, of [`Self::of_one_group`].
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn retract(&mut self, arguments: &[ArrayRef]) -> Result<()> {
        let rows = Rows::new(self.kind, arguments, Groups::One, None)?;
        if let Some(count) = self.counts.first_mut() {
            rows.for_each(|_, _, _| *count = count.wrapping_sub(1));
        }
        for column in &mut self.columns {
            rows.for_each(|_, a, b| column.retract(a, b));
        }
        Ok(())
    }

    /// Rows of `group`, or one for any where they are not counted.
    #[must_use]
    pub fn count(&self, group: usize) -> u64 {
        match self.columns.first() {
            Some(column) if !self.counting => u64::from(column.high.seen(group)),
            _ => self.counts[group],
        }
    }

    /// The function's value for `group`; `None` is NULL.
    #[must_use]
    pub fn value(&self, group: usize) -> Option<f64> {
        let rows = self.count(group);
        match (self.kind, self.columns.as_slice()) {
            (Kind::Sum, [only]) => (rows > 0).then(|| only.high.round(group)),
            (Kind::Avg | Kind::AvgX | Kind::AvgY, [only]) => (rows > 0).then(|| only.high.mean(group, rows)),
            (kind, columns) => {
                let totals: Vec<Total> = columns.iter().map(|column| column.total(group)).collect();
                finish(kind, rows, &totals)
            }
        }
    }

    /// The values of all groups.
    #[must_use]
    pub fn values(&self) -> ArrayRef {
        let groups = 0..self.groups();
        if self.kind == Kind::Count {
            return Arc::new(UInt64Array::from_iter_values(groups.map(|group| self.count(group))));
        }
        Arc::new(Float64Array::from_iter(groups.map(|group| self.value(group))))
    }

    /// The partial states of all groups: rows (but for [`Kind::Sum`]), then one encoded sum a moment.
    ///
    /// # Errors
    /// Where the states of one batch take more than 2 GiB.
    pub fn states(&self) -> Result<Vec<ArrayRef>> {
        let groups = 0..self.groups();
        let mut states: Vec<ArrayRef> = Vec::with_capacity(self.columns.len() + 1);
        let mut nulls = None;
        if self.kind.has_count() {
            states.push(Arc::new(UInt64Array::from_iter_values(groups.clone().map(|group| self.count(group)))));
        } else if groups.clone().any(|group| self.count(group) == 0) {
            nulls = Some(groups.clone().map(|group| self.count(group) > 0).collect::<NullBuffer>());
        }
        for column in &self.columns {
            states.push(column.states(groups.clone(), nulls.clone())?);
        }
        Ok(states)
    }

    /// Adds partial states.
    ///
    /// # Errors
    /// Where they are not what [`Self::states`] makes.
    pub fn merge(&mut self, states: &[ArrayRef], groups: Groups) -> Result<()> {
        let sums = if self.kind.has_count() {
            let (counts, sums) = states.split_first().ok_or_else(malformed)?;
            self.merge_counts(counts.as_primitive_opt::<UInt64Type>().ok_or_else(malformed)?, groups);
            sums
        } else {
            states
        };
        if sums.len() != self.columns.len() {
            return Err(malformed());
        }
        for (column, states) in self.columns.iter_mut().zip(sums) {
            let states = states.as_binary_opt::<i32>().ok_or_else(malformed)?;
            column.merge(states, groups)?;
            if self.counting && !self.kind.has_count() {
                states
                    .iter()
                    .enumerate()
                    .filter(|(_, s)| s.is_some())
                    .for_each(|(row, _)| self.counts[groups.of(row)] += 1);
            }
        }
        Ok(())
    }

    fn merge_counts(&mut self, counts: &UInt64Array, groups: Groups) {
        for (row, rows) in counts.iter().enumerate() {
            let count = &mut self.counts[groups.of(row)];
            *count = count.wrapping_add(rows.unwrap_or(0));
        }
    }

    /// The first `groups` groups leave; the others move down.
    #[must_use]
    pub fn take(&mut self, groups: usize) -> Self {
        let groups = groups.min(self.groups);
        self.groups -= groups;
        let rest = self.counts.split_off(groups.min(self.counts.len()));
        Self {
            kind: self.kind,
            counting: self.counting,
            counts: std::mem::replace(&mut self.counts, rest),
            groups,
            columns: self.columns.iter_mut().map(|column| column.take(groups)).collect(),
        }
    }

    /// Bytes of memory.
    #[must_use]
    pub fn size(&self) -> usize {
        let columns = self.columns.iter().map(|c| size_of::<Column>() + c.high.size() + c.low.size());
        self.counts.capacity() * size_of::<u64>() + columns.sum::<usize>()
    }
}

impl Groups<'_> {
    fn of(self, row: usize) -> usize {
        match self {
            Self::One => 0,
            Self::Each(groups) => groups[row],
        }
    }
}

/// The rows of a batch.
struct Rows<'a> {
    a: &'a [f64],
    b: &'a [f64],
    groups: Groups<'a>,
    /// Rows that count; `None`: all.
    mask: Option<BooleanBuffer>,
}

impl<'a> Rows<'a> {
    fn new(kind: Kind, arguments: &'a [ArrayRef], groups: Groups<'a>, filter: Option<&BooleanArray>) -> Result<Self> {
        let float = |array: &'a ArrayRef| array.as_primitive_opt::<Float64Type>().ok_or_else(malformed);
        let arrays = arguments.iter().map(float).collect::<Result<Vec<_>>>()?;
        let (a, b) = match (arrays.as_slice(), kind.arguments()) {
            ([a], 1) => (*a, *a),
            ([a, b], 2) => (*a, *b),
            _ => return Err(malformed()),
        };
        let nulls = NullBuffer::union(a.nulls(), b.nulls()).filter(|nulls| nulls.null_count() > 0);
        let filter = filter.map(|filter| match filter.nulls() {
            Some(nulls) => filter.values() & nulls.inner(),
            None => filter.values().clone(),
        });
        let mask = match (nulls, filter) {
            (None, filter) => filter,
            (Some(nulls), None) => Some(nulls.into_inner()),
            (Some(nulls), Some(filter)) => Some(nulls.inner() & &filter),
        };
        Ok(Self { a: a.values(), b: b.values(), groups, mask })
    }

    fn count(&self, counts: &mut [u64]) {
        match (&self.mask, self.groups) {
            (mask, Groups::One) => {
                counts[0] += mask.as_ref().map_or(self.a.len(), BooleanBuffer::count_set_bits) as u64;
            }
            (None, Groups::Each(groups)) => groups.iter().for_each(|group| counts[*group] += 1),
            _ => self.for_each(|group, _, _| counts[group] += 1),
        }
    }

    #[inline(always)]
    fn for_each(&self, mut row: impl FnMut(usize, f64, f64)) {
        let mut visit = |i: usize| row(self.groups.of(i), self.a[i], self.b[i]);
        match &self.mask {
            None => (0..self.a.len()).for_each(&mut visit),
            Some(mask) => mask.set_indices().for_each(&mut visit),
        }
    }
}

impl Column {
    fn reserve_groups(&mut self, groups: usize) {
        self.high.reserve_groups(groups);
        if self.is_product() {
            self.low.reserve_groups(groups);
        }
    }

    fn is_product(&self) -> bool {
        matches!(self.moment, Moment::AA | Moment::AB | Moment::BB)
    }

    fn add_rows(&mut self, rows: &Rows) {
        match self.moment {
            Moment::Rows => {}
            Moment::A => self.add_values(rows, rows.a),
            Moment::B => self.add_values(rows, rows.b),
            Moment::AA => rows.for_each(|group, a, _| self.add_product(group, a, a, 1)),
            Moment::AB => rows.for_each(|group, a, b| self.add_product(group, a, b, 1)),
            Moment::BB => rows.for_each(|group, _, b| self.add_product(group, b, b, 1)),
        }
    }

    fn add_values(&mut self, rows: &Rows, values: &[f64]) {
        let one = self.high.len() == 1;
        match (&rows.mask, rows.groups) {
            (None, Groups::Each(groups)) if !one => self.high.add_all(groups, values),
            (None, _) => self.high.add_block(0, values),
            (Some(mask), _) if one => {
                let values: Vec<f64> = mask.set_indices().map(|row| values[row]).collect();
                self.high.add_block(0, &values);
            }
            (Some(mask), groups) => mask.set_indices().for_each(|row| self.high.add(groups.of(row), values[row])),
        }
    }

    fn add_product(&mut self, group: usize, a: f64, b: f64, times: i64) {
        if !(a.is_finite() && b.is_finite()) {
            return self.high.add_special(group, a * b, times);
        }
        let ((a, exponent_a), (b, exponent_b)) = (parts(a), parts(b));
        let product = i128::from(a * times) * i128::from(b);
        let exponent = exponent_a + exponent_b;
        self.high.add_part(group, (product >> HALF) as i64, exponent + HALF as i32);
        self.low.add_part(group, (product as i64) & ((1 << HALF) - 1), exponent);
    }

    fn retract(&mut self, a: f64, b: f64) {
        match self.moment {
            Moment::Rows => {}
            Moment::A => self.high.retract(0, a),
            Moment::B => self.high.retract(0, b),
            Moment::AA => self.add_product(0, a, a, -1),
            Moment::AB => self.add_product(0, a, b, -1),
            Moment::BB => self.add_product(0, b, b, -1),
        }
    }

    fn total(&self, group: usize) -> Total {
        let high = self.high.total(group);
        if self.is_product() { high.plus(&self.low.total(group)) } else { high }
    }

    fn states(&self, groups: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let mut bytes = Vec::with_capacity(groups.len() * 12);
        let mut offsets = Vec::with_capacity(groups.len() + 1);
        offsets.push(0i32);
        for group in groups {
            if self.is_product() {
                state::encode(&self.total(group), &mut bytes);
            } else {
                state::encode_group(&self.high, group, &mut bytes);
            }
            offsets.push(i32::try_from(bytes.len()).map_err(|_| too_large())?);
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        Ok(Arc::new(BinaryArray::try_new(offsets, Buffer::from_vec(bytes), nulls)?))
    }

    fn merge(&mut self, states: &BinaryArray, groups: Groups) -> Result<()> {
        for row in 0..states.len() {
            if let (Groups::Each(groups), 0) = (groups, row % AHEAD) {
                self.high.fetch(&groups[row..groups.len().min(row + AHEAD)]);
            }
            if states.is_valid(row) {
                let group = groups.of(row);
                self.high.see(group);
                state::merge(&mut self.high, group, states.value(row))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, groups: usize) -> Self {
        Self { moment: self.moment, high: self.high.take(groups), low: self.low.take(groups) }
    }
}

/// The types of [`Moments::states`], with the names of what they hold.
#[must_use]
pub fn state_types(kind: Kind) -> Vec<(&'static str, DataType)> {
    let count = kind.has_count().then_some(("count", DataType::UInt64));
    count.into_iter().chain(kind.moments().iter().map(|moment| (moment.name(), DataType::Binary))).collect()
}

fn malformed() -> DataFusionError {
    DataFusionError::Execution("a float aggregate got arguments or states of another type".into())
}

fn too_large() -> DataFusionError {
    DataFusionError::ResourcesExhausted("the states of a float aggregate take more than 2 GiB".into())
}
