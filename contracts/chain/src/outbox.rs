//! Sends transactions so that each is in the chain once or not at all, whatever the connection does.
//!
//! A transaction is signed once. From then on only these bytes are sent, as often as needed, until a block has them: its
//! nonce lets the chain take them once. Answers to sending prove nothing ("already known", a broken connection, a
//! restarted node), so only the receipt in a canonical block does. Where another process has used the nonce, and our
//! transaction can thus never be taken, what it was to do is signed anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use alloy::{
    consensus::{SignableTransaction, TxEip1559},
    eips::eip2718::Encodable2718,
    network::TxSignerSync,
    primitives::{Address, B256, Bytes, TxKind, U256, keccak256},
    rpc::types::{TransactionReceipt, TransactionRequest},
    signers::local::PrivateKeySigner,
};
use conun_types::{
    error::{Error, Result},
    identity::NodeKey,
};
use serde_json::json;
use tokio::sync::Mutex;

use crate::link::{Link, Trouble};

/// How often a nonce may be lost to other processes before we give up.
const RACES: usize = 8;
/// How often in a row a transaction must be seen to have lost its nonce: nodes behind one URL may be at different blocks.
const SURE: u32 = 3;
/// How long a transaction that is in no block is left alone before its bytes are sent again.
const REBROADCAST: Duration = Duration::from_secs(10);
/// Most gas that a transaction may have since Osaka (EIP-7825).
const TX_GAS: u64 = 1 << 24;

/// What writing a storage word costs more where others have cleared it since the gas was estimated (22,100 instead of
/// 100, EIP-2929), and a little.
const WORD_GAS: u64 = 25_000;

/// What a transaction is to do.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// For people: "settling batch 3 of account 0x…".
    pub(crate) what: String,
    pub(crate) to: TxKind,
    pub(crate) value: U256,
    pub(crate) data: Bytes,
}

impl Order {
    /// A call of a contract.
    pub(crate) fn call(what: impl Into<String>, to: Address, data: Vec<u8>) -> Self {
        Self { what: what.into(), to: TxKind::Call(to), value: U256::ZERO, data: data.into() }
    }

    fn request(&self, from: Address) -> TransactionRequest {
        let mut request = TransactionRequest::default().from(from).input(self.data.clone().into());
        request.to = Some(self.to);
        request.value = (!self.value.is_zero()).then_some(self.value);
        request
    }
}

/// A signed transaction.
#[derive(Debug, Clone)]
struct Signed {
    raw: Bytes,
    hash: B256,
    nonce: u64,
}

/// Where a signed transaction is.
enum Place {
    /// In a canonical block with enough on top of it.
    Deep(Box<TransactionReceipt>),
    /// In a block, not yet deep enough.
    Shallow,
    /// In no block.
    Nowhere,
    /// In no block, and its nonce is used up.
    Lost,
}

/// What became of a signed transaction.
enum Fate {
    Included(Box<TransactionReceipt>),
    Lost,
}

/// Signs and sends for one key.
pub(crate) struct Outbox {
    link: Link,
    signer: PrivateKeySigner,
    chain_id: u64,
    confirmations: u64,
    patience: Duration,
    poll: Duration,
    /// One transaction at a time until it is in a block: nonces are then never guessed.
    turn: Arc<Mutex<()>>,
}

impl Outbox {
    pub(crate) fn new(
        link: Link,
        key: &NodeKey,
        chain_id: u64,
        confirmations: u64,
        patience: Duration,
    ) -> Result<Self> {
        let signer = PrivateKeySigner::from_slice(&key.to_bytes()).map_err(|e| Error::internal(e.to_string()))?;
        let poll = Duration::from_millis(match (confirmations, chain_id) {
            (0, _) => 10,
            (_, crate::embedded::CHAIN_ID) => 50,
            _ => 1_000,
        });
        Ok(Self { link, signer, chain_id, confirmations, patience, poll, turn: Arc::default() })
    }

