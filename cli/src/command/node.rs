//! `conun node`: lends this machine's disk and cores.

use std::{sync::Arc, thread::available_parallelism, time::Duration};

use conun_network::{Host, HostConfig};
use conun_node::{NodeConfig, NodeService};
use conun_storage::{DataDir, datadir::load_or_create_key};
use conun_types::{Error, OsRng, Result};

use crate::{
    args::{Node, Peer},
    service::{Ready, until_told_to_stop},
};

/// How long running answers may take once the node is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until it is told to stop.
pub(crate) async fn run(args: Node) -> Result<()> {
    let dir = DataDir::open(&args.dir, "node")?;
    let key = load_or_create_key(&dir, &OsRng)?;
    let service = NodeService::start(settings(&args)?, key.clone())?;
    let host = Host::start(host_config(&args.peer), &key, service.volunteer()).await?;
    service.attach(Arc::clone(&host) as _);
    Ready::new("node", &conun_types::port::Network::local_addr(host.as_ref()), None).announce(args.peer.json)?;
    until_told_to_stop(args.peer.die_with_parent).await?;
    let _ = tokio::time::timeout(GRACE, host.shutdown()).await;
    // Runners end with the service, and only then may another process have the folder.
    drop(service);
    drop(dir);
    Ok(())
}

fn settings(args: &Node) -> Result<NodeConfig> {
    let runner = std::env::current_exe().map_err(|e| Error::from(e).context("this program cannot be found"))?;
    let cores = args.cores.map_or_else(|| available_parallelism().map_or(1, usize::from), |n| n as usize);
    Ok(NodeConfig {
        store_quota: args.store.0,
        per_coordinator_quota: args.store.0,
        cores,
        memory: args.memory,
        allow: args.allow.clone(),
        liar: args.liar,
        ..NodeConfig::new(&args.dir, runner)
    })
}

/// Where to listen for peers and whom to meet first.
pub(super) fn host_config(peer: &Peer) -> HostConfig {
    let mut config = HostConfig { bootstrap: peer.bootstrap.clone(), ..HostConfig::default() };
    if !peer.listen.is_empty() {
        config.listen = peer.listen.clone();
    }
    config
}
