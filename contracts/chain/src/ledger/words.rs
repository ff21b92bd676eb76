//! Our words as the contracts take them, and theirs as ours.

use alloy::primitives::{Bytes, U256};
use conun_types::{
    amount::Amount,
    error::{Error, Result},
    identity::{Address, Signature},
    merkle_sum::SumNode,
    order::SignedReceipt,
    payment::{ClaimedLeaf, Settlement, StageClaim},
};

use crate::{
    bindings::{
        Disputes::{self, Inclusion, StageClaim as ClaimWords, TaskReceipt as ReceiptWords},
        JobEscrow::{Batch, Earning},
        MerkleSum::Node,
    },
    contracts::theirs,
};

pub(super) fn signature(signature: &Signature) -> Bytes {
    signature.to_bytes().to_vec().into()
}

/// An amount from the chain; ours are at most a `u128`, as the contracts' are.
pub(super) fn amount(value: U256) -> Amount {
    Amount(value.saturating_to())
}

/// Nobody, where the address is zero.
pub(super) fn somebody(address: alloy::primitives::Address) -> Option<Address> {
    (!address.is_zero()).then(|| Address(address.into()))
}

pub(super) fn batch(settlement: &Settlement) -> Result<Batch> {
    Ok(Batch {
        job: settlement.account.0.into(),
        batch: settlement.batch,
        root: settlement.tree()?.root().into(),
        stages: u32::try_from(settlement.records.len()).map_err(|_| Error::data("too many records in one batch"))?,
    })
}

pub(super) fn earnings(settlement: &Settlement) -> Vec<Earning> {
    let earning =
        |e: &conun_types::payment::Earning| Earning { provider: theirs(&e.provider), cumulative: e.cumulative.0 };
    settlement.earnings.iter().map(earning).collect()
}

pub(super) fn receipt(signed: &SignedReceipt) -> Disputes::SignedReceipt {
    let r = &signed.receipt;
    let receipt = ReceiptWords {
        orderHash: r.order_hash.into(),
        provider: theirs(&r.provider),
        profile: r.profile.into(),
        inputsRoot: r.inputs_root.into(),
        outputsRoot: r.outputs_root.into(),
        rows: r.rows,
        bytes_: r.bytes,
        units: r.units.0,
    };
    Disputes::SignedReceipt { receipt, signature: signature(&signed.signature) }
}

fn claim_words(c: &StageClaim) -> ClaimWords {
    ClaimWords {
        account: c.account.0.into(),
        job: c.job.word().into(),
        stage: c.stage,
        provider: theirs(&c.provider),
        tasks: c.tasks,
        units: c.units.0,
        amount: c.amount.0,
        receiptsRoot: c.receipts_root.into(),
    }
}

pub(super) fn claim(leaf: &ClaimedLeaf) -> Disputes::SignedClaim {
    Disputes::SignedClaim { claim: claim_words(&leaf.claim.claim), signature: signature(&leaf.claim.signature) }
}

pub(super) fn inclusion(leaf: &ClaimedLeaf) -> Inclusion {
    let node = |n: &SumNode| Node { hash: n.hash.into(), sum: n.sum };
    Inclusion {
        index: leaf.proof.index,
        units: leaf.receipt.units.0,
        siblings: leaf.proof.siblings.iter().map(node).collect(),
    }
}
