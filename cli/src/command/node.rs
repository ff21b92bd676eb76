//! `conun node`: lends this machine's disk and cores.

use std::{path::Path, sync::Arc, thread::available_parallelism, time::Duration};

use conun_network::{Host, HostConfig};
use conun_node::{NodeConfig, NodeService, PayTerms};
use conun_storage::{DataDir, datadir::load_or_create_key};
use conun_types::{Error, NodeKey, OsRng, Result, SystemClock};

use crate::{
    args::{Node, NodeCommand, Peer, ServeNode},
    service::{Ready, until_told_to_stop},
};

/// How long running answers may take once the node is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Serves, or tells what the node has earned.
pub(crate) async fn run(args: Node) -> Result<()> {
    let folder = args.serve.dir.clone();
    match (args.command, folder) {
        (Some(NodeCommand::Earnings(args)), _) => super::earnings::run(args).await,
        (None, Some(folder)) => serve(args.serve, &folder).await,
        (None, None) => Err(Error::usage("which folder?").with_hint("name the node's data folder with --dir")),
    }
}

/// Serves until it is told to stop.
async fn serve(args: ServeNode, folder: &Path) -> Result<()> {
    let dir = DataDir::open(folder, "node")?;
    let key = load_or_create_key(&dir, &OsRng)?;
    let pay = terms(&args, &dir, &key).await?;
    let service = NodeService::start_with(settings(&args, folder)?, key.clone(), pay, Arc::new(SystemClock))?;
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

/// What the node works for, where there is a chain.
async fn terms(args: &ServeNode, dir: &DataDir, key: &NodeKey) -> Result<Option<PayTerms>> {
    let ledger = crate::chain::ledger(&args.chain, dir.path(), key).await?;
    Ok(ledger.map(|ledger| PayTerms {
        ledger,
        price: args.price,
        exposure: args.exposure,
        redeem_after: Duration::from_secs(args.redeem_after),
    }))
}

fn settings(args: &ServeNode, folder: &Path) -> Result<NodeConfig> {
    let runner = std::env::current_exe().map_err(|e| Error::from(e).context("this program cannot be found"))?;
    let cores = args.cores.map_or_else(|| available_parallelism().map_or(1, usize::from), |n| n as usize);
    Ok(NodeConfig {
        store_quota: args.store.0,
        per_coordinator_quota: args.store.0,
        cores,
        memory: args.memory,
        allow: args.allow.clone(),
        liar: args.liar,
        delay: args.delay_ms.map(Duration::from_millis),
        ..NodeConfig::new(folder, runner)
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