    pub(crate) fn address(&self) -> Address {
        self.signer.address()
    }

    /// Signs a hash with the sending key.
    pub(crate) fn sign_hash(&self, hash: B256) -> Result<alloy::primitives::Signature> {
        use alloy::signers::SignerSync;
        self.signer.sign_hash_sync(&hash).map_err(|e| Error::internal(format!("signing: {e}")))
    }

    /// Sends a transaction and waits until it counts.
    ///
    /// # Errors
    /// What the contract says where it reverts (nothing was sent, or it cost gas only); Unavailable where the chain cannot
    /// be reached, or has not taken the transaction in time.
    pub(crate) async fn send(&self, order: &Order) -> Result<TransactionReceipt> {
        for _ in 0..RACES {
            let turn = self.turn.lock().await;
            let signed = self.sign(order).await?;
            if let Fate::Included(_) = self.follow(order, &signed, 1).await? {
                drop(turn);
                if let Fate::Included(receipt) = self.follow(order, &signed, self.confirmations).await? {
                    return self.check(order, *receipt).await;
                }
            }
            tracing::info!(what = order.what, nonce = signed.nonce, "another process has used the nonce");
        }
        Err(Error::unavailable(format!("{}: other processes use the same key all the time", order.what))
            .with_hint("give each process a key of its own"))
    }

    async fn sign(&self, order: &Order) -> Result<Signed> {
        let doing = |trouble: Trouble| trouble.while_doing(&order.what);
        let gas = self.link.estimate(&order.request(self.address())).await.map_err(doing)?;
        let (max_fee_per_gas, max_priority_fee_per_gas) = self.fees().await.map_err(doing)?;
        let mut tx = TxEip1559 {
            chain_id: self.chain_id,
            nonce: self.link.next_nonce(self.address()).await.map_err(doing)?,
            // What others do in the meantime may make it dearer.
            gas_limit: (gas + gas / 4 + WORD_GAS).min(TX_GAS.max(gas)),
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to: order.to,
            value: order.value,
            input: order.data.clone(),
            ..TxEip1559::default()
        };
        let signature = self.signer.sign_transaction_sync(&mut tx);
        let signature = signature.map_err(|e| Error::internal(format!("signing: {e}")))?;
        let nonce = tx.nonce;
        let raw = Bytes::from(tx.into_signed(signature).encoded_2718());
        Ok(Signed { hash: keccak256(&raw), raw, nonce })
    }

    /// Twice the last block's base fee, which can grow by an eighth from block to block, and a tip.
    async fn fees(&self) -> Result<(u128, u128), Trouble> {
        let block = self.link.block(None).await?;
        let base = block.and_then(|b| b.header.inner.base_fee_per_gas);
        let base = base.ok_or_else(|| Trouble::Away("the chain has no EIP-1559 fees".to_owned()))?;
        let tip = self.link.tip().await?;
        Ok((u128::from(base).saturating_mul(2).saturating_add(tip), tip))
    }

    /// Sends the bytes until the transaction is in a block `depth` deep, or has lost its nonce.
    async fn follow(&self, order: &Order, signed: &Signed, depth: u64) -> Result<Fate> {
        let begun = Instant::now();
        let (mut sent, mut tried, mut lost, mut trouble) = (None::<Instant>, false, 0, None);
        while begun.elapsed() < self.patience {
            match self.place(signed, depth).await {
                Ok(Place::Deep(receipt)) => return Ok(Fate::Included(receipt)),
                Ok(Place::Shallow) => lost = 0,
                Ok(Place::Lost) if lost + 1 == SURE => return Ok(Fate::Lost),
                Ok(Place::Lost) => lost += 1,
                Ok(Place::Nowhere) => {
                    lost = 0;
                    if sent.is_none_or(|at| at.elapsed() >= REBROADCAST.min(self.patience / 4)) {
                        trouble = self.broadcast(order, signed, !tried).await?;
                        tried = true;
                        // A connection that broke has not sent it for sure.
                        sent = trouble.is_none().then(Instant::now);
                        continue;
                    }
                }
                Err(other) => trouble = Some(other),
            }
            tokio::time::sleep(self.poll).await;
        }
        Err(late(order, signed, trouble))
    }

