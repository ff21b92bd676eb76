//! Who keeps which block, why and until when: the accounting behind a node's quotas. Pure state; the files are
//! [`crate::store`]'s.

use std::collections::{HashMap, HashSet};

use conun_types::{Cid, Lease, LeaseId, LeaseKind, NodeId};

/// A block takes at least this much of a quota, so that crumbs cannot fill a disk's tables of contents for free.
const MIN_CHARGE: u64 = 4096;

/// What a block of `len` bytes takes of a quota.
#[must_use]
pub fn charge(len: u64) -> u64 {
    len.max(MIN_CHARGE)
}

/// A coordinator's lease.
type Key = (NodeId, LeaseId);

#[derive(Debug)]
struct Entry {
    kind: LeaseKind,
    expires: u64,
    blocks: HashSet<Cid>,
}

#[derive(Debug)]
struct Block {
    len: u64,
    holds: Vec<Key>,
    last_used: u64,
}

/// A lease, its owner, and its blocks with their lengths.
pub type Held = (NodeId, Lease, Vec<(Cid, u64)>);

/// What one owner takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes charged for distinct blocks.
    pub bytes: u64,
    /// Leases.
    pub leases: usize,
    /// Pairs of lease and block.
    pub holds: usize,
}

/// All leases of a node.
#[derive(Debug, Default)]
pub struct LeaseTable {
    leases: HashMap<Key, Entry>,
    blocks: HashMap<Cid, Block>,
    owners: HashMap<NodeId, Usage>,
    used: u64,
    ticks: u64,
}

impl LeaseTable {
    /// Bytes charged for all blocks.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// What `owner` takes.
    #[must_use]
    pub fn usage(&self, owner: &NodeId) -> Usage {
        self.owners.get(owner).copied().unwrap_or_default()
    }

    /// Whether any lease keeps the block.
    #[must_use]
    pub fn contains(&self, cid: &Cid) -> bool {
        self.blocks.contains_key(cid)
    }

    /// The block's length, where a lease keeps it.
    #[must_use]
    pub fn len_of(&self, cid: &Cid) -> Option<u64> {
        self.blocks.get(cid).map(|block| block.len)
    }

    /// Whether a lease of `owner` keeps the block.
    #[must_use]
    pub fn held_by(&self, owner: &NodeId, cid: &Cid) -> bool {
        self.blocks.get(cid).is_some_and(|block| block.holds.iter().any(|(o, _)| o == owner))
    }

    /// Whether the lease keeps the block.
    #[must_use]
    pub fn held_under(&self, owner: &NodeId, lease: &LeaseId, cid: &Cid) -> bool {
        self.leases.get(&(*owner, *lease)).is_some_and(|entry| entry.blocks.contains(cid))
    }

    /// Whether the lease exists.
    #[must_use]
    pub fn has_lease(&self, owner: &NodeId, lease: &LeaseId) -> bool {
        self.leases.contains_key(&(*owner, *lease))
    }

    /// Whether anybody may read the block: tables and pins are public, a job's blocks and what was fetched for one
    /// are not.
    #[must_use]
    pub fn is_public(&self, cid: &Cid) -> bool {
        self.kinds_of(cid).any(|kind| matches!(kind, LeaseKind::Table | LeaseKind::Pin))
    }

    fn kinds_of(&self, cid: &Cid) -> impl Iterator<Item = LeaseKind> {
        let holds = self.blocks.get(cid).map_or(&[][..], |block| block.holds.as_slice());
        holds.iter().filter_map(|key| self.leases.get(key)).map(|entry| entry.kind)
    }

    /// Keeps a block under a lease, which is created or brought up to date.
    pub fn hold(&mut self, owner: NodeId, lease: &Lease, cid: Cid, len: u64) {
        let key = (owner, lease.id);
        let usage = self.owners.entry(owner).or_default();
        let entry = self.leases.entry(key).or_insert_with(|| {
            usage.leases += 1;
            Entry { kind: lease.kind, expires: lease.expires, blocks: HashSet::new() }
        });
        (entry.kind, entry.expires) = (lease.kind, lease.expires);
        if !entry.blocks.insert(cid) {
            return;
        }
        self.ticks += 1;
        let block = self.blocks.entry(cid).or_insert_with(|| {
            self.used += charge(len);
            Block { len, holds: Vec::new(), last_used: self.ticks }
        });
        usage.holds += 1;
        if !block.holds.iter().any(|(o, _)| *o == owner) {
            usage.bytes += charge(block.len);
        }
        block.holds.push(key);
    }

