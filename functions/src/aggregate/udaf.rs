//! DataFusion's functions with exact accumulators for floats.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::{
    common::ScalarValue,
    error::{DataFusionError, Result},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Expr, GroupsAccumulator, Operator, ReversedUDAF,
        SetMonotonicity, Signature, StatisticsArgs,
        expr::AggregateFunction,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
};

use super::{
    distinct::DistinctAccumulator, groups::ExactGroups, kind::Kind, moments::state_types, single::ExactAccumulator,
};

/// `inner`, but exact where the arguments are floats.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reproducible {
    inner: Arc<AggregateUDF>,
    kind: Kind,
}

impl Reproducible {
    /// `kind` under the name and with the signature of `inner`.
    #[must_use]
    pub fn new(inner: Arc<AggregateUDF>, kind: Kind) -> Self {
        Self { inner, kind }
    }

    fn is_exact(&self, arguments: &[FieldRef]) -> bool {
        arguments.iter().all(|field| *field.data_type() == DataType::Float64)
    }

    fn one_group(&self, distinct: bool) -> Result<Box<dyn Accumulator>> {
        match (distinct, self.kind.arguments()) {
            (false, _) => Ok(Box::new(ExactAccumulator::new(self.kind))),
            (true, 1) => Ok(Box::new(DistinctAccumulator::new(self.kind))),
            _ => Err(DataFusionError::NotImplemented(format!("{}(DISTINCT ..) of pairs", self.inner.name()))),
        }
    }
}

impl AggregateUDFImpl for Reproducible {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(arg_fields)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if self.is_exact(args.expr_fields) { self.one_group(args.is_distinct) } else { self.inner.accumulator(args) }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if self.is_exact(args.expr_fields) {
            self.one_group(args.is_distinct)
        } else {
            self.inner.create_sliding_accumulator(args)
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !self.is_exact(args.input_fields) {
            return self.inner.state_fields(args);
        }
        let field = |(what, data_type): (&str, DataType)| {
            Arc::new(Field::new(format_state_name(args.name, what), data_type, true))
        };
        if args.is_distinct {
            let item = Field::new_list_field(DataType::Float64, true);
            return Ok(vec![field(("distinct", DataType::List(Arc::new(item))))]);
        }
        Ok(state_types(self.kind).into_iter().map(field).collect())
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        if self.is_exact(args.expr_fields) { !args.is_distinct } else { self.inner.groups_accumulator_supported(args) }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if self.is_exact(args.expr_fields) {
            Ok(Box::new(ExactGroups::new(self.kind)))
        } else {
            self.inner.create_groups_accumulator(args)
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    /// `sum(x + 1)` as `sum(x) + count(x)`: for integers. A float would be rounded in another place, depending on what
    /// else the query asks for.
    fn simplify_expr_op_literal(
        &self,
        function: &AggregateFunction,
        argument: &Expr,
        op: Operator,
        literal: &Expr,
        argument_is_left: bool,
    ) -> Result<Option<Expr>> {
        match literal {
            Expr::Literal(value, _) if value.data_type().is_integer() => {
                self.inner.simplify_expr_op_literal(function, argument, op, literal, argument_is_left)
            }
            _ => Ok(None),
        }
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    /// Statistics of float columns are sums in some order.
    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        let exact = !args.return_type.is_floating();
        exact.then(|| self.inner.value_from_stats(args)).flatten()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
