//! Conun's own operations: names of the Flight actions, and their JSON bodies.
//!
//! A list is answered by one Flight result an element, so that no single message grows with it.

use conun_engine::JobOptions;
use conun_types::{Cid, JobId, NodeId, eip712::Domain};
use serde::{Deserialize, Serialize};

/// Names of the actions.
pub mod action {
    /// [`Status`](super::Status): who serves here, and which volunteers it sees.
    pub const STATUS: &str = "conun.status";
    /// Every table, as `TableInfo`.
    pub const TABLES: &str = "conun.tables";
    /// [`Name`](super::Name) of a table -> its `TableInfo`, with live holders.
    pub const SHOW: &str = "conun.show";
    /// [`Name`](super::Name) of a table to remove -> nothing.
    pub const RM: &str = "conun.rm";
    /// [`Name`](super::Name) of a table -> its [`ShardRow`](super::ShardRow)s.
    pub const SHARDS: &str = "conun.shards";
    /// [`Block`](super::Block) to keep -> nothing.
    pub const PIN: &str = "conun.pin";
    /// [`Block`](super::Block) to let go -> nothing.
    pub const UNPIN: &str = "conun.unpin";
    /// Every pinned [`Block`](super::Block).
    pub const PINS: &str = "conun.pins";
    /// [`SqlRequest`](super::SqlRequest) -> [`SqlReply`](super::SqlReply).
    pub const SQL: &str = "conun.sql";
    /// Every job, as `JobRecord`, the newest first.
    pub const JOBS: &str = "conun.jobs";
    /// [`Name`](super::Name): id of a job or a unique prefix -> its `JobRecord`.
    pub const JOB: &str = "conun.job";
    /// [`Name`](super::Name): id of a job or a unique prefix -> its `JobRecord`, after cancelling.
    pub const CANCEL: &str = "conun.cancel";
    /// [`Name`](super::Name): id of a job or a unique prefix -> its `ReceiptRecord`s.
    pub const RECEIPTS: &str = "conun.receipts";
    /// [`Name`](super::Name): id of a job or a unique prefix -> the coordinator's signature over its transcript.
    pub const SEAL: &str = "conun.seal";
    /// [`Name`](super::Name): id of a job or a unique prefix -> blocks of evidence, their bytes as they are.
    pub const EVIDENCE: &str = "conun.evidence";
    /// `PayStatus`: the account from which this coordinator pays.
    pub const ACCOUNT: &str = "conun.account";
    /// Settles what is owed -> a `Settled` for each batch.
    pub const SETTLE: &str = "conun.settle";

    /// All of them, with a line for people (Flight's `ListActions`).
    pub const ALL: &[(&str, &str)] = &[
        (STATUS, "who serves here, and which volunteers it sees"),
        (TABLES, "every table"),
        (SHOW, "one table, with the nodes that hold it"),
        (RM, "removes a table"),
        (SHARDS, "the data shards of a table"),
        (PIN, "keeps a block"),
        (UNPIN, "lets a block go"),
        (PINS, "every pinned block"),
        (SQL, "plans a statement as a job"),
        (JOBS, "every job"),
        (JOB, "one job"),
        (CANCEL, "cancels a job"),
        (RECEIPTS, "the receipts of a job"),
        (SEAL, "the coordinator's signature over all receipts of a job"),
        (EVIDENCE, "what is needed to run a job's disputed tasks again"),
        (ACCOUNT, "the account from which work is paid"),
        (SETTLE, "settles on the chain what is owed"),
    ];
}

/// First element of the path of an upload's descriptor: `["conun", "put", TABLE]`.
pub const PUT_PATH: [&str; 2] = ["conun", "put"];
/// Type of the ticket that reads a data shard as it is stored; its value is a [`ShardTicket`] as JSON.
pub const SHARD_TICKET: &str = "conun/shard";
/// gRPC metadata (for drivers: call headers) that chooses how a statement is verified: `off`, `audit` or `quorum`.
pub const VERIFY_HEADER: &str = "x-conun-verify";
/// gRPC metadata that sets the most a job may cost, in tokens.
pub const BUDGET_HEADER: &str = "x-conun-budget";
/// gRPC metadata that has the answer computed, even where it is known from an earlier job: `true`.
pub const NO_CACHE_HEADER: &str = "x-conun-no-cache";
/// gRPC metadata that sets the highest acceptable probability of a wrong answer.
pub const MAX_ERROR_HEADER: &str = "x-conun-max-error";
/// Largest gRPC message that either side takes, in bytes.
pub const MAX_GRPC_MESSAGE: usize = 64 << 20;

/// Names something: a table, or a job by a prefix of its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The name.
    pub name: String,
}

/// Names a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Its address.
    pub cid: Cid,
}

/// A statement to plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SqlRequest {
    /// The statement.
    pub sql: String,
    /// How to run it.
    #[serde(flatten)]
    pub options: JobOptions,
}

/// A planned statement. It runs once its ticket is redeemed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlReply {
    /// The job.
    pub job: JobId,
    /// Ticket for `DoGet`, in hexadecimal.
    pub ticket: String,
    /// Columns of the answer.
    pub schema: Vec<Column>,
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may hold NULL.
    pub nullable: bool,
}

/// How to store an upload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PutRequest {
    /// Erasure code (`4+2`); one that fits the network where none is given.
    pub code: Option<String>,
    /// Bytes of a data shard.
    pub shard_size: Option<u64>,
}

/// What an upload answers while it goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PutUpdate<T> {
    /// So much is stored.
    Progress {
        /// Rows taken in.
        rows: u64,
        /// Data shards written.
        shards: u64,
        /// Bytes of data shards written.
        bytes: u64,
    },
    /// It is complete, and the table moved to its new version.
    Done(T),
}

/// One data shard of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRow {
    /// Its place in the table, from 0.
    pub index: u64,
    /// Its address: the BLAKE3 hash by which the reader checks the bytes.
    pub cid: Cid,
    /// Its bytes.
    pub len: u64,
    /// Its rows.
    pub rows: u64,
}

/// Names the bytes of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardTicket {
    /// The table.
    pub table: String,
    /// Its shard.
    pub index: u64,
    /// The shard that the reader saw in the list: another one is there once the table was replaced.
    pub cid: Cid,
}

/// Who serves here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `conun` and its version.
    pub agent: String,
    /// The coordinator's identity, which owns its tables.
    pub id: NodeId,
    /// Where orders and receipts are signed: chain 0 where the coordinator does not pay.
    #[serde(default)]
    pub domain: Domain,
    /// Volunteers that are connected now.
    pub volunteers: Vec<VolunteerRow>,
}

/// A volunteer as a coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolunteerRow {
    /// Who it is.
    pub id: NodeId,
    /// Where it listens.
    pub addrs: Vec<String>,
    /// Its version of `conun`.
    pub agent: String,
    /// Tasks it runs at once.
    pub cores: u32,
    /// Tasks it is running.
    pub running: u32,
    /// Bytes it lends.
    pub store_quota: u64,
    /// Bytes in use.
    pub store_used: u64,
}
