//! One group: without GROUP BY, and in windows, where rows leave again.

use arrow::array::ArrayRef;
use datafusion::{common::ScalarValue, error::Result, logical_expr::Accumulator};

use super::{
    kind::Kind,
    moments::{Groups, Moments},
};

/// A function over all rows. Rows leave exactly as they came: what remains is what would be, had they never been there.
#[derive(Debug)]
pub struct ExactAccumulator {
    kind: Kind,
    moments: Moments,
}

impl ExactAccumulator {
    /// Without rows yet.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, moments: Moments::of_one_group(kind) }
    }
}

impl Accumulator for ExactAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.moments.add(values, Groups::One, None)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(match self.kind {
            Kind::Count => ScalarValue::UInt64(Some(self.moments.count(0))),
            _ => ScalarValue::Float64(self.moments.value(0)),
        })
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.moments.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.moments.states()?.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.moments.merge(states, Groups::One)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.moments.retract(values)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }
}
