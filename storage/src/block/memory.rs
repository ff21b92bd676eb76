//! Blocks in memory: for tests, and for processes without a folder.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use conun_types::{Cid, wire::BlockError};

use super::{BlockStore, Durability, check};

/// Blocks in memory.
#[derive(Debug, Default)]
pub struct MemoryBlocks(Mutex<HashMap<Cid, Bytes>>);

impl MemoryBlocks {
    fn blocks(&self) -> MutexGuard<'_, HashMap<Cid, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockStore for MemoryBlocks {
    fn put(&self, cid: &Cid, bytes: &Bytes, _durability: Durability) -> Result<(), BlockError> {
        check(cid, bytes)?;
        self.blocks().insert(*cid, bytes.clone());
        Ok(())
    }

    fn get(&self, cid: &Cid) -> Result<Bytes, BlockError> {
        self.blocks().get(cid).cloned().ok_or(BlockError::NotFound)
    }

    fn size(&self, cid: &Cid) -> Option<u64> {
        self.blocks().get(cid).map(|bytes| bytes.len() as u64)
    }

    fn remove(&self, cid: &Cid) -> Result<(), BlockError> {
        self.blocks().remove(cid);
        Ok(())
    }

    fn list(&self) -> Result<Vec<(Cid, u64)>, BlockError> {
        Ok(self.blocks().iter().map(|(cid, bytes)| (*cid, bytes.len() as u64)).collect())
    }
}
