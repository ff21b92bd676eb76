//! What a task costs: reserved before it runs, owed after its verdict, and receipts asked for a second time.

use std::{collections::HashMap, sync::PoisonError};

use conun_executor::canonical;
use conun_trust::Outcome;
use conun_types::{
    Amount, Cid, NodeId, Result, SignedReceipt, Volume, WorkUnits,
    payment::ClaimedReceipt,
    wire::{ControlReply, ControlRequest, Penalty, ReadBlock},
};
use futures::future::join_all;

use super::{Prepared, Settled, Settler};
use crate::{payments::Accepted, record::ReceiptRecord};

/// Largest block that is read to count its rows.
const MOST_COUNTED: u64 = 8 << 20;

/// Money that a task in flight will cost at least; given back when dropped, as the verdict's receipts count from then on.
pub(super) struct Reserved {
    settler: Settler,
    amount: Amount,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut reserved = self.settler.0.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved = reserved.less(self.amount);
        if let Some(payments) = &self.settler.0.context.payments {
            payments.give_back(self.amount);
        }
    }
}

impl Settler {
    /// Sets aside what `task` costs at least: what comes out is not known before.
    ///
    /// # Errors
    /// Budget where the job or the account cannot afford it.
    pub(super) async fn reserve(&self, task: &Prepared) -> Result<Reserved> {
        let context = &self.0.context;
        let price = context.payments.as_ref().map(|p| p.price()).unwrap_or_default();
        let units = WorkUnits::of(task.envelope.input_volume(), Volume::default());
        let amount = price.times(units).times(WorkUnits(context.checking.votes() as u64));
        let in_flight = {
            let mut reserved = self.0.reserved.lock().unwrap_or_else(PoisonError::into_inner);
            let before = *reserved;
            *reserved = before.plus(amount);
            before
        };
        // Given back however this ends: a job that is cancelled while the chain is asked must not keep the account's money.
        let all = context.payments.as_ref().map(|p| p.set_aside(amount)).unwrap_or_default();
        let reserved = Reserved { settler: self.clone(), amount };
        context.afford(self.0.notes.cost().plus(in_flight), amount)?;
        if let Some(payments) = &context.payments {
            payments.cover(all).await?;
        }
        Ok(reserved)
    }

    /// Writes down who is owed for a verdict, and who is not; with them whoever said the same before, when it made no verdict.
    pub(super) fn owe(&self, settled: &Settled) -> Result<()> {
        let earlier = settled.root().map(|root| self.0.notes.accept(&settled.task.cid, root)).unwrap_or_default();
        let Some(payments) = &self.0.context.payments else { return Ok(()) };
        for record in settled.receipts.iter().chain(&earlier) {
            match record.accepted {
                true => payments.accepted(self.accepted(record))?,
                false => payments.refused(record.node, self.penalty(record))?,
            }
        }
        Ok(())
    }

    /// Keeps receipts for `task` that made no verdict. Those that say what was accepted before are accepted, too.
    pub(super) fn keep(&self, task: &Prepared, receipts: Vec<ReceiptRecord>) {
        self.0.notes.open(task.stage.key.stage, receipts);
        let Some(root) = self.0.notes.accepted(&task.cid) else { return };
        let accepted = self.0.notes.accept(&task.cid, root);
        let Some(payments) = &self.0.context.payments else { return };
        for record in accepted {
            if let Err(error) = payments.accepted(self.accepted(&record)) {
                tracing::error!(%error, node = %record.node, "a receipt that is paid is not in the book");
            }
        }
    }

