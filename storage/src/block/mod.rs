//! Stores of blocks by content id. They know bytes and addresses; why a block is kept is [`crate::lease`]'s matter.

mod disk;
mod memory;

#[cfg(test)]
mod conformance;

use bytes::Bytes;
use conun_types::{Cid, wire::BlockError};

pub use self::{disk::DiskBlocks, memory::MemoryBlocks};
pub use crate::durable::Durability;

/// A set of blocks. Whatever comes out was checked against its address.
pub trait BlockStore: Send + Sync + 'static {
    /// Keeps `bytes` under `cid`; keeping a block twice is fine.
    ///
    /// # Errors
    /// [`BlockError::Invalid`] where `bytes` are another block, [`BlockError::Node`] where the disk fails.
    fn put(&self, cid: &Cid, bytes: &Bytes, durability: Durability) -> Result<(), BlockError>;

    /// The block's bytes.
    ///
    /// # Errors
    /// [`BlockError::NotFound`] also where the stored bytes were damaged: they are removed, so that a good copy can
    /// take their place.
    fn get(&self, cid: &Cid) -> Result<Bytes, BlockError>;

    /// The block's length, unless it is missing.
    fn size(&self, cid: &Cid) -> Option<u64>;

    /// Forgets a block; forgetting a missing one is fine.
    ///
    /// # Errors
    /// [`BlockError::Node`] where the disk fails.
    fn remove(&self, cid: &Cid) -> Result<(), BlockError>;

    /// Every block and its length.
    ///
    /// # Errors
    /// [`BlockError::Node`] where the disk fails.
    fn list(&self) -> Result<Vec<(Cid, u64)>, BlockError>;
}

/// Refuses bytes that are not the block.
fn check(cid: &Cid, bytes: &[u8]) -> Result<(), BlockError> {
    if cid.matches(bytes) { Ok(()) } else { Err(BlockError::Invalid(format!("the bytes are not block {cid}"))) }
}
