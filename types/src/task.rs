//! A task: what a volunteer is asked to run, and what it answers.

use serde::{Deserialize, Serialize};

use crate::{
    cid::Cid,
    codec,
    error::{Error, Result},
    order::{JobId, SignedOrder, SignedReceipt},
    units::Volume,
    wire::Source,
};

/// Largest envelope (plan and input list) that a node accepts, in bytes.
pub const MAX_ENVELOPE: usize = 8 << 20;
/// Most inputs or outputs of a task.
pub const MAX_BLOCKS: usize = 1 << 16;

/// A memory class: the fixed pool in which a task runs, so that running out of memory does not depend on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemoryClass {
    /// 256 MiB.
    Small,
    /// 1 GiB.
    Medium,
    /// 4 GiB.
    Large,
}

impl MemoryClass {
    /// Bytes of the task's memory pool.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            MemoryClass::Small => 256 << 20,
            MemoryClass::Medium => 1 << 30,
            MemoryClass::Large => 4 << 30,
        }
    }

    /// Every class, the smallest first.
    pub const ALL: [MemoryClass; 3] = [MemoryClass::Small, MemoryClass::Medium, MemoryClass::Large];

    /// The largest class whose pool fits into `bytes`, if one does.
    #[must_use]
    pub fn within(bytes: u64) -> Option<Self> {
        Self::ALL.into_iter().rfind(|class| class.bytes() as u64 <= bytes)
    }

    /// The class to try after this one was exceeded.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            MemoryClass::Small => Some(MemoryClass::Medium),
            MemoryClass::Medium => Some(MemoryClass::Large),
            MemoryClass::Large => None,
        }
    }
}

/// A table shard that a task scans: a standalone Parquet file, named `conun://<cid>` in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputShard {
    /// Its address.
    pub cid: Cid,
    /// Rows and bytes, from the manifest.
    pub volume: Volume,
}

/// A block that an earlier stage produced, in canonical encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputBlock {
    /// Its address.
    pub cid: Cid,
    /// Rows and bytes, as the quorum agreed.
    pub volume: Volume,
}

/// How many blocks a task makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputSpec {
    /// One block for each output partition of the plan.
    Passthrough,
    /// The plan's root is a hash `RepartitionExec` with this many partitions: one block for each.
    Hash(u32),
}

/// Everything that determines a task's output. Its DAG-CBOR bytes are kept as evidence; their CID is the order's
/// `task_cid`. Where inputs are found is *not* part of it: that differs between replicas and over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEnvelope {
    /// Format version, [`TaskEnvelope::VERSION`].
    pub version: u16,
    /// The job.
    pub job: JobId,
    /// Stage within the job, from 1.
    pub stage: u32,
    /// Task within the stage, from 0.
    pub task: u32,
    /// Hash of the execution profile that pins every choice of the engine.
    #[serde(with = "serde_bytes")]
    pub profile: [u8; 32],
    /// The pool it runs in.
    pub memory: MemoryClass,
    /// The physical plan (DataFusion's protobuf, with Conun's block reader as the only extension).
    #[serde(with = "serde_bytes")]
    pub plan: Vec<u8>,
    /// Blocks to make.
    pub output: OutputSpec,
    /// Shards that the plan scans.
    pub shards: Vec<InputShard>,
    /// Blocks that the plan reads.
    pub blocks: Vec<InputBlock>,
}

impl TaskEnvelope {
    /// The version that this build writes and reads.
    pub const VERSION: u16 = 1;

    /// Task number `task` of a stage of `job`, of this build's format and profile: runs `plan` in the smallest class, passes its
    /// rows on, and reads nothing. Whatever is otherwise is set beside it.
    #[must_use]
    pub fn new(job: JobId, stage: u32, task: u32, plan: Vec<u8>) -> Self {
        Self {
            version: Self::VERSION,
            job,
            stage,
            task,
            profile: crate::profile::hash(),
            memory: MemoryClass::Small,
            plan,
            output: OutputSpec::Passthrough,
            shards: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Decodes and checks an envelope from a peer.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where it is malformed, of another version, or beyond a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(Error::data(format!("task of {} bytes, the limit is {MAX_ENVELOPE}", bytes.len())));
        }
        let envelope: Self = codec::decode(bytes)?;
        if envelope.version != Self::VERSION {
            return Err(Error::data(format!("task format {}, this build reads {}", envelope.version, Self::VERSION)));
        }
        if envelope.shards.len() + envelope.blocks.len() > MAX_BLOCKS {
            return Err(Error::data(format!("more than {MAX_BLOCKS} inputs")));
        }
        Ok(envelope)
    }

    /// The format version that these bytes claim, if they are an envelope of any version.
    #[must_use]
    pub fn version_of(bytes: &[u8]) -> Option<u16> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u16,
        }
        codec::decode(bytes).ok().map(|Versioned { version }| version)
    }

    /// Rows and bytes that the task reads, as manifests and earlier quorums state them.
    #[must_use]
    pub fn input_volume(&self) -> Volume {
        self.shards.iter().map(|s| s.volume).chain(self.blocks.iter().map(|b| b.volume)).sum()
    }

    /// Root over the ids of all inputs.
    #[must_use]
    pub fn inputs_root(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("conun inputs root v1");
        for cid in self.shards.iter().map(|s| s.cid).chain(self.blocks.iter().map(|b| b.cid)) {
            hasher.update(cid.digest());
        }
        *hasher.finalize().as_bytes()
    }
}

