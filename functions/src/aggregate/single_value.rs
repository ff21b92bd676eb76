//! The value of the only row, as SQL wants it of a subquery that stands for a value: more rows than one are an error.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    common::ScalarValue,
    error::{DataFusionError, Result},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
};

/// The function. Without a row it is NULL.
#[must_use]
pub fn single_value() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(SingleValue { signature: Signature::any(1, Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleValue {
    signature: Signature,
}

impl AggregateUDFImpl for SingleValue {
    fn name(&self) -> &'static str {
        "single value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        arg_types.first().cloned().ok_or_else(|| DataFusionError::Plan("a single value of nothing".into()))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Only { value: ScalarValue::try_from(args.return_field.data_type())?, seen: false }))
    }

    /// The value, and whether there was a row.
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let value = args.return_field.as_ref().clone().with_name(format_state_name(args.name, "value"));
        let seen = Field::new(format_state_name(args.name, "seen"), DataType::Boolean, true);
        Ok(vec![Arc::new(value.with_nullable(true)), Arc::new(seen)])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[derive(Debug)]
struct Only {
    value: ScalarValue,
    seen: bool,
}

impl Only {
    fn see(&mut self, values: &ArrayRef, row: usize) -> Result<()> {
        if std::mem::replace(&mut self.seen, true) {
            return Err(DataFusionError::Execution("a scalar subquery gave more than one row".into()));
        }
        self.value = ScalarValue::try_from_array(values, row)?;
        self.value.compact();
        Ok(())
    }
}

impl Accumulator for Only {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        // The second is where it ends.
        (0..values[0].len().min(2)).try_for_each(|row| self.see(&values[0], row))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let seen = states[1].as_boolean();
        (0..seen.len())
            .filter(|row| seen.is_valid(*row) && seen.value(*row))
            .try_for_each(|row| self.see(&states[0], row))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), ScalarValue::Boolean(Some(self.seen))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size() - size_of_val(&self.value)
    }
}
