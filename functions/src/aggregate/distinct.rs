//! DISTINCT: each value once. Zeros of both signs are one value, and so are all NaNs.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Float64Array},
    datatypes::Float64Type,
};
use datafusion::{
    common::{ScalarValue, utils::SingleRowListArrayBuilder},
    error::{DataFusionError, Result},
    logical_expr::Accumulator,
};

use super::{
    kind::Kind,
    moments::{Groups, Moments},
};

/// A function of one argument over its distinct values.
#[derive(Debug)]
pub struct DistinctAccumulator {
    kind: Kind,
    /// Bits of a value, and how many rows have it.
    values: HashMap<u64, u64>,
}

impl DistinctAccumulator {
    /// Without rows yet.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, values: HashMap::new() }
    }

    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        for value in floats(values)?.iter().flatten() {
            *self.values.entry(key(value)).or_default() += 1;
        }
        Ok(())
    }

    /// The values, sorted: a set has no order of its own.
    fn sorted(&self) -> ArrayRef {
        let mut values: Vec<f64> = self.values.keys().map(|bits| f64::from_bits(*bits)).collect();
        values.sort_unstable_by(f64::total_cmp);
        Arc::new(Float64Array::from(values))
    }
}

fn key(value: f64) -> u64 {
    let value = if value.is_nan() { f64::NAN } else { value };
    // Turns -0.0 into 0.0, and nothing else into anything.
    (value + 0.0).to_bits()
}

fn floats(array: &ArrayRef) -> Result<&Float64Array> {
    let floats = array.as_primitive_opt::<Float64Type>();
    floats.ok_or_else(|| DataFusionError::Execution("a DISTINCT float aggregate got another type".into()))
}

impl Accumulator for DistinctAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values.iter().take(1).try_for_each(|values| self.add(values))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut moments = Moments::new(self.kind);
        moments.reserve_groups(1);
        moments.add(&[self.sorted()], Groups::One, None)?;
        Ok(ScalarValue::Float64(moments.value(0)))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.values.capacity() * size_of::<(u64, u64, u8)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![SingleRowListArrayBuilder::new(self.sorted()).with_nullable(true).build_list_scalar()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(lists) = states.first().and_then(|states| states.as_list_opt::<i32>()) else {
            return Err(DataFusionError::Execution("a DISTINCT float aggregate got no lists".into()));
        };
        lists.iter().flatten().try_for_each(|values| self.add(&values))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for values in values.iter().take(1) {
            for value in floats(values)?.iter().flatten() {
                let key = key(value);
                match self.values.get_mut(&key) {
                    Some(rows) if *rows > 1 => *rows -= 1,
                    _ => drop(self.values.remove(&key)),
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }
}
