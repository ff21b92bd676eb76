//! Tables as erasure-coded, content-addressed shards: stores, manifests, placement, leases.
//!
//! Two users meet here. A *volunteer* keeps other people's blocks ([`Store`]: quotas, leases, pins, pointers, durable
//! on disk). A *coordinator* turns files into tables and reads them back ([`Tables`]: shards, parity, manifests,
//! placement), over any [`conun_types::port::Network`].
//!
//! What it knows: Parquet, CSV, erasure codes, IPFS formats, files. What it must not know: DataFusion, libp2p, chains.

pub mod block;
pub mod datadir;
pub mod degraded;
pub mod durable;
pub mod erasure;
pub mod holders;
pub mod journal;
pub mod lease;
pub mod manifest;
pub mod placement;
pub mod pointers;
pub mod schema;
pub mod shard;
pub mod source;
pub mod store;
pub mod tables;
pub mod unixfs;

pub use crate::block::{BlockStore, Durability};
pub use crate::datadir::DataDir;
pub use crate::erasure::CodeSpec;
pub use crate::manifest::Manifest;
pub use crate::store::{Limits, Store};
pub use crate::tables::{PutOptions, PutProgress, Table, TableInfo, Tables};

#[cfg(test)]
pub(crate) mod testing;
