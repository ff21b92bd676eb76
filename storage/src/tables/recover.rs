//! Tables come back from the nodes after the coordinator lost its folder.
//!
//! A pointer signed by our own key is ours, whoever brings it. Where the key was lost too, a stranger's pointer counts
//! only if two nodes at least keep the same one and no other owner claims the name: one node alone cannot plant one.

use std::collections::{BTreeMap, BTreeSet};

use conun_types::{
    Cid, Error, Holder, NodeId, PeerAddr, Result,
    wire::{ControlReply, ControlRequest, Pointer},
};
use futures::stream::{self, StreamExt};

use super::{FAN_OUT, Inner, Table, TableName, Tables, catalog::Entry};

/// Most pointers that one node is believed to keep; each costs a signature check.
const MAX_POINTERS: usize = 4096;
/// Nodes that must keep a stranger's pointer.
const WITNESSES: usize = 2;

/// Checked pointers and the nodes that keep each.
type Told = Vec<(Pointer, BTreeSet<NodeId>)>;

impl Tables {
    /// Looks for tables on the connected nodes and takes those that are missing or newer there; returns their names.
    ///
    /// # Errors
    /// Those of the file system. A table whose manifest no node gives is only logged.
    pub async fn recover(&self) -> Result<Vec<String>> {
        let told = self.inner.ask_pointers().await;
        let mut names = Vec::new();
        for (pointer, nodes) in choose(&told, &self.inner.key.id()) {
            if !self.inner.wants(&pointer) {
                continue;
            }
            match self.inner.adopt(&pointer, &nodes).await {
                Ok(true) => names.push(pointer.table),
                Ok(false) => {}
                Err(error) => tracing::warn!(table = pointer.table, %error, "a table could not be recovered"),
            }
        }
        Ok(names)
    }
}

impl Inner {
    /// Asks every volunteer for its pointers and checks them.
    async fn ask_pointers(&self) -> Told {
        let peers = self.peers();
        let asked = peers.values().map(|peer| async move { (peer.id, self.ask(peer, ControlRequest::Pointers).await) });
        let replies: Vec<_> = stream::iter(asked.collect::<Vec<_>>()).buffer_unordered(FAN_OUT).collect().await;
        let mut told: BTreeMap<_, (Pointer, BTreeSet<NodeId>)> = BTreeMap::new();
        for (node, reply) in replies {
            let Ok(ControlReply::Pointers(pointers)) = reply else { continue };
            for pointer in pointers.into_iter().take(MAX_POINTERS) {
                let key = (pointer.owner, pointer.table.clone(), pointer.version, pointer.manifest);
                if told.contains_key(&key) || self.is_pointer(node, &pointer) {
                    told.entry(key).or_insert_with(|| (pointer, BTreeSet::new())).1.insert(node);
                }
            }
        }
        told.into_values().collect()
    }

    /// Whether `pointer`, which `node` keeps, is signed by its owner and names a table. Nodes check signatures before they keep
    /// a pointer: who shows a forged one made it, or did not look.
    fn is_pointer(&self, node: NodeId, pointer: &Pointer) -> bool {
        if let Err(error) = pointer.check() {
            self.breach(node, &format!("a forged pointer to '{}': {error}", pointer.table.escape_debug()));
            return false;
        }
        TableName::parse(&pointer.table).is_ok_and(|name| name.as_str() == pointer.table)
    }

    /// The newest version that this coordinator ever gave a table, by its own books and the nodes'.
    pub(super) async fn newest_version(&self, name: &TableName) -> u64 {
        let here = self.catalog.get(name.as_str()).map_or(0, |entry| entry.pointer.version);
        let own = self.key.id();
        let told = self.ask_pointers().await.into_iter().map(|(pointer, _)| pointer);
        let ours = told.filter(|p| p.owner == own && p.table == name.as_str()).map(|p| p.version);
        ours.fold(here, u64::max)
    }

    /// Whether the books here are older than the pointer, or have nothing of the table.
    fn wants(&self, pointer: &Pointer) -> bool {
        self.catalog
            .get(&pointer.table)
            .is_none_or(|entry| entry.pointer.owner == pointer.owner && entry.pointer.version < pointer.version)
    }

    /// Takes a table over; false where the pointer says that it was removed.
    async fn adopt(&self, pointer: &Pointer, nodes: &BTreeSet<NodeId>) -> Result<bool> {
        let Some(cid) = pointer.manifest else {
            self.catalog.save(Entry { pointer: pointer.clone(), table: None })?;
            return Ok(false);
        };
        let table = self.fetch_manifest(pointer, cid, nodes).await?;
        self.renew_table(&table).await;
        self.catalog.save(Entry { pointer: pointer.clone(), table: Some(table.into()) })?;
        Ok(true)
    }

    /// The manifest from any node, those that keep the pointer first.
    async fn fetch_manifest(&self, pointer: &Pointer, cid: Cid, nodes: &BTreeSet<NodeId>) -> Result<Table> {
        let mut peers: Vec<PeerAddr> = self.peers().into_values().collect();
        peers.sort_by_key(|peer| !nodes.contains(&peer.id));
        let mut last = Error::unavailable("no node is connected");
        for holder in peers.into_iter().map(|peer| Holder { peer, capability: None }) {
            let bytes = self.read_block(&holder, cid).await;
            match bytes.map_err(Error::from).and_then(|bytes| Table::decode(pointer, cid, &bytes)) {
                Ok(table) => return Ok(table),
                Err(error) => last = error,
            }
        }
        Err(last.context(format!("manifest {cid}")))
    }
}

/// The pointer to believe for each table, and who keeps it.
fn choose(told: &Told, own: &NodeId) -> Vec<(Pointer, BTreeSet<NodeId>)> {
    let mut newest: BTreeMap<(&str, &NodeId), &(Pointer, BTreeSet<NodeId>)> = BTreeMap::new();
    for candidate in told {
        let (pointer, nodes) = candidate;
        if pointer.owner != *own && nodes.len() < WITNESSES {
            continue;
        }
        let best = newest.entry((pointer.table.as_str(), &pointer.owner)).or_insert(candidate);
        if pointer.version > best.0.version {
            *best = candidate;
        }
    }
    let mut by_name: BTreeMap<&str, Vec<&(Pointer, BTreeSet<NodeId>)>> = BTreeMap::new();
    newest.into_iter().for_each(|((name, _), candidate)| by_name.entry(name).or_default().push(candidate));
    by_name.into_values().filter_map(|candidates| settle(candidates, own)).collect()
}

/// One of the owners that claim a name: ourselves, else the only one whose table still stands.
fn settle(candidates: Vec<&(Pointer, BTreeSet<NodeId>)>, own: &NodeId) -> Option<(Pointer, BTreeSet<NodeId>)> {
    if let Some(ours) = candidates.iter().find(|(pointer, _)| pointer.owner == *own) {
        return Some((*ours).clone());
    }
    let standing: Vec<_> = candidates.into_iter().filter(|(pointer, _)| pointer.manifest.is_some()).collect();
    match standing[..] {
        [only] => Some(only.clone()),
        [] => None,
        [(pointer, _), ..] => {
            tracing::warn!(table = pointer.table, "several owners claim the table; none is taken");
            None
        }
    }
}
