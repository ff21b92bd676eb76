//! Disputes in a transcript: tasks for which nodes claim different outputs, and whether evidence fits them.
//!
//! From the transcript alone follow stage and task: what a disputed task reads was accepted in an earlier stage, so that
//! its inputs are agreed on. To go further, the task is run again from evidence ([`conun_executor::referee`]).

use std::collections::{BTreeMap, HashSet};

use conun_types::{Cid, Error, NodeId, OutputBlock, Result, TaskEnvelope};
use serde::Serialize;

use crate::{record::ReceiptRecord, transcript::Transcript};

/// What some nodes say that a task makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// Who signed it.
    pub nodes: Vec<NodeId>,
    /// Whether it was accepted.
    pub accepted: bool,
    /// The root over its blocks, which is what they signed.
    pub root: [u8; 32],
    /// The blocks; none where the transcript does not list them, whose root may still be compared.
    pub outputs: Option<Vec<OutputBlock>>,
}

/// A task on which nodes disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dispute {
    /// Its stage.
    pub stage: u32,
    /// Its number within the stage.
    pub task: u32,
    /// Hash of its envelope.
    pub task_cid: Cid,
    /// What is claimed, the accepted one first.
    pub claims: Vec<Claim>,
}

impl Transcript {
    /// Tasks on which nodes disagree, the earliest first. The transcript must have been verified.
    #[must_use]
    pub fn disputes(&self) -> Vec<Dispute> {
        let mut tasks: BTreeMap<(u32, u32, Cid), Vec<&ReceiptRecord>> = BTreeMap::new();
        for record in &self.receipts {
            tasks.entry((record.stage, record.task, record.task_cid)).or_default().push(record);
        }
        let disputes = tasks.into_iter().map(|((stage, task, task_cid), records)| {
            let claims = claims(&records);
            Dispute { stage, task, task_cid, claims }
        });
        disputes.filter(|dispute| dispute.claims.len() > 1).collect()
    }

    /// The envelope of a disputed task from its bytes, if it is the one that was ordered and what it reads was accepted
    /// before.
    ///
    /// # Errors
    /// Verification where it is another one. Data where that is not to be known: the transcript does not list what an
    /// earlier stage made, or lists it and it is not accepted.
    pub fn envelope(&self, dispute: &Dispute, bytes: &[u8]) -> Result<TaskEnvelope> {
        let (stage, task) = (dispute.stage, dispute.task);
        let wrong = |what: &str| Error::verification(format!("the evidence of stage {stage}, task {task}: {what}"));
        if Cid::raw(bytes) != dispute.task_cid {
            return Err(wrong("another envelope than the one that was ordered"));
        }
        let envelope = TaskEnvelope::decode(bytes).map_err(|e| wrong(&e.message))?;
        if (envelope.job, envelope.stage, envelope.task) != (self.job, stage, task) {
            return Err(wrong("the envelope is of another task"));
        }
        let (root, profile) = (envelope.inputs_root(), envelope.profile);
        let receipts = self.receipts.iter().filter(|r| r.task_cid == dispute.task_cid).map(|r| &r.receipt.receipt);
        if receipts.into_iter().any(|receipt| (receipt.inputs_root, receipt.profile) != (root, profile)) {
            return Err(wrong("a receipt is for other inputs, or another profile"));
        }
        self.check_made_earlier(stage, &envelope).map_err(|unmade| match unmade {
            Unmade::Unknown(why) => Error::data(why),
            Unmade::Wrong(why) => wrong(&why),
        })?;
        Ok(envelope)
    }

