//! Looking again at what was accepted: audits of what one operator did alone, and tasks that were accepted on the word of
//! an operator that was caught since.

use std::collections::BTreeSet;

use conun_trust::{Mode, Poll};
use conun_types::{Error, Result};

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
        self.decide_again(vec![before], poll).await
    }

    /// The votes to go on from; nothing, where there is nothing to look at any more.
    fn reopened(&self, look: Look, before: &Settled) -> Option<Votes> {
        let credit = &self.0.context.credit;
        let ballot = Ballot::Done(before.root()?);
        match look {
            // The stages started over, and what it did was done again by another.
            Look::Audit(task, worker) if !before.voters.contains_key(&worker) => {
                credit.void(self.0.context.job, worker, task);
                None
            }
            // Another audit caught it: all that it did is in doubt, and comes as such.
            Look::Audit(_, worker) => credit.is_admitted(&worker).then(|| credit.audit(worker, ballot)),
            Look::Doubt(_) => {
                let context = &self.0.context;
                let mut poll = Poll::new(Mode::Votes, context.checking.need(context.config.trust.max_error));
                for operator in before.voters.keys().filter(|operator| credit.is_admitted(operator)) {
                    poll.voted(*operator, ballot.clone());
                }
                Some(poll)
            }
        }
    }

    /// A task was run again since its blocks were lost, and gave other bytes: somebody lies.
    pub(super) async fn settle_contradiction(&self, lost: Settled, mut again: Settled) -> Result<()> {
        let context = &self.0.context;
        let mut poll = Poll::new(Mode::Votes, context.checking.need(context.config.trust.max_error));
        for verdict in [&lost, &again] {
            let root = verdict.root().ok_or_else(|| Error::internal("a verdict without a receipt"))?;
            verdict.voters.keys().for_each(|operator| poll.voted(*operator, Ballot::Done(root)));
        }
        let key = again.task.stage.key;
        self.decide_again(vec![lost, again.clone()], poll).await?;
        let right = self.0.lineage.verdict(key).and_then(|verdict| verdict.root());
        for record in &mut again.receipts {
            record.accepted &= Some(record.receipt.receipt.outputs_root) == right;
        }
        self.owe(&again)?;
        self.0.notes.settled_again(&again);
        Ok(())
    }

    /// Asks further nodes until the votes make a verdict, which takes the place of the first of those `before`.
    async fn decide_again(&self, before: Vec<Settled>, poll: Votes) -> Result<()> {
        let Some(first) = before.first().cloned() else { return Ok(()) };
        let Settled { asked, task, outputs, voters, mut receipts, .. } = first;
        let stage = task.stage.key.stage;
        let again = match Round::again(self.clone(), task, before, poll).run().await? {
            Verdict::Settled(again) => Settled { asked, ..*again },
            Verdict::TooSmall => {
                return Err(Error::verification(format!(
                    "stage {stage}: nodes disagree on the memory that a task needs"
                )));
            }
        };
        let overturned = again.outputs != outputs;
        let (cid, root) = (again.task.cid, again.root());
        self.owe(&again)?;
        self.0.notes.settled_again(&again);
        // Whoever said otherwise before was not accepted after all; who agreed then has a receipt from then.
        receipts.retain(|_| !overturned);
        receipts.extend(again.receipts.iter().cloned());
        self.0.lineage.record(&Settled { receipts, ..again });
        if overturned {
            self.0.notes.overturned(&cid, root);
            voters.values().for_each(|node| self.lied(*node, "its answer was overturned"));
            self.overturn(stage, voters.into_keys().collect());
        }
        Ok(())
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
