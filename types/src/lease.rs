//! Why a node keeps a block, and until when.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::identity::keccak256;

/// Names a lease on a node. Leases of different coordinators never collide: a node keys them by (coordinator, id).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseId(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl LeaseId {
    /// The lease of everything that `name` stands for (a table's version, a job, a pin).
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut out = [0u8; 16];
        out.copy_from_slice(&keccak256(name.as_bytes())[..16]);
        Self(out)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a lease is for; each kind has its own share of a node's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LeaseKind {
    /// A table's shards, parity or manifest.
    Table,
    /// A job's intermediate and final blocks.
    Job,
    /// Kept until it is unpinned.
    Pin,
    /// Fetched to run a task; the first to go when room is needed.
    Cache,
}

/// A reason to keep a block until a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// What it is for.
    pub kind: LeaseKind,
    /// Unix seconds after which the node may drop the block. A pin's never passes (`u64::MAX`).
    pub expires: u64,
}
