//! Orders by requesters, receipts by providers, and the per-stage sums that a chain settles.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    ambient::{Clock, Rng},
    amount::Amount,
    cid::Cid,
    eip712::{Domain, Words},
    error::{Error, Result},
    identity::{Address, NodeId, NodeKey, Signature},
    payment::AccountId,
    units::WorkUnits,
};

/// A job's id: 48 bits of Unix milliseconds, then 80 random bits, so ids sort by time (as UUIDv7 and ULID do).
/// Text form: 32 lowercase hex digits; commands take any unique prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub [u8; 16]);

impl JobId {
    /// A fresh id.
    #[must_use]
    pub fn generate(clock: &dyn Clock, rng: &dyn Rng) -> Self {
        let mut bytes = [0u8; 16];
        rng.fill(&mut bytes[6..]);
        bytes[..6].copy_from_slice(&(clock.now().as_millis() as u64).to_be_bytes()[2..]);
        Self(bytes)
    }

    /// The id in a word, as Solidity's `bytes32(bytes16)` aligns it.
    #[must_use]
    pub fn word(&self) -> [u8; 32] {
        let mut word = [0u8; 32];
        word[..16].copy_from_slice(&self.0);
        word
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for JobId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bytes = hex::decode(text).ok().and_then(|b| b.try_into().ok());
        bytes.map(Self).ok_or_else(|| Error::data(format!("'{text}' is not a job id (32 hex digits)")))
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?.into_vec();
            bytes.try_into().map(Self).map_err(|_| de::Error::custom("a job id has 16 bytes"))
        }
    }
}

/// A requester's order of one task from one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOrder {
    /// The account that pays; zero without a chain.
    pub account: AccountId,
    /// The job.
    pub job: JobId,
    /// Hash of the exact task envelope.
    pub task_cid: Cid,
    /// The provider that may fill it.
    pub provider: NodeId,
    /// Unique per requester: a receipt for it cannot be replayed.
    pub nonce: u64,
    /// What a work unit is paid; nothing without a chain.
    pub price: Amount,
    /// Unix seconds after which the requester owes nothing.
    pub deadline: u64,
}

impl TaskOrder {
    /// `hashStruct` of the order.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where the provider's key is no point of the curve.
    pub fn struct_hash(&self) -> Result<[u8; 32]> {
        let mut words = Words::of(
            "TaskOrder(bytes32 account,bytes32 job,bytes32 taskCid,address provider,uint64 nonce,uint128 price,\
             uint64 deadline)",
        );
        words.bytes32(&self.account.0);
        words.bytes32(&self.job.word());
        words.bytes32(self.task_cid.digest());
        words.address(&self.provider.address()?);
        words.uint(u128::from(self.nonce));
        words.uint(self.price.0);
        words.uint(u128::from(self.deadline));
        Ok(words.hash())
    }
}

/// An order with its requester's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedOrder {
    /// What is ordered.
    pub order: TaskOrder,
    /// By the requester, over the EIP-712 digest.
    pub signature: Signature,
}

impl SignedOrder {
    /// Signs `order` with the requester's key.
    ///
    /// # Errors
    /// As [`TaskOrder::struct_hash`].
    pub fn sign(order: TaskOrder, domain: &Domain, key: &NodeKey) -> Result<Self> {
        let signature = key.sign(&domain.digest(&order.struct_hash()?));
        Ok(Self { order, signature })
    }

    /// Who ordered it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where the signature is malformed.
    pub fn requester(&self, domain: &Domain) -> Result<NodeId> {
        self.signature.recover(&domain.digest(&self.order.struct_hash()?))
    }
}