    /// Sends the bytes. Words that prove that they will never be taken are an error while they were never sent before.
    async fn broadcast(&self, order: &Order, signed: &Signed, first: bool) -> Result<Option<Trouble>> {
        match self.link.ask_once::<B256>("eth_sendRawTransaction", &json!([signed.raw])).await {
            Ok(_) => Ok(None),
            Err(Trouble::Refused { message, .. }) if first && hopeless(&message) => {
                Err(Trouble::Refused { message, revert: None, later: false }.while_doing(&order.what))
            }
            // "already known", "nonce too low", "replacement underpriced": where it is tells more.
            Err(Trouble::Refused { message, .. }) => {
                tracing::debug!(tx = %signed.hash, message, "the chain does not take the transaction");
                Ok(None)
            }
            Err(trouble) => {
                tokio::time::sleep(self.poll).await;
                Ok(Some(trouble))
            }
        }
    }

    async fn place(&self, signed: &Signed, depth: u64) -> Result<Place, Trouble> {
        // In this order: a nonce that was used before we looked for the receipt was not used by us where there is none.
        let head = self.link.head().await?;
        let used = self.link.nonce_at(self.address(), confirmed(head, self.confirmations)).await?;
        let Some(receipt) = self.link.receipt(signed.hash).await? else {
            return Ok(if used > signed.nonce { Place::Lost } else { Place::Nowhere });
        };
        let (Some(number), Some(hash)) = (receipt.block_number, receipt.block_hash) else {
            return Ok(Place::Shallow);
        };
        if head + 1 < number + depth {
            return Ok(Place::Shallow);
        }
        let canonical = self.link.block(Some(number)).await?.is_some_and(|b| b.header.hash == hash);
        Ok(if canonical { Place::Deep(Box::new(receipt)) } else { Place::Shallow })
    }

    /// Whether an order sent now would do what it is to do: it is called on the last block's state, and changes nothing.
    pub(crate) async fn would(&self, order: &Order) -> Result<(), Trouble> {
        self.link.call_raw(&order.request(self.address()), None).await.map(|_| ())
    }

    /// A transaction that is in a block may have failed there.
    async fn check(&self, order: &Order, receipt: TransactionReceipt) -> Result<TransactionReceipt> {
        if receipt.status() {
            return Ok(receipt);
        }
        let why = match self.would(order).await {
            Err(trouble @ Trouble::Refused { .. }) => trouble.while_doing(&order.what),
            _ => Error::data(format!("{}: the transaction failed", order.what)),
        };
        Err(why.with_hint(format!("transaction {} is in block {:?}", receipt.transaction_hash, receipt.block_number)))
    }
}

/// The last block that has as many confirmations; nothing where that is the last of all.
pub(crate) fn confirmed(head: u64, confirmations: u64) -> Option<u64> {
    (confirmations > 1).then(|| head.saturating_sub(confirmations - 1))
}

/// Refusals that no waiting changes, and that nodes make before they pass a transaction on.
fn hopeless(message: &str) -> bool {
    let message = message.to_lowercase();
    let words = ["insufficient funds", "intrinsic gas", "gas limit", "oversized", "chain id", "fee cap", "tx fee"];
    words.iter().any(|w| message.contains(w))
}

fn late(order: &Order, signed: &Signed, trouble: Option<Trouble>) -> Error {
    let why = match trouble {
        Some(Trouble::Away(why)) => why,
        Some(Trouble::Refused { message, .. }) => message,
        None => "no block has it yet".to_owned(),
    };
    Error::unavailable(format!("{}: transaction {} was sent: {why}", order.what, signed.hash))
        .with_hint("it may still be taken: look at the chain before you try again")
}
