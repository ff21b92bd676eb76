//! Which function, and its value for floats of both widths.

use super::log;

/// A function of one or two floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as in SQL")]
pub enum Function {
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Atan2,
    Cbrt,
    Cos,
    Cosh,
    Cot,
    Exp,
    Ln,
    Log,
    Log2,
    Log10,
    Power,
    Sin,
    Sinh,
    Tan,
    Tanh,
}

/// A function of one float, for both widths.
pub type Unary = (fn(f64) -> f64, fn(f32) -> f32);
/// A function of two floats, for both widths.
pub type Binary = (fn(f64, f64) -> f64, fn(f32, f32) -> f32);

/// A function by the number of its arguments.
#[derive(Debug, Clone, Copy)]
pub enum Arity {
    /// One argument.
    One(Unary),
    /// Two arguments.
    Two(Binary),
}

impl Function {
    /// What computes it when it is called with `arguments` arguments.
    #[must_use]
    pub fn arity(self, arguments: usize) -> Arity {
        let unary: Unary = match self {
            Self::Atan2 => return Arity::Two((libm::atan2, libm::atan2f)),
            Self::Power => return Arity::Two((libm::pow, libm::powf)),
            Self::Log if arguments == 2 => return Arity::Two((log::log, log::logf)),
            Self::Log | Self::Log10 => (libm::log10, libm::log10f),
            Self::Acos => (libm::acos, libm::acosf),
            Self::Acosh => (libm::acosh, libm::acoshf),
            Self::Asin => (libm::asin, libm::asinf),
            Self::Asinh => (libm::asinh, libm::asinhf),
            Self::Atan => (libm::atan, libm::atanf),
            Self::Atanh => (libm::atanh, libm::atanhf),
            Self::Cbrt => (libm::cbrt, libm::cbrtf),
            Self::Cos => (libm::cos, libm::cosf),
            Self::Cosh => (libm::cosh, libm::coshf),
            Self::Cot => (|x| 1.0 / libm::tan(x), |x| 1.0 / libm::tanf(x)),
            Self::Exp => (libm::exp, libm::expf),
            Self::Ln => (libm::log, libm::logf),
            Self::Log2 => (libm::log2, libm::log2f),
            Self::Sin => (libm::sin, libm::sinf),
            Self::Sinh => (libm::sinh, libm::sinhf),
            Self::Tan => (libm::tan, libm::tanf),
            Self::Tanh => (libm::tanh, libm::tanhf),
        };
        Arity::One(unary)
    }
}
