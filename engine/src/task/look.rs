//! Looking again at what was accepted: audits of what one operator did alone, and tasks that were accepted on the word of
//! an operator that was caught since.

use std::collections::BTreeSet;

use conun_types::{Cid, Error, NodeId, OutputBlock, Result};

use super::{
    Settled,
    round::{Round, Verdict},
    settle::Settler,
};
use crate::credit::{Ballot, Look, Operator, Votes};

impl Settled {
    /// The root over its blocks, as its voters signed it.
    pub(super) fn root(&self) -> Option<[u8; 32]> {
        self.receipts.iter().find(|r| r.accepted).map(|r| r.receipt.receipt.outputs_root)
    }
}

impl Settler {
    /// Runs what `look` names again and compares.
    ///
    /// # Errors
    /// As [`Settler::settle`].
    pub(crate) async fn look(&self, look: Look) -> Result<()> {
        let key = look.task();
        let before = self.0.lineage.verdict(key).ok_or_else(|| Error::internal(format!("no verdict on {key:?}")))?;
        let Some(poll) = self.reopened(look, &before) else { return Ok(()) };
        let _reserved = self.reserve(&before.task).await?;
        self.decide_again(before, None, poll).await.map(|_| ())
    }

    /// The votes to go on from; nothing, where there is nothing to look at any more.
    fn reopened(&self, look: Look, before: &Settled) -> Option<Votes> {
        let credit = &self.0.context.credit;
        match look {
            // The stages started over, and what it did was done again by another.
            Look::Audit(task, worker) if !before.voters.contains_key(&worker) => {
                credit.void(self.0.context.job, worker, task);
                None
            }
            // Another audit caught it: all that it did is in doubt, and comes as such.
            Look::Audit(_, worker) if !credit.is_admitted(&worker) => None,
            Look::Audit(_, worker) => Some(credit.audit(worker, Ballot::Done(before.root()?))),
            Look::Doubt(_) => self.doubted(&[before]),
        }
    }

    /// A poll that begins with the votes behind `verdicts`. Those of who was caught since are dropped as it goes on.
    fn doubted(&self, verdicts: &[&Settled]) -> Option<Votes> {
        let context = &self.0.context;
        let mut poll = context.credit.doubted(context.checking.demand);
        for verdict in verdicts {
            let root = verdict.root()?;
            verdict.voters.keys().for_each(|operator| poll.voted(*operator, Ballot::Done(root)));
        }
        Some(poll)
    }

    /// A task was run again since its blocks were lost, and gave other bytes: somebody lies.
    pub(super) async fn settle_contradiction(&self, lost: Settled, mut again: Settled) -> Result<()> {
        let poll = self.doubted(&[&lost, &again]).ok_or_else(|| Error::internal("a verdict without a receipt"))?;
        let right = match self.decide_again(lost, Some(again.clone()), poll).await {
            Ok(right) => right,
            Err(error) => {
                again.receipts.iter_mut().for_each(|record| record.accepted = false);
                self.keep(&again.task, again.receipts);
                return Err(error);
            }
        };
        for record in &mut again.receipts {
            record.accepted &= Some(record.receipt.receipt.outputs_root) == right;
        }
        self.owe(&again)?;
        self.0.notes.settled_again(&again);
        Ok(())
    }

    /// Asks further nodes until the votes make a verdict, which takes the place of `before`, with `rival` another answer that
    /// was had; the root of what is right.
    async fn decide_again(&self, before: Settled, rival: Option<Settled>, poll: Votes) -> Result<Option<[u8; 32]>> {
        let Settled { asked, task, outputs, voters, mut receipts, .. } = before.clone();
        let stage = task.stage.key.stage;
        let before: Vec<Settled> = std::iter::once(before).chain(rival).collect();
        let outvoted: Vec<(NodeId, Vec<OutputBlock>)> = before.iter().flat_map(outvoted).collect();
        let again = match Round::again(self.clone(), task, before, poll).run().await? {
            Verdict::Settled(again) => Settled { asked, ..*again },
            Verdict::TooSmall => {
                return Err(Error::verification(format!(
                    "stage {stage}: nodes disagree on the memory that a task needs"
                )));
            }
        };
        let overturned = again.outputs != outputs;
        let right = again.outputs.clone();
        let (cid, root) = (again.task.cid, again.root());
        self.owe(&again)?;
        self.0.notes.settled_again(&again);
        // Whoever said otherwise before was not accepted after all; who agreed then has a receipt from then.
        receipts.retain(|_| !overturned);
        receipts.extend(again.receipts.iter().cloned());
        self.0.lineage.record(&Settled { receipts, ..again });
        if overturned {
            self.0.notes.overturned(&cid, root);
            voters.values().for_each(|node| self.lied(*node, "its answer was overturned", Some(cid)));
            outvoted.into_iter().filter(|(_, said)| *said == right).for_each(|(node, _)| self.clear(node, cid));
            self.overturn(stage, voters.into_keys().collect());
        }
        Ok(root)
    }

    /// `node` lost the vote on `task` to nodes that lied: it is none that lied, and its work is paid.
    fn clear(&self, node: NodeId, task: Cid) {
        let context = &self.0.context;
        let clean = self.0.notes.cleared(node, task);
        context.credit.cleared(&node);
        tracing::warn!(%node, %task, clean, "cleared: it was outvoted by nodes that lied");
        if let Some(payments) = context.payments.as_ref().filter(|_| clean) {
            payments.cleared(context.job, node);
        }
    }

    /// What was accepted on the word of `operators` was wrong: whatever read it starts over.
    fn overturn(&self, stage: u32, operators: BTreeSet<Operator>) {
        self.0.context.credit.came_out_otherwise(operators);
        self.0.notes.warn(format!("stage {stage}: an answer that a node was caught with was found out and corrected"));
        self.0.overturned.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Whether an accepted answer was overturned since this was asked last: the stages must start over.
    pub(crate) fn was_overturned(&self) -> bool {
        self.0.overturned.swap(false, std::sync::atomic::Ordering::Relaxed)
    }
}

/// Whom `verdict` caught with another answer, and what it was.
fn outvoted(verdict: &Settled) -> impl Iterator<Item = (NodeId, Vec<OutputBlock>)> {
    let caught = verdict.rejected.iter().filter(|(holder, _)| verdict.liars.contains(&holder.peer.id));
    caught.map(|(holder, outputs)| (holder.peer.id, outputs.clone()))
}
