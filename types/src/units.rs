//! Work units: what a task is paid by.
//!
//! They follow from sizes that others vouch for (manifests on the way in, blocks the quorum agreed on on the way
//! out), never from time or from a worker's own counters, so a worker cannot inflate them.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// Rows and bytes that crossed a task's border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Volume {
    /// Rows.
    pub rows: u64,
    /// Bytes as stored (Parquet shards) or canonically encoded (blocks).
    pub bytes: u64,
}

impl Add for Volume {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { rows: self.rows.saturating_add(other.rows), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

impl AddAssign for Volume {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Volume {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}

/// A number of work units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkUnits(pub u64);

/// Bytes to a unit.
const BYTES_PER_UNIT: u64 = 4096;
/// Rows to a unit.
const ROWS_PER_UNIT: u64 = 256;

impl WorkUnits {
    /// Units of a task: `1 + ceil((bytes_in + bytes_out) / 4096) + ceil((rows_in + rows_out) / 256)`.
    ///
    /// One unit is about what a core scans, filters or hashes in ten microseconds; the constant pays for the task's
    /// fixed cost. The weights are part of the protocol: changing them needs a new receipt version.
    #[must_use]
    pub fn of(input: Volume, output: Volume) -> Self {
        let all = input + output;
        Self(1u64.saturating_add(all.bytes.div_ceil(BYTES_PER_UNIT)).saturating_add(all.rows.div_ceil(ROWS_PER_UNIT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_grow_with_rows_and_bytes_and_never_overflow() {
        let volume = |rows, bytes| Volume { rows, bytes };
        assert_eq!(WorkUnits::of(volume(0, 0), volume(0, 0)), WorkUnits(1));
        assert_eq!(WorkUnits::of(volume(256, 4096), volume(1, 1)), WorkUnits(1 + 2 + 2));
        assert!(WorkUnits::of(volume(u64::MAX, u64::MAX), volume(1, 1)).0 > 1 << 50);
    }
}
