//! Values to sum, and exact arithmetic to judge by.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use conun_functions::aggregate::{
    kind::Kind,
    moments::{Groups, Moments},
};
use num_bigint::BigInt;
use num_rational::BigRational;
use proptest::prelude::*;

pub(crate) fn rational(value: f64) -> BigRational {
    BigRational::from_float(value).unwrap()
}

pub(crate) fn integer(value: i64) -> BigRational {
    BigRational::from_integer(BigInt::from(value))
}

fn distance(a: &BigRational, b: &BigRational) -> BigRational {
    if a < b { b - a } else { a - b }
}

/// Whether no float is nearer to `exact` than `value`.
pub(crate) fn is_nearest(value: f64, exact: &BigRational) -> bool {
    if value.is_infinite() {
        let half_beyond = rational(f64::MAX) + rational(2f64.powi(970));
        return if value > 0.0 { *exact >= half_beyond } else { -exact >= half_beyond };
    }
    let here = distance(&rational(value), exact);
    let finite = |other: f64| other.is_finite().then(|| distance(&rational(other), exact));
    [value.next_up(), value.next_down()].into_iter().filter_map(finite).all(|other| here <= other)
}

/// Whether `value` is within `ulps` of `exact`.
pub(crate) fn is_within(value: f64, exact: &BigRational, ulps: i64) -> bool {
    distance(&rational(value), exact) <= rational(value.abs().next_up() - value.abs()) * integer(ulps)
}

/// Finite floats: usual ones, integers, amounts of money, and any.
pub(crate) fn floats() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1000.0..1000.0f64,
        2 => (-1000i32..1000).prop_map(f64::from),
        2 => (0i32..10_000_000).prop_map(|cents| f64::from(cents) / 100.0),
        2 => any::<f64>().prop_filter("finite", |value| value.is_finite()),
        1 => prop_oneof![Just(0.0), Just(-0.0), Just(f64::MAX), Just(f64::MIN), Just(5e-324), Just(1e16)],
    ]
}

/// Floats whose squares do not overflow much: statistics of the others are exact, too, but say little.
pub(crate) fn usual() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1000.0..1000.0f64,
        2 => (-10i32..10).prop_map(f64::from),
        1 => -1e-30..1e-30f64,
        1 => 1e9..1e9 + 1.0f64,
        1 => -1e120..1e120f64,
    ]
}

pub(crate) fn array(values: &[f64]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

/// The sums of `kind` over one group.
pub(crate) fn moments(kind: Kind, arguments: &[ArrayRef]) -> Moments {
    let mut moments = Moments::of_one_group(kind);
    moments.add(arguments, Groups::One, None).unwrap();
    moments
}

pub(crate) fn value(kind: Kind, arguments: &[ArrayRef]) -> Option<f64> {
    moments(kind, arguments).value(0)
}
