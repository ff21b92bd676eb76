//! The formulas: what a vote is worth, what agreeing votes are worth, and how often to look.
//!
//! Source, unless another is named: L. F. G. Sarmenta, "Sabotage-tolerance mechanisms for volunteer computing systems",
//! Future Generation Computer Systems 18 (2002) 561-572, sections 3 and 4. `f` is the share of operators that lie.

use std::f64::consts::E;

/// Probability that the next answer of an operator is wrong after it passed `checks` checks, `1 - Cr(P)`.
///
/// `f / k`, Sarmenta's bound for spot-checking without blacklisting: the right one here, as who is blacklisted comes back
/// under a new key. Without a check it is `f` itself.
#[must_use]
pub fn worker_error(f: f64, checks: u32) -> f64 {
    f / f64::from(checks.max(1))
}

/// Probability that an answer nobody compared is wrong after its operator passed `checks` checks, where an operator that
/// fails one loses all that is not released yet.
///
/// `f / ((1 - f) k e)`, Sarmenta's bound for spot-checking with blacklisting: the most that any constant rate of lying
/// gains, reached by a liar that lies once in `k`. It does not cover who waits until it has a record (a sleeper): for that
/// there are audits before release, and the alarm.
#[must_use]
pub fn solo_error(f: f64, checks: u32) -> f64 {
    if checks == 0 { f } else { (f / ((1.0 - f) * f64::from(checks) * E)).min(f) }
}

/// Checks to pass until [`solo_error`] is at most `max_error`.
#[must_use]
pub fn checks_for(f: f64, max_error: f64) -> u32 {
    let checks = f / ((1.0 - f) * max_error * E);
    if checks.is_finite() { checks.ceil().clamp(1.0, 1e9) as u32 } else { 1_000_000_000 }
}

/// The odds that a vote is right, `P_good / P_bad`, for a voter that errs with probability `error`.
#[must_use]
pub fn odds(error: f64) -> f64 {
    let error = error.clamp(1e-12, 1.0 - 1e-12);
    (1.0 - error) / error
}

/// Probability that the group of votes with odds product `group` is wrong, where `all` is the sum over all groups, this
/// one included: `1 - Cr(r)` with `Cr(r) = P(r) / (1 + sum P)` and `P(r) = prod P_good / P_bad` over those that voted `r`.
#[must_use]
pub fn result_error(group: f64, all: f64) -> f64 {
    let others = 1.0 + (all - group).max(0.0);
    others / (others + group)
}

/// Share of tasks to check so that lying does not pay: `p > C / ((1 - r)(R + S))`.
///
/// `cost` is what a lie saves (C), `miss` the probability that a check does not see it (r, say because the partner
/// colludes), `reward` the pay (R) and `stake` what is lost beside it (S). An honest task earns `R - C`; a lie earns
/// `(1 - p(1-r)) R - p(1-r) S`; the second is smaller exactly if `p (1-r)(R+S) > C`. (The argument of M. Belenkiy et al.,
/// "Incentivizing outsourced computation", NetEcon 2008, with a stake.)
#[must_use]
pub fn deterrent_rate(cost: f64, miss: f64, reward: f64, stake: f64) -> f64 {
    let at_risk = (1.0 - miss) * (reward + stake);
    if at_risk > 0.0 { (cost / at_risk).min(1.0) } else { 1.0 }
}

/// Lies that one operator can have released, in expectation, before a check meets one, however it spreads them: each
/// replica compares two votes, so with `extra` replicas a task, `2 extra / (1 + extra)` of all votes are compared and
/// `(1 - extra) / (1 + extra)` of them are released unseen; the quotient is `(1 - extra) / (2 extra)`.
///
/// No scheme that finds lies by running tasks again does better against a liar that lies rarely.
#[must_use]
pub fn lies_before_caught(extra: f64) -> f64 {
    if extra > 0.0 { (1.0 - extra).max(0.0) / (2.0 * extra) } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-3 * b.abs()
    }

    #[test]
    fn agreeing_newcomers_are_worth_what_the_design_says() {
        for (votes, error) in [(1, 0.1), (2, 0.0122), (3, 0.00137), (4, 1.524e-4), (5, 1.693e-5)] {
            let group = odds(worker_error(0.1, 0)).powi(votes);
            assert!(close(result_error(group, group), error), "{votes} votes: {}", result_error(group, group));
        }
    }

    #[test]
    fn dissent_lowers_what_the_others_are_worth() {
        let one = odds(0.1);
        assert!(close(result_error(one * one, one * one + one), 10.0 / 91.0));
        assert!(result_error(one, 2.0 * one) > 0.5, "one against one is worse than a coin");
    }

    #[test]
    fn a_record_is_worth_more_the_longer_it_is() {
        assert!(close(worker_error(0.1, 1000), 1e-4));
        assert!(close(solo_error(0.1, 409), 1e-4));
        assert_eq!(checks_for(0.1, 1e-4), 409);
        assert_eq!(checks_for(0.1, 0.0), 1_000_000_000);
        assert!((1..500).all(|k| solo_error(0.1, k + 1) <= solo_error(0.1, k)));
    }

    #[test]
    fn no_constant_rate_of_lying_gains_more_than_the_bound() {
        for checks in [1, 10, 100, 1000] {
            for rate in [1e-4, 1e-3, 1e-2, 0.1, 0.5] {
                let survived = 0.1 * f64::powi(1.0 - rate, checks as i32);
                let lies = survived * rate / (survived + 0.9);
                assert!(lies <= solo_error(0.1, checks) * 1.0001, "{checks} {rate}");
            }
        }
    }

    #[test]
    fn lying_pays_below_the_deterrent_rate_and_not_above() {
        let (cost, miss, reward, stake) = (1.0, 0.1, 1.2, 20.0);
        let rate = deterrent_rate(cost, miss, reward, stake);
        let gain = |p: f64| (1.0 - p * (1.0 - miss)) * reward - p * (1.0 - miss) * stake - (reward - cost);
        assert!(gain(rate * 0.99) > 0.0 && gain(rate * 1.01) < 0.0);
        assert_eq!(deterrent_rate(1.0, 1.0, 1.0, 1.0), 1.0);
    }
}
