//! Disputed tasks, run again from evidence: who was right, and where the others differ.

use std::time::Duration;

use conun_engine::{Claim, Dispute, Transcript};
use conun_executor::{
    TaskOutput,
    referee::{Difference, first_difference},
};
use conun_types::{Cid, Error, NodeId, OutputBlock, Result, profile};
use serde::Serialize;

use crate::evidence::{Evidence, failed, runner};

/// How long a task may take: a transcript may come from somebody who wants to waste time.
const MOST_TIME: Duration = Duration::from_secs(600);

/// A disputed task and what came of running it again.
#[derive(Serialize)]
pub(crate) struct Replayed {
    pub(crate) stage: u32,
    pub(crate) task: u32,
    pub(crate) task_cid: Cid,
    /// Why it was not run again, where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<String>,
    pub(crate) claims: Vec<Judged>,
}

/// A claim about a task.
#[derive(Serialize)]
pub(crate) struct Judged {
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) accepted: bool,
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

/// Runs every disputed task of a verified transcript again.
///
/// # Errors
/// Verification where evidence does not fit the transcript, or an accepted answer is not what the task gives.
pub(crate) async fn all(transcript: &Transcript, evidence: Option<&Evidence>) -> Result<Vec<Replayed>> {
    let mut replayed = Vec::new();
    for dispute in transcript.disputes() {
        let made = match evidence {
            Some(evidence) => again(transcript, &dispute, evidence).await?,
            None => Err("no evidence was given".to_owned()),
        };
        let accepted = dispute.claims.iter().find(|claim| claim.accepted);
        if let (Some(claim), Ok(output)) = (accepted, &made)
            && claim.outputs != blocks(output)
        {
            let place = format!("stage {}, task {}", dispute.stage, dispute.task);
            return Err(Error::verification(format!("{place}: the answer that was accepted is wrong")));
        }
        replayed.push(judge(dispute, made, evidence));
    }
    Ok(replayed)
}

fn blocks(output: &TaskOutput) -> Vec<OutputBlock> {
    output.blocks.iter().map(|(block, _)| *block).collect()
}

/// What the task gives, or why that is not to be known here.
async fn again(transcript: &Transcript, dispute: &Dispute, evidence: &Evidence) -> Result<Result<TaskOutput, String>> {
    let Some(bytes) = evidence.get(&dispute.task_cid)? else {
        return Ok(Err("its envelope is not among the evidence".to_owned()));
    };
    let envelope = transcript.envelope(dispute, &bytes)?;
    if envelope.profile != profile::hash() {
        return Ok(Err("it ran under another execution profile than this program has".to_owned()));
    }
    for cid in envelope.shards.iter().map(|s| s.cid).chain(envelope.blocks.iter().map(|b| b.cid)) {
        if evidence.get(&cid)?.is_none() {
            return Ok(Err(format!("its input {cid} is not among the evidence")));
        }
    }
    match tokio::time::timeout(MOST_TIME, runner()?.run(&envelope, &bytes, evidence)).await {
        Ok(output) => output.map(Ok).map_err(failed),
        Err(_) => Ok(Err(format!("it takes longer than {MOST_TIME:?}"))),
    }
}

fn judge(dispute: Dispute, made: Result<TaskOutput, String>, evidence: Option<&Evidence>) -> Replayed {
    let Dispute { stage, task, task_cid, claims } = dispute;
    let (output, skipped) = match made {
        Ok(output) => (Some(output), None),
        Err(why) => (None, Some(why)),
    };
    let claims = claims.into_iter().map(|claim| judge_claim(claim, output.as_ref(), evidence)).collect();
    Replayed { stage, task, task_cid, skipped, claims }
}

fn judge_claim(claim: Claim, output: Option<&TaskOutput>, evidence: Option<&Evidence>) -> Judged {
    let right = output.map(|output| claim.outputs == blocks(output));
    let place = output.and_then(|output| wrong_block(&claim.outputs, output, evidence));
    Judged { nodes: claim.nodes, accepted: claim.accepted, right, place }
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
    let mut lines = vec![match &replayed.skipped {
        Some(why) => format!("dispute    {name}: not run again, {why}"),
        None => format!("dispute    {name}: run again"),
    }];
    for claim in &replayed.claims {
        let verdict = match (claim.right, claim.accepted) {
            (Some(true), _) => "right",
            (Some(false), _) => "wrong",
            (None, true) => "accepted",
            (None, false) => "not accepted",
        };
        let place = claim.place.as_ref().map(|place| format!(": {}", tell_place(place))).unwrap_or_default();
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