    /// Brings an existing lease up to date; false where there is none.
    pub fn renew(&mut self, owner: &NodeId, lease: &Lease) -> bool {
        let Some(entry) = self.leases.get_mut(&(*owner, lease.id)) else { return false };
        (entry.kind, entry.expires) = (lease.kind, lease.expires);
        true
    }

    /// Ends a lease; returns the blocks that nothing keeps any more.
    pub fn end(&mut self, owner: &NodeId, lease: &LeaseId) -> Vec<Cid> {
        let key = (*owner, *lease);
        let Some(entry) = self.leases.remove(&key) else { return Vec::new() };
        if let Some(usage) = self.owners.get_mut(owner) {
            usage.leases -= 1;
        }
        let freed = entry.blocks.into_iter().filter(|cid| self.release(cid, &key)).collect();
        self.owners.retain(|_, usage| *usage != Usage::default());
        freed
    }

    /// Takes one hold off a block; true where it was the last.
    fn release(&mut self, cid: &Cid, key: &Key) -> bool {
        let Some(block) = self.blocks.get_mut(cid) else { return false };
        block.holds.retain(|hold| hold != key);
        let (len, last, owners_last) =
            (block.len, block.holds.is_empty(), !block.holds.iter().any(|(owner, _)| *owner == key.0));
        if let Some(usage) = self.owners.get_mut(&key.0) {
            usage.holds -= 1;
            usage.bytes -= if owners_last { charge(len) } else { 0 };
        }
        if last {
            self.blocks.remove(cid);
            self.used -= charge(len);
        }
        last
    }

    /// Ends the leases that ended before `now`; returns the blocks that nothing keeps any more.
    pub fn expire(&mut self, now: u64) -> Vec<Cid> {
        let over: Vec<Key> = self.leases.iter().filter(|(_, e)| e.expires < now).map(|(key, _)| *key).collect();
        over.iter().flat_map(|(owner, lease)| self.end(owner, lease)).collect()
    }

    /// Drops a block from every lease: it is gone.
    pub fn forget(&mut self, cid: &Cid) {
        let holds = self.blocks.get(cid).map(|block| block.holds.clone()).unwrap_or_default();
        for key in holds {
            if let Some(entry) = self.leases.get_mut(&key) {
                entry.blocks.remove(cid);
            }
            self.release(cid, &key);
        }
        // A lease without blocks says nothing; leaving it would let crumbs of state pile up.
        let empty: Vec<Key> = self.leases.iter().filter(|(_, e)| e.blocks.is_empty()).map(|(key, _)| *key).collect();
        for (owner, lease) in empty {
            self.end(&owner, &lease);
        }
    }

    /// Notes that a block was read, for [`LeaseTable::evictable`].
    pub fn touch(&mut self, cid: &Cid) {
        self.ticks += 1;
        if let Some(block) = self.blocks.get_mut(cid) {
            block.last_used = self.ticks;
        }
    }

    /// Blocks that only caches keep, the longest unused first, until `bytes` are reached; none where all of them do
    /// not suffice.
    #[must_use]
    pub fn evictable(&self, bytes: u64) -> Option<Vec<Cid>> {
        let mut caches: Vec<_> =
            self.blocks.iter().filter(|(cid, _)| self.kinds_of(cid).all(|kind| kind == LeaseKind::Cache)).collect();
        caches.sort_by_key(|(_, block)| block.last_used);
        let (mut out, mut freed) = (Vec::new(), 0);
        for (cid, block) in caches {
            if freed >= bytes {
                break;
            }
            freed += charge(block.len);
            out.push(*cid);
        }
        (freed >= bytes).then_some(out)
    }

