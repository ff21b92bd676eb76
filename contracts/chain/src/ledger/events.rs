//! Settlements as the escrow's events tell them.

use alloy::{
    primitives::B256,
    rpc::types::{Filter, Log},
    sol_types::SolEvent,
};
use conun_types::{
    error::{Error, Result},
    ledger::{Included, SettledBatch},
    order::StageRecord,
    payment::{AccountId, SignedSettlement},
};

use super::{EvmLedger, included, words};
use crate::{bindings::JobEscrow::Settled, link::Trouble, outbox::confirmed};

/// Blocks that are asked for at once where a node refuses to search all of them; many allow so many.
const STEP: u64 = 2_000;

impl EvmLedger {
    /// All settlements of an account that are not expected to be undone, or those of one batch.
    pub(super) async fn settled(&self, id: &AccountId, batch: Option<u32>) -> Result<Vec<SettledBatch>> {
        let mut filter = Filter::new()
            .address(self.contracts.escrow)
            .event_signature(Settled::SIGNATURE_HASH)
            .topic1(B256::from(id.0));
        if let Some(batch) = batch {
            filter = filter.topic2(B256::left_padding_from(&batch.to_be_bytes()));
        }
        let mut found = Vec::new();
        for log in self.search(filter).await? {
            found.push(self.batch_of(&log).await?);
        }
        found.sort_by_key(|b| b.batch);
        Ok(found)
    }

    /// All events of the escrow's time, at once where the node gives them, else in steps.
    async fn search(&self, filter: Filter) -> Result<Vec<Log>> {
        let doing = |trouble: Trouble| trouble.while_doing("looking for settlements");
        let head = self.link.head().await.map_err(doing)?;
        let last = confirmed(head, self.confirmations).unwrap_or(head);
        let range = |from: u64, to: u64| filter.clone().from_block(from).to_block(to);
        match self.link.logs(&range(self.since, last)).await {
            Ok(logs) => return Ok(logs),
            Err(Trouble::Refused { .. }) => {}
            Err(trouble) => return Err(doing(trouble)),
        }
        let mut logs = Vec::new();
        for from in (self.since..=last).step_by(STEP as usize) {
            logs.extend(self.link.logs(&range(from, last.min(from + STEP - 1))).await.map_err(doing)?);
        }
        Ok(logs)
    }

    async fn batch_of(&self, log: &Log) -> Result<SettledBatch> {
        let event = Settled::decode_log(&log.inner).map_err(|_| Error::unavailable("a settlement's event is cut"))?;
        let tx = log.transaction_hash.ok_or_else(|| Error::unavailable("an event names no transaction"))?;
        let receipt = self.link.receipt(tx).await.map_err(|t| t.while_doing("looking for settlements"))?;
        let receipt = receipt.ok_or_else(|| Error::unavailable(format!("there is no receipt of {tx}")))?;
        let (records, _) = event.records.as_chunks::<{ StageRecord::PACKED }>();
        Ok(SettledBatch {
            batch: event.batch,
            root: event.root.0,
            stages: event.stages,
            paid: words::amount(event.paid),
            records: records.iter().map(StageRecord::unpack).collect(),
            included: included(&receipt)?,
        })
    }

    /// The inclusion of a batch that was settled before, by the same words.
    pub(super) async fn same_batch(&self, signed: &SignedSettlement) -> Result<Option<Included>> {
        let settlement = &signed.settlement;
        let records = settlement.packed_records()?;
        let found = self.settled(&settlement.account, Some(settlement.batch)).await?;
        for batch in found {
            let published = batch.records.iter().map(StageRecord::pack).collect::<Result<Vec<_>>>()?.concat();
            let alike = batch.root == settlement.tree()?.root() && batch.stages as usize == settlement.records.len();
            if alike && published == records && self.earned_all(signed).await? {
                return Ok(Some(batch.included));
            }
        }
        Ok(None)
    }

    /// Whether everybody has what the settlement says, or more.
    async fn earned_all(&self, signed: &SignedSettlement) -> Result<bool> {
        for earning in &signed.settlement.earnings {
            if self.earned_now(&signed.settlement.account, &earning.provider).await?.earned < earning.cumulative {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
