//! The contracts as [`conun_types::ledger::Ledger`]: what is read of them and what is sent to them, for one sending key.

mod allowance;
mod events;
mod port;
mod words;

use std::sync::Arc;

use alloy::{
    primitives::{Address, U256},
    rpc::types::TransactionReceipt,
    sol_types::SolCall,
};
use conun_types::{
    amount::Amount,
    error::{Error, Result},
    identity::NodeKey,
    ledger::Included,
};
use tokio::sync::Mutex;

use crate::{
    bindings::ConunToken,
    config::{Backend, ChainConfig},
    contracts::{Contracts, check_chain, escrow_of, theirs},
    embedded::CHAIN_ID,
    link::{Link, Trouble},
    outbox::{Order, Outbox, confirmed},
};

/// How many blocks must hold a transaction before it counts, where nothing is configured.
pub(crate) fn default_confirmations(config: &ChainConfig, chain_id: u64) -> u64 {
    match (&config.backend, chain_id) {
        (Backend::Embedded(_), _) => 0,
        (_, CHAIN_ID) => 1,
        _ => 3,
    }
}

/// The contracts on one chain, and a key that sends transactions.
pub struct EvmLedger {
    link: Link,
    outbox: Outbox,
    contracts: Contracts,
    confirmations: u64,
    since: u64,
    /// Held while tokens are paid in.
    paying: Mutex<()>,
}

impl std::fmt::Debug for EvmLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvmLedger").field("chain", &self.link.name()).field("contracts", &self.contracts).finish()
    }
}

impl EvmLedger {
    /// Opens a chain and makes sure that it is the right one, and that the escrow there is ours. Transactions are sent by
    /// `key`: a node's, or what [`crate::wallet::Wallet::unlock`] gives.
    ///
    /// # Errors
    /// Usage where the chain has another id, or the address is no escrow; Unavailable where nobody answers; Data where an
    /// embedded chain's folder is damaged.
    pub async fn connect(config: ChainConfig, key: NodeKey) -> Result<Arc<Self>> {
        let link = Link::open(&config).await?;
        let chain_id = check_chain(&link, &config).await?;
        let contracts = Contracts::find(&link, chain_id, escrow_of(&config)?).await?;
        let confirmations = config.confirmations.unwrap_or_else(|| default_confirmations(&config, chain_id));
        let outbox = Outbox::new(link.clone(), &key, chain_id, confirmations, config.patience)?;
        Ok(Arc::new(Self { link, outbox, contracts, confirmations, since: config.since, paying: Mutex::new(()) }))
    }

    /// Where the contracts are.
    #[must_use]
    pub fn deployment(&self) -> crate::Deployment {
        crate::Deployment::of(&self.contracts, self.since)
    }

    /// Sends tokens of the sender's to `to`.
    ///
    /// # Errors
    /// Budget where there are not so many.
    pub async fn transfer(&self, to: &conun_types::Address, amount: Amount) -> Result<Included> {
        let call = ConunToken::transferCall { to: theirs(to), value: U256::from(amount.0) };
        self.call(format!("sending {amount} tokens to {to}"), self.contracts.token, call).await
    }

    /// Reads a contract's view in a state that is not expected to be undone.
    async fn view<C: SolCall>(&self, to: Address, call: C) -> Result<C::Return> {
        let doing = |trouble: Trouble| trouble.while_doing("reading the chain");
        let at = match self.confirmations {
            0 | 1 => None,
            depth => confirmed(self.link.head().await.map_err(doing)?, depth),
        };
        self.link.view(to, &call, at).await.map_err(doing)
    }

    async fn call<C: SolCall>(&self, what: String, to: Address, call: C) -> Result<Included> {
        let receipt = self.outbox.send(&Order::call(what, to, call.abi_encode())).await?;
        included(&receipt)
    }
}

fn included(receipt: &TransactionReceipt) -> Result<Included> {
    let block = receipt.block_number.ok_or_else(|| Error::unavailable("the receipt names no block"))?;
    Ok(Included { tx: receipt.transaction_hash.0, block, gas: receipt.gas_used })
}
