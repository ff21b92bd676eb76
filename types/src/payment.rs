//! What is signed about money: vouchers and settlements by who pays, claims by who worked. The contracts check exactly
//! these words (`contracts/README.md`).
//!
//! An *account* is a deposit in the escrow from which a client's jobs are paid (`JobEscrow` calls it a job). Amounts are
//! *cumulative*: a signature says what a provider has earned from an account in all, so that showing it twice pays once.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    ambient::Rng,
    amount::Amount,
    eip712::{Domain, Words},
    error::{Error, Result},
    hex32,
    identity::{Address, NodeId, NodeKey, Signature, keccak256},
    merkle_sum::{MerkleSum, SumProof},
    order::{JobId, StageRecord},
    units::WorkUnits,
};

/// An account of the escrow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountId(#[serde(with = "crate::hex32")] pub [u8; 32]);

impl AccountId {
    /// A fresh id.
    #[must_use]
    pub fn generate(rng: &dyn Rng) -> Self {
        let mut bytes = [0u8; 32];
        rng.fill(&mut bytes);
        Self(bytes)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex32::text(&self.0))
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for AccountId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text)).ok().and_then(|b| b.try_into().ok());
        bytes.map(Self).ok_or_else(|| Error::usage(format!("'{text}' is not an account id (0x and 64 hex digits)")))
    }
}

/// "This provider has earned so much of this account in all."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voucher {
    /// From which account.
    pub account: AccountId,
    /// Who has earned it: a node's address.
    pub provider: Address,
    /// All of it, not only what is new.
    pub cumulative: Amount,
}

impl Voucher {
    /// `hashStruct` of the voucher.
    #[must_use]
    pub fn struct_hash(&self) -> [u8; 32] {
        let mut words = Words::of("Voucher(bytes32 job,address provider,uint128 cumulative)");
        words.bytes32(&self.account.0);
        words.address(&self.provider);
        words.uint(self.cumulative.0);
        words.hash()
    }
}

/// A voucher with the signature of the account's client or of its spender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedVoucher {
    /// What is owed.
    pub voucher: Voucher,
    /// By who pays.
    pub signature: Signature,
}

impl SignedVoucher {
    /// Signs `voucher` with the key of who pays.
    #[must_use]
    pub fn sign(voucher: Voucher, domain: &Domain, key: &NodeKey) -> Self {
        Self { voucher, signature: key.sign(&domain.digest(&voucher.struct_hash())) }
    }

    /// Who signed it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where the signature is malformed.
    pub fn signer(&self, domain: &Domain) -> Result<NodeId> {
        self.signature.recover(&domain.digest(&self.voucher.struct_hash()))
    }
}

/// What a provider has earned of an account in all, as a settlement lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earning {
    /// A node's address.
    pub provider: Address,
    /// All that it has earned.
    pub cumulative: Amount,
}

/// A batch of stage records with what they add up to for each provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Which account pays.
    pub account: AccountId,
    /// Number of the batch, from 0; the escrow takes them in order, each once.
    pub batch: u32,
    /// What providers have earned, each in all.
    pub earnings: Vec<Earning>,
    /// The records, whose packed bytes the escrow publishes in an event.
    pub records: Vec<StageRecord>,
}

impl Settlement {
    /// The Merkle-sum tree over the records: each leaf is a record's hash with its amount.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where a record does not fit its 64 bytes, or there are too many.
    pub fn tree(&self) -> Result<MerkleSum> {
        let leaves: Result<Vec<_>> = self.records.iter().map(|r| Ok((keccak256(&r.pack()?), r.amount.0))).collect();
        MerkleSum::of(&leaves?)
    }