/// A block that a task made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OutputBlock {
    /// Partition, counted within the task from 0.
    pub partition: u32,
    /// Address of the canonical encoding.
    pub cid: Cid,
    /// Rows in it.
    pub rows: u64,
    /// Bytes of the encoding.
    pub bytes: u64,
}

/// The vote: a root over all output blocks, in partition order.
#[must_use]
pub fn outputs_root(blocks: &[OutputBlock]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("conun outputs root v1");
    for block in blocks {
        hasher.update(&block.partition.to_le_bytes());
        hasher.update(block.cid.digest());
        hasher.update(&block.rows.to_le_bytes());
        hasher.update(&block.bytes.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Rows and bytes of all `blocks`.
#[must_use]
pub fn output_volume(blocks: &[OutputBlock]) -> Volume {
    blocks.iter().map(|b| Volume { rows: b.rows, bytes: b.bytes }).sum()
}

/// A coordinator's offer of a task to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOffer {
    /// The order, signed by the requester.
    pub order: SignedOrder,
    /// Bytes of the envelope that will follow.
    pub envelope_len: u64,
    /// The profile it must run under.
    #[serde(with = "serde_bytes")]
    pub profile: [u8; 32],
    /// The pool it needs.
    pub memory: MemoryClass,
    /// Milliseconds after which the coordinator stops waiting.
    pub timeout_ms: u64,
    /// Where each input is found (same ids as in the envelope).
    pub sources: Vec<Source>,
    /// Readers of this replica's blocks must show this capability; the coordinator hands it out once the quorum closed.
    pub capability: crate::wire::Capability,
    /// The lease under which the node keeps its output blocks.
    pub lease: crate::lease::Lease,
}

/// What a node answers to a task it accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it ran, and what came out.
    pub outcome: Outcome,
    /// Peers that sent bytes which did not match their id while inputs were fetched. A complaint proves nothing: the
    /// coordinator reads the block itself before it believes one.
    pub complaints: Vec<Complaint>,
}

/// "This peer sent me wrong bytes for this block."
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Complaint {
    /// Who sent them.
    pub peer: crate::identity::NodeId,
    /// For which block.
    pub cid: Cid,
}

/// How a task ended on a node.
#[expect(clippy::large_enum_variant, reason = "there is one a task, and it is nearly always the large one")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It ran.
    Done(Vote),
    /// It did not.
    Failed(Failure),
}

/// A node's vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Signed: what was done, and the root over `outputs`.
    pub receipt: SignedReceipt,
    /// The blocks, in partition order.
    pub outputs: Vec<OutputBlock>,
}

/// Why a task did not run to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The query itself fails on this data (overflow, invalid cast): every honest node says the same, so that
    /// agreeing replicas make it the job's answer.
    Query(String),
    /// The memory class was exceeded: try the next one.
    MemoryExceeded,
    /// An input could not be had from any of its sources.
    InputMissing(Cid),
    /// The node will not run it: an operator outside the whitelist, another profile, a malformed plan.
    Refused(String),
    /// The node failed (runner killed, disk full).
    Node(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Query(message) => write!(f, "{message}"),
            Failure::MemoryExceeded => write!(f, "memory class exceeded"),
            Failure::InputMissing(cid) => write!(f, "input {cid} is not to be had"),
            Failure::Refused(reason) => write!(f, "refused: {reason}"),
            Failure::Node(reason) => write!(f, "node failed: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> TaskEnvelope {
        TaskEnvelope {
            profile: [2; 32],
            output: OutputSpec::Hash(4),
            shards: vec![InputShard { cid: Cid::raw(b"s"), volume: Volume { rows: 1, bytes: 2 } }],
            blocks: vec![InputBlock { cid: Cid::raw(b"b"), volume: Volume { rows: 3, bytes: 4 } }],
            ..TaskEnvelope::new(JobId([1; 16]), 1, 0, vec![1, 2, 3])
        }
    }

    #[test]
    fn envelopes_round_trip_and_are_bounded() -> Result<()> {
        let bytes = codec::encode(&envelope())?;
        assert_eq!(TaskEnvelope::decode(&bytes)?, envelope());
        assert_eq!(envelope().input_volume(), Volume { rows: 4, bytes: 6 });
        assert!(TaskEnvelope::decode(&vec![0; MAX_ENVELOPE + 1]).is_err());
        assert!(TaskEnvelope::decode(&bytes[..bytes.len() - 1]).is_err(), "truncated");
        let other = TaskEnvelope { version: 9, ..envelope() };
        assert!(TaskEnvelope::decode(&codec::encode(&other)?).is_err(), "another version");
        assert_eq!(TaskEnvelope::version_of(&codec::encode(&other)?), Some(9));
        assert_eq!(TaskEnvelope::version_of(b"nonsense"), None);
        let many = TaskEnvelope { blocks: vec![envelope().blocks[0]; MAX_BLOCKS + 1], ..envelope() };
        assert!(TaskEnvelope::decode(&codec::encode(&many)?).is_err(), "absurd count");
        Ok(())
    }

    #[test]
    fn the_vote_covers_every_field_of_every_block() {
        let block = OutputBlock { partition: 0, cid: Cid::raw(b"x"), rows: 1, bytes: 1 };
        let root = outputs_root(&[block]);
        for other in [
            OutputBlock { partition: 1, ..block },
            OutputBlock { cid: Cid::raw(b"y"), ..block },
            OutputBlock { rows: 2, ..block },
            OutputBlock { bytes: 2, ..block },
        ] {
            assert_ne!(outputs_root(&[other]), root);
        }
        assert_ne!(outputs_root(&[block, block]), root);
    }
}
