//! `conun coordinator`: serves the gRPC port over a network of volunteers.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use conun_api::Server;
use conun_engine::{Engine, EngineConfig, PayConfig};
use conun_network::{ClientOnly, Host};
use conun_storage::{DataDir, Tables, datadir::load_or_create_key, durable};
use conun_types::{AccountId, Amount, Clock, Error, NodeKey, OsRng, Result, Rng, SystemClock, port::Network};

use super::node::host_config;
use crate::{
    args::Coordinator,
    service::{Ready, until_told_to_stop},
};

/// How long a coordinator that starts with an empty folder waits for nodes that may know its tables.
const RECOVERY_WAIT: Duration = Duration::from_secs(5);
/// How often the leases of tables are renewed; nodes keep them for days.
const UPKEEP: Duration = Duration::from_secs(600);
/// How long peers may take to part.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until it is told to stop.
pub(crate) async fn run(args: Coordinator) -> Result<()> {
    let dir = DataDir::open(&args.dir, "coordinator")?;
    let key = match &args.key {
        Some(path) => owner_key(path)?,
        None => load_or_create_key(&dir, &OsRng)?,
    };
    let host = Host::start(host_config(&args.peer), &key, Arc::new(ClientOnly::default())).await?;
    let network: Arc<dyn Network> = Arc::clone(&host) as _;
    let engine = start_engine(&args, &dir, key, network).await?;
    let addr = SocketAddr::new(args.host, args.port);
    let token = std::env::var("CONUN_TOKEN").ok().filter(|token| !token.is_empty());
    let server = Server::serve(engine, addr, token).await?;
    Ready::new("coordinator", &host.local_addr(), Some(server.url())).announce(args.peer.json)?;
    until_told_to_stop(args.peer.die_with_parent).await?;
    server.shutdown().await;
    let _ = tokio::time::timeout(GRACE, host.shutdown()).await;
    drop(dir);
    Ok(())
}

async fn start_engine(
    args: &Coordinator,
    dir: &DataDir,
    key: NodeKey,
    network: Arc<dyn Network>,
) -> Result<Arc<Engine>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let rng: Arc<dyn Rng> = Arc::new(OsRng);
    let tables =
        Tables::open(dir.path(), key.clone(), Arc::clone(&network), Arc::clone(&clock), Arc::clone(&rng)).await?;
    let defaults = EngineConfig::new(dir.folder("jobs")?);
    let shuffle_partitions = args.partitions.map(|n| n as usize);
    let config = EngineConfig { verify: args.verify, cache_bytes: args.cache.0, shuffle_partitions, ..defaults };
    let pay = pay(args, dir, &key).await?;
    let engine = Engine::start(config, key, Arc::clone(&network), tables, clock, rng, pay)?;
    // Not before: the engine keeps count of nodes that answer with lies.
    if engine.tables().list().is_empty() {
        recover(engine.tables(), network.as_ref(), args.peer.bootstrap.len()).await?;
    }
    // It ends with the last clone of the tables.
    drop(engine.tables().spawn_upkeep(UPKEEP));
    Ok(engine)
}

/// How work is paid, where there is a chain.
async fn pay(args: &Coordinator, dir: &DataDir, key: &NodeKey) -> Result<Option<PayConfig>> {
    let Some(ledger) = crate::chain::ledger(&args.chain, dir.path(), key).await? else { return Ok(None) };
    Ok(Some(PayConfig {
        ledger,
        account: args.pay.account.map_or_else(|| own_account(dir), Ok)?,
        price: sane_price(args.pay.price)?,
        byte_day: Amount(args.pay.gib_day.0 >> 30),
        dir: dir.folder("payments")?,
        settle_every: Duration::from_secs(args.pay.settle_every),
    }))
}

/// A price that says more about a slip of the pen than about work: a hundredth of a token for some ten microseconds. Below
/// it, what a stage costs fits its record on the chain.
fn sane_price(price: Amount) -> Result<Amount> {
    let most: Amount = "0.01".parse()?;
    if price > most {
        return Err(Error::usage(format!(
            "--price {price} is absurd: a work unit is some ten microseconds of one core"
        ))
        .with_hint("prices are in tokens a unit, like 0.000001"));
    }
    Ok(price)
}

/// The account that this coordinator pays from unless another is named: drawn once, kept in the folder.
fn own_account(dir: &DataDir) -> Result<AccountId> {
    let path = dir.path().join("account");
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let account = AccountId::generate(&OsRng);
            durable::replace(&path, account.to_string().as_bytes(), durable::Durability::Durable)?;
            Ok(account)
        }
        Err(error) => Err(Error::from(error).context(path.display())),
    }
}

/// Asks the nodes for the tables of this key: the folder may have been lost.
async fn recover(tables: &Tables, network: &dyn Network, expected: usize) -> Result<()> {
    let end = Instant::now() + RECOVERY_WAIT;
    while network.volunteers().len() < expected && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let found = tables.recover().await?;
    if !found.is_empty() {
        tracing::info!(tables = ?found, "tables recovered from the nodes");
    }
    Ok(())
}

/// The owner's key from a file of hexadecimal digits, created if missing.
pub(super) fn owner_key(path: &Path) -> Result<NodeKey> {
    let named = |e: std::io::Error| Error::from(e).context(format!("key file {}", path.display()));
    if !path.exists() {
        let key = NodeKey::generate(&OsRng);
        let digits: String = key.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        durable::replace_secret(path, digits.as_bytes()).map_err(named)?;
        return Ok(key);
    }
    let text = std::fs::read_to_string(path).map_err(named)?;
    let damaged = || {
        Error::data(format!("key file {} is damaged", path.display()))
            .with_hint("restore it from a copy; without it the tables it owns cannot be changed")
    };
    NodeKey::from_bytes(&hex::decode(text.trim()).map_err(|_| damaged())?).map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_keys_are_kept_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.key");
        let key = owner_key(&path).unwrap();
        assert_eq!(owner_key(&path).unwrap().id(), key.id());
        std::fs::write(&path, "junk").unwrap();
        assert!(owner_key(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "junk");
    }
}
