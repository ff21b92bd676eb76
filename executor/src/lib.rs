//! A volunteer's task runtime: decodes, checks and runs a plan, and encodes its output canonically.
//!
//! [`run::run_task`] tells the story. It runs inside a child process, the *runner* ([`runner`]), that holds no key and
//! has no network: a stranger's plan never runs beside a node's secrets.
//!
//! What it knows: DataFusion, Arrow, the execution profile. What it must not know: peers, keys, stores on disk,
//! Ballista. The same plan over the same inputs gives the same bytes on every machine.

pub mod block_reader;
pub mod canonical;
pub mod codec;
pub mod equivalence_barrier;
mod failure;
pub mod inputs;
pub mod object_store;
pub mod pin;
pub mod plan_node;
pub mod referee;
pub mod run;
pub mod runner;
pub mod session;
pub mod trace;
pub mod whitelist;

pub use crate::block_reader::BlockReaderExec;
pub use crate::codec::{ConunCodec, decode_plan, encode_plan, nests_too_deeply, plan_too_deep};
pub use crate::equivalence_barrier::EquivalenceBarrierExec;
pub use crate::inputs::{MemoryInputs, TaskInputs};
pub use crate::run::{TaskOutput, run_task};
pub use crate::session::session_config;
