//! Variances, covariances, correlations and regressions against rational numbers.

use conun_functions::aggregate::kind::Kind;
use num_rational::BigRational;
use proptest::{collection::vec, prelude::*};

use crate::common::{array, integer, is_nearest, is_within, rational, usual, value};

struct Exact {
    n: BigRational,
    a: BigRational,
    b: BigRational,
    aa: BigRational,
    ab: BigRational,
    bb: BigRational,
}

impl Exact {
    /// Means, and sums of products of deviations.
    fn of(rows: &[(f64, f64)]) -> Self {
        let n = integer(rows.len() as i64);
        let rows: Vec<_> = rows.iter().map(|(a, b)| (rational(*a), rational(*b))).collect();
        let a = rows.iter().map(|row| row.0.clone()).sum::<BigRational>() / &n;
        let b = rows.iter().map(|row| row.1.clone()).sum::<BigRational>() / &n;
        let deviations: Vec<_> = rows.iter().map(|row| (&row.0 - &a, &row.1 - &b)).collect();
        let sum = |of: fn(&(BigRational, BigRational)) -> BigRational| deviations.iter().map(of).sum();
        Self { aa: sum(|d| &d.0 * &d.0), ab: sum(|d| &d.0 * &d.1), bb: sum(|d| &d.1 * &d.1), n, a, b }
    }

    fn value(&self, kind: Kind) -> Option<BigRational> {
        let zero = integer(0);
        let over = |spread: &BigRational, by: &BigRational| (*by > zero).then(|| spread / by);
        let less = &self.n - integer(1);
        match kind {
            Kind::VarPop => over(&self.aa, &self.n),
            Kind::VarSamp => over(&self.aa, &less),
            Kind::CovarPop => over(&self.ab, &self.n),
            Kind::CovarSamp => over(&self.ab, &less),
            Kind::Slope => over(&self.ab, &self.bb),
            Kind::Intercept => over(&self.ab, &self.bb).map(|slope| &self.a - slope * &self.b),
            Kind::R2 => over(&(&self.ab * &self.ab), &(&self.aa * &self.bb)),
            Kind::AvgX => Some(self.b.clone()),
            Kind::AvgY => Some(self.a.clone()),
            Kind::Sxx => Some(self.bb.clone()),
            Kind::Syy => Some(self.aa.clone()),
            _ => Some(self.ab.clone()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn statistics_are_exact_until_they_are_rounded(rows in vec((usual(), usual()), 1..40), flat in any::<bool>()) {
        let rows: Vec<(f64, f64)> = rows.iter().map(|(a, b)| (*a, if flat { 0.1 } else { *b })).collect();
        let exact = Exact::of(&rows);
        let (a, b): (Vec<f64>, Vec<f64>) = rows.iter().copied().unzip();
        let (one, two) = ([array(&a)], [array(&a), array(&b)]);
        for kind in [Kind::VarPop, Kind::VarSamp, Kind::CovarPop, Kind::CovarSamp, Kind::Slope, Kind::Intercept,
            Kind::R2, Kind::AvgX, Kind::AvgY, Kind::Sxx, Kind::Syy, Kind::Sxy] {
            let arguments = if kind.arguments() == 1 { &one[..] } else { &two[..] };
            match (value(kind, arguments), exact.value(kind)) {
                (Some(value), Some(exact)) => prop_assert!(is_nearest(value, &exact), "{kind:?} {value:e}"),
                (value, exact) => prop_assert!(value.is_none() && exact.is_none(), "{kind:?} {value:?}"),
            }
        }
        for (root, square) in [(Kind::StddevPop, Kind::VarPop), (Kind::StddevSamp, Kind::VarSamp), (Kind::Corr, Kind::R2)] {
            let arguments = if root.arguments() == 1 { &one[..] } else { &two[..] };
            let Some(root) = value(root, arguments) else { prop_assert!(exact.value(square).is_none()); continue };
            // A root within an ulp is one whose neighbours' squares enclose the exact square.
            let exact = exact.value(square).unwrap();
            let (below, above) = (root.abs().next_down().max(0.0), root.abs().next_up());
            prop_assert!(rational(below) * rational(below) <= exact && exact <= rational(above) * rational(above));
            prop_assert!(is_within(root, &rational(root), 0));
        }
    }
}

#[test]
fn nulls_as_in_datafusion() {
    let (one, flat) = ([array(&[3.5])], [array(&[1.0, 2.0]), array(&[0.1, 0.1])]);
    assert_eq!(value(Kind::VarSamp, &one), None);
    assert_eq!(value(Kind::VarPop, &one), Some(0.0));
    assert_eq!(value(Kind::StddevPop, &one), Some(0.0));
    for kind in [Kind::Slope, Kind::Intercept, Kind::R2, Kind::Corr] {
        assert_eq!(value(kind, &flat), None, "{kind:?}");
    }
    assert_eq!(value(Kind::Sum, &[array(&[])]), None);
    assert_eq!(value(Kind::Sxy, &[array(&[]), array(&[])]), None);
}

#[test]
fn what_is_not_finite_makes_statistics_nan() {
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let pairs = [array(&[1.0, odd, 0.0]), array(&[2.0, 0.0, 1.0])];
        for kind in [Kind::CovarPop, Kind::Corr, Kind::Slope, Kind::R2, Kind::Syy] {
            assert_eq!(value(kind, &pairs).unwrap().to_bits(), f64::NAN.to_bits(), "{kind:?} {odd}");
        }
        assert_eq!(value(Kind::Sxx, &pairs), Some(2.0));
        assert_eq!(value(Kind::AvgY, &pairs).unwrap().to_bits(), odd.to_bits());
    }
}
