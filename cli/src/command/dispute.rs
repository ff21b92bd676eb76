//! `conun job evidence`, `trace` and `dispute`: what is needed to run disputed tasks again, what a party says of each
//! operator, and a referee between two of them.

use std::path::Path;

use bytes::Bytes;
use conun_engine::{Dispute, Transcript};
use conun_executor::{
    referee::{Party, Place, Question},
    trace::Trace,
};
use conun_types::{Cid, Error, NodeId, OutputBlock, Result, TaskEnvelope, task::outputs_root};
use serde::{Deserialize, Serialize};

use crate::{
    args::{DecideDispute, SaveEvidence, TaskName, TraceTask},
    context::Context,
    evidence::{self, Evidence, MOST_TIME, check_profile, failed, read_json, read_transcript, runner},
    human, print,
};

/// Writes transcript and evidence of a job to a folder.
pub(crate) async fn save(args: SaveEvidence, context: &Context) -> Result<()> {
    let client = context.client(&args.listing.connect).await?;
    let transcript = super::job::transcript(&client, &args.job).await?;
    let blocks = client.evidence(&transcript.job.to_string()).await?;
    evidence::write(&args.dir, &transcript, &blocks)?;
    let (disputes, bytes) = (transcript.disputes().len(), blocks.iter().map(Bytes::len).sum::<usize>() as u64);
    if args.listing.json {
        return print::json(&serde_json::json!({
            "job": transcript.job, "receipts": transcript.receipts.len(), "disputes": disputes,
            "blocks": blocks.len(), "bytes": bytes,
        }));
    }
    print::line(&format!(
        "wrote {} and {} of evidence ({}) for {}; check them with: conun job verify {}",
        human::plural(transcript.receipts.len() as u64, "receipt"),
        human::plural(blocks.len() as u64, "block"),
        human::bytes(bytes),
        human::plural(disputes as u64, "disputed task"),
        args.dir.display()
    ))
}

/// A party's trace, as a file.
#[derive(Serialize, Deserialize)]
struct TraceFile {
    /// The task.
    task_cid: Cid,
    /// The output that it leads to.
    outputs: Vec<OutputBlock>,
    /// Names of the operators, for people.
    operators: Vec<String>,
    /// The trace.
    trace: Trace,
}

/// A folder of evidence, opened at one disputed task.
struct Case {
    transcript: Transcript,
    dispute: Dispute,
    envelope: TaskEnvelope,
    bytes: Bytes,
    evidence: Evidence,
}

impl Case {
    fn open(dir: &Path, task: Option<TaskName>) -> Result<Self> {
        let (transcript, blocks) = read_transcript(dir)?;
        let blocks = blocks.ok_or_else(|| {
            Error::usage(format!("{} is not a folder", dir.display()))
                .with_hint("write one with: conun job evidence JOB DIR")
        })?;
        transcript.verify()?;
        let evidence = Evidence::new(blocks);
        let dispute = pick(transcript.disputes(), task)?;
        let bytes = evidence.get(&dispute.task_cid)?.ok_or_else(|| {
            Error::data(format!(
                "the envelope of stage {}, task {} is not among the evidence",
                dispute.stage, dispute.task
            ))
        })?;
        let envelope = transcript.envelope(&dispute, &bytes)?;
        check_profile(&envelope)?;
        Ok(Self { transcript, dispute, envelope, bytes, evidence })
    }

    /// Who signed `outputs`.
    fn signers(&self, outputs: &[OutputBlock]) -> Option<Vec<NodeId>> {
        let root = outputs_root(outputs);
        let claims = &self.dispute.claims;
        claims.iter().find(|claim| claim.root == root).map(|claim| claim.nodes.clone())
    }
}

