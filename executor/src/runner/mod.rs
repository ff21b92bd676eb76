//! The runner: a child process in which strangers' plans run, without key, network, files or environment.
//!
//! The parent ([`RunnerPool`], inside the node) and the child ([`child_main`], behind the hidden command
//! `conun runner`) talk over the child's standard streams, one task at a time:
//!
//! ```text
//! parent  Run + envelope ─────────────▶ child
//!         ◀──────────────── Need(cid)           each input, when it is first needed
//!         Input(cid) + bytes | Missing(cid) ─▶
//!         ◀──── Block(description) + bytes      each output, in partition order
//!         ◀─────────── Done | Failed(why)
//! ```
//!
//! Besides `Run` there are `Trace`, whose answer has a `Batch` for each batch of every operator and a `Traced`, and
//! `Decide`, whose answer is `Ruled`: referees run strangers' plans, too.
//!
//! A child that is cancelled, dies or talks nonsense is killed and replaced. Control characters are taken out of what it says to people.

mod child;
mod frame;
mod pool;
mod words;

pub use self::child::child_main;
pub use self::pool::{InputSource, RunnerConfig, RunnerPool};
