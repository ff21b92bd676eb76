//! Aggregates of floats that are exact until one last rounding ([`crate::exact`]), under their standard SQL names.
//!
//! Each is DataFusion's own function ([`udaf`]: its signature, coercions, documentation, and what it does with integers,
//! decimals, durations) with another accumulator where the arguments are floats. DataFusion turns `real` and 16-bit
//! floats into doubles first, which is exact.
//!
//! | function | bound |
//! |---|---|
//! | `sum`, `avg`, `var*`, `covar*`, `regr_*` | the exact value for the rows, rounded once: 0.5 ulp |
//! | `stddev*`, `corr` | rounded, then its root: 1 ulp |
//!
//! A NaN or an infinity among the rows makes variances, covariances, correlations and regressions NaN; [`crate::exact`]
//! says what it makes of sums, and so of averages. No rows: NULL.

pub mod distinct;
mod filtered;
pub mod finish;
pub mod groups;
pub mod kind;
pub mod moments;
pub mod single;
mod single_value;
pub mod udaf;

use std::sync::Arc;

use datafusion::{
    functions_aggregate::{average, correlation, covariance, regr, stddev, sum, variance},
    logical_expr::AggregateUDF,
};

pub use self::{filtered::filtered, single_value::single_value};
use self::{kind::Kind, udaf::Reproducible};

/// All of them.
#[must_use]
pub fn all() -> Vec<Arc<AggregateUDF>> {
    [
        (sum::sum_udaf(), Kind::Sum),
        (average::avg_udaf(), Kind::Avg),
        (variance::var_samp_udaf(), Kind::VarSamp),
        (variance::var_pop_udaf(), Kind::VarPop),
        (stddev::stddev_udaf(), Kind::StddevSamp),
        (stddev::stddev_pop_udaf(), Kind::StddevPop),
        (covariance::covar_samp_udaf(), Kind::CovarSamp),
        (covariance::covar_pop_udaf(), Kind::CovarPop),
        (correlation::corr_udaf(), Kind::Corr),
        (regr::regr_slope_udaf(), Kind::Slope),
        (regr::regr_intercept_udaf(), Kind::Intercept),
        (regr::regr_count_udaf(), Kind::Count),
        (regr::regr_r2_udaf(), Kind::R2),
        (regr::regr_avgx_udaf(), Kind::AvgX),
        (regr::regr_avgy_udaf(), Kind::AvgY),
        (regr::regr_sxx_udaf(), Kind::Sxx),
        (regr::regr_syy_udaf(), Kind::Syy),
        (regr::regr_sxy_udaf(), Kind::Sxy),
    ]
    .into_iter()
    .map(|(inner, kind)| Arc::new(AggregateUDF::new_from_impl(Reproducible::new(inner, kind))))
    .collect()
}