fn pick(disputes: Vec<Dispute>, task: Option<TaskName>) -> Result<Dispute> {
    let names: Vec<String> = disputes.iter().map(|d| format!("{}.{}", d.stage, d.task)).collect();
    let wanted = |d: &Dispute| task.is_none_or(|task| (d.stage, d.task) == (task.stage, task.task));
    let mut found = disputes.into_iter().filter(wanted);
    match (found.next(), found.next()) {
        (Some(dispute), None) => Ok(dispute),
        (None, _) if names.is_empty() => Err(Error::data("no task of this job is disputed")),
        (None, _) => {
            Err(Error::usage("this task is not disputed").with_hint(format!("these are: {}", names.join(", "))))
        }
        _ => Err(Error::usage("more than one task is disputed")
            .with_hint(format!("name one with --task: {}", names.join(", ")))),
    }
}

/// Runs a disputed task and tells what every operator gives; its batches are added to the evidence.
pub(crate) async fn trace(args: TraceTask) -> Result<()> {
    let case = Case::open(&args.dir, args.task)?;
    let traced = runner(MOST_TIME)?.trace(&case.envelope, &case.bytes, &case.evidence).await.map_err(failed)?;
    for (cid, bytes) in &traced.batches {
        case.evidence.add(*cid, bytes)?;
    }
    let operators = traced.operators;
    let outputs: Vec<OutputBlock> = traced.output.blocks.iter().map(|(block, _)| *block).collect();
    if args.json {
        let file = TraceFile { task_cid: case.dispute.task_cid, outputs, operators, trace: traced.trace };
        return print::json(&file);
    }
    let row = |(number, (name, operator)): (u32, (&String, &conun_executor::trace::OperatorTrace))| {
        let batches: usize = operator.partitions.iter().map(|p| p.batches.len()).sum();
        vec![number.to_string(), name.clone(), operator.partitions.len().to_string(), batches.to_string()]
    };
    let rows: Vec<_> = (1..).zip(operators.iter().zip(&traced.trace.operators)).map(row).collect();
    print::table(&[">#", "operator", ">partitions", ">batches"], &rows)
}

/// What `--json` prints of a ruling.
#[derive(Serialize)]
struct Decision {
    job: conun_types::JobId,
    stage: u32,
    task: u32,
    right: Option<Vec<NodeId>>,
    wrong: Option<Vec<NodeId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
    why: String,
}

/// Decides between two parties by running the one operator where they part.
pub(crate) async fn decide(args: DecideDispute) -> Result<()> {
    let case = Case::open(&args.dir, args.task)?;
    let (mut traces, mut votes, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
    for path in &args.traces {
        let file: TraceFile = read_json(path, "trace")?;
        let refuse = |what: &str| Err(Error::verification(format!("the trace in {} {what}", path.display())));
        if file.task_cid != case.dispute.task_cid {
            return refuse("is of another task");
        }
        let Some(signers) = case.signers(&file.outputs) else { return refuse("leads to an output that nobody signed") };
        traces.push(Some(file.trace));
        votes.push(file.outputs);
        nodes.push(signers);
    }
    let (Ok(votes), Ok(traces)) = (votes.try_into(), traces.try_into()) else {
        return Err(Error::usage("a dispute has two parties"));
    };
    let question = Question { envelope: case.envelope.clone(), votes, traces };
    let ruling = runner(MOST_TIME)?.decide(&question, &case.evidence).await.map_err(failed)?;
    let side = |party: Party| nodes.get(party as usize).cloned();
    let decision = Decision {
        job: case.transcript.job,
        stage: case.dispute.stage,
        task: case.dispute.task,
        right: ruling.right.and_then(side),
        wrong: ruling.right.map(Party::other).and_then(side),
        place: ruling.place,
        why: ruling.why,
    };
    if args.json { print::json(&decision) } else { print::line(&tell(&decision)) }
}

fn tell(decision: &Decision) -> String {
    let place = decision.place.as_ref().map(|place| format!(", {place}")).unwrap_or_default();
    let mut lines = vec![format!("dispute    stage {}, task {}{place}", decision.stage, decision.task)];
    for (verdict, nodes) in [("right", &decision.right), ("wrong", &decision.wrong)] {
        lines.extend(nodes.iter().flatten().map(|node| format!("           {node} {verdict}")));
    }
    lines.push(format!("why        {}", decision.why));
    lines.join("\n")
}
