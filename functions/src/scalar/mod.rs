//! Transcendental functions from one bundled libm, under their standard SQL names.
//!
//! `f64::sin` and its kin call the platform's libm, whose last digits differ between systems and versions. The crate
//! [`libm`] (a port of musl's and ARM's, in Rust) is compiled in, one exact version everywhere: its results follow from
//! IEEE arithmetic alone, which Rust neither contracts nor reorders. Where it uses an instruction of the processor
//! (`fma`, `sqrt`, rounding), that instruction is exact or correctly rounded by definition. Its stated accuracy is below
//! 1 ulp for most functions and below 2 ulp for all that are used here.
//!
//! What needs no libm stays DataFusion's: `sqrt` is correctly rounded by the hardware, `degrees` and `radians` are one
//! multiplication, `round` and `trunc` scale by powers of ten that are exact up to 10^22.

pub mod function;
pub mod log;
pub mod similar;
pub mod udf;

use std::sync::Arc;

use datafusion::{functions::math, logical_expr::ScalarUDF};

use self::{function::Function, udf::Portable};

/// All of them.
#[must_use]
pub fn all() -> Vec<Arc<ScalarUDF>> {
    [
        (math::acos(), Function::Acos),
        (math::acosh(), Function::Acosh),
        (math::asin(), Function::Asin),
        (math::asinh(), Function::Asinh),
        (math::atan(), Function::Atan),
        (math::atanh(), Function::Atanh),
        (math::atan2(), Function::Atan2),
        (math::cbrt(), Function::Cbrt),
        (math::cos(), Function::Cos),
        (math::cosh(), Function::Cosh),
        (math::cot(), Function::Cot),
        (math::exp(), Function::Exp),
        (math::ln(), Function::Ln),
        (math::log(), Function::Log),
        (math::log2(), Function::Log2),
        (math::log10(), Function::Log10),
        (math::power(), Function::Power),
        (math::sin(), Function::Sin),
        (math::sinh(), Function::Sinh),
        (math::tan(), Function::Tan),
        (math::tanh(), Function::Tanh),
    ]
    .into_iter()
    .map(|(inner, function)| Arc::new(ScalarUDF::new_from_impl(Portable::new(inner, function))))
    .collect()
}
