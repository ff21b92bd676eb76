//! The demo's processes: nodes and a coordinator that die with this process, in a folder that goes with it.

use std::ffi::OsString;

use conun_api::Client;
use conun_types::{Error, NodeId, Result};
use futures::future::try_join_all;
use tempfile::TempDir;

use crate::{
    command::devnet::{Money, wait_for_volunteers},
    process::{Launch, Service},
};

/// Nodes of the demo.
pub(super) const NODES: usize = 6;
/// The one that lies about every answer.
pub(super) const LIAR: usize = 4;

/// A running network. Dropping it kills the processes, then removes the folder: the order of the fields matters.
pub(super) struct Network {
    pub(super) client: Client,
    pub(super) money: Money,
    nodes: Vec<Service>,
    _coordinator: Service,
    _dir: TempDir,
}

impl Network {
    /// Starts all processes and waits until the coordinator sees every node.
    pub(super) async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("conun-demo-").tempdir()?;
        let money = Money::prepare("embedded", dir.path(), None).await?;
        let launches: Vec<Launch> = (0..NODES).map(|i| node(&dir, &money, i)).collect();
        let nodes = try_join_all(launches.iter().map(Service::start)).await?;
        for index in 0..NODES {
            let operator = dir.path().join(format!("operator-{index}.key"));
            money.endow_node(&dir.path().join(node_name(index)), &operator).await?;
        }
        let coordinator = Service::start(&coordinator(&dir, &money, &nodes)).await?;
        let url = coordinator.ready.url.clone().ok_or_else(|| Error::internal("the coordinator has no URL"))?;
        wait_for_volunteers(&url, None, NODES).await?;
        let client = Client::connect(&url, None).await?;
        money.endow_coordinator(&client).await?;
        Ok(Self { client, money, nodes, _coordinator: coordinator, _dir: dir })
    }

    /// Who node `index` is.
    pub(super) fn id(&self, index: usize) -> NodeId {
        self.nodes[index].ready.id
    }

    /// All nodes.
    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.ready.id).collect()
    }

    /// The number of a node, for people.
    pub(super) fn index(&self, id: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.ready.id == *id)
    }

    /// Cuts a node's power.
    pub(super) fn kill(&mut self, index: usize) {
        self.nodes[index].kill();
    }
}

fn node_name(index: usize) -> String {
    format!("node-{index}")
}

fn node(dir: &TempDir, money: &Money, index: usize) -> Launch {
    let name = node_name(index);
    let mut args: Vec<OsString> = vec!["node".into(), "--dir".into(), dir.path().join(&name).into()];
    args.extend(money.flags());
    if index == LIAR {
        args.extend(["--liar".into(), "wrong-value".into()]);
    }
    Launch { args, name, dir: dir.path().to_owned(), outlives: false }
}

fn coordinator(dir: &TempDir, money: &Money, nodes: &[Service]) -> Launch {
    let name = "coordinator".to_owned();
    let mut args: Vec<OsString> = vec!["coordinator".into(), "--dir".into(), dir.path().join(&name).into()];
    args.extend(["--port".into(), "0".into()]);
    args.extend(money.flags());
    args.extend(nodes.iter().flat_map(|node| ["--bootstrap".into(), OsString::from(&node.ready.address)]));
    Launch { args, name, dir: dir.path().to_owned(), outlives: false }
}
