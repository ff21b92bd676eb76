//! Disputed tasks, run again from evidence: who was right, and where the others differ.

use std::time::{Duration, Instant};

use conun_engine::{Claim, Dispute, Transcript};
use conun_executor::{
    TaskOutput,
    referee::{Difference, first_difference},
};
use conun_types::{Cid, Error, ErrorKind, NodeId, OutputBlock, Result, task::outputs_root, text::plain};
use serde::Serialize;

use crate::evidence::{Evidence, MOST_TIME, check_profile, failed, runner};

/// A disputed task and what came of running it again.
#[derive(Serialize)]
pub(crate) struct Replayed {
    pub(crate) stage: u32,
    pub(crate) task: u32,
    pub(crate) task_cid: Cid,
    /// Why it was not run again, where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<String>,
    /// What does not hold, if anything: its evidence, or the answer that was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wrong: Option<String>,
    pub(crate) claims: Vec<Judged>,
    /// What the command ends with for it.
    #[serde(skip)]
    error: Option<Error>,
}

/// A claim about a task.
#[derive(Serialize)]
pub(crate) struct Judged {
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) accepted: bool,
    /// Whether the transcript has the blocks, not only the root that was signed over them.
    pub(crate) listed: bool,
    /// Whether the task gives this when it is run again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) right: Option<bool>,
    /// Where it differs from what the task gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<WrongBlock>,
}

/// The first block of a claim that differs.
#[derive(Serialize)]
pub(crate) struct WrongBlock {
    pub(crate) block: u32,
    pub(crate) said: Option<Cid>,
    pub(crate) is: Option<Cid>,
    /// The first value that differs, where the evidence has the block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Difference>,
}

/// Why a task was not run again.
enum Left {
    /// There is not all that it takes: a coordinator keeps evidence within bounds.
    Unknown(String),
    /// There is, and still it could not be done, or what there is does not fit.
    Failed(Error),
}

impl From<Error> for Left {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs every disputed task of a verified transcript again. Whatever comes of one, the others are run, too, as far as
/// [`MOST_TIME`] goes for all of them: nobody knows how many a stranger has made up.
pub(crate) async fn all(transcript: &Transcript, evidence: Option<&Evidence>) -> Vec<Replayed> {
    all_before(transcript, evidence, Instant::now() + MOST_TIME).await
}

async fn all_before(transcript: &Transcript, evidence: Option<&Evidence>, end: Instant) -> Vec<Replayed> {
    let mut replayed = Vec::new();
    for dispute in transcript.disputes() {
        let left = end.saturating_duration_since(Instant::now());
        let made = match evidence {
            None => Err(Left::Unknown("no evidence was given".to_owned())),
            Some(_) if left.is_zero() => Err(Left::Failed(Error::data(format!(
                "it was not come to within the {} s that all disputes together may take",
                MOST_TIME.as_secs()
            )))),
            Some(evidence) => again(transcript, &dispute, evidence, left).await,
        };
        replayed.push(judge(dispute, made, evidence));
    }
    replayed
}

/// What a command that told of `replayed` ends with.
///
/// # Errors
/// Verification where evidence does not fit the transcript, or an accepted answer is not what the task gives; else Data where
/// a task could not be run again though its evidence is there. One task is named, and how many more there are.
pub(crate) fn outcome(replayed: &[Replayed]) -> Result<()> {
    let errors = || replayed.iter().filter_map(|task| Some((task, task.error.as_ref()?)));
    let worst = errors().min_by_key(|(_, error)| error.kind != ErrorKind::Verification);
    let Some((task, error)) = worst else { return Ok(()) };
    let more = match errors().count() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let message = format!("stage {}, task {}: {}{more}", task.stage, task.task, error.message);
    Err(Error { message, ..error.clone() })
}

fn blocks(output: &TaskOutput) -> Vec<OutputBlock> {
    output.blocks.iter().map(|(block, _)| *block).collect()
}

/// What the task gives, within `most`.
async fn again(
    transcript: &Transcript,
    dispute: &Dispute,
    evidence: &Evidence,
    most: Duration,
) -> Result<TaskOutput, Left> {
    let Some(bytes) = evidence.get(&dispute.task_cid)? else {
        return Err(Left::Unknown("its envelope is not among the evidence".to_owned()));
    };
    let envelope = transcript.envelope(dispute, &bytes)?;
    check_profile(&envelope)?;
    for cid in envelope.shards.iter().map(|s| s.cid).chain(envelope.blocks.iter().map(|b| b.cid)) {
        if evidence.get(&cid)?.is_none() {
            return Err(Left::Unknown(format!("its input {cid} is not among the evidence")));
        }
    }
    Ok(runner(most)?.run(&envelope, &bytes, evidence).await.map_err(failed)?)
}

fn judge(dispute: Dispute, made: Result<TaskOutput, Left>, evidence: Option<&Evidence>) -> Replayed {
    let Dispute { stage, task, task_cid, claims } = dispute;
    let (output, skipped, mut error) = match made {
        Ok(output) => (Some(output), None, None),
        Err(Left::Unknown(why)) => (None, Some(why), None),
        Err(Left::Failed(error)) => (None, Some(error.message.clone()), Some(error)),
    };
    let claims: Vec<_> = claims.into_iter().map(|claim| judge_claim(claim, output.as_ref(), evidence)).collect();
    if claims.iter().any(|claim| claim.accepted && claim.right == Some(false)) {
        error = Some(Error::verification("the answer that was accepted is wrong"));
    }
    let wrong = error.as_ref().filter(|error| error.kind == ErrorKind::Verification).map(|e| e.message.clone());
    Replayed { stage, task, task_cid, skipped, wrong, claims, error }
}

/// Who signed a claim signed its root: that is what is compared, whether the blocks are listed or not.
fn judge_claim(claim: Claim, output: Option<&TaskOutput>, evidence: Option<&Evidence>) -> Judged {
    let right = output.map(|output| claim.root == outputs_root(&blocks(output)));
    let listed = claim.outputs.as_deref();
    let place = output.zip(listed).and_then(|(output, listed)| wrong_block(listed, output, evidence));
    Judged { nodes: claim.nodes, accepted: claim.accepted, listed: listed.is_some(), right, place }
}

fn wrong_block(claimed: &[OutputBlock], output: &TaskOutput, evidence: Option<&Evidence>) -> Option<WrongBlock> {
    let made = &output.blocks;
    let differs = |at: &usize| claimed.get(*at) != made.get(*at).map(|(block, _)| block);
    let at = (0..claimed.len().max(made.len())).find(differs)?;
    let (said, is) = (claimed.get(at).map(|block| block.cid), made.get(at).map(|(block, _)| block.cid));
    let kept = said.and_then(|cid| evidence?.get(&cid).ok()?);
    let value = kept.zip(made.get(at)).and_then(|(kept, (_, bytes))| first_difference(&kept, bytes).ok()?);
    Some(WrongBlock { block: at as u32, said, is, value })
}

/// A line for the task and one for each claim.
pub(crate) fn tell(replayed: &Replayed) -> Vec<String> {
    let name = format!("stage {}, task {}", replayed.stage, replayed.task);
    let mut lines = vec![match (&replayed.skipped, &replayed.wrong) {
        (Some(why), _) => format!("dispute    {name}: not run again, {}", plain(why)),
        (None, Some(wrong)) => format!("dispute    {name}: run again, {}", plain(wrong)),
        (None, None) => format!("dispute    {name}: run again"),
    }];
    for claim in &replayed.claims {
        let verdict = match (claim.right, claim.accepted) {
            (Some(true), _) => "right",
            (Some(false), _) => "wrong",
            (None, true) => "accepted",
            (None, false) => "not accepted",
        };
        let place = match &claim.place {
            Some(place) => format!(": {}", tell_place(place)),
            None if !claim.listed => ": its blocks are not listed, only the root over them".to_owned(),
            None => String::new(),
        };
        lines.extend(claim.nodes.iter().map(|node| format!("           {node} {verdict}{place}")));
    }
    lines
}

fn tell_place(place: &WrongBlock) -> String {
    let block = format!("writer (#0), block {}", place.block);
    let Some(value) = &place.value else { return block };
    let row = format!("{block}, batch {}, row {}", value.batch, value.row);
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
    match &value.column {
        Some(column) => format!("{row}, {column}: said {}, is {}", text(&value.said), text(&value.is)),
        None => format!("{row}: another number of rows"),
    }
}

#[cfg(test)]
mod tests {
    use conun_engine::ReceiptRecord;
    use conun_types::{
        AccountId, Amount, JobId, NodeKey, OsRng, SignedOrder, SignedReceipt, TaskOrder, TaskReceipt, WorkUnits,
        eip712::Domain,
    };

