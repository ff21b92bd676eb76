//! Logarithms to any base: the quotient of two natural ones, but those to 2 and 10 by their own functions, which are
//! exact for exact powers.

/// The logarithm of `value` to `base`.
#[must_use]
pub fn log(base: f64, value: f64) -> f64 {
    match base {
        2.0 => libm::log2(value),
        10.0 => libm::log10(value),
        _ => libm::log(value) / libm::log(base),
    }
}

/// The logarithm of `value` to `base`.
#[must_use]
pub fn logf(base: f32, value: f32) -> f32 {
    match base {
        2.0 => libm::log2f(value),
        10.0 => libm::log10f(value),
        _ => libm::logf(value) / libm::logf(base),
    }
}
