//! One replica of one task on one node: order, offer, call, and a check of everything that comes back.

use std::{collections::HashSet, time::Duration};

use conun_types::{
    Capability, Cid, Complaint, Error, Failure, Holder, Lease, LeaseId, LeaseKind, NodeId, Outcome, OutputBlock,
    PeerAddr, Result, SignedOrder, Source, TaskOffer, TaskOrder, Vote, WorkUnits,
    eip712::Domain,
    port::CallError,
    profile,
    task::{output_volume, outputs_root},
    wire::MAX_BLOCK,
};
use tokio::time::Instant;

use super::Prepared;
use crate::{context::JobContext, credit::Ballot, fleet::Seat, record::ReceiptRecord};

/// Bounds of the pause for which a busy node may ask.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The node voted and its vote is well-formed.
    Voted(Box<Checked>),
    /// Every honest node would say the same: counts as a vote.
    Said(Ballot),
    /// The node has no room before this time has passed.
    Busy(Duration),
    /// The node failed or cannot be reached: no lie.
    Lost(String),
    /// The node sent what no honest node sends: a forged receipt, inflated units, malformed messages.
    Cheated(String),
    /// The node found this input at none of the holders that it was told of.
    Missing(Source),
}

/// A vote whose receipt, root, counts and units fit the order and the envelope.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) root: [u8; 32],
    pub(crate) outputs: Vec<OutputBlock>,
    pub(crate) holder: Holder,
    pub(crate) receipt: ReceiptRecord,
}

/// What an attempt brought.
pub(crate) struct Report {
    pub(crate) node: NodeId,
    pub(crate) ended: Ended,
    /// When it did.
    pub(crate) at: Instant,
    pub(crate) complaints: Vec<Complaint>,
}

impl Report {
    fn new(node: NodeId, ended: Ended, complaints: Vec<Complaint>) -> Self {
        Self { node, ended, at: Instant::now(), complaints }
    }
}

/// Runs `task` on the node of `seat`. Dropping the future cancels the replica.
pub(crate) async fn attempt(context: &JobContext, task: &Prepared, sources: Vec<Source>, seat: Seat) -> Report {
    let node = seat.peer.id;
    match run(context, task, sources, &seat.peer).await {
        Ok((ended, complaints)) => Report::new(node, ended, complaints),
        Err(error) => Report::new(node, Ended::Lost(error.to_string()), Vec::new()),
    }
}

async fn run(
    context: &JobContext,
    task: &Prepared,
    sources: Vec<Source>,
    peer: &PeerAddr,
) -> Result<(Ended, Vec<Complaint>)> {
    let offer = offer(context, task, sources, peer.id)?;
    if let Some(payments) = &context.payments {
        payments.ordered(context.job, peer.id);
    }
    let ended = match context.network.run_task(peer, offer.clone(), task.bytes.clone()).await {
        Ok(answer) => {
            let asked: HashSet<Cid> = offer.sources.iter().map(|s| s.cid).collect();
            let complaints = answer.complaints.into_iter().filter(|c| asked.contains(&c.cid)).take(16).collect();
            return Ok((judge(task, &offer, peer, answer.outcome, &context.domain()), complaints));
        }
        Err(CallError::Busy { retry_after, .. }) => Ended::Busy(retry_after.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)),
        Err(CallError::Misbehaved { reason, .. }) => Ended::Cheated(reason),
        Err(error) => Ended::Lost(error.to_string()),
    };
    Ok((ended, Vec::new()))
}

fn offer(context: &JobContext, task: &Prepared, sources: Vec<Source>, provider: NodeId) -> Result<TaskOffer> {
    let mut nonce = [0u8; 8];
    context.rng.fill(&mut nonce);
    let timeout = context.config.task_timeout;
    let (account, price) = context.payments.as_ref().map(|p| (p.account(), p.price())).unwrap_or_default();
    let order = TaskOrder {
        account,
        job: context.job,
        task_cid: task.cid,
        provider,
        // Random: unique for a requester without a counter that a crash could turn back. 53 bits, as many as JSON's numbers
        // keep in every tool.
        nonce: u64::from_le_bytes(nonce) >> 11,
        price,
        deadline: context.clock.unix_seconds() + timeout.as_secs(),
    };
    Ok(TaskOffer {
        order: SignedOrder::sign(order, &context.domain(), &context.key)?,
        envelope_len: task.bytes.len() as u64,
        profile: task.envelope.profile,
        memory: task.envelope.memory,
        timeout_ms: timeout.as_millis() as u64,
        sources,
        capability: Capability::generate(context.rng.as_ref()),
        lease: Lease {
            id: LeaseId(context.job.0),
            kind: LeaseKind::Job,
            expires: context.clock.unix_seconds() + context.config.job_lease.as_secs(),
        },
    })
}

