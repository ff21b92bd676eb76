//! `conun devnet down`: stops every process; data stays.

use std::time::Duration;

use conun_types::Result;

use super::{
    none_here,
    state::{State, lock},
};
use crate::{
    args::DevnetDir,
    print,
    process::{ProcessId, stop_all},
};

/// How long processes may take to end by themselves.
const PATIENCE: Duration = Duration::from_secs(8);

/// Stops what runs.
pub(super) async fn run(args: DevnetDir) -> Result<()> {
    let state = State::load(&args.dir)?.ok_or_else(|| none_here(&args.dir))?;
    let _lock = lock(&args.dir)?;
    let stopped = stop(&state).await;
    match args.json {
        true => print::json_line(&serde_json::json!({ "stopped": stopped })),
        false => print::line(&format!("stopped {stopped} processes, data stays in {}", args.dir.display())),
    }
}

/// Coordinators first, so that none of them sees its nodes go; tells how many were running.
pub(super) async fn stop(state: &State) -> usize {
    let alive = |members: &[super::state::Member]| -> Vec<ProcessId> {
        members.iter().map(|m| m.process).filter(|p| p.is_alive()).collect()
    };
    let (coordinators, nodes) = (alive(&state.coordinators), alive(&state.nodes));
    stop_all(&coordinators, PATIENCE).await;
    stop_all(&nodes, PATIENCE).await;
    coordinators.len() + nodes.len()
}
