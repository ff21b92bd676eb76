//! Erasure codes over whole shards (contiguous layout: a data shard stays one readable file).
//!
//! Shards of a group differ in length; the code sees them padded with zeros to the longest, and a group with fewer
//! data shards than the code has, filled up with empty ones. That padding is virtual: it is never stored or sent.

mod reed_solomon;
mod replication;
mod spec;

use bytes::Bytes;
use conun_types::Result;

pub use self::spec::{CodeSpec, MAX_MEMBERS};

/// A systematic erasure code of `k` data and `m` parity shards.
pub trait ErasureCode: Send + Sync {
    /// Data shards of a group.
    fn data(&self) -> usize;

    /// Parity shards of a group.
    fn parity(&self) -> usize;

    /// The parity shards of 1 to `k` data shards, each as long as the longest of these.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Internal`] where there are more than `k`, or none.
    fn encode(&self, data: &[Bytes]) -> Result<Vec<Bytes>>;

    /// The member `wanted`, `padded_len` bytes long, from any `k` others. `members` has a place for each of the `k + m`;
    /// a virtual data shard is present and empty.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Unavailable`] where fewer than `k` are present;
    /// [`conun_types::ErrorKind::Data`] where the places or lengths make no sense.
    fn reconstruct(&self, members: &[Option<Bytes>], padded_len: usize, wanted: usize) -> Result<Bytes>;
}

/// The code that `spec` names.
///
/// # Errors
/// [`conun_types::ErrorKind::Usage`] where `spec` has no data shard or too many members.
pub fn code(spec: CodeSpec) -> Result<Box<dyn ErasureCode>> {
    let spec = CodeSpec::new(spec.data, spec.parity)?;
    if spec.data == 1 || spec.parity == 0 {
        return Ok(Box::new(replication::Replication::new(spec)));
    }
    Ok(Box::new(reed_solomon::ReedSolomon::new(spec)?))
}

#[cfg(test)]
mod tests;