fn judge(task: &Prepared, offer: &TaskOffer, peer: &PeerAddr, outcome: Outcome, domain: &Domain) -> Ended {
    match outcome {
        Outcome::Done(vote) => match check(task, offer, &vote, domain) {
            Ok(()) => Ended::Voted(Box::new(checked(task, offer, peer, vote))),
            Err(error) => Ended::Cheated(error.to_string()),
        },
        Outcome::Failed(Failure::Query(message)) => Ended::Said(Ballot::QueryError(readable(&message))),
        Outcome::Failed(Failure::MemoryExceeded) => Ended::Said(Ballot::MemoryExceeded),
        Outcome::Failed(Failure::InputMissing(cid)) => match offer.sources.iter().find(|source| source.cid == cid) {
            Some(source) => Ended::Missing(source.clone()),
            None => Ended::Lost(format!("misses {cid}, which is no input of its task")),
        },
        Outcome::Failed(failure @ (Failure::Refused(_) | Failure::Node(_))) => {
            Ended::Lost(readable(&failure.to_string()))
        }
    }
}

/// Whether a canonical block can hold so many rows in so many bytes: a batch holds 8,192 rows at most and takes more than
/// [`LEAST_BATCH`] bytes, whatever its columns. Bounds what a lone voter can claim; a quorum agrees on the bytes themselves.
fn is_plausible(block: &OutputBlock) -> bool {
    let batches = block.bytes / LEAST_BATCH;
    block.bytes <= MAX_BLOCK && block.rows <= batches.saturating_mul(profile::BATCH_ROWS as u64)
}

/// Bytes of a batch's head in an Arrow IPC stream, at least.
const LEAST_BATCH: u64 = 64;

/// A node's words, as they may be shown to people: one line of bounded length.
fn readable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

/// Everything that can be checked without running the task again.
fn check(task: &Prepared, offer: &TaskOffer, vote: &Vote, domain: &Domain) -> Result<()> {
    vote.receipt.check(&offer.order.order, domain)?;
    let receipt = &vote.receipt.receipt;
    let wrong = |what: &str| Err(Error::data(format!("the receipt's {what} does not fit the task")));
    if receipt.profile != task.envelope.profile {
        return wrong("profile");
    }
    if receipt.inputs_root != task.envelope.inputs_root() {
        return wrong("root of inputs");
    }
    if receipt.outputs_root != outputs_root(&vote.outputs) {
        return wrong("root of outputs");
    }
    let in_order = vote.outputs.iter().enumerate().all(|(i, block)| block.partition as usize == i);
    if vote.outputs.len() != task.stage.outputs() || !in_order {
        return wrong("list of blocks");
    }
    if !vote.outputs.iter().all(is_plausible) {
        return wrong("volume of blocks");
    }
    let output = output_volume(&vote.outputs);
    if (receipt.rows, receipt.bytes) != (output.rows, output.bytes) {
        return wrong("volume");
    }
    if receipt.units != WorkUnits::of(task.envelope.input_volume(), output) {
        return wrong("number of work units");
    }
    Ok(())
}

fn checked(task: &Prepared, offer: &TaskOffer, peer: &PeerAddr, vote: Vote) -> Checked {
    Checked {
        root: vote.receipt.receipt.outputs_root,
        outputs: vote.outputs.clone(),
        holder: Holder { peer: peer.clone(), capability: Some(offer.capability) },
        receipt: ReceiptRecord {
            stage: task.envelope.stage,
            task: task.envelope.task,
            task_cid: task.cid,
            node: peer.id,
            accepted: false,
            order: offer.order.clone(),
            receipt: vote.receipt,
            outputs: vote.outputs,
        },
    }
}
