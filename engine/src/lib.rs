//! The coordinator: stages, replicas, verdicts, lineage, jobs.
//!
//! What it knows: how a statement becomes stages (through Ballista's planner and stage graph, driven in process), which
//! volunteers run each task, when their votes make a verdict, and how lost blocks are had again.
//! What it must not know: sockets (the network is a port), SQL's syntax (planner), how a task runs (executor).

mod record;

pub use record::{JobOptions, JobRecord, JobState, ReceiptRecord, StageRow, Verify, stage_records};
