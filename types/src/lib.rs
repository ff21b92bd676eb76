//! Values every part of Conun agrees on: content ids, identities, orders, receipts, tasks, money, errors, and the ports
//! through which crates meet.
//!
//! What it knows: how these values are encoded, hashed (BLAKE3, EIP-712) and signed (secp256k1).
//! What it must not know: sockets, files, threads, query engines or chains. The only ambient things are the two
//! small implementations in [`ambient`], so that decision code can be handed a clock and a source of randomness.

pub mod ambient;
pub mod amount;
pub mod cid;
pub mod codec;
pub mod eip712;
pub mod error;
pub mod hex32;
pub mod identity;
pub mod lease;
pub mod ledger;
pub mod merkle_sum;
pub mod order;
pub mod payment;
pub mod port;
pub mod profile;
pub mod task;
pub mod text;
pub mod units;
pub mod wire;

pub use crate::ambient::{Clock, OsRng, Rng, SystemClock};
pub use crate::amount::Amount;
pub use crate::cid::{Cid, Codec};
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::identity::{Address, NodeId, NodeKey, Signature};
pub use crate::lease::{Lease, LeaseId, LeaseKind};
pub use crate::order::{JobId, SignedOrder, SignedReceipt, StageRecord, TaskOrder, TaskReceipt};
pub use crate::payment::{AccountId, SignedVoucher, Voucher};
pub use crate::task::{
    Answer, Complaint, Failure, InputBlock, InputShard, MemoryClass, Outcome, OutputBlock, OutputSpec, TaskEnvelope,
    TaskOffer, Vote,
};
pub use crate::units::{Volume, WorkUnits};
pub use crate::wire::{Capability, Holder, PeerAddr, Recovery, Source};
