//! Who may read the blocks of a job: bearers of the capability that came with the offer of that replica.
//!
//! Copycats have none, so nobody can vote with another's block. The book survives a restart: a finished job's blocks
//! stay readable as long as their lease lasts.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use conun_storage::{block::Durability, journal::Journal};
use conun_types::{Capability, Cid, Result};
use serde::{Deserialize, Serialize};

/// The book is rewritten when it is this much longer than what it says.
const COMPACT_FACTOR: usize = 4;
/// Books shorter than this are not worth rewriting.
const COMPACT_MIN: usize = 1024;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    capability: Capability,
    blocks: Vec<Cid>,
}

/// Capabilities of the blocks that this node made.
#[derive(Debug)]
pub struct Capabilities {
    journal: Journal<Entry>,
    by_block: HashMap<Cid, HashSet<Capability>>,
}

impl Capabilities {
    /// Opens the book at `path`, or starts one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: &Path) -> Result<Self> {
        let (journal, entries) = Journal::open(path)?;
        let mut book = Self { journal, by_block: HashMap::new() };
        entries.into_iter().for_each(|entry| book.enter(&entry));
        Ok(book)
    }

    fn enter(&mut self, entry: &Entry) {
        for cid in &entry.blocks {
            self.by_block.entry(*cid).or_default().insert(entry.capability);
        }
    }

    /// Opens `blocks` to bearers of `capability`.
    ///
    /// # Errors
    /// Those of the file system; nothing is opened then.
    pub fn grant(&mut self, capability: Capability, blocks: Vec<Cid>) -> Result<()> {
        let entry = Entry { capability, blocks };
        self.journal.append(&entry, Durability::Volatile)?;
        self.enter(&entry);
        Ok(())
    }

    /// Whether `capability` opens `cid`.
    #[must_use]
    pub fn allows(&self, cid: &Cid, capability: &Capability) -> bool {
        self.by_block.get(cid).is_some_and(|granted| granted.contains(capability))
    }

    /// Forgets blocks that are not `kept` any more.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn retain(&mut self, kept: impl Fn(&Cid) -> bool) -> Result<()> {
        self.by_block.retain(|cid, _| kept(cid));
        if self.journal.records() < COMPACT_MIN.max(self.by_block.len() * COMPACT_FACTOR) {
            return Ok(());
        }
        let grants = self.by_block.iter().flat_map(|(cid, granted)| granted.iter().map(move |c| (*c, *cid)));
        let mut by_capability: HashMap<Capability, Vec<Cid>> = HashMap::new();
        grants.for_each(|(capability, cid)| by_capability.entry(capability).or_default().push(cid));
        let entries: Vec<_> =
            by_capability.into_iter().map(|(capability, blocks)| Entry { capability, blocks }).collect();
        self.journal.rewrite(&entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_survive_a_restart_and_end_with_their_blocks() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("capabilities.log");
        let (block, other) = (Cid::raw(b"block"), Cid::raw(b"other"));
        let (capability, wrong) = (Capability([1; 16]), Capability([2; 16]));
        let mut book = Capabilities::open(&path)?;
        book.grant(capability, vec![block, other])?;
        for i in 0..COMPACT_MIN {
            book.grant(Capability([3; 16]), vec![Cid::raw(&i.to_le_bytes())])?;
        }
        drop(book);
        let mut book = Capabilities::open(&path)?;
        assert!(book.allows(&block, &capability) && book.allows(&other, &capability));
        assert!(!book.allows(&block, &wrong) && !book.allows(&Cid::raw(b"x"), &capability));
        book.retain(|cid| *cid == block)?;
        assert!(book.allows(&block, &capability) && !book.allows(&other, &capability));
        assert!(book.journal.records() < COMPACT_MIN, "rewritten");
        drop(book);
        let book = Capabilities::open(&path)?;
        assert!(book.allows(&block, &capability) && !book.allows(&other, &capability));
        Ok(())
    }
}