/// What a provider says it did for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReceipt {
    /// `hashStruct` of the order that it answers.
    #[serde(with = "crate::hex32")]
    pub order_hash: [u8; 32],
    /// The provider's address.
    pub provider: Address,
    /// Hash of the execution profile it ran under.
    #[serde(with = "crate::hex32")]
    pub profile: [u8; 32],
    /// Root over the ids of all inputs, in the envelope's order.
    #[serde(with = "crate::hex32")]
    pub inputs_root: [u8; 32],
    /// Root over the output blocks: the vote.
    #[serde(with = "crate::hex32")]
    pub outputs_root: [u8; 32],
    /// Rows out.
    pub rows: u64,
    /// Bytes out.
    pub bytes: u64,
    /// Work units (see [`WorkUnits::of`]).
    pub units: WorkUnits,
}

impl TaskReceipt {
    /// `hashStruct` of the receipt.
    #[must_use]
    pub fn struct_hash(&self) -> [u8; 32] {
        let mut words = Words::of(
            "TaskReceipt(bytes32 orderHash,address provider,bytes32 profile,bytes32 inputsRoot,bytes32 outputsRoot,\
             uint64 rows,uint64 bytes,uint64 units)",
        );
        words.bytes32(&self.order_hash);
        words.address(&self.provider);
        words.bytes32(&self.profile);
        words.bytes32(&self.inputs_root);
        words.bytes32(&self.outputs_root);
        words.uint(u128::from(self.rows));
        words.uint(u128::from(self.bytes));
        words.uint(u128::from(self.units.0));
        words.hash()
    }
}

/// A receipt with its provider's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedReceipt {
    /// What was done.
    pub receipt: TaskReceipt,
    /// By the provider, over the EIP-712 digest.
    pub signature: Signature,
}

impl SignedReceipt {
    /// Signs `receipt` with the provider's key.
    #[must_use]
    pub fn sign(receipt: TaskReceipt, domain: &Domain, key: &NodeKey) -> Self {
        let signature = key.sign(&domain.digest(&receipt.struct_hash()));
        Self { receipt, signature }
    }

    /// Checks that `provider` signed it and that it answers `order`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] naming what does not fit.
    pub fn check(&self, order: &TaskOrder, domain: &Domain) -> Result<()> {
        if self.receipt.order_hash != order.struct_hash()? {
            return Err(Error::data("the receipt answers another order"));
        }
        if self.receipt.provider != order.provider.address()? {
            return Err(Error::data("the receipt names another provider"));
        }
        self.signature
            .verify(&domain.digest(&self.receipt.struct_hash()), &order.provider)
            .map_err(|e| e.context("receipt"))
    }
}

/// What one provider did in one stage of a job: the leaf of a settlement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The job.
    pub job: JobId,
    /// The stage, numbered from 1 as the planner does.
    pub stage: u32,
    /// The provider's address.
    pub provider: Address,
    /// Accepted tasks.
    pub tasks: u64,
    /// Rows out.
    pub rows: u64,
    /// Bytes out.
    pub bytes: u64,
    /// Work units.
    pub units: WorkUnits,
    /// What they cost.
    pub amount: Amount,
}

impl StageRecord {
    /// Bytes of a packed record.
    pub const PACKED: usize = 64;

    /// `bytes16 job | uint32 stage | address provider | uint64 units | uint32 tasks | uint96 amount`, as the escrow publishes
    /// it. Rows and bytes are left out: the receipts have them, and units follow from them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where a number does not fit.
    pub fn pack(&self) -> Result<[u8; Self::PACKED]> {
        let tasks = u32::try_from(self.tasks).map_err(|_| Error::data("too many tasks in one stage record"))?;
        if self.amount > Amount::MAX_RECORD {
            return Err(Error::data(format!("a stage record cannot hold {} tokens", self.amount)));
        }
        let mut bytes = [0u8; Self::PACKED];
        bytes[..16].copy_from_slice(&self.job.0);
        bytes[16..20].copy_from_slice(&self.stage.to_be_bytes());
        bytes[20..40].copy_from_slice(&self.provider.0);
        bytes[40..48].copy_from_slice(&self.units.0.to_be_bytes());
        bytes[48..52].copy_from_slice(&tasks.to_be_bytes());
        bytes[52..].copy_from_slice(&self.amount.0.to_be_bytes()[4..]);
        Ok(bytes)
    }

