//! The port to the chain: what payers and providers read of the contracts and what they do there. `chain` implements it
//! over an embedded chain and over RPC; nothing here knows how a transaction looks.
//!
//! What a call does is done once, however often it is tried: batches are numbered, amounts cumulative, ids unique. Who
//! does not know whether a call went through asks again, or looks.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    amount::Amount,
    eip712::Domain,
    error::Result,
    identity::{Address, Signature},
    order::{SignedReceipt, StageRecord},
    payment::{AccountId, ClaimedLeaf, SignedSettlement, SignedVoucher},
};

/// A transaction that the chain has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Included {
    /// Its hash.
    #[serde(with = "crate::hex32")]
    pub tx: [u8; 32],
    /// Number of its block.
    pub block: u64,
    /// Gas that it used.
    pub gas: u64,
}

/// A deposit from which jobs are paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Who deposited, and gets the rest.
    pub client: Address,
    /// A key that may sign for the client: its coordinator's.
    pub spender: Option<Address>,
    /// Most that may be earned by the spender's signature.
    pub spender_cap: Amount,
    /// All that was deposited, less what was refunded.
    pub deposit: Amount,
    /// All that providers have earned.
    pub earned: Amount,
    /// Settlements so far: the number of the next batch.
    pub batches: u32,
    /// Unix seconds at which the client may take the rest; 0 while it has not asked.
    pub refund_at: u64,
}

impl Account {
    /// What `signer` may still promise to providers: nothing where it is neither client nor spender.
    #[must_use]
    pub fn left_for(&self, signer: &Address) -> Amount {
        if *signer == self.client {
            self.deposit.less(self.earned)
        } else if self.spender.as_ref() == Some(signer) {
            self.deposit.min(self.spender_cap).less(self.earned)
        } else {
            Amount::ZERO
        }
    }
}

/// What a provider has of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Earned {
    /// Settled, or redeemed with vouchers.
    pub earned: Amount,
    /// Paid out of it.
    pub drawn: Amount,
}

/// What the registry knows of a node and of the operator behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Whose node it is, where it was delegated.
    pub operator: Option<Address>,
    /// Whether its key was taken back.
    pub revoked: bool,
    /// Where its earnings go.
    pub payout: Address,
    /// The operator's stake.
    pub stake: Amount,
    /// Stake on its way out, still at risk.
    pub unbonding: Amount,
    /// Unix seconds at which that may be withdrawn.
    pub release_at: u64,
    /// How often the operator was slashed.
    pub convictions: u32,
    /// What its nodes were paid in all.
    pub paid: Amount,
}

/// A settlement as the chain's event tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledBatch {
    /// Number of the batch.
    pub batch: u32,
    /// Root of the Merkle-sum tree.
    #[serde(with = "crate::hex32")]
    pub root: [u8; 32],
    /// Number of records.
    pub stages: u32,
    /// What was newly credited.
    pub paid: Amount,
    /// The records, as they were published.
    pub records: Vec<StageRecord>,
    /// The transaction.
    pub included: Included,
}

/// The contracts on one chain, and a key that sends transactions.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// The chain and the escrow in whose domain everything is signed.
    fn domain(&self) -> Domain;

    /// Who sends transactions.
    fn sender(&self) -> Address;

    /// Tokens that `holder` has.
    async fn balance(&self, holder: &Address) -> Result<Amount>;

    /// An account, if it was opened.
    async fn account(&self, id: &AccountId) -> Result<Option<Account>>;

    /// What `provider` has of an account.
    async fn earned(&self, id: &AccountId, provider: &Address) -> Result<Earned>;

    /// What is known of a node and its operator. An address that was never delegated stands for itself.
    async fn provider(&self, node: &Address) -> Result<Provider>;

    /// All settlements of an account, in order.
    async fn settlements(&self, id: &AccountId) -> Result<Vec<SettledBatch>>;

    /// Opens an account of the sender's.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Budget`] where the sender has fewer tokens; Data where the id is in use.
    async fn open(&self, id: &AccountId, deposit: Amount, spender: Option<Address>, cap: Amount) -> Result<Included>;

    /// Adds to an account's deposit.
    async fn top_up(&self, id: &AccountId, amount: Amount) -> Result<Included>;

    /// Names who may sign for the client, and up to which amount earned in all.
    async fn set_spender(&self, id: &AccountId, spender: Option<Address>, cap: Amount) -> Result<Included>;

    /// Settles a batch. Where the batch was settled before, by the same words, that is found and returned.
    async fn settle(&self, settlement: &SignedSettlement) -> Result<Included>;

    /// Credits what a voucher promises.
    async fn redeem(&self, voucher: &SignedVoucher) -> Result<Included>;

    /// Has a provider's earnings sent to its payout address.
    async fn draw(&self, id: &AccountId, provider: &Address) -> Result<Included>;

    /// Asks for what nobody has earned.
    async fn ask_refund(&self, id: &AccountId) -> Result<Included>;

    /// Takes what nobody has earned, once the window for it has passed.
    async fn refund(&self, id: &AccountId) -> Result<Included>;

    /// Adds to the sender's stake.
    async fn stake(&self, amount: Amount) -> Result<Included>;

    /// Puts stake of the sender's on its way out.
    async fn unstake(&self, amount: Amount) -> Result<Included>;

    /// Takes out what has unbonded.
    async fn withdraw_stake(&self) -> Result<Included>;

    /// Makes `node` one of the sender's; the signature is the node's, over [`Ledger::consent`].
    async fn delegate(&self, node: &Address, consent: &Signature) -> Result<Included>;

    /// What a node signs so that `operator` may make it its own.
    fn consent(&self, operator: &Address) -> [u8; 32];

    /// Takes a node's key back, for good.
    async fn revoke(&self, node: &Address) -> Result<Included>;

    /// Names where the earnings of the sender's nodes go.
    async fn set_payout(&self, payout: &Address) -> Result<Included>;

    /// Proves that a node signed two receipts for one order: its operator loses stake.
    async fn prove_equivocation(&self, first: &SignedReceipt, second: &SignedReceipt) -> Result<Included>;

    /// Proves that a node claimed other units for an order than its receipt has.
    async fn prove_bad_leaf(&self, leaf: &ClaimedLeaf, receipt: &SignedReceipt) -> Result<Included>;

    /// Proves that a node claimed an order twice.
    async fn prove_duplicate_claim(&self, first: &ClaimedLeaf, second: &ClaimedLeaf) -> Result<Included>;
}
