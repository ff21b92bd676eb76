//! Whom to believe: the credibility engine. Values in, decisions out.
//!
//! What it knows: operators and their records, the votes on tasks, what was believed on whose word and not released yet.
//! What it must not know: nodes, sockets, plans, clocks, money. Time and randomness are arguments, the state is a value
//! with serde, so that a seed replays every decision (`sim/` does, with this very code).
//!
//! The way of a task, for a coordinator:
//! 1. [`Trust::plan`] says who begins and how; [`Trust::poll`] opens the votes.
//! 2. [`Trust::next`] says what to do until it accepts or gives up; [`Trust::replica`] names further operators.
//! 3. [`Trust::settle`] tells it what was accepted, and returns whoever is [`Caught`] with what to run again.
//! 4. [`Trust::audits`] names tasks to look at again, while the job runs and once more where it is closing; each is a poll
//!    of its own ([`Trust::audit`]).
//! 5. [`Trust::release`] lets the job go. [`Trust::probed`] and [`Trust::leaked`] hear of what was released before.
//!
//! ```
//! use std::time::Duration;
//! use conun_trust::{Action, Demand, Rules, Trust};
//! use conun_types::JobId;
//! # struct Rng;
//! # impl conun_types::Rng for Rng { fn fill(&self, out: &mut [u8]) { out.fill(7) } }
//! # let rng = Rng;
//! let (job, task, now) = (JobId([0; 16]), 1u64, Duration::ZERO);
//! let operators = [1u32, 2, 3, 4, 5, 6];
//! let mut trust: Trust<u32, u64> = Trust::new(Rules::default());
//! let plan = trust.plan(job, Demand::Audit, &operators, now, &rng).ok_or("nobody is there")?;
//! let mut poll = trust.poll::<&str>(&plan);
//! let mut asked = Some(plan.lead);
//! let answer = loop {
//!     match trust.next(&poll) {
//!         Action::Launch => {
//!             let next = trust.replica(job, task, &poll, &operators, now, &rng);
//!             let operator = asked.take().or(next).ok_or("nobody is left")?;
//!             poll.started(operator);
//!             poll.voted(operator, "42");
//!         }
//!         Action::Accept { ballot, bound } => break (ballot, bound),
//!         other => return Err(format!("{other:?}").into()),
//!     }
//! };
//! assert_eq!(poll.votes().len(), 5, "newcomers: five equal votes for an error of 1e-4");
//! assert!(answer.1 <= 1e-4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod alarm;
pub mod credibility;
mod pairs;
mod poll;
mod rules;
mod standing;
mod trust;
mod work;

#[cfg(test)]
mod tests;

pub use crate::alarm::Alarm;
pub use crate::poll::{Action, Mode, Need, Poll};
pub use crate::rules::Rules;
pub use crate::standing::{Outcome, Rank, Standing};
pub use crate::trust::{Caught, Demand, Forecast, Found, Plan, Trust};
pub use crate::work::Audit;