    /// Whether all that a task of `stage` reads was accepted in earlier stages.
    fn check_made_earlier(&self, stage: u32, envelope: &TaskEnvelope) -> Result<(), Unmade> {
        let (accepted, others): (Vec<_>, Vec<_>) =
            self.receipts.iter().filter(|r| r.stage < stage).partition(|r| r.accepted);
        let made: HashSet<Cid> = accepted.iter().flat_map(|r| &r.outputs).map(|block| block.cid).collect();
        let Some(block) = envelope.blocks.iter().find(|block| !made.contains(&block.cid)) else { return Ok(()) };
        // Verdicts are taken back: by an audit that ends without one, or overturned. What was read before that stays read.
        let is_maker = |r: &&ReceiptRecord| r.outputs.iter().any(|made| made.cid == block.cid) && r.listed().is_some();
        if let Some(maker) = others.into_iter().find(is_maker) {
            return Err(Unmade::Unknown(format!(
                "it reads {}, which stage {}, task {} made, and its verdict was taken back",
                block.cid, maker.stage, maker.task
            )));
        }
        let root = |r: &ReceiptRecord| r.receipt.receipt.outputs_root;
        let listed: HashSet<_> = accepted.iter().filter(|r| r.listed().is_some()).map(|r| root(r)).collect();
        match accepted.iter().find(|r| !listed.contains(&root(r))) {
            Some(maker) => Err(Unmade::Unknown(format!(
                "whether an earlier stage made {} is not to be known: the transcript does not list the blocks of stage {}, \
                 task {}",
                block.cid, maker.stage, maker.task
            ))),
            None => Err(Unmade::Wrong(format!("it reads {}, which no earlier stage made", block.cid))),
        }
    }
}

/// Why what a task reads is not agreed on.
enum Unmade {
    /// It may have been.
    Unknown(String),
    /// Nobody made it.
    Wrong(String),
}

fn claims(records: &[&ReceiptRecord]) -> Vec<Claim> {
    let mut claims: BTreeMap<[u8; 32], Claim> = BTreeMap::new();
    let mut named = HashSet::new();
    for record in records {
        let root = record.receipt.receipt.outputs_root;
        let claim = claims.entry(root).or_insert_with(|| Claim {
            nodes: Vec::new(),
            accepted: record.accepted,
            root,
            outputs: None,
        });
        if claim.outputs.is_none() {
            claim.outputs = record.listed().map(<[OutputBlock]>::to_vec);
        }
        if named.insert((root, record.node)) {
            claim.nodes.push(record.node);
        }
    }
    let mut claims: Vec<Claim> = claims.into_values().collect();
    claims.sort_by_key(|claim| (!claim.accepted, std::cmp::Reverse(claim.nodes.len())));
    claims
}

#[cfg(test)]
mod tests {
    use conun_types::{
        AccountId, Amount, InputBlock, JobId, NodeKey, OsRng, SignedOrder, SignedReceipt, TaskOrder, TaskReceipt,
        Volume, WorkUnits, codec, eip712::Domain, task::outputs_root,
    };

    use super::*;

    const JOB: JobId = JobId([7; 16]);

    fn output(vote: u8) -> OutputBlock {
        OutputBlock { partition: 0, cid: Cid::raw(&[vote]), rows: 1, bytes: 1 }
    }

    /// A task of `stage` that reads what was made with `input`.
    fn envelope(stage: u32, input: Option<u8>) -> TaskEnvelope {
        let block = |vote| InputBlock { cid: output(vote).cid, volume: Volume { rows: 1, bytes: 1 } };
        let blocks = input.map(block).into_iter().collect();
        TaskEnvelope { profile: [3; 32], blocks, ..TaskEnvelope::new(JOB, stage, 0, vec![stage as u8]) }
    }