    /// Nothing that was accepted for `task` is any more, and nothing of it is paid, for this reason; unless some of it is owed
    /// already: then it stands.
    pub(super) fn take_back(&self, task: &Cid, why: &str) {
        if let Some(payments) = &self.0.context.payments {
            let receipts = self.0.notes.snapshot().receipts;
            let accepted = receipts.iter().filter(|record| record.accepted && record.task_cid == *task);
            let refused = accepted.map(|record| {
                let reason = format!("task {}: it was looked at again, and {why}", record.task);
                (record.node, Penalty { reason, ..self.penalty(record) })
            });
            match payments.take_back(refused.collect()) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    return tracing::error!(%error, %task, "a task that is not paid after all is not in the book");
                }
            }
        }
        self.0.notes.overturned(task, None);
    }

    fn accepted(&self, record: &ReceiptRecord) -> Accepted {
        let receipt = &record.receipt.receipt;
        Accepted {
            job: self.0.context.job,
            stage: record.stage,
            node: record.node,
            price: record.order.order.price,
            receipt: ClaimedReceipt { order_hash: receipt.order_hash, units: receipt.units },
            output: Volume { rows: receipt.rows, bytes: receipt.bytes },
        }
    }

    fn penalty(&self, record: &ReceiptRecord) -> Penalty {
        Penalty {
            job: self.0.context.job,
            stage: record.stage,
            order_hash: record.receipt.receipt.order_hash,
            reason: format!("task {}: the answer differs from the one that the quorum accepted", record.task),
        }
    }

    /// Asks every node that was accepted for one of its receipts again: who signs another one for the same order has
    /// proven itself a cheat, to a chain as well. Bounded in time; silence proves nothing.
    pub(super) async fn cross_examine(&self) {
        let context = &self.0.context;
        let mut samples: HashMap<NodeId, Vec<ReceiptRecord>> = HashMap::new();
        for record in self.0.notes.snapshot().receipts.into_iter().filter(|r| r.accepted) {
            samples.entry(record.node).or_default().push(record);
        }
        let peers: HashMap<NodeId, _> = context.fleet.connected().into_iter().map(|p| (p.id, p)).collect();
        let questions = samples.into_iter().filter_map(|(node, mut records)| {
            let record = records.swap_remove(context.rng.below(records.len()));
            peers.get(&node).map(|peer| async move {
                let order_hash = record.receipt.receipt.order_hash;
                let reply = context.network.control(peer, ControlRequest::Receipt(order_hash)).await;
                if let Ok(ControlReply::Receipt(Some(again))) = reply
                    && again.receipt != record.receipt.receipt
                    && again.check(&record.order.order, &context.domain()).is_ok()
                {
                    self.equivocated(node, record.receipt, *again);
                }
            })
        });
        let _ = tokio::time::timeout(context.config.patience, join_all(questions)).await;
    }

    /// Reads a block of every node that voted alone, whole, and counts its rows: what nobody else has seen is paid by the
    /// voter's word otherwise. Bounded in time and size; who does not serve proves nothing.
    pub(super) async fn count_rows(&self) {
        let context = &self.0.context;
        if context.payments.is_none() || context.checking.votes() > 1 {
            return;
        }
        let counts =
            self.0.lineage.lone_samples(context.rng.as_ref(), MOST_COUNTED).into_iter().map(|sample| async move {
                let (holder, block) = sample;
                let read = ReadBlock { cid: block.cid, offset: 0, len: u64::MAX, capability: holder.capability };
                let Ok(bytes) = context.network.read_block(&holder.peer, read).await else { return };
                let rows = canonical::row_count(&bytes);
                if (bytes.len() as u64, rows.ok()) != (block.bytes, Some(block.rows)) {
                    self.caught(holder.peer.id, "its block is not as large as it says");
                }
            });
        let _ = tokio::time::timeout(context.config.patience, join_all(counts)).await;
    }

    /// `node` signed two receipts for one order.
    fn equivocated(&self, node: NodeId, first: SignedReceipt, second: SignedReceipt) {
        self.observe(node, Outcome::Equivocation);
        self.lied(node, "it signed two receipts for one order", None);
        let Some(payments) = self.0.context.payments.clone() else { return };
        self.0.notes.warn(format!("node {node} signed two receipts for one order: its operator's stake is at risk"));
        // The answer does not wait for the chain.
        tokio::spawn(async move {
            match payments.prove_equivocation(&first, &second).await {
                Ok(included) => tracing::info!(%node, gas = included.gas, "equivocation proven on the chain"),
                Err(error) => tracing::warn!(%node, %error, "equivocation could not be proven on the chain"),
            }
        });
    }
}
