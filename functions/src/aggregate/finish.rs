//! From exact sums to the value of a function: exact arithmetic, one rounding.

use super::kind::Kind;
use crate::exact::{Big, Total};

/// The value of `kind` over `rows` rows with the sums `totals` (in the order of [`Kind::moments`]); `None` is NULL.
#[must_use]
pub fn finish(kind: Kind, rows: u64, totals: &[Total]) -> Option<f64> {
    if rows < fewest_rows(kind) {
        return None;
    }
    let mut sums = Vec::with_capacity(totals.len());
    for total in totals {
        match (total, kind) {
            (Total::Finite(sum), _) => sums.push(sum),
            (Total::Special(value), Kind::Sum | Kind::Avg | Kind::AvgX | Kind::AvgY) => return Some(*value),
            (Total::Special(_), _) => return Some(f64::NAN),
        }
    }
    let n = Big::from_count(rows);
    match sums.as_slice() {
        [a] if kind == Kind::Sum => Some(a.round()),
        [a] => Some(a.divided_by(&n)),
        [a, aa] => spread_of_one(kind, rows, &spread(&n, a, a, aa)),
        [a, b, ab] => spread_of_one(kind, rows, &spread(&n, a, b, ab)),
        [a, b, ab, bb] => line(kind, &n, [a, b, ab, bb]),
        [a, b, ab, aa, bb] => correlated(kind, &spread(&n, a, b, ab), &spread(&n, a, a, aa), &spread(&n, b, b, bb)),
        _ => None,
    }
}

fn fewest_rows(kind: Kind) -> u64 {
    match kind {
        Kind::VarSamp | Kind::StddevSamp | Kind::CovarSamp => 2,
        Kind::Corr | Kind::R2 | Kind::Slope | Kind::Intercept => 2,
        _ => 1,
    }
}

/// `n` times the sum of the products of deviations from the means: `n * sum(ab) - sum(a) * sum(b)`.
fn spread(n: &Big, a: &Big, b: &Big, ab: &Big) -> Big {
    n.times(ab).minus(&a.times(b))
}

fn spread_of_one(kind: Kind, rows: u64, spread: &Big) -> Option<f64> {
    let (n, less) = (Big::from_count(rows), Big::from_count(rows - 1));
    match kind {
        Kind::VarPop | Kind::CovarPop => Some(spread.divided_by(&n.times(&n))),
        Kind::VarSamp | Kind::CovarSamp => Some(spread.divided_by(&n.times(&less))),
        Kind::StddevPop => spread.ratio(&n.times(&n)).map(|variance| variance.sqrt().value()),
        Kind::StddevSamp => spread.ratio(&n.times(&less)).map(|variance| variance.sqrt().value()),
        _ => Some(spread.divided_by(&n)),
    }
}

/// Slope and intercept of the regression of `a` (y) on `b` (x). NULL where all `b` are equal.
fn line(kind: Kind, n: &Big, [a, b, ab, bb]: [&Big; 4]) -> Option<f64> {
    let across = spread(n, b, b, bb);
    let rise = match kind {
        Kind::Slope => spread(n, a, b, ab),
        _ => a.times(bb).minus(&b.times(ab)),
    };
    (!across.is_zero()).then(|| rise.divided_by(&across))
}

/// Correlation, or its square. NULL where all values of one side are equal.
fn correlated(kind: Kind, ab: &Big, aa: &Big, bb: &Big) -> Option<f64> {
    let (square, spreads) = (ab.times(ab), aa.times(bb));
    if spreads.is_zero() {
        return None;
    }
    if kind == Kind::R2 {
        return Some(square.divided_by(&spreads));
    }
    let magnitude = square.ratio(&spreads)?.sqrt().value();
    Some(if ab.is_negative() { -magnitude } else { magnitude })
}