    fn vote(envelope: &TaskEnvelope, vote: u8, accepted: bool) -> Result<ReceiptRecord> {
        let (node, domain) = (NodeKey::generate(&OsRng), Domain::default());
        let task_cid = Cid::raw(&codec::encode(envelope)?);
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
            order_hash: order.struct_hash()?,
            provider: node.address(),
            profile: envelope.profile,
            inputs_root: envelope.inputs_root(),
            outputs_root: outputs_root(&[output(vote)]),
            rows: 1,
            bytes: 1,
            units: WorkUnits(1),
        };
        Ok(ReceiptRecord {
            stage: envelope.stage,
            task: envelope.task,
            task_cid,
            node: node.id(),
            accepted,
            order: SignedOrder::sign(order, &domain, &node)?,
            receipt: SignedReceipt::sign(receipt, &domain, &node),
            outputs: vec![output(vote)],
        })
    }

    fn transcript(receipts: Vec<ReceiptRecord>) -> Transcript {
        Transcript { job: JOB, domain: Domain::default(), liars: Vec::new(), receipts, seal: None }
    }

    #[test]
    fn disputes_are_tasks_with_different_roots_and_the_accepted_claim_comes_first() -> Result<()> {
        let (first, second) = (envelope(1, None), envelope(2, Some(1)));
        let votes = [(&first, 1, true), (&first, 1, true), (&second, 9, false), (&second, 2, true), (&second, 2, true)];
        let receipts = votes.map(|(task, said, accepted)| vote(task, said, accepted));
        let disputes = transcript(receipts.into_iter().collect::<Result<_>>()?).disputes();
        assert_eq!(disputes.iter().map(|d| (d.stage, d.task)).collect::<Vec<_>>(), [(2, 0)]);
        let claim = |c: &Claim| (c.accepted, c.nodes.len(), c.root, c.outputs.clone());
        let claims: Vec<_> = disputes[0].claims.iter().map(claim).collect();
        let said = |vote| (outputs_root(&[output(vote)]), Some(vec![output(vote)]));
        let expected = [(true, 2, said(2)), (false, 1, said(9))].map(|(a, n, (root, list))| (a, n, root, list));
        assert_eq!(claims, expected);
        Ok(())
    }

    #[test]
    fn a_list_that_is_missing_is_no_claim_of_nothing() -> Result<()> {
        let (first, second) = (envelope(1, None), envelope(2, Some(1)));
        let mut whole = transcript(vec![
            vote(&first, 1, true)?,
            vote(&second, 2, true)?,
            vote(&second, 2, true)?,
            vote(&second, 9, false)?,
        ]);
        whole.receipts[1].outputs.clear();
        let claims = whole.disputes()[0].claims.clone();
        assert_eq!(claims[0].outputs, Some(vec![output(2)]), "another that signed the same root lists it");
        whole.receipts[2].outputs.clear();
        let claims = whole.disputes()[0].claims.clone();
        assert_eq!((claims[0].root, &claims[0].outputs), (outputs_root(&[output(2)]), &None));
        // What the earlier stage made is not listed either: that proves nothing against its coordinator.
        whole.receipts[0].outputs.clear();
        let told = whole.envelope(&whole.disputes()[0], &codec::encode(&second)?).map_err(|e| e.kind);
        assert_eq!(told, Err(conun_types::ErrorKind::Data));
        Ok(())
    }

    #[test]
    fn envelopes_that_do_not_fit_are_refused() -> Result<()> {
        let (first, second) = (envelope(1, None), envelope(2, Some(1)));
        let votes = |made: u8, task: &TaskEnvelope| -> Result<Transcript> {
            Ok(transcript(vec![vote(&first, made, true)?, vote(task, 2, true)?, vote(task, 9, false)?]))
        };
        let refused = |transcript: &Transcript, envelope: &TaskEnvelope| {
            let bytes = codec::encode(envelope).unwrap_or_default();
            transcript.envelope(&transcript.disputes()[0], &bytes).err().map(|e| e.message).unwrap_or_default()
        };
        let honest = votes(1, &second)?;
        assert_eq!(honest.envelope(&honest.disputes()[0], &codec::encode(&second)?)?, second);
        assert!(refused(&honest, &first).contains("another envelope"));
        assert!(refused(&votes(5, &second)?, &second).contains("no earlier stage"), "inputs from elsewhere");
        // A task that reads what it or a later stage makes would go round in a circle.
        let circular = envelope(2, Some(2));
        assert!(refused(&votes(1, &circular)?, &circular).contains("no earlier stage"));
        // An audit that ended open takes the verdict back: that proves nothing against its coordinator.
        let mut taken_back = honest.clone();
        taken_back.receipts[0].accepted = false;
        let told = taken_back.envelope(&taken_back.disputes()[0], &codec::encode(&second)?).unwrap_err();
        assert_eq!(told.kind, conun_types::ErrorKind::Data);
        assert!(told.message.contains("its verdict was taken back"), "{}", told.message);
        let mut other = honest.clone();
        other.receipts[2].receipt.receipt.inputs_root = [0; 32];
        assert!(refused(&other, &second).contains("other inputs"));
        let mut moved = honest;
        moved.receipts.iter_mut().filter(|r| r.stage == 2).for_each(|r| r.task = 1);
        assert!(refused(&moved, &second).contains("another task"));
        Ok(())
    }
}