    /// The records, packed one after the other.
    ///
    /// # Errors
    /// As [`StageRecord::pack`].
    pub fn packed_records(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.records.len() * StageRecord::PACKED);
        for record in &self.records {
            bytes.extend_from_slice(&record.pack()?);
        }
        Ok(bytes)
    }

    /// `hashStruct` of the settlement. Earnings and records go in as hashes of the bytes that the call carries.
    ///
    /// # Errors
    /// As [`Settlement::tree`].
    pub fn struct_hash(&self) -> Result<[u8; 32]> {
        let mut words = Words::of(
            "Settlement(bytes32 job,uint32 batch,bytes32 root,uint32 stages,bytes32 earningsHash,bytes32 recordsHash)",
        );
        words.bytes32(&self.account.0);
        words.uint(u128::from(self.batch));
        words.bytes32(&self.tree()?.root());
        words.uint(self.records.len() as u128);
        words.bytes32(&self.earnings_hash());
        words.bytes32(&keccak256(&self.packed_records()?));
        Ok(words.hash())
    }

    /// `keccak256(abi.encode(Earning[]))`.
    fn earnings_hash(&self) -> [u8; 32] {
        let mut words = Words::empty();
        words.uint(32);
        words.uint(self.earnings.len() as u128);
        for earning in &self.earnings {
            words.address(&earning.provider);
            words.uint(earning.cumulative.0);
        }
        words.hash()
    }
}

/// A settlement with the signature of the account's client or of its spender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedSettlement {
    /// What is settled.
    pub settlement: Settlement,
    /// By who pays.
    pub signature: Signature,
}

impl SignedSettlement {
    /// Signs `settlement` with the key of who pays.
    ///
    /// # Errors
    /// As [`Settlement::struct_hash`].
    pub fn sign(settlement: Settlement, domain: &Domain, key: &NodeKey) -> Result<Self> {
        let signature = key.sign(&domain.digest(&settlement.struct_hash()?));
        Ok(Self { settlement, signature })
    }
}

/// A receipt as a claim lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedReceipt {
    /// `hashStruct` of the order that the receipt answers.
    #[serde(with = "crate::hex32")]
    pub order_hash: [u8; 32],
    /// Units of the receipt.
    pub units: WorkUnits,
}

/// What a node signs to be paid for receipts of one stage. Each receipt is claimed once; a stage may be claimed in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageClaim {
    /// Which account owes it.
    pub account: AccountId,
    /// The job.
    pub job: JobId,
    /// The stage.
    pub stage: u32,
    /// The node's address.
    pub provider: Address,
    /// Number of receipts.
    pub tasks: u32,
    /// Their units.
    pub units: WorkUnits,
    /// What they cost.
    pub amount: Amount,
    /// Root of the Merkle-sum tree over the receipts: an order's hash each, with the receipt's units.
    #[serde(with = "crate::hex32")]
    pub receipts_root: [u8; 32],
}

impl StageClaim {
    /// The claim for `receipts` at `price` a unit.
    ///
    /// # Errors
    /// As [`MerkleSum::of`].
    pub fn of(
        account: AccountId,
        (job, stage): (JobId, u32),
        provider: Address,
        price: Amount,
        receipts: &[ClaimedReceipt],
    ) -> Result<Self> {
        let tree = claim_tree(receipts)?;
        let units = WorkUnits(tree.total().try_into().map_err(|_| Error::data("more units than a claim holds"))?);
        let tasks = receipts.len() as u32;
        let receipts_root = tree.root();
        Ok(Self { account, job, stage, provider, tasks, units, amount: price.times(units), receipts_root })
    }

    /// `hashStruct` of the claim.
    #[must_use]
    pub fn struct_hash(&self) -> [u8; 32] {
        let mut words = Words::of(
            "StageClaim(bytes32 account,bytes32 job,uint32 stage,address provider,uint32 tasks,uint64 units,\
             uint128 amount,bytes32 receiptsRoot)",
        );
        words.bytes32(&self.account.0);
        words.bytes32(&self.job.word());
        words.uint(u128::from(self.stage));
        words.address(&self.provider);
        words.uint(u128::from(self.tasks));
        words.uint(u128::from(self.units.0));
        words.uint(self.amount.0);
        words.bytes32(&self.receipts_root);
        words.hash()
    }
}

/// The tree that a claim commits to.
///
/// # Errors
/// As [`MerkleSum::of`].
pub fn claim_tree(receipts: &[ClaimedReceipt]) -> Result<MerkleSum> {
    MerkleSum::of(&receipts.iter().map(|r| (r.order_hash, u128::from(r.units.0))).collect::<Vec<_>>())
}

