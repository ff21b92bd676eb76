//! Aggregates that take the condition of their `FILTER` as their first argument: DataFusion's encoding of plans leaves the
//! filters of windows out.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::{filter, prep_null_mask_filter},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    common::ScalarValue,
    error::{DataFusionError, Result},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        type_coercion::functions::fields_with_udf,
        utils::AggregateOrderSensitivity,
    },
};

/// `function` of the rows for which its first argument is true; the others are those of `function`.
#[must_use]
pub fn filtered(function: &Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    let name = format!("{} filtered", function.name());
    let inner = function.clone();
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(Filtered { inner, name, signature }))
}

/// `inner` of the rows that a condition holds for.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Filtered {
    inner: Arc<AggregateUDF>,
    name: String,
    signature: Signature,
}

/// All but the condition.
fn rest<T>(args: &[T]) -> Result<&[T]> {
    args.get(1..)
        .filter(|rest| !rest.is_empty())
        .ok_or_else(|| DataFusionError::Plan("a filtered aggregate takes a condition and a value".into()))
}

fn inner_args<'a>(args: AccumulatorArgs<'a>) -> Result<AccumulatorArgs<'a>> {
    Ok(AccumulatorArgs { exprs: rest(args.exprs)?, expr_fields: rest(args.expr_fields)?, ..args })
}

impl AggregateUDFImpl for Filtered {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(rest(arg_types)?)
    }

    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(rest(arg_fields)?)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(FilteredAccumulator(self.inner.accumulator(inner_args(args)?)?)))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(FilteredAccumulator(self.inner.create_sliding_accumulator(inner_args(args)?)?)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(StateFieldsArgs { input_fields: rest(args.input_fields)?, ..args })
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let field = |data_type: &DataType| Arc::new(Field::new("argument", data_type.clone(), true));
        let fields = rest(arg_types)?.iter().map(field).collect::<Vec<_>>();
        let fields = fields_with_udf(&fields, self.inner.as_ref())?;
        let types = fields.iter().map(|field| field.data_type().clone());
        Ok(std::iter::once(DataType::Boolean).chain(types).collect())
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }
}

#[derive(Debug)]
struct FilteredAccumulator(Box<dyn Accumulator>);

/// The values of the rows whose condition is true; NULL is not.
fn chosen(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let condition = values.first().and_then(|array| array.as_boolean_opt());
    let condition = condition.ok_or_else(|| DataFusionError::Plan("a condition that is no Boolean".into()))?;
    let condition = if condition.null_count() > 0 { &prep_null_mask_filter(condition) } else { condition };
    Ok(rest(values)?.iter().map(|array| filter(array, condition)).collect::<Result<_, _>>()?)
}

impl Accumulator for FilteredAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(&chosen(values)?)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.retract_batch(&chosen(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.0.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.evaluate()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }
}