    /// Every lease with its blocks and their lengths, in a fixed order.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Held> {
        let leases = self.leases.iter().map(|((owner, id), entry)| {
            let lease = Lease { id: *id, kind: entry.kind, expires: entry.expires };
            let mut blocks: Vec<_> = entry.blocks.iter().filter_map(|c| Some((*c, self.len_of(c)?))).collect();
            blocks.sort_unstable();
            (*owner, lease, blocks)
        });
        let mut out: Vec<_> = leases.collect();
        out.sort_by_key(|(owner, lease, _)| (*owner, lease.id));
        out
    }

    /// Pinned blocks and who pinned them.
    #[must_use]
    pub fn pins(&self) -> Vec<(NodeId, Cid)> {
        let pins = self.leases.iter().filter(|(_, entry)| entry.kind == LeaseKind::Pin);
        let mut out: Vec<_> = pins.flat_map(|((o, _), e)| e.blocks.iter().map(|cid| (*o, *cid))).collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Blocks that leases keep.
    pub fn blocks(&self) -> impl Iterator<Item = &Cid> {
        self.blocks.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    const LEN: u64 = 10_000;

    fn lease(name: &str, kind: LeaseKind, expires: u64) -> Lease {
        Lease { id: LeaseId::named(name), kind, expires }
    }

    fn cid(n: u8) -> Cid {
        Cid::raw(&[n])
    }

    #[test]
    fn blocks_live_as_long_as_any_lease() {
        let mut table = LeaseTable::default();
        let (a, b) = (lease("a", LeaseKind::Table, 100), lease("b", LeaseKind::Job, 200));
        table.hold(node(1), &a, cid(1), LEN);
        table.hold(node(1), &a, cid(1), LEN);
        table.hold(node(1), &b, cid(1), LEN);
        table.hold(node(2), &b, cid(1), LEN);
        table.hold(node(2), &b, cid(2), 1);
        assert_eq!(table.used(), LEN + MIN_CHARGE);
        assert_eq!(table.usage(&node(1)), Usage { bytes: LEN, leases: 2, holds: 2 });
        assert!(table.expire(100).is_empty(), "the last second counts");
        assert!(table.expire(101).is_empty(), "another lease keeps it");
        assert_eq!(table.usage(&node(1)), Usage { bytes: LEN, leases: 1, holds: 1 });
        table.renew(&node(2), &lease("b", LeaseKind::Job, 300));
        assert!(table.expire(201).is_empty());
        assert_eq!(table.usage(&node(1)), Usage::default());
        let mut freed = table.end(&node(2), &b.id);
        freed.sort_unstable();
        assert_eq!((freed.len(), table.used(), table.blocks().count()), (2, 0, 0));
        assert!(!table.renew(&node(2), &b), "it is over");
    }

    #[test]
    fn owners_do_not_share_lease_names() {
        let mut table = LeaseTable::default();
        let a = lease("a", LeaseKind::Table, 100);
        table.hold(node(1), &a, cid(1), LEN);
        assert!(table.end(&node(2), &a.id).is_empty());
        assert!(table.held_by(&node(1), &cid(1)) && !table.held_by(&node(2), &cid(1)));
    }

    #[test]
    fn caches_go_first_the_longest_unused_before_others() {
        let mut table = LeaseTable::default();
        let (cache, kept) = (lease("c", LeaseKind::Cache, 100), lease("t", LeaseKind::Table, 100));
        for n in 1..=3 {
            table.hold(node(1), &cache, cid(n), LEN);
        }
        table.hold(node(1), &kept, cid(2), LEN);
        table.hold(node(1), &kept, cid(4), LEN);
        table.touch(&cid(1));
        assert_eq!(table.evictable(1), Some(vec![cid(3)]));
        assert_eq!(table.evictable(LEN + 1), Some(vec![cid(3), cid(1)]));
        assert_eq!(table.evictable(2 * LEN + 1), None);
        assert!(!table.is_public(&cid(1)) && table.is_public(&cid(2)));
        table.forget(&cid(3));
        table.forget(&cid(1));
        table.forget(&cid(2));
        assert!(!table.has_lease(&node(1), &cache.id), "a lease without blocks is no lease");
        assert_eq!(table.used(), LEN);
    }

    #[test]
    fn a_snapshot_replays_to_the_same_table() {
        let mut table = LeaseTable::default();
        table.hold(node(1), &lease("a", LeaseKind::Pin, u64::MAX), cid(1), LEN);
        table.hold(node(2), &lease("b", LeaseKind::Job, 5), cid(2), 2 * LEN);
        let mut again = LeaseTable::default();
        for (owner, lease, blocks) in table.snapshot() {
            for (cid, len) in blocks {
                again.hold(owner, &lease, cid, len);
            }
        }
        assert_eq!(again.snapshot(), table.snapshot());
        assert_eq!((again.used(), again.pins()), (3 * LEN, vec![(node(1), cid(1))]));
    }
}
