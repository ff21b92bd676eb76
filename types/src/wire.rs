//! What peers say to each other, beside task envelopes: where blocks are, how to read and keep them, who is there.

use serde::{Deserialize, Serialize};

use crate::{
    ambient::Rng,
    amount::Amount,
    cid::Cid,
    eip712::Domain,
    error::Error,
    identity::{NodeId, Signature, keccak256},
    lease::{Lease, LeaseId},
    order::{JobId, SignedReceipt},
    payment::{AccountId, ClaimedReceipt, SignedClaim, SignedVoucher},
    task::MemoryClass,
};

/// Version of all protocols, in their names (`/conun/task/1`). A peer of another version is refused by name.
pub const PROTOCOL_VERSION: u16 = 1;
/// Largest control message, in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;
/// Largest block that may be stored or sent, in bytes.
pub const MAX_BLOCK: u64 = 256 << 20;
/// Most entries of any list in a control message.
pub const MAX_LIST: usize = 1 << 16;

/// Where a peer listens: multiaddresses without the `/p2p/…` part, as text (`/ip4/127.0.0.1/tcp/4001`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerAddr {
    /// Who it is; the connection is refused if another answers.
    pub id: NodeId,
    /// Where it listens.
    pub addrs: Vec<String>,
}

/// A secret that lets its bearer read the blocks of one replica of one task. Copycats have none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capability(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl Capability {
    /// A fresh secret.
    #[must_use]
    pub fn generate(rng: &dyn Rng) -> Self {
        let mut bytes = [0u8; 16];
        rng.fill(&mut bytes);
        Self(bytes)
    }
}

impl std::fmt::Debug for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Capability(..)")
    }
}

/// A node that holds a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Where it is.
    pub peer: PeerAddr,
    /// What to show it; tables need none.
    pub capability: Option<Capability>,
}

/// Where a block is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The block.
    pub cid: Cid,
    /// Its bytes.
    pub len: u64,
    /// Nodes that hold it, in the order in which to ask them.
    pub holders: Vec<Holder>,
    /// How to decode it from its group if nobody has it.
    pub recovery: Option<Recovery>,
}

/// The erasure-coded group of a shard: any `data` of its members give back the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Number of data shards in the code (k). Data members beyond those present are virtual zeros.
    pub data: u16,
    /// Number of parity shards (m).
    pub parity: u16,
    /// Bytes to which every member is padded with virtual zeros: the longest data shard.
    pub padded_len: u64,
    /// Index of the wanted shard among `members`.
    pub index: u16,
    /// Data members first, then parity, each with its holders (`recovery` of a member is always `None`).
    pub members: Vec<Source>,
}

/// What a node tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol version.
    pub version: u16,
    /// `conun` version, for people.
    pub agent: String,
    /// Whether it takes tasks and blocks (a coordinator does not).
    pub volunteer: bool,
    /// Hashes of the execution profiles it can run.
    pub profiles: Vec<serde_bytes::ByteArray<32>>,
    /// Tasks it runs at once.
    pub cores: u32,
    /// Tasks it is running.
    pub running: u32,
    /// Largest memory class that it gives a task.
    pub memory: MemoryClass,
    /// Bytes it lends.
    pub store_quota: u64,
    /// Bytes in use.
    pub store_used: u64,
    /// What it asks for its work; nothing where it works without a chain, and then only for coordinators without one.
    #[serde(default)]
    pub pay: Option<Ask>,
}

/// What a node asks for its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Where it is paid.
    pub domain: Domain,
    /// Least price of a work unit.
    pub price: Amount,
    /// Stages that may be unpaid before it does no more work; at least [`Ask::LEAST_EXPOSURE`].
    pub exposure: u32,
}

impl Ask {
    /// Nodes that want to be paid sooner are not worth it: what they were paid for before they were caught is gone.
    pub const LEAST_EXPOSURE: u32 = 8;
    /// So many receipts of one stage count as a stage each.
    pub const RECEIPTS_PER_STAGE: usize = 64;
}

/// Receipts of one stage that a coordinator is going to pay, for the node to claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagePay {
    /// The job.
    pub job: JobId,
    /// The stage.
    pub stage: u32,
    /// Price of a unit, as it was ordered.
    pub price: Amount,
    /// The receipts.
    pub receipts: Vec<ClaimedReceipt>,
}

/// A receipt that is not paid, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Penalty {
    /// The job.
    pub job: JobId,
    /// The stage.
    pub stage: u32,
    /// The order that the receipt answers.
    #[serde(with = "crate::hex32")]
    pub order_hash: [u8; 32],
    /// Why, for people.
    pub reason: String,
}

/// Pay for work that was accepted since the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// The account that pays.
    pub account: AccountId,
    /// All that the node has earned from it.
    pub voucher: SignedVoucher,
    /// What is new in it.
    pub stages: Vec<StagePay>,
    /// What is not paid.
    pub penalties: Vec<Penalty>,
    /// Jobs that have ended: what the node did for them beyond what is listed here or before is not needed.
    pub ended: Vec<JobId>,
}