/// A claim with its node's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedClaim {
    /// What is claimed.
    pub claim: StageClaim,
    /// By the node.
    pub signature: Signature,
}

impl SignedClaim {
    /// Signs `claim` with the node's key.
    #[must_use]
    pub fn sign(claim: StageClaim, domain: &Domain, key: &NodeKey) -> Self {
        let signature = key.sign(&domain.digest(&claim.struct_hash()));
        Self { claim, signature }
    }

    /// Checks that `node` signed it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where it did not.
    pub fn check(&self, node: &NodeId, domain: &Domain) -> Result<()> {
        self.signature.verify(&domain.digest(&self.claim.struct_hash()), node).map_err(|e| e.context("claim"))
    }
}

/// A receipt's place in a signed claim: one half of what a dispute shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedLeaf {
    /// The claim.
    pub claim: SignedClaim,
    /// The leaf.
    pub receipt: ClaimedReceipt,
    /// Where it stands.
    pub proof: SumProof,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::OsRng;

    fn record(n: u8) -> StageRecord {
        StageRecord {
            job: JobId([n; 16]),
            stage: 1,
            provider: Address([n; 20]),
            tasks: 2,
            rows: 3,
            bytes: 4,
            units: WorkUnits(5),
            amount: Amount(u128::from(n) * 10),
        }
    }

    #[test]
    fn a_settlement_commits_to_its_records_and_earnings() -> Result<()> {
        let earning = |n: u8, amount| Earning { provider: Address([n; 20]), cumulative: Amount(amount) };
        let settlement = Settlement {
            account: AccountId([1; 32]),
            batch: 0,
            earnings: vec![earning(1, 10), earning(2, 20)],
            records: vec![record(1), record(2)],
        };
        assert_eq!(settlement.tree()?.total(), 30);
        assert_eq!(settlement.packed_records()?.len(), 128);
        let hash = settlement.struct_hash()?;
        let fewer = Settlement { records: vec![record(1)], ..settlement.clone() };
        let other = Settlement { earnings: vec![earning(1, 10), earning(2, 21)], ..settlement.clone() };
        let next = Settlement { batch: 1, ..settlement.clone() };
        for changed in [fewer, other, next] {
            assert_ne!(changed.struct_hash()?, hash);
        }
        let broken = StageRecord { amount: Amount(1 << 96), ..record(1) };
        assert!(Settlement { records: vec![broken], ..settlement }.struct_hash().is_err(), "does not fit");
        Ok(())
    }

    #[test]
    fn vouchers_and_claims_name_their_signers() -> Result<()> {
        let (payer, node) = (NodeKey::generate(&OsRng), NodeKey::generate(&OsRng));
        let domain = Domain { chain_id: 1, escrow: Address([3; 20]) };
        let account = AccountId::generate(&OsRng);
        let voucher = Voucher { account, provider: node.address(), cumulative: Amount(7) };
        let mut signed = SignedVoucher::sign(voucher, &domain, &payer);
        assert_eq!(signed.signer(&domain)?, payer.id());
        assert_ne!(signed.signer(&Domain::default()).ok(), Some(payer.id()), "another chain");
        signed.voucher.cumulative = Amount(8);
        assert_ne!(signed.signer(&domain).ok(), Some(payer.id()), "another amount");
        let receipts = [1, 2].map(|n| ClaimedReceipt { order_hash: [n; 32], units: WorkUnits(n.into()) });
        let claim = StageClaim::of(account, (JobId([1; 16]), 2), node.address(), Amount(10), &receipts)?;
        assert_eq!((claim.tasks, claim.units, claim.amount), (2, WorkUnits(3), Amount(30)));
        let mut signed = SignedClaim::sign(claim, &domain, &node);
        signed.check(&node.id(), &domain)?;
        signed.claim.units = WorkUnits(4);
        assert!(signed.check(&node.id(), &domain).is_err());
        Ok(())
    }
}
