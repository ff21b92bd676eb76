//! Development chains: the accounts that everybody knows, the contracts that an embedded chain begins with, and helpers
//! that give out play money or let time pass. None of it works where there is real money.

use std::sync::OnceLock;

use alloy::{
    consensus::{SignableTransaction, TxEip1559},
    eips::eip2718::Encodable2718,
    network::TxSignerSync,
    primitives::{Bytes, TxKind, U64, U256},
    signers::local::{MnemonicBuilder, PrivateKeySigner},
    sol_types::SolCall,
};
use conun_types::{
    amount::Amount,
    error::{Error, Result},
    identity::{Address, NodeKey},
};
use serde_json::{Value, json};

use crate::{
    bindings::ConunToken,
    config::{Backend, ChainConfig},
    contracts::{Contracts, check_chain, escrow_of, ours, theirs},
    deploy::{self, Terms},
    link::Link,
    outbox::{Order, Outbox},
};

/// The words behind the accounts that anvil and hardhat fund.
const MNEMONIC: &str = "test test test test test test test test test test test junk";
/// Chain id of development chains.
pub const CHAIN_ID: u64 = crate::embedded::CHAIN_ID;
/// How many of the accounts have ether from the start.
pub const ACCOUNTS: u32 = 10;
/// What all tokens of an embedded chain are, and what an offence costs there.
const SUPPLY: Amount = Amount(1_000_000_000 * ONE);
const PENALTY: Amount = Amount(100 * ONE);
const ONE: u128 = 1_000_000_000_000_000_000;

fn keys() -> &'static std::result::Result<Vec<NodeKey>, String> {
    static KEYS: OnceLock<std::result::Result<Vec<NodeKey>, String>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let parent = MnemonicBuilder::from_phrase(MNEMONIC).build_parent_key().map_err(|e| e.to_string())?;
        let keys = parent.into_iter().take(ACCOUNTS as usize).map(|signer| {
            let signer = signer.map_err(|e| e.to_string())?;
            NodeKey::from_bytes(signer.to_bytes().as_slice()).map_err(|e| e.message)
        });
        keys.collect()
    })
}

/// The key of a development account, from 0; account 0 deploys, and holds all tokens of an embedded chain.
///
/// # Errors
/// Usage where there are not so many.
pub fn key(number: u32) -> Result<NodeKey> {
    let keys = keys().as_ref().map_err(Error::internal)?;
    let key = keys.get(number as usize).cloned();
    key.ok_or_else(|| Error::usage(format!("development accounts are numbered 0 to {}", ACCOUNTS - 1)))
}

fn terms() -> Result<Terms> {
    let deployer = theirs(&key(0)?.address());
    Ok(Terms { deployer, nonce: 0, supply: SUPPLY, penalty: PENALTY, owner: deployer })
}

/// The contracts that an embedded chain begins with.
pub(crate) fn contracts() -> Result<Contracts> {
    Ok(terms()?.contracts(CHAIN_ID))
}

/// The signed transactions that put them there.
pub(crate) fn deployment_txs() -> Result<Vec<Bytes>> {
    let key = key(0)?;
    let signer = PrivateKeySigner::from_slice(&key.to_bytes()).map_err(|e| Error::internal(e.to_string()))?;
    let codes = terms()?.codes();
    let txs = codes.into_iter().enumerate().map(|(nonce, (_, input))| {
        let kind = TxKind::Create;
        let nonce = nonce as u64;
        let mut tx =
            TxEip1559 { chain_id: CHAIN_ID, nonce, gas_limit: 8_000_000, to: kind, input, ..TxEip1559::default() };
        let signature = signer.sign_transaction_sync(&mut tx);
        let signature = signature.map_err(|e| Error::internal(format!("signing: {e}")))?;
        Ok(tx.into_signed(signature).encoded_2718().into())
    });
    txs.collect()
}

/// Opens the connection, and makes sure that it is a development chain.
async fn connect(config: &ChainConfig) -> Result<Link> {
    let link = Link::open(config).await?;
    let id = check_chain(&link, config).await?;
    if id != CHAIN_ID {
        return Err(Error::usage(format!("chain {id} is no development chain (those have id {CHAIN_ID})")));
    }
    Ok(link)
}

/// Puts the contracts on a development chain, with the same terms and at the same addresses as on an embedded one where
/// account 0 has sent nothing yet. An embedded chain has them already.
///
/// # Errors
/// As [`crate::deploy()`]; Usage where it is no development chain.
pub async fn deploy(config: &ChainConfig) -> Result<crate::Deployment> {
    let link = connect(config).await?;
    if let Backend::Embedded(_) = config.backend {
        return Ok(deploy::Deployment::of(&contracts()?, 0));
    }
    drop(link);
    let owner = key(0)?.address();
    crate::deploy(config, &key(0)?, SUPPLY, PENALTY, owner).await
}

/// Sends ether and tokens of development account 0 to `to`; nothing where an amount is zero. On an embedded chain gas
/// is free, and nobody needs ether.
///
/// # Errors
/// Usage where it is no development chain; Budget where account 0 has not so much.
pub async fn fund(config: &ChainConfig, to: &Address, ether: Amount, tokens: Amount) -> Result<()> {
    let link = connect(config).await?;
    let confirmations = config.confirmations.unwrap_or(u64::from(matches!(config.backend, Backend::Rpc(_))));
    let outbox = Outbox::new(link.clone(), &key(0)?, CHAIN_ID, confirmations, config.patience)?;
    if ether > Amount::ZERO {
        let what = format!("sending {ether} ether to {to}");
        let (to, value) = (TxKind::Call(theirs(to)), U256::from(ether.0));
        outbox.send(&Order { what, to, value, data: Bytes::new() }).await?;
    }
    if tokens > Amount::ZERO {
        let contracts = Contracts::find(&link, CHAIN_ID, escrow_of(config)?).await?;
        let call = ConunToken::transferCall { to: theirs(to), value: U256::from(tokens.0) };
        let what = format!("sending {tokens} tokens to {to}");
        outbox.send(&Order::call(what, contracts.token, call.abi_encode())).await?;
    }
    Ok(())
}

/// The address of a development chain's escrow where [`deploy()`] put it first.
///
/// # Errors
/// Internal, never in practice.
pub fn escrow() -> Result<Address> {
    Ok(ours(contracts()?.escrow))
}

/// JSON-RPC as it is, to look at a chain: for tests and tools.
pub struct Rpc(Link);

impl Rpc {
    /// Opens the folder, or makes a client for the URL.
    ///
    /// # Errors
    /// Data where an embedded chain's folder is damaged.
    pub async fn open(config: &ChainConfig) -> Result<Self> {
        Ok(Self(Link::open(config).await?))
    }

    /// Asks once.
    ///
    /// # Errors
    /// Data where the chain refuses; Unavailable where nobody answers.
    pub async fn request(&self, method: &'static str, params: Value) -> Result<Value> {
        self.0.ask_once(method, &params).await.map_err(|t| t.while_doing(method))
    }
}

/// Lets time pass on a development chain: the next block is made now, and is this many seconds later than the last.
///
/// # Errors
/// Usage where it is no development chain.
pub async fn warp(config: &ChainConfig, seconds: u64) -> Result<()> {
    let link = connect(config).await?;
    let doing = |t: crate::link::Trouble| t.while_doing("letting time pass");
    let last = link.block(None).await.map_err(doing)?.map_or(0, |b| b.header.inner.timestamp);
    let time = U64::from(last.saturating_add(seconds));
    link.ask_once::<Value>("evm_mine", &json!([time])).await.map_err(doing)?;
    Ok(())
}
