//! A node's store: blocks under leases within quotas, and table pointers, all of it durable.
//!
//! It decides with [`LeaseTable`] and [`PointerBook`], writes each change to a journal before anybody relies on it,
//! and only then touches files, so that a crash leaves at worst a block without a lease, which goes after a day.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use conun_types::{
    Cid, Clock, Error, Lease, LeaseId, LeaseKind, NodeId, Result,
    wire::{BlockError, MAX_BLOCK, MAX_LIST, Pointer, WriteBlock},
};
use serde::{Deserialize, Serialize};

use crate::{
    block::{BlockStore, DiskBlocks, Durability, MemoryBlocks},
    journal::Journal,
    lease::{LeaseTable, charge},
    pointers::PointerBook,
};

#[cfg(test)]
mod tests;

/// Seconds for which a block without a lease is kept after a start: its coordinator may renew it.
const ORPHAN_GRACE: u64 = 24 * 3600;
/// The journal is rewritten when it is this much longer than what it says.
const COMPACT_FACTOR: usize = 4;
/// Journals shorter than this are not worth rewriting.
const COMPACT_MIN: usize = 1024;

/// How much a store keeps, in all and for each coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all.
    pub total: u64,
    /// Bytes for one coordinator.
    pub per_coordinator: u64,
    /// Leases of one coordinator.
    pub leases: usize,
    /// Pairs of lease and block of one coordinator.
    pub holds: usize,
    /// Table pointers of one owner.
    pub pointers: usize,
    /// Seconds from now at which a lease other than a pin ends at the latest.
    pub longest_lease: u64,
}

impl Limits {
    /// The usual limits of a store of `total` bytes.
    #[must_use]
    pub fn of(total: u64) -> Self {
        Self {
            total,
            per_coordinator: total,
            leases: 16_384,
            holds: 1 << 20,
            pointers: 1024,
            longest_lease: 30 * 24 * 3600,
        }
    }
}

/// What [`Store::gc`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Blocks.
    pub blocks: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A change, as the journal keeps it.
#[derive(Debug, Serialize, Deserialize)]
enum Change {
    Hold { owner: NodeId, lease: Lease, blocks: Vec<(Cid, u64)> },
    Renew { owner: NodeId, lease: Lease },
    End { owner: NodeId, lease: LeaseId },
    Forget { blocks: Vec<Cid> },
    Point { pointer: Pointer },
}

struct State {
    leases: LeaseTable,
    pointers: PointerBook,
    journal: Option<Journal<Change>>,
    /// Bytes of blocks that are being written, not yet in `leases`.
    reserved: HashMap<NodeId, u64>,
}

/// A node's store. All methods may block on the disk; call them off the async threads where blocks are large.
pub struct Store {
    local: NodeId,
    limits: Limits,
    clock: Arc<dyn Clock>,
    blocks: Box<dyn BlockStore>,
    state: Mutex<State>,
}

