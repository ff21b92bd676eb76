//! Keeping tables alive on nodes: leases, manifests, pointers, pins; and ending that.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use conun_types::{
    Cid, Error, Lease, LeaseId, LeaseKind, PeerAddr, Result,
    port::CallError,
    wire::{ControlReply, ControlRequest, MAX_LIST, Pointer},
};
use futures::stream::{self, StreamExt};

use super::{FAN_OUT, Inner, Table, TableName, Tables, catalog::Entry, info::Presence, table_lease};
use crate::store::pin_id;

/// Seconds for which nodes keep a table whose coordinator is away.
const TABLE_SECONDS: u64 = 7 * 24 * 3600;
/// Seconds for which the shards of a replaced version stay: queries that began on it read on.
const RETIRED_SECONDS: u64 = 3600;
/// Nodes that keep a table's manifest.
const MANIFEST_COPIES: usize = 8;

impl Tables {
    /// Renews leases and repeats manifests and pointers `every` so often, until the last clone of `self` is dropped.
    #[must_use]
    pub fn spawn_upkeep(&self, every: Duration) -> tokio::task::JoinHandle<()> {
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(inner) = inner.upgrade() else { return };
                inner.keep_alive().await;
            }
        })
    }

    /// One round of upkeep: leases of every table renewed, manifests and pointers where they belong.
    pub async fn keep_alive(&self) {
        self.inner.keep_alive().await;
    }

    /// Removes a table: nodes are told, its leases end.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] where there is no such table.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let table = self.table(name)?;
        let _claim = self.inner.claim(&TableName::parse(table.name())?)?;
        let version = self.inner.newest_version(&TableName::parse(table.name())?).await + 1;
        let pointer = Pointer::sign(&self.inner.key, table.name(), version, None);
        self.inner.catalog.save(Entry { pointer: pointer.clone(), table: None })?;
        self.inner.announce(&pointer).await;
        self.inner.end_table_lease(table.name(), table.manifest.version).await;
        Ok(())
    }

    /// Pins a block, or with the address of a table's manifest the whole table, on every node that has it.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] where a block is on no connected node.
    pub async fn pin(&self, cid: Cid) -> Result<()> {
        let blocks = self.inner.pinned_blocks(&cid);
        let lease = Lease { id: pin_id(&cid), kind: LeaseKind::Pin, expires: u64::MAX };
        let peers = self.inner.volunteers();
        let inner = &self.inner;
        // Collected, because a stream of futures from a closure over borrows is not `Send` to the compiler.
        let renewals: Vec<_> = peers.iter().map(|(peer, _)| inner.renew_blocks(peer, &blocks, lease)).collect();
        let found: Vec<Vec<Cid>> = stream::iter(renewals).buffer_unordered(FAN_OUT).collect().await;
        let found: HashSet<Cid> = found.into_iter().flatten().collect();
        if let Some(missing) = blocks.iter().find(|block| !found.contains(block)) {
            inner.end_lease_everywhere(pin_id(&cid)).await;
            return Err(Error::data(format!("cannot pin {cid}: no connected node has block {missing}")));
        }
        inner.catalog.set_pin(cid, true).map(|_| ())
    }

    /// Takes a pin away.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] where it was not pinned.
    pub async fn unpin(&self, cid: Cid) -> Result<()> {
        if !self.inner.catalog.set_pin(cid, false)? {
            return Err(Error::data(format!("{cid} is not pinned")).with_hint("conun pins lists what is"));
        }
        self.inner.end_lease_everywhere(pin_id(&cid)).await;
        Ok(())
    }

    /// What was pinned here.
    #[must_use]
    pub fn pins(&self) -> Vec<Cid> {
        self.inner.catalog.pins()
    }
}

impl Inner {
    async fn keep_alive(&self) {
        for entry in self.catalog.all() {
            if let Some(table) = &entry.table {
                self.renew_table(table).await;
                if let Err(error) = self.repeat_manifest(table).await {
                    tracing::warn!(table = table.name(), %error, "the manifest is on no node");
                }
            }
            self.announce(&entry.pointer).await;
        }
    }

    fn lease_until(&self, table: &Table, seconds: u64) -> Lease {
        Lease {
            id: table_lease(table.name(), table.manifest.version),
            kind: LeaseKind::Table,
            expires: self.clock.unix_seconds().saturating_add(seconds),
        }
    }

    async fn repeat_manifest(&self, table: &Table) -> Result<()> {
        let (bytes, _) = table.manifest.encode()?;
        self.replicate_manifest(table, &bytes.into(), self.lease_until(table, TABLE_SECONDS)).await
    }

    /// Has up to eight nodes keep the manifest, its holders first; one at least must.
    pub(super) async fn replicate_manifest(&self, table: &Table, bytes: &Bytes, lease: Lease) -> Result<()> {
        let mut peers: Vec<PeerAddr> = self.peers().into_values().collect();
        peers.sort_by_key(|peer| (!table.manifest.nodes.contains(&peer.id), peer.id));
        let mut copies = 0;
        // One after another fails over to the next node without writing more copies than wanted.
        for peer in &peers {
            match self.keep_or_write(peer, table.cid, bytes, lease).await {
                Ok(()) => copies += 1,
                Err(error) => tracing::info!(peer = %peer.id, %error, "a node did not take a manifest"),
            }
            if copies == MANIFEST_COPIES {
                break;
            }
        }
        if copies == 0 { Err(Error::unavailable("no node took the table's manifest")) } else { Ok(()) }
    }

