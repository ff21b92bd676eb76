//! The coordinator's tables: put, list, read, remove, pin, keep alive, recover.
//!
//! One call tells each story in its own file: [`put`], [`read`], [`upkeep`], [`recover`]. All talk to nodes through
//! [`Network`] only. Nothing here trusts a node: blocks and manifests are checked against their addresses, pointers
//! against their signatures.

mod catalog;
mod info;
mod name;
mod put;
mod read;
mod recover;
mod table;
mod upkeep;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use conun_types::{
    Cid, Clock, Error, Holder, LeaseId, NodeId, NodeKey, PeerAddr, Result, Rng,
    port::{CallError, Network},
    wire::{ControlReply, ControlRequest, Hello, ReadBlock},
};

use self::{catalog::Catalog, info::Presence, table::Peers};
pub use self::{
    info::{ColumnInfo, HolderInfo, TableInfo},
    name::TableName,
    put::{Progress, PutOptions, PutProgress},
    table::{ShardRef, Table},
};

/// Requests to nodes that run at once, where one goes to each of many.
const FAN_OUT: usize = 16;

/// The tables of one coordinator. Clones share them.
#[derive(Clone)]
pub struct Tables {
    inner: Arc<Inner>,
}

struct Inner {
    key: NodeKey,
    network: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    catalog: Catalog,
    /// Names that are being put or removed now.
    claimed: Mutex<HashSet<String>>,
    /// Who keeps count of nodes that send what no honest node sends.
    watcher: OnceLock<Watcher>,
}

/// Hears of a node that sent what no honest node sends, and what it was.
type Watcher = Box<dyn Fn(NodeId, &str) + Send + Sync>;

impl Tables {
    /// Opens the tables of the coordinator with `key`, kept in the folder `dir`. Call [`Tables::spawn_upkeep`] to keep
    /// their leases alive, [`Tables::recover`] where the folder may have been lost.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn open(
        dir: &Path,
        key: NodeKey,
        network: Arc<dyn Network>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Self> {
        let catalog = Catalog::open(dir).map_err(|e| e.context("tables"))?;
        let (claimed, watcher) = Default::default();
        Ok(Self { inner: Arc::new(Inner { key, network, clock, rng, catalog, claimed, watcher }) })
    }

    /// Calls `watcher` with every node that sends what no honest node sends (wrong bytes of a shard, a forged pointer), and
    /// with what it was: tables read around such nodes, and judge nobody. Only the first watcher counts.
    pub fn watch(&self, watcher: impl Fn(NodeId, &str) + Send + Sync + 'static) {
        let _ = self.inner.watcher.set(Box::new(watcher));
    }

    /// Every table, by name, as far as connected nodes tell: whether they still have their shards is not asked.
    #[must_use]
    pub fn list(&self) -> Vec<TableInfo> {
        let presence = self.inner.presence();
        self.inner.catalog.tables().iter().map(|table| TableInfo::of(table, &presence)).collect()
    }

    /// The newest version of a table. It stays readable while its blocks are leased, whatever is put meanwhile.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] where there is none, with the names that may have been meant.
    pub fn table(&self, name: &str) -> Result<Arc<Table>> {
        self.inner.catalog.table(name)
    }

    /// Everything about a table; its nodes are asked whether they have their shards.
    ///
    /// # Errors
    /// As [`Tables::table`].
    pub async fn info(&self, name: &str) -> Result<TableInfo> {
        let table = self.table(name)?;
        let presence = self.inner.ask_presence(&table).await;
        Ok(TableInfo::of(&table, &presence))
    }
}

impl Inner {
    /// Volunteers that are connected now.
    fn volunteers(&self) -> Vec<(PeerAddr, Hello)> {
        self.network.volunteers().into_iter().filter(|(_, hello)| hello.volunteer).collect()
    }

    fn peers(&self) -> Peers {
        self.volunteers().into_iter().map(|(peer, _)| (peer.id, peer)).collect::<BTreeMap<_, _>>()
    }

    fn presence(&self) -> Presence {
        Presence { online: self.peers().into_keys().collect(), missing: HashSet::new() }
    }

    /// Asks a short question and takes refusals for errors.
    async fn ask(&self, peer: &PeerAddr, request: ControlRequest) -> Result<ControlReply, CallError> {
        match self.watched(self.network.control(peer, request).await)? {
            ControlReply::Refused(error) => Err(CallError::Refused { peer: peer.id, reason: error.message }),
            reply => Ok(reply),
        }
    }

    /// Asks for one flag a block.
    async fn ask_flags(&self, peer: &PeerAddr, request: ControlRequest, count: usize) -> Result<Vec<bool>, CallError> {
        match self.ask(peer, request).await? {
            ControlReply::Has(flags) if flags.len() == count => Ok(flags),
            _ => self.watched(Err(CallError::Misbehaved { peer: peer.id, reason: "answered another question".into() })),
        }
    }

    /// All bytes of a block, checked against its address.
    async fn read_block(&self, holder: &Holder, cid: Cid) -> Result<Bytes, CallError> {
        let peer = holder.peer.id;
        let read = self.network.read_block(&holder.peer, ReadBlock::whole(cid, holder.capability)).await;
        self.watched(match read {
            Ok(bytes) if !cid.matches(&bytes) => {
                Err(CallError::Misbehaved { peer, reason: format!("sent wrong bytes for block {cid}") })
            }
            read => read,
        })
    }

    /// The same, once a breach was noted.
    fn watched<T>(&self, result: Result<T, CallError>) -> Result<T, CallError> {
        if let Err(CallError::Misbehaved { peer, reason }) = &result {
            self.breach(*peer, reason);
        }
        result
    }

    /// `node` sent what no honest node sends.
    fn breach(&self, node: NodeId, reason: &str) {
        tracing::warn!(peer = %node, reason, "a node did what no honest one does");
        if let Some(watcher) = self.watcher.get() {
            watcher(node, reason);
        }
    }

    /// Keeps others from changing the table while the guard lives.
    fn claim(&self, name: &TableName) -> Result<Claim<'_>> {
        if !self.claimed().insert(name.as_str().to_owned()) {
            return Err(Error::usage(format!("table '{name}' is being changed by another command"))
                .with_hint("wait until it is done"));
        }
        Ok(Claim { inner: self, name: name.as_str().to_owned() })
    }

    fn claimed(&self) -> MutexGuard<'_, HashSet<String>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Claim<'a> {
    inner: &'a Inner,
    name: String,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.inner.claimed().remove(&self.name);
    }
}

/// The lease of all blocks of one version of a table.
fn table_lease(name: &str, version: u64) -> LeaseId {
    LeaseId::named(&format!("table/{name}/{version}"))
}
