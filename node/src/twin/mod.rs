//! Dishonest twins: each cheats in one way, around the honest service, and must be caught.
//!
//! A twin's lies are consistent (its receipt signs for the block that it shows), so that only another replica or the
//! hash of a block gives it away. [`mode`] names the ways, `tamper` has lies about rows, `copycat` looks at others' answers.

mod copycat;
pub mod mode;
mod tamper;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_executor::TaskOutput;
use conun_types::{
    Answer, Complaint, Failure, NodeId, Result, SignedReceipt, TaskOffer, TaskReceipt, Vote, WorkUnits,
    port::{OfferReply, Volunteer},
    wire::{BlockError, ControlReply, ControlRequest, Hello, ReadBlock, WriteBlock},
};

use self::{
    copycat::Copycat,
    mode::LiarMode,
    tamper::{drop_rows, duplicate_rows, misroute, wrong_value},
};
use crate::service::{Executed, NodeService, Slot, answer};

/// A cheating volunteer.
pub(crate) struct Twin {
    honest: Arc<NodeService>,
    mode: LiarMode,
    /// Tasks whose output it could have changed.
    tasks: AtomicU32,
    /// A vote on an order of each coordinator, for replay.
    earlier: Mutex<HashMap<NodeId, Vote>>,
}

impl Twin {
    pub(crate) fn new(honest: Arc<NodeService>, mode: LiarMode) -> Self {
        Self { honest, mode, tasks: AtomicU32::new(0), earlier: Mutex::default() }
    }

    fn earlier(&self) -> MutexGuard<'_, HashMap<NodeId, Vote>> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tamper(&self, offer: &TaskOffer, output: TaskOutput) -> TaskOutput {
        let before = self.tasks.fetch_add(1, Ordering::Relaxed);
        match self.mode {
            LiarMode::WrongValue => wrong_value(output, self.own_step()),
            LiarMode::Sleeper(honest) if before >= honest => wrong_value(output, self.own_step()),
            LiarMode::Rarely(one_in) if before % one_in == one_in.get() - 1 => wrong_value(output, self.own_step()),
            // Of the task alone: the ring agrees without talking.
            LiarMode::Collude => wrong_value(output, step(offer.order.order.task_cid.digest())),
            LiarMode::DropRows => drop_rows(output),
            LiarMode::DuplicateRows => duplicate_rows(output),
            LiarMode::Misroute => misroute(output),
            LiarMode::Sleeper(_)
            | LiarMode::Rarely(_)
            | LiarMode::Stall
            | LiarMode::CorruptBlock
            | LiarMode::Inflate
            | LiarMode::Equivocate
            | LiarMode::Copycat
            | LiarMode::Replay => output,
        }
    }

    /// Liars that are not in a ring lie each in their own way.
    fn own_step(&self) -> u16 {
        step(&self.honest.key.id().public_key()[1..])
    }

    /// The receipt with other units, signed as the first was.
    fn resign(&self, signed: SignedReceipt, units: impl Fn(u64) -> u64) -> SignedReceipt {
        let receipt = TaskReceipt { units: WorkUnits(units(signed.receipt.units.0)), ..signed.receipt };
        SignedReceipt::sign(receipt, &self.honest.cashier.domain(), &self.honest.key)
    }

    fn vote(&self, from: NodeId, vote: Vote) -> Vote {
        match self.mode {
            LiarMode::Inflate => Vote { receipt: self.resign(vote.receipt, |units| units.saturating_mul(2)), ..vote },
            LiarMode::Replay => self.earlier().entry(from).or_insert(vote).clone(),
            _ => vote,
        }
    }

    /// What it says came out, before the vote on it.
    async fn execute(
        &self,
        from: NodeId,
        offer: &TaskOffer,
        encoded: &Bytes,
    ) -> Result<Executed, (Failure, Vec<Complaint>)> {
        if self.mode == LiarMode::Copycat {
            let envelope = self.honest.envelope(from, offer, encoded).map_err(|failure| (failure, Vec::new()))?;
            // Whoever can name no block at all does the work, so as not to be found out for nothing.
            if !envelope.blocks.is_empty() {
                let network = self.honest.network();
                let copycat = Copycat { network, local: self.honest.id(), offer, envelope: &envelope };
                let output = copycat.answer().await;
                return Ok(Executed { envelope, output, complaints: Vec::new() });
            }
        }
        let executed = self.honest.execute(from, offer, encoded).await?;
        let output = self.tamper(offer, executed.output);
        Ok(Executed { output, ..executed })
    }
}

/// How far a lie is from the truth, by what decides it.
fn step(seed: &[u8]) -> u16 {
    u16::from_be_bytes([seed[0], seed[1]]) | 1
}

/// The same bytes but for one bit.
fn flip(bytes: &Bytes) -> Bytes {
    let mut wrong = bytes.to_vec();
    let middle = wrong.len() / 2;
    if let Some(byte) = wrong.get_mut(middle) {
        *byte ^= 1;
    }
    wrong.into()
}

#[async_trait]
impl Volunteer for Twin {
    fn hello(&self) -> Hello {
        self.honest.hello()
    }

    async fn offer(&self, from: NodeId, offer: &TaskOffer) -> OfferReply {
        self.honest.offer(from, offer).await
    }

    fn examine(&self, from: NodeId, offer: &TaskOffer, envelope: &[u8]) -> Result<(), String> {
        self.honest.examine(from, offer, envelope)
    }

    async fn run(&self, from: NodeId, offer: TaskOffer, envelope: Bytes) -> Answer {
        let _slot = Slot::new(&self.honest, from, &offer);
        if self.mode == LiarMode::Stall {
            std::future::pending::<()>().await;
        }
        match self.execute(from, &offer, &envelope).await {
            Ok(Executed { envelope, output, complaints }) => {
                let vote = self.honest.publish(from, &offer, &envelope, output).await;
                answer(vote.map(|vote| self.vote(from, vote)), complaints)
            }
            Err((failure, complaints)) => answer(Err(failure), complaints),
        }
    }

    fn release(&self, from: NodeId, offer: &TaskOffer) {
        self.honest.release(from, offer);
    }

    async fn read_block(&self, from: NodeId, request: &ReadBlock) -> Result<Bytes, BlockError> {
        let bytes = self.honest.read_block(from, request).await?;
        Ok(if self.mode == LiarMode::CorruptBlock { flip(&bytes) } else { bytes })
    }

    async fn may_write(&self, from: NodeId, request: &WriteBlock) -> Result<(), BlockError> {
        self.honest.may_write(from, request).await
    }

    async fn write_block(&self, from: NodeId, request: WriteBlock, data: Bytes) -> Result<(), BlockError> {
        self.honest.write_block(from, request, data).await
    }

    async fn control(&self, from: NodeId, request: ControlRequest) -> ControlReply {
        match self.honest.control(from, request).await {
            ControlReply::Receipt(Some(receipt)) if self.mode == LiarMode::Equivocate => {
                ControlReply::Receipt(Some(Box::new(self.resign(*receipt, |units| units.saturating_add(1)))))
            }
            reply => reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrupt_blocks_differ_in_one_bit() {
        assert_eq!(flip(&Bytes::from_static(b"abc")), Bytes::from_static(b"acc"));
        assert_eq!(flip(&Bytes::new()), Bytes::new());
    }

    #[test]
    fn no_lie_is_the_truth() {
        assert_ne!(step(&[0, 0]), 0);
    }
}
