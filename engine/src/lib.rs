//! The coordinator: stages, replicas, verdicts, lineage, jobs.
//!
//! What it knows: how a statement becomes stages (through Ballista's planner and stage graph, driven in process), which
//! volunteers run each task, whose votes are believed (through `conun-trust`), and how lost blocks are had again.
//! What it must not know: sockets (the network is a port), SQL's syntax (planner), how a task runs (executor).

mod cache;
mod catalog;
mod checking;
mod config;
mod context;
mod credit;
mod digest;
mod dispute;
mod engine;
mod evidence;
mod fleet;
mod job;
mod journal;
mod lineage;
mod notes;
mod pass;
mod payments;
mod pilot;
mod quote;
mod recheck;
mod record;
mod session;
mod shares;
mod stage;
mod task;
mod transcript;

pub use config::EngineConfig;
pub use dispute::{Claim, Dispute};
pub use engine::{Engine, Submitted};
pub use payments::{PayConfig, PayStatus, Settled};
pub use record::{JobOptions, JobRecord, JobState, ReceiptRecord, StageRow, Verify, stage_records};
pub use transcript::{OnChain, Transcript, Verified};