    use super::*;

    const JOB: JobId = JobId([7; 16]);

    fn record(task: u32, vote: u8) -> ReceiptRecord {
        let (node, domain, task_cid) = (NodeKey::generate(&OsRng), Domain::default(), Cid::raw(&[task as u8]));
        let order = TaskOrder {
            account: AccountId::default(),
            job: JOB,
            task_cid,
            provider: node.id(),
            nonce: 1,
            price: Amount::ZERO,
            deadline: 9,
        };
        let receipt = TaskReceipt {
            order_hash: order.struct_hash().unwrap(),
            provider: node.address(),
            profile: [0; 32],
            inputs_root: [0; 32],
            outputs_root: [vote; 32],
            rows: 1,
            bytes: 1,
            units: WorkUnits(1),
        };
        ReceiptRecord {
            stage: 1,
            task,
            task_cid,
            node: node.id(),
            accepted: vote == 1,
            order: SignedOrder::sign(order, &domain, &node).unwrap(),
            receipt: SignedReceipt::sign(receipt, &domain, &node),
            outputs: Vec::new(),
        }
    }

    #[tokio::test]
    async fn all_disputes_of_a_transcript_together_have_an_end() {
        let receipts = [(0, 1), (0, 2), (1, 1), (1, 2)].map(|(task, vote)| record(task, vote)).to_vec();
        let transcript = Transcript { job: JOB, domain: Domain::default(), liars: Vec::new(), receipts, seal: None };
        let dir = tempfile::tempdir().unwrap();
        let evidence = Evidence::new(dir.path().to_owned());
        let told = all_before(&transcript, Some(&evidence), Instant::now()).await;
        let skipped: Vec<_> = told.iter().filter_map(|task| task.skipped.as_deref()).collect();
        assert_eq!(skipped.len(), 2);
        assert!(skipped.iter().all(|why| why.contains("600 s") && why.contains("together")), "{skipped:?}");
        assert_eq!(outcome(&told).map_err(|error| error.kind), Err(ErrorKind::Data), "it is not all that there is");
        assert!(told.iter().all(|task| task.wrong.is_none()));

        let dispute = transcript.disputes().remove(0);
        let rude = judge(dispute, Err(Left::Failed(Error::verification("no variant `\u{1b}[2J`"))), None);
        assert!(!tell(&rude).concat().contains(char::is_control), "a terminal would obey: {:?}", tell(&rude));
    }
}