    /// The record that was packed into these bytes, with neither rows nor bytes.
    #[must_use]
    pub fn unpack(packed: &[u8; Self::PACKED]) -> Self {
        let number = |from: usize, to: usize| packed[from..to].iter().fold(0u128, |n, b| n << 8 | u128::from(*b));
        let mut record = Self {
            job: JobId([0; 16]),
            stage: number(16, 20) as u32,
            provider: Address([0; 20]),
            tasks: number(48, 52) as u64,
            rows: 0,
            bytes: 0,
            units: WorkUnits(number(40, 48) as u64),
            amount: Amount(number(52, 64)),
        };
        record.job.0.copy_from_slice(&packed[..16]);
        record.provider.0.copy_from_slice(&packed[20..40]);
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::{OsRng, SystemClock};

    fn order(provider: NodeId) -> TaskOrder {
        TaskOrder {
            account: AccountId::default(),
            job: JobId([7; 16]),
            task_cid: Cid::raw(b"task"),
            provider,
            nonce: 1,
            price: Amount(2),
            deadline: 3,
        }
    }

    fn receipt(order: &TaskOrder) -> Result<TaskReceipt> {
        Ok(TaskReceipt {
            order_hash: order.struct_hash()?,
            provider: order.provider.address()?,
            profile: [1; 32],
            inputs_root: [2; 32],
            outputs_root: [3; 32],
            rows: 4,
            bytes: 5,
            units: WorkUnits(6),
        })
    }

    #[test]
    fn receipts_bind_provider_order_and_domain() -> Result<()> {
        let (key, other) = (NodeKey::generate(&OsRng), NodeKey::generate(&OsRng));
        let domain = Domain::default();
        let order = order(key.id());
        let signed = SignedReceipt::sign(receipt(&order)?, &domain, &key);
        signed.check(&order, &domain)?;
        assert!(signed.check(&TaskOrder { nonce: 2, ..order.clone() }, &domain).is_err(), "another order");
        assert!(signed.check(&order, &Domain { chain_id: 1, ..domain }).is_err(), "another chain");
        assert!(SignedReceipt::sign(receipt(&order)?, &domain, &other).check(&order, &domain).is_err(), "forged");
        let mut inflated = signed.clone();
        inflated.receipt.units = WorkUnits(60);
        assert!(inflated.check(&order, &domain).is_err(), "changed after signing");
        Ok(())
    }

    #[test]
    fn orders_name_their_requester() -> Result<()> {
        let key = NodeKey::generate(&OsRng);
        let signed = SignedOrder::sign(order(key.id()), &Domain::default(), &key)?;
        assert_eq!(signed.requester(&Domain::default())?, key.id());
        Ok(())
    }

    #[test]
    fn records_have_64_bytes() -> Result<()> {
        let record = StageRecord {
            job: JobId([1; 16]),
            stage: 2,
            provider: Address([3; 20]),
            tasks: 4,
            rows: 0,
            bytes: 0,
            units: WorkUnits(u64::MAX),
            amount: Amount::MAX_RECORD,
        };
        assert_eq!(StageRecord::unpack(&record.pack()?), record);
        assert!(StageRecord { tasks: 1 << 32, ..record.clone() }.pack().is_err());
        assert!(StageRecord { amount: Amount(1 << 96), ..record }.pack().is_err());
        Ok(())
    }

    #[test]
    fn job_ids_sort_by_time_and_parse() -> Result<()> {
        let first = JobId::generate(&SystemClock, &OsRng);
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = JobId::generate(&SystemClock, &OsRng);
        assert!(first < second);
        assert_eq!(first.to_string().parse::<JobId>()?, first);
        assert!("zz".parse::<JobId>().is_err());
        Ok(())
    }
}
