//! Sums are the exact ones, rounded once; order, splits and groups leave no trace, not even in states.

use arrow::array::ArrayRef;
use conun_functions::aggregate::{
    kind::Kind,
    moments::{Groups, Moments},
};
use num_rational::BigRational;
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::common::{array, floats, integer, is_nearest, moments, rational, value};

fn states(moments: &Moments) -> Vec<ArrayRef> {
    moments.states().unwrap()
}

/// `values` summed one by one, split at random places, the states merged in a random tree.
fn merged(kind: Kind, columns: &[Vec<f64>], cuts: &[Index], order: &[Index]) -> Moments {
    let rows = columns[0].len();
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(rows + 1)).chain([0, rows]).collect();
    places.sort_unstable();
    let slice = |from, to| columns.iter().map(|values| array(&values[from..to])).collect::<Vec<_>>();
    let mut parts: Vec<Moments> = places.windows(2).map(|cut| moments(kind, &slice(cut[0], cut[1]))).collect();
    for step in order.iter().cycle() {
        if parts.len() == 1 {
            break;
        }
        let from = parts.swap_remove(step.index(parts.len()));
        let into = step.index(parts.len());
        parts[into].merge(&states(&from), Groups::One).unwrap();
    }
    parts.remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_sum_is_the_exact_one_rounded(values in vec(floats(), 0..300)) {
        let exact: BigRational = values.iter().map(|value| rational(*value)).sum();
        match value(Kind::Sum, &[array(&values)]) {
            None => prop_assert!(values.is_empty()),
            Some(sum) => {
                prop_assert!(is_nearest(sum, &exact), "{sum:e}");
                prop_assert!(sum != 0.0 || sum.is_sign_positive());
            }
        }
        if let Some(mean) = value(Kind::Avg, &[array(&values)]) {
            prop_assert!(is_nearest(mean, &(exact / integer(values.len() as i64))), "{mean:e}");
        }
    }

    #[test]
    fn permutations_and_splits_leave_no_trace(
        values in vec(floats(), 1..300),
        shuffled in any::<proptest::sample::Selector>(),
        cuts in vec(any::<Index>(), 0..6),
        order in vec(any::<Index>(), 1..8),
        one_by_one in any::<bool>(),
    ) {
        let mut keyed: Vec<f64> = values.clone();
        // A permutation by repeated selection.
        let mut rest = std::mem::take(&mut keyed);
        while !rest.is_empty() {
            let (at, _) = shuffled.select(rest.iter().enumerate());
            keyed.push(rest.swap_remove(at));
        }
        for kind in [Kind::Sum, Kind::Avg, Kind::VarPop] {
            let whole = moments(kind, &[array(&values)]);
            let mut other = merged(kind, &[keyed.clone()], &cuts, &order);
            if one_by_one {
                other = Moments::of_one_group(kind);
                keyed.iter().for_each(|value| other.add(&[array(&[*value])], Groups::One, None).unwrap());
            }
            prop_assert_eq!(states(&whole), states(&other));
            prop_assert_eq!(whole.value(0).map(f64::to_bits), other.value(0).map(f64::to_bits));
        }
    }

    #[test]
    fn groups_are_what_they_are_alone(rows in vec((0usize..5, floats()), 0..300), first in 0usize..6) {
        let (groups, values): (Vec<usize>, Vec<f64>) = rows.iter().copied().unzip();
        let mut grouped = Moments::new(Kind::Sum);
        grouped.reserve_groups(5);
        grouped.add(&[array(&values)], Groups::Each(&groups), None).unwrap();
        let head = grouped.take(first);
        for group in 0..5 {
            let alone: Vec<f64> = rows.iter().filter(|row| row.0 == group).map(|row| row.1).collect();
            let (part, group) = if group < first { (&head, group) } else { (&grouped, group - first) };
            prop_assert_eq!(part.value(group).map(f64::to_bits), value(Kind::Sum, &[array(&alone)]).map(f64::to_bits));
        }
    }

    #[test]
    fn rows_leave_without_a_trace(stay in vec(floats(), 0..100), leave in vec(floats(), 0..100), special in 0usize..4) {
        let mut leave = leave;
        leave.extend([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].iter().take(special));
        let all: Vec<f64> = leave.iter().chain(&stay).copied().collect();
        for kind in [Kind::Avg, Kind::StddevPop] {
            let mut sliding = moments(kind, &[array(&all)]);
            sliding.retract(&[array(&leave)]).unwrap();
            let expected = moments(kind, &[array(&stay)]);
            prop_assert_eq!(states(&sliding), states(&expected));
            prop_assert_eq!(sliding.value(0).map(f64::to_bits), expected.value(0).map(f64::to_bits));
        }
    }
}

#[test]
fn special_values_do_not_depend_on_order() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let payload = f64::from_bits(nan.to_bits() | 0xbeef);
    for (values, expected) in [
        (vec![1.0, payload, 2.0], nan),
        (vec![payload, inf], nan),
        (vec![inf, 1.0, -inf], nan),
        (vec![-inf, 1.0, inf], nan),
        (vec![f64::MAX, inf], inf),
        (vec![-inf, f64::MAX], -inf),
        (vec![f64::MAX, f64::MAX, f64::MIN, f64::MIN], 0.0),
        (vec![f64::MAX, f64::MAX], inf),
        (vec![-0.0], 0.0),
        (vec![-0.0, -0.0], 0.0),
        (vec![1e16, 1.0, -1e16], 1.0),
    ] {
        for values in [values.clone(), values.iter().rev().copied().collect(), values.repeat(1)] {
            let sum = value(Kind::Sum, &[array(&values)]).unwrap();
            assert_eq!(sum.to_bits(), expected.to_bits(), "{values:?}");
        }
    }
    assert_eq!(value(Kind::Avg, &[array(&[f64::MAX, f64::MAX])]), Some(f64::MAX));
}
