//! DataFusion's functions, computed by the bundled libm.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array},
    compute::{binary, cast},
    datatypes::{ArrowPrimitiveType, DataType, FieldRef, Float32Type, Float64Type},
};
use datafusion::{
    common::ScalarValue,
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        interval_arithmetic::Interval,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};

use super::function::{Arity, Function};

/// `inner`, but from the bundled libm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Portable {
    inner: Arc<ScalarUDF>,
    function: Function,
}

impl Portable {
    /// `function` under the name and with the signature of `inner`.
    #[must_use]
    pub fn new(inner: Arc<ScalarUDF>, function: Function) -> Self {
        Self { inner, function }
    }

    /// The width to compute in: that of the result, 16 bits as 32.
    fn compute(&self, arrays: &[ArrayRef], result: &DataType) -> Result<ArrayRef> {
        let single = matches!(result, DataType::Float16 | DataType::Float32);
        let width = if single { DataType::Float32 } else { DataType::Float64 };
        let arrays = arrays.iter().map(|array| cast(array, &width)).collect::<Result<Vec<_>, _>>()?;
        self.check(&arrays)?;
        let values = match self.function.arity(arrays.len()) {
            Arity::One((_, f)) if single => one::<Float32Type>(&arrays, f)?,
            Arity::One((f, _)) => one::<Float64Type>(&arrays, f)?,
            Arity::Two((_, f)) if single => two::<Float32Type>(&arrays, f)?,
            Arity::Two((f, _)) => two::<Float64Type>(&arrays, f)?,
        };
        Ok(cast(&values, result)?)
    }

    /// As DataFusion, it refuses to divide by zero.
    fn check(&self, arrays: &[ArrayRef]) -> Result<()> {
        if let (Function::Power, [base, exponent]) = (self.function, arrays)
            && let Some((base, exponent)) = doubles(base).zip(doubles(exponent))
            && base.iter().zip(exponent).any(|row| matches!(row, (Some(0.0), Some(exponent)) if exponent < 0.0))
        {
            return Err(DataFusionError::Execution("zero raised to a negative power is undefined".into()));
        }
        Ok(())
    }
}

fn doubles(array: &ArrayRef) -> Option<&Float64Array> {
    array.as_primitive_opt::<Float64Type>()
}

fn one<T: ArrowPrimitiveType>(arrays: &[ArrayRef], f: impl Fn(T::Native) -> T::Native) -> Result<ArrayRef> {
    match arrays {
        [x] => Ok(Arc::new(x.as_primitive::<T>().unary::<_, T>(f))),
        _ => Err(arguments()),
    }
}

fn two<T: ArrowPrimitiveType>(arrays: &[ArrayRef], f: impl Fn(T::Native, T::Native) -> T::Native) -> Result<ArrayRef> {
    match arrays {
        [x, y] => Ok(Arc::new(binary::<_, _, _, T>(x.as_primitive::<T>(), y.as_primitive::<T>(), f)?)),
        _ => Err(arguments()),
    }
}

fn arguments() -> DataFusionError {
    DataFusionError::Execution("a function of floats got another number of arguments".into())
}

impl ScalarUDFImpl for Portable {
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

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let numeric = |field: &FieldRef| field.data_type().is_numeric();
        if !args.arg_fields.iter().all(numeric) || !args.return_type().is_floating() {
            return self.inner.invoke_with_args(args);
        }
        let result = args.return_type().clone();
        let constant = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays = args.args.into_iter().map(|value| value.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let values = self.compute(&arrays, &result)?;
        if constant && values.len() == 1 {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(values))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(input)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