impl Store {
    /// Opens the store in `dir` (folder `blocks`, file `leases.log`), or creates it, for the node `local`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(dir: &Path, local: NodeId, limits: Limits, clock: Arc<dyn Clock>) -> Result<Self> {
        let blocks = DiskBlocks::open(&dir.join("blocks"))?;
        let (journal, changes) = Journal::open(&dir.join("leases.log"))?;
        let mut state = State { journal: Some(journal), ..State::empty() };
        for change in changes {
            state.apply(change, limits.pointers);
        }
        let store = Self { local, limits, clock, blocks: Box::new(blocks), state: Mutex::new(state) };
        store.reconcile()?;
        Ok(store)
    }

    /// A store in memory, for tests and for processes without a folder.
    #[must_use]
    pub fn in_memory(local: NodeId, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let blocks = Box::new(MemoryBlocks::default());
        Self { local, limits, clock, blocks, state: Mutex::new(State::empty()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes leases and files agree after a start.
    fn reconcile(&self) -> Result<()> {
        self.gc(self.clock.unix_seconds()).map_err(broken)?;
        let on_disk: HashMap<Cid, u64> = self.blocks.list().map_err(broken)?.into_iter().collect();
        let mut state = self.state();
        let gone: Vec<Cid> = state.leases.blocks().filter(|cid| !on_disk.contains_key(cid)).copied().collect();
        let orphans: Vec<_> = on_disk.into_iter().filter(|(cid, _)| !state.leases.contains(cid)).collect();
        if !gone.is_empty() {
            tracing::warn!(blocks = gone.len(), "blocks under lease are missing");
            state.commit(Change::Forget { blocks: gone }, Durability::Volatile)?;
        }
        let expires = self.clock.unix_seconds().saturating_add(ORPHAN_GRACE);
        let lease = Lease { id: LeaseId::named("orphans"), kind: LeaseKind::Cache, expires };
        for blocks in orphans.chunks(MAX_LIST) {
            let blocks = blocks.to_vec();
            state.commit(Change::Hold { owner: self.local, lease, blocks }, Durability::Volatile)?;
        }
        Ok(())
    }

    /// Whether [`Store::keep`] would keep a block: what a node answers before the bytes are sent.
    ///
    /// # Errors
    /// [`BlockError::Invalid`] beyond a limit, [`BlockError::QuotaExceeded`].
    pub fn admit(&self, from: NodeId, request: &WriteBlock) -> Result<(), BlockError> {
        self.check_lease(&request.lease)?;
        self.room(&self.state(), &from, request).map(|_| ())
    }

    fn check_lease(&self, lease: &Lease) -> Result<(), BlockError> {
        let now = self.clock.unix_seconds();
        if lease.expires < now {
            return Err(BlockError::Invalid("the lease is over".into()));
        }
        if lease.kind != LeaseKind::Pin && lease.expires - now > self.limits.longest_lease {
            return Err(BlockError::Invalid(format!("a lease lasts {} s at most", self.limits.longest_lease)));
        }
        Ok(())
    }

    /// Blocks that must go first, where there is room at all.
    fn room(&self, state: &State, from: &NodeId, request: &WriteBlock) -> Result<Vec<Cid>, BlockError> {
        if request.len > MAX_BLOCK {
            return Err(BlockError::Invalid(format!("block of {} bytes, the limit is {MAX_BLOCK}", request.len)));
        }
        let usage = state.leases.usage(from);
        let new_lease = !state.leases.has_lease(from, &request.lease.id);
        if usage.holds >= self.limits.holds || (new_lease && usage.leases >= self.limits.leases) {
            return Err(BlockError::QuotaExceeded);
        }
        let add = charge(request.len);
        let own = usage.bytes.saturating_add(state.reserved.get(from).copied().unwrap_or_default());
        if !state.leases.held_by(from, &request.cid) && own.saturating_add(add) > self.limits.per_coordinator {
            return Err(BlockError::QuotaExceeded);
        }
        if state.leases.contains(&request.cid) {
            return Ok(Vec::new());
        }
        let all = state.reserved.values().fold(state.leases.used(), |sum, bytes| sum.saturating_add(*bytes));
        let beyond = all.saturating_add(add).saturating_sub(self.limits.total);
        state.leases.evictable(beyond).ok_or(BlockError::QuotaExceeded)
    }

    /// Keeps a block for `from`. Tables and pins survive power loss; what can be computed again survives `kill -9`.
    ///
    /// # Errors
    /// As [`Store::admit`]; [`BlockError::Invalid`] where the bytes are not the block; [`BlockError::Node`] where the
    /// disk fails.
    pub fn keep(&self, from: NodeId, request: &WriteBlock, data: Bytes) -> Result<(), BlockError> {
        if data.len() as u64 != request.len {
            return Err(BlockError::Invalid(format!("{} bytes came, {} were announced", data.len(), request.len)));
        }
        self.check_lease(&request.lease)?;
        self.reserve(&from, request)?;
        let durability = durability_of(request.lease.kind);
        let written = self.blocks.put(&request.cid, &data, durability);
        let mut state = self.state();
        state.unreserve(&from, charge(request.len));
        written?;
        // A lease on the same block may have ended meanwhile and taken the file with it.
        if self.blocks.size(&request.cid).is_none() {
            self.blocks.put(&request.cid, &data, durability)?;
        }
        let blocks = vec![(request.cid, request.len)];
        let change = Change::Hold { owner: from, lease: request.lease, blocks };
        state.commit(change, durability).map(|_| ()).map_err(|e| BlockError::Node(e.message))
    }

    fn reserve(&self, from: &NodeId, request: &WriteBlock) -> Result<(), BlockError> {
        let mut state = self.state();
        let evict = self.room(&state, from, request)?;
        if !evict.is_empty() {
            self.drop_blocks(&mut state, evict)?;
        }
        *state.reserved.entry(*from).or_default() += charge(request.len);
        Ok(())
    }

    /// Takes blocks out of all leases, then off the disk.
    fn drop_blocks(&self, state: &mut State, blocks: Vec<Cid>) -> Result<(), BlockError> {
        let change = Change::Forget { blocks: blocks.clone() };
        state.commit(change, Durability::Volatile).map_err(|e| BlockError::Node(e.message))?;
        blocks.iter().try_for_each(|cid| self.blocks.remove(cid))
    }

    /// The bytes of a block, checked.
    ///
    /// # Errors
    /// [`BlockError::NotFound`], also where the disk damaged it; [`BlockError::Node`].
    pub fn read(&self, cid: &Cid) -> Result<Bytes, BlockError> {
        let result = self.blocks.get(cid);
        let mut state = self.state();
        match &result {
            Ok(_) => state.leases.touch(cid),
            Err(BlockError::NotFound) if state.leases.contains(cid) && self.blocks.size(cid).is_none() => {
                self.drop_blocks(&mut state, vec![*cid])?;
            }
            Err(_) => {}
        }
        result
    }

    /// Whether the block is kept.
    #[must_use]
    pub fn contains(&self, cid: &Cid) -> bool {
        self.state().leases.contains(cid)
    }

    /// The block's length, where it is kept.
    #[must_use]
    pub fn len_of(&self, cid: &Cid) -> Option<u64> {
        self.state().leases.len_of(cid)
    }

    /// Whether anybody may read the block without a capability (it belongs to a table, or is pinned).
    #[must_use]
    pub fn is_public(&self, cid: &Cid) -> bool {
        self.state().leases.is_public(cid)
    }

    /// Whether `from` may know that the block is here: it is public, or under a lease of `from`. To anybody else a private
    /// block is as good as missing: who asks for the right names would learn what others have made.
    #[must_use]
    pub fn shows(&self, from: &NodeId, cid: &Cid) -> bool {
        self.state().shows(from, cid)
    }

    /// Keeps blocks that are here under a new or renewed lease of `from`; says which of them are. With no ids, renews
    /// the lease for what it holds. Private blocks of others are as good as missing: else a lease would open them.
    ///
    /// # Errors
    /// As [`Store::admit`].
    pub fn renew(&self, from: NodeId, cids: &[Cid], lease: Lease) -> Result<Vec<bool>, BlockError> {
        if cids.len() > MAX_LIST {
            return Err(BlockError::Invalid(format!("more than {MAX_LIST} blocks")));
        }
        self.check_lease(&lease)?;
        let mut state = self.state();
        let here: Vec<bool> = cids.iter().map(|cid| state.shows(&from, cid)).collect();
        let fresh = self.not_yet_held(&state, &from, cids, &here, &lease)?;
        let change = match fresh.is_empty() {
            true if !state.leases.has_lease(&from, &lease.id) => return Ok(here),
            true => Change::Renew { owner: from, lease },
            false => Change::Hold { owner: from, lease, blocks: fresh },
        };
        state.commit(change, durability_of(lease.kind)).map_err(|e| BlockError::Node(e.message))?;
        Ok(here)
    }

    /// Those of `cids` that the lease does not hold yet, if the quota allows them.
    fn not_yet_held(
        &self,
        state: &State,
        from: &NodeId,
        cids: &[Cid],
        here: &[bool],
        lease: &Lease,
    ) -> Result<Vec<(Cid, u64)>, BlockError> {
        let wanted =
            cids.iter().zip(here).filter(|(cid, here)| **here && !state.leases.held_under(from, &lease.id, cid));
        let fresh: Vec<_> = wanted.filter_map(|(cid, _)| Some((*cid, state.leases.len_of(cid)?))).collect();
        let usage = state.leases.usage(from);
        let more: u64 = fresh.iter().filter(|(c, _)| !state.leases.held_by(from, c)).map(|(_, len)| charge(*len)).sum();
        let new_lease = usize::from(!fresh.is_empty() && !state.leases.has_lease(from, &lease.id));
        let beyond = usage.bytes.saturating_add(more) > self.limits.per_coordinator
            || usage.holds + fresh.len() > self.limits.holds
            || usage.leases + new_lease > self.limits.leases;
        if !fresh.is_empty() && beyond { Err(BlockError::QuotaExceeded) } else { Ok(fresh) }
    }

    /// Ends a lease of `from`; blocks that nothing else keeps go at once.
    ///
    /// # Errors
    /// [`BlockError::Node`] where the disk fails.
    pub fn end_lease(&self, from: NodeId, lease: LeaseId) -> Result<(), BlockError> {
        let mut state = self.state();
        if !state.leases.has_lease(&from, &lease) {
            return Ok(());
        }
        let change = Change::End { owner: from, lease };
        let freed = state.commit(change, Durability::Volatile).map_err(|e| BlockError::Node(e.message))?;
        freed.iter().try_for_each(|cid| self.blocks.remove(cid))
    }

    /// Pins a block that is here for `from`, until [`Store::unpin`].
    ///
    /// # Errors
    /// [`BlockError::NotFound`] where it is not; as [`Store::admit`].
    pub fn pin(&self, from: NodeId, cid: Cid) -> Result<(), BlockError> {
        let lease = Lease { id: pin_id(&cid), kind: LeaseKind::Pin, expires: u64::MAX };
        match self.renew(from, &[cid], lease)?.first() {
            Some(true) => Ok(()),
            _ => Err(BlockError::NotFound),
        }
    }

    /// Takes a pin of `from` away.
    ///
    /// # Errors
    /// [`BlockError::NotFound`] where it was not pinned.
    pub fn unpin(&self, from: NodeId, cid: Cid) -> Result<(), BlockError> {
        if !self.state().leases.has_lease(&from, &pin_id(&cid)) {
            return Err(BlockError::NotFound);
        }
        self.end_lease(from, pin_id(&cid))
    }

    /// Pinned blocks and who pinned them.
    #[must_use]
    pub fn pins(&self) -> Vec<(NodeId, Cid)> {
        self.state().leases.pins()
    }

    /// Bytes in use and lent.
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        (self.state().leases.used(), self.limits.total)
    }

    /// Keeps a pointer unless a newer one is known.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] where it is forged, contradicts a known one, or its owner has too many.
    pub fn put_pointer(&self, pointer: Pointer) -> Result<()> {
        pointer.check()?;
        let mut state = self.state();
        if state.pointers.take(pointer.clone(), self.limits.pointers)? {
            state.log(&Change::Point { pointer }, Durability::Durable)?;
        }
        Ok(())
    }

    /// Every pointer kept here.
    #[must_use]
    pub fn pointers(&self) -> Vec<Pointer> {
        self.state().pointers.iter().take(MAX_LIST).cloned().collect()
    }

    /// Drops leases that ended before `now` (Unix seconds) and the blocks that only they kept.
    ///
    /// # Errors
    /// [`BlockError::Node`] where the disk fails.
    pub fn gc(&self, now: u64) -> Result<Collected, BlockError> {
        let mut state = self.state();
        let before = state.leases.used();
        // No record of it: leases that are over when the journal is read again are over then too.
        let freed = state.leases.expire(now);
        freed.iter().try_for_each(|cid| self.blocks.remove(cid))?;
        if !freed.is_empty() {
            state.compact().map_err(|e| BlockError::Node(e.message))?;
        }
        Ok(Collected { blocks: freed.len(), bytes: before - state.leases.used() })
    }
}

/// The id of a pin's lease, the same for everybody who pins `cid`.
#[must_use]
pub fn pin_id(cid: &Cid) -> LeaseId {
    LeaseId::named(&format!("pin/{cid}"))
}

fn durability_of(kind: LeaseKind) -> Durability {
    match kind {
        LeaseKind::Table | LeaseKind::Pin => Durability::Durable,
        LeaseKind::Job | LeaseKind::Cache => Durability::Volatile,
    }
}

fn broken(error: BlockError) -> Error {
    Error::internal(format!("block store: {error}"))
}

impl State {
    fn empty() -> Self {
        Self {
            leases: LeaseTable::default(),
            pointers: PointerBook::default(),
            journal: None,
            reserved: HashMap::new(),
        }
    }

    fn shows(&self, from: &NodeId, cid: &Cid) -> bool {
        self.leases.is_public(cid) || self.leases.held_by(from, cid)
    }

    /// Writes a change down, then makes it; returns the blocks that nothing keeps any more.
    fn commit(&mut self, change: Change, durability: Durability) -> Result<Vec<Cid>> {
        self.log(&change, durability)?;
        let freed = self.apply(change, usize::MAX);
        self.compact()?;
        Ok(freed)
    }

    fn log(&mut self, change: &Change, durability: Durability) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.append(change, durability))
    }

    fn apply(&mut self, change: Change, pointers_per_owner: usize) -> Vec<Cid> {
        match change {
            Change::Hold { owner, lease, blocks } => {
                blocks.into_iter().for_each(|(cid, len)| self.leases.hold(owner, &lease, cid, len));
            }
            Change::Renew { owner, lease } => {
                self.leases.renew(&owner, &lease);
            }
            Change::End { owner, lease } => return self.leases.end(&owner, &lease),
            Change::Forget { blocks } => blocks.iter().for_each(|cid| self.leases.forget(cid)),
            Change::Point { pointer } => {
                // It was accepted before it was written down.
                let _ = self.pointers.take(pointer, pointers_per_owner);
            }
        }
        Vec::new()
    }

    /// Rewrites the journal where it is mostly history.
    fn compact(&mut self) -> Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        if journal.records() < COMPACT_MIN {
            return Ok(());
        }
        let mut changes = Vec::new();
        for (owner, lease, blocks) in self.leases.snapshot() {
            let chunks = blocks.chunks(MAX_LIST);
            changes.extend(chunks.map(|blocks| Change::Hold { owner, lease, blocks: blocks.to_vec() }));
        }
        changes.extend(self.pointers.iter().map(|pointer| Change::Point { pointer: pointer.clone() }));
        if journal.records() < changes.len().saturating_mul(COMPACT_FACTOR) {
            return Ok(());
        }
        journal.rewrite(&changes)
    }

    fn unreserve(&mut self, from: &NodeId, bytes: u64) {
        if let Some(reserved) = self.reserved.get_mut(from) {
            *reserved -= bytes;
            if *reserved == 0 {
                self.reserved.remove(from);
            }
        }
    }
}
