//! The whole table: which points it has, and how a row is written.

use conun_trust::Rules;

use crate::{
    args::{Curve, Kind, Way},
    run::Report,
};

/// Shares of liars of the curve.
pub const LIARS: [f64; 5] = [0.05, 0.1, 0.2, 0.3, 0.4];
/// Tasks a node, beside the curve's 1,000.
const LENGTHS: [u64; 2] = [100, 10_000];
/// Shares of its tasks in which a liar lies.
const RATES: [f64; 7] = [1.0, 0.3, 0.1, 0.03, 0.01, 0.005, 0.003];
/// Tasks that a sleeper does honestly.
const HONEST: [u64; 5] = [500, 1000, 2000, 4000, 8000];

/// Shares of liars beyond what our policy assumes by default.
const TOLD: [f64; 3] = [0.2, 0.3, 0.4];

/// One row.
#[derive(Debug, Clone)]
pub struct Row {
    /// The part of the table.
    pub part: &'static str,
    /// What was asked.
    pub asked: Curve,
    /// What came of it.
    pub report: Report,
}

/// All points: the curve, other lengths, rates of lying, ours where it is told how many lie, and sleepers with longer
/// records.
#[must_use]
pub fn points(base: &Curve) -> Vec<(&'static str, Curve)> {
    let point = |kind, policy| Curve { kind: Some(kind), policy: Some(policy), ..base.clone() };
    let mut points = Vec::new();
    for kind in Kind::ALL {
        for policy in Way::ALL {
            points.extend(LIARS.map(|liars| ("curve", Curve { liars, ..point(kind, policy) })));
            points.extend(LENGTHS.map(|n| ("length", Curve { tasks_per_node: Some(n), ..point(kind, policy) })));
        }
        let told = |liars| Curve { liars, rules: Rules { liars, ..base.rules }, ..point(kind, Way::Conun) };
        points.extend(TOLD.map(|liars| ("told", told(liars))));
        points.extend(RATES.map(|rate| ("rate", Curve { rate: Some(rate), ..point(kind, Way::Conun) })));
    }
    for policy in [Way::Conun, Way::Boinc] {
        let sleeper = |honest_for| {
            let tasks_per_node = Some(10_000);
            ("sleeper", Curve { honest_for, tasks_per_node, ..point(Kind::Sleeper, policy) })
        };
        points.extend(HONEST.map(sleeper));
    }
    points
}

/// The head of the CSV.
pub const HEAD: &str = "part,policy,kind,liars,assumed,rate,honest_for,tasks_per_node,tasks,accepted_wrong,finally_wrong,\
    extra_work,warm_up_work,total_extra_work,honest_convicted,honest_outvoted,honest_tasks,liars_caught,undecided,seed";

impl Row {
    /// The row as CSV.
    #[must_use]
    pub fn csv(&self) -> String {
        let (asked, r) = (&self.asked, &self.report);
        let rate = asked.rate_of_lying();
        let honest_for = if r.kind == "sleeper" { asked.honest_for } else { 0 };
        let assumed = asked.rules.liars;
        let wrong = format!("{:.2e},{:.2e}", r.accepted_wrong, r.finally_wrong);
        let work = format!("{:.4},{:.4},{:.4}", r.extra_work, r.warm_up_work, r.total_extra_work);
        let honest = format!("{},{},{}", r.honest_convicted, r.honest_outvoted, r.honest_tasks);
        format!(
            "{},{},{},{},{assumed},{rate},{honest_for},{},{},{wrong},{work},{honest},{},{},{}",
            self.part, r.policy, r.kind, r.liars, r.tasks_per_node, r.tasks, r.liars_caught, r.undecided, r.seed
        )
    }
}
