//! `conun devnet status`: who runs, from the state file and the system's processes.

use conun_types::{NodeId, Result};
use serde::Serialize;

use super::{
    none_here,
    state::{ChainState, Member, State},
};
use crate::{args::DevnetDir, print};

/// What `--json` prints; DESIGN section 8 fixes the names.
#[derive(Serialize)]
pub(super) struct Report {
    coordinator: Option<CoordinatorRow>,
    coordinators: Vec<CoordinatorRow>,
    nodes: Vec<NodeRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<ChainState>,
}

#[derive(Clone, Serialize)]
struct CoordinatorRow {
    index: u32,
    id: NodeId,
    url: String,
    pid: u32,
    address: String,
    alive: bool,
}

#[derive(Serialize)]
struct NodeRow {
    index: u32,
    id: NodeId,
    pid: u32,
    address: String,
    alive: bool,
}

/// Prints who runs.
pub(super) fn run(args: &DevnetDir) -> Result<()> {
    let state = State::load(&args.dir)?.ok_or_else(|| none_here(&args.dir))?;
    tell(&state, args.json)
}

/// Prints the state, as JSON or as a table.
pub(super) fn tell(state: &State, json: bool) -> Result<()> {
    if json {
        return print::json_line(&report(state));
    }
    let row = |what: &str, m: &Member| {
        let alive = if m.process.is_alive() { "up" } else { "down" };
        let place = m.url.as_ref().unwrap_or(&m.address).clone();
        vec![format!("{what} {}", m.index), alive.to_owned(), m.process.pid.to_string(), place]
    };
    let coordinators = state.coordinators.iter().map(|m| row("coordinator", m));
    let rows: Vec<_> = coordinators.chain(state.nodes.iter().map(|m| row("node", m))).collect();
    print::table(&["process", "", ">pid", "address"], &rows)
}

fn report(state: &State) -> Report {
    let coordinators: Vec<CoordinatorRow> = state.coordinators.iter().map(coordinator).collect();
    let (coordinator, nodes) = (coordinators.first().cloned(), state.nodes.iter().map(node).collect());
    Report { coordinator, coordinators, nodes, chain: state.chain.clone() }
}

fn coordinator(m: &Member) -> CoordinatorRow {
    CoordinatorRow {
        index: m.index,
        id: m.id,
        url: m.url.clone().unwrap_or_default(),
        pid: m.process.pid,
        address: m.address.clone(),
        alive: m.process.is_alive(),
    }
}

fn node(m: &Member) -> NodeRow {
    NodeRow { index: m.index, id: m.id, pid: m.process.pid, address: m.address.clone(), alive: m.process.is_alive() }
}