/// A control request: short questions and answers over `/conun/control/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlRequest {
    /// Who are you?
    Hello,
    /// Which of these do you have? Private blocks are told to those who keep them there.
    Has(Vec<Cid>),
    /// Keep these under `lease` (from a new or a renewed lease); tells which of them it has.
    Renew {
        /// Blocks concerned; empty means every block that the lease already holds.
        cids: Vec<Cid>,
        /// The lease with its new expiry.
        lease: Lease,
    },
    /// The lease is no longer needed.
    EndLease(LeaseId),
    /// Keep this pointer unless a newer version is known.
    PutPointer(Pointer),
    /// Every pointer that you keep.
    Pointers,
    /// Whom do you know?
    Peers,
    /// Here is your pay; sign for it.
    Pay(Box<Payment>),
    /// The receipt that you signed for the order with this hash.
    Receipt(#[serde(with = "serde_bytes")] [u8; 32]),
}

/// Answers to [`ControlRequest`], in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlReply {
    /// To `Hello`.
    Hello(Hello),
    /// To `Has` and `Renew`: one flag for each id asked (none where the list was empty).
    Has(Vec<bool>),
    /// To `EndLease` and `PutPointer`.
    Done,
    /// To `Pointers`.
    Pointers(Vec<Pointer>),
    /// To `Peers`.
    Peers(Vec<PeerAddr>),
    /// To `Pay`: a claim for each stage, in the same order.
    Claims(Vec<SignedClaim>),
    /// To `Receipt`: nothing where the node knows no such order of the asker's.
    Receipt(Option<Box<SignedReceipt>>),
    /// The request was refused.
    Refused(Error),
}

/// A request to read a block, or a range of one, over `/conun/block/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBlock {
    /// The block.
    pub cid: Cid,
    /// First byte wanted.
    pub offset: u64,
    /// Bytes wanted; `u64::MAX` means to the end.
    pub len: u64,
    /// Shown for blocks of a job.
    pub capability: Option<Capability>,
}

impl ReadBlock {
    /// All of `cid`.
    #[must_use]
    pub fn whole(cid: Cid, capability: Option<Capability>) -> Self {
        Self { cid, offset: 0, len: u64::MAX, capability }
    }
}

/// A request to keep a block, over `/conun/block/1`; the bytes follow once the node agrees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBlock {
    /// The block.
    pub cid: Cid,
    /// Its bytes.
    pub len: u64,
    /// Why and how long.
    pub lease: Lease,
}

/// Why a block is not to be had, or not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BlockError {
    /// The node has no such block, or none that the asker's capability opens: it does not tell which.
    #[error("no such block")]
    NotFound,
    /// The coordinator is not welcome.
    #[error("denied")]
    Denied,
    /// The node's or the coordinator's quota is used up.
    #[error("quota exceeded")]
    QuotaExceeded,
    /// The bytes do not hash to the id, or the request is beyond a limit.
    #[error("{0}")]
    Invalid(String),
    /// The node failed.
    #[error("node failed: {0}")]
    Node(String),
}

/// A signed, versioned name for a table's manifest, replicated on nodes: losing the coordinator's disk loses no table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// Who may move it.
    pub owner: NodeId,
    /// The table.
    pub table: String,
    /// Grows with every change; nodes keep the newest.
    pub version: u64,
    /// The manifest, or none where the table was removed.
    pub manifest: Option<Cid>,
    /// By the owner, over [`Pointer::prehash`].
    pub signature: Signature,
}

impl Pointer {
    /// What the owner signs.
    #[must_use]
    pub fn prehash(owner: &NodeId, table: &str, version: u64, manifest: Option<&Cid>) -> [u8; 32] {
        let mut bytes = b"conun pointer v1\0".to_vec();
        bytes.extend_from_slice(owner.public_key());
        bytes.extend_from_slice(&version.to_be_bytes());
        bytes.extend_from_slice(manifest.map_or(&[0u8; 32], |m| m.digest()));
        bytes.extend_from_slice(table.as_bytes());
        keccak256(&bytes)
    }

    /// Checks the owner's signature and the length of the name.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where it is forged or malformed.
    pub fn check(&self) -> crate::Result<()> {
        if self.table.is_empty() || self.table.len() > 256 {
            return Err(Error::data("a table's name has 1 to 256 bytes"));
        }
        let hash = Self::prehash(&self.owner, &self.table, self.version, self.manifest.as_ref());
        self.signature.verify(&hash, &self.owner).map_err(|e| e.context("table pointer"))
    }

    /// A pointer signed by `key`.
    #[must_use]
    pub fn sign(key: &crate::NodeKey, table: &str, version: u64, manifest: Option<Cid>) -> Self {
        let owner = key.id();
        let signature = key.sign(&Self::prehash(&owner, table, version, manifest.as_ref()));
        Self { owner, table: table.to_owned(), version, manifest, signature }
    }
}