    async fn keep_or_write(&self, peer: &PeerAddr, cid: Cid, bytes: &Bytes, lease: Lease) -> Result<(), CallError> {
        match self.renew_blocks(peer, &[cid], lease).await.is_empty() {
            true => self.write(peer, cid, bytes, lease).await,
            false => Ok(()),
        }
    }

    /// Renews the table's lease on every connected node that holds some of it.
    pub(super) async fn renew_table(&self, table: &Table) {
        let lease = self.lease_until(table, TABLE_SECONDS);
        self.renew_on_holders(table, lease).await;
    }

    /// Lets the lease of a replaced version run out soon.
    pub(super) async fn retire(&self, table: &Table) {
        self.renew_on_holders(table, self.lease_until(table, RETIRED_SECONDS)).await;
    }

    async fn renew_on_holders(&self, table: &Table, lease: Lease) {
        let peers = self.peers();
        let blocks = table.blocks_by_node();
        let held = blocks.iter().filter_map(|(node, members)| Some((peers.get(node)?, members)));
        let renewals = held.map(|(peer, members)| async move {
            let cids: Vec<Cid> = members.iter().map(|member| member.cid).collect();
            let found = self.renew_blocks(peer, &cids, lease).await.len();
            if found < cids.len() {
                tracing::warn!(table = table.name(), peer = %peer.id, missing = cids.len() - found, "shards are missing");
            }
        });
        stream::iter(renewals.collect::<Vec<_>>()).buffer_unordered(FAN_OUT).collect::<Vec<()>>().await;
    }

    /// Puts blocks under a lease on a node; returns those that it has.
    async fn renew_blocks(&self, peer: &PeerAddr, blocks: &[Cid], lease: Lease) -> Vec<Cid> {
        let mut found = Vec::new();
        for cids in blocks.chunks(MAX_LIST) {
            let request = ControlRequest::Renew { cids: cids.to_vec(), lease };
            match self.ask_flags(peer, request, cids.len()).await {
                Ok(flags) => found.extend(cids.iter().zip(flags).filter(|(_, has)| *has).map(|(cid, _)| *cid)),
                Err(error) => tracing::debug!(peer = %peer.id, %error, "a lease was not renewed"),
            }
        }
        found
    }

    /// Tells every node of a pointer.
    pub(super) async fn announce(&self, pointer: &Pointer) {
        let told = self.tell_all(ControlRequest::PutPointer(pointer.clone())).await;
        if told == 0 {
            tracing::warn!(table = pointer.table, "no node took the table's pointer; upkeep will repeat it");
        }
    }

    pub(super) async fn end_table_lease(&self, name: &str, version: u64) {
        self.end_lease_everywhere(table_lease(name, version)).await;
    }

    async fn end_lease_everywhere(&self, lease: LeaseId) {
        self.tell_all(ControlRequest::EndLease(lease)).await;
    }

    /// Sends a request to every connected volunteer; returns how many did it.
    async fn tell_all(&self, request: ControlRequest) -> usize {
        let peers = self.peers();
        let told = peers.values().map(|peer| {
            let request = request.clone();
            async move {
                let done = matches!(self.ask(peer, request).await, Ok(ControlReply::Done));
                usize::from(done)
            }
        });
        stream::iter(told.collect::<Vec<_>>()).buffer_unordered(FAN_OUT).fold(0, |sum, n| async move { sum + n }).await
    }

    /// What pinning `cid` pins: all of a table where it is a manifest, else the block.
    fn pinned_blocks(&self, cid: &Cid) -> Vec<Cid> {
        let table = self.catalog.tables().into_iter().find(|table| table.cid == *cid);
        let parts = table.map(|table| table.manifest.blocks()).unwrap_or_default();
        std::iter::once(*cid).chain(parts.into_iter().map(|(cid, _)| cid)).collect()
    }

    /// Asks the nodes of a table which of their shards they have.
    pub(super) async fn ask_presence(&self, table: &Table) -> Presence {
        let mut presence = self.presence();
        let peers = self.peers();
        for (node, members) in table.blocks_by_node() {
            let Some(peer) = peers.get(&node) else { continue };
            for members in members.chunks(MAX_LIST) {
                let cids: Vec<Cid> = members.iter().map(|member| member.cid).collect();
                match self.ask_flags(peer, ControlRequest::Has(cids.clone()), cids.len()).await {
                    Ok(flags) => {
                        let missing = cids.iter().zip(flags).filter(|(_, has)| !has).map(|(cid, _)| (node, *cid));
                        presence.missing.extend(missing);
                    }
                    Err(_) => {
                        presence.online.remove(&node);
                    }
                }
            }
        }
        presence
    }
}
