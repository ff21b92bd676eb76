//! What the coordinator remembers of a job and shows to people: values only, as JSON (docs/CLI.md lists the fields).

use conun_types::{
    Address, Amount, Cid, Error, JobId, NodeId, OutputBlock, SignedOrder, SignedReceipt, StageRecord, WorkUnits,
    task::outputs_root,
};
use serde::{Deserialize, Serialize};

/// How answers are verified, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// One replica a task; bytes are still checked against their hashes.
    Off,
    /// Who has a record works alone and is audited before the answer is released; others' votes are compared.
    Audit,
    /// Two replicas a task, a third on disagreement or delay.
    #[default]
    Quorum,
}

impl std::fmt::Display for Verify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verify::Off => "off",
            Verify::Audit => "audit",
            Verify::Quorum => "quorum",
        })
    }
}

impl std::str::FromStr for Verify {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "off" => Ok(Verify::Off),
            "audit" => Ok(Verify::Audit),
            "quorum" => Ok(Verify::Quorum),
            other => Err(Error::usage(format!("'{other}' is no way to verify: use off, audit or quorum"))),
        }
    }
}

/// What a requester may choose for one job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobOptions {
    /// How to verify; the coordinator's default where none is given.
    pub verify: Option<Verify>,
    /// Highest acceptable probability that an accepted task is wrong, which sets the number of agreeing replicas.
    pub max_error: Option<f64>,
    /// Most that the job may cost, on a coordinator that pays.
    pub budget: Option<Amount>,
    /// Compute the answer, even where it is known from an earlier job.
    pub no_cache: bool,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Planned; it runs once its results are asked for.
    Planned,
    /// Running.
    Running,
    /// Its answer was verified.
    Done,
    /// It failed; `error` says why.
    Failed,
    /// Its requester cancelled it.
    Cancelled,
}

/// One stage of a job: what was done and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRow {
    /// Number of the stage, from 1 in the order of the planner.
    pub stage: u32,
    /// Tasks so far known.
    pub tasks: u64,
    /// Tasks whose verdict is in.
    pub tasks_done: u64,
    /// Replicas that answered.
    pub replicas: u64,
    /// Rows out, counted once.
    pub rows: u64,
    /// Bytes out, counted once.
    pub bytes: u64,
    /// Work units, counted once.
    pub units: WorkUnits,
}

/// A job as `conun job show` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Where it stands.
    pub state: JobState,
    /// The statement.
    pub sql: String,
    /// Unix seconds at which it was submitted.
    pub submitted: u64,
    /// Wall time from its start to its end (or to now).
    pub seconds: f64,
    /// Rows of the answer.
    pub rows: u64,
    /// Digest of the answer.
    pub digest: Option<String>,
    /// `sequence` where the statement orders its rows, else `multiset`.
    pub digest_kind: String,
    /// How the answer was verified: `quorum`, `audit`, `off`, or `local` where the coordinator itself computed it.
    pub verified: String,
    /// Upper bound of the probability that an accepted task of it is wrong (docs/VERIFICATION.md).
    pub error_bound: Option<f64>,
    /// Why it failed.
    pub error: Option<Error>,
    /// Nodes whose answer differed from the accepted one, or that sent wrong bytes.
    pub liars: Vec<NodeId>,
    /// Nodes that did not answer in time.
    pub late: Vec<NodeId>,
    /// Its stages.
    pub stages: Vec<StageRow>,
    /// Number of receipts kept for it.
    pub receipts: u64,
    /// What it costs; nothing where the coordinator does not pay.
    #[serde(default)]
    pub cost: Option<Amount>,
    /// Things its requester should know.
    pub warnings: Vec<String>,
    /// The earlier job that computed its answer, where nothing had to be run.
    pub cached: Option<JobId>,
    /// Why its answer is not to be relied on after all, found out after it was given.
    pub recalled: Option<String>,
}

/// A receipt and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRecord {
    /// Stage of the task.
    pub stage: u32,
    /// Task within the stage.
    pub task: u32,
    /// Hash of the envelope.
    pub task_cid: Cid,
    /// Who answered.
    pub node: NodeId,
    /// Whether the answer was the accepted one: only these are paid.
    pub accepted: bool,
    /// What was ordered, signed by the coordinator.
    pub order: SignedOrder,
    /// The receipt with its signature.
    pub receipt: SignedReceipt,
    /// The blocks over which the receipt has the root. None in records of before they were kept: see
    /// [`ReceiptRecord::listed`].
    #[serde(default)]
    pub outputs: Vec<OutputBlock>,
}

impl ReceiptRecord {
    /// The blocks, if these are the ones whose root was signed. A list that is missing is no claim of making nothing.
    #[must_use]
    pub fn listed(&self) -> Option<&[OutputBlock]> {
        let signed = outputs_root(&self.outputs) == self.receipt.receipt.outputs_root;
        signed.then_some(self.outputs.as_slice())
    }

    /// What it costs: nothing where it was not accepted.
    #[must_use]
    pub fn cost(&self) -> Amount {
        if self.accepted { self.order.order.price.times(self.receipt.receipt.units) } else { Amount::ZERO }
    }
}

/// Adds receipts up per (stage, provider): the leaves of a settlement. Only accepted ones count, and none of `liars`: who
/// was caught in a job is paid nothing for it.
#[must_use]
pub fn stage_records(job: JobId, receipts: &[ReceiptRecord], liars: &[NodeId]) -> Vec<StageRecord> {
    let mut sums: std::collections::BTreeMap<(u32, Address), StageRecord> = std::collections::BTreeMap::new();
    for record in receipts.iter().filter(|r| r.accepted && !liars.contains(&r.node)) {
        let receipt = &record.receipt.receipt;
        let sum = sums.entry((record.stage, receipt.provider)).or_insert_with(|| StageRecord {
            job,
            stage: record.stage,
            provider: receipt.provider,
            tasks: 0,
            rows: 0,
            bytes: 0,
            units: WorkUnits(0),
            amount: Amount::ZERO,
        });
        sum.tasks += 1;
        sum.rows = sum.rows.saturating_add(receipt.rows);
        sum.bytes = sum.bytes.saturating_add(receipt.bytes);
        sum.units = WorkUnits(sum.units.0.saturating_add(receipt.units.0));
        sum.amount = sum.amount.plus(record.cost());
    }
    sums.into_values().collect()
}
