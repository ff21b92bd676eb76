//! Seeded simulation of networks with liars: how often a wrong answer is released, and what checking costs.
//!
//! What it knows: nodes that come, go, fail and lie ([`world`]), attackers ([`adversary`]), ways to decide whom to believe
//! ([`policy`]: ours is the very code of `conun-trust`), and tables of what came of it ([`table`], [`plot`]).
//! What it must not know: sockets, plans, time. A seed replays a run.
//!
//! ```
//! use conun_sim::{adversary::{Adversary, Lie, Moment}, policy::Vote, run::Run, world::Setting};
//!
//! /// Lies at weekends, when nobody looks.
//! struct Weekend;
//!
//! impl Adversary for Weekend {
//!     fn name(&self) -> &'static str { "weekend" }
//!     fn lie(&self, moment: &Moment) -> Option<Lie> { (moment.task % 7_000 >= 5_000).then_some(Lie::Shared) }
//! }
//!
//! let run = Run { setting: Setting { nodes: 100, ..Setting::default() }, tasks: 10_000, job_tasks: 100 };
//! let report = run.run(&mut Vote::new(1), &Weekend);
//! assert!(report.accepted_wrong > 1e-3, "two of a ring meet often: {}", report.accepted_wrong);
//! ```

pub mod adversary;
pub mod args;
pub mod plot;
pub mod policy;
pub mod rng;
pub mod run;
pub mod table;
pub mod world;

#[cfg(test)]
mod tests;
