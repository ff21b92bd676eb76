//! Money on a local network: contracts on a development chain, an operator with stake behind each node, a deposit behind
//! each coordinator. All of it comes from development account 0.

use std::{ffi::OsString, path::Path};

use conun_api::Client;
use conun_chain::{Backend, ChainConfig, EvmLedger, dev};
use conun_storage::datadir::read_key;
use conun_types::{Address, Amount, Error, NodeId, NodeKey, Result, ledger::Ledger};

use crate::{args::ChainOptions, command::coordinator::owner_key};

/// Tokens that stand behind each node.
const STAKE: Amount = Amount(500 * ONE);
/// Tokens from which each coordinator pays.
const DEPOSIT: Amount = Amount(1_000 * ONE);
/// Ether for gas, where gas costs any.
const ETHER: Amount = Amount(ONE);
const ONE: u128 = 1_000_000_000_000_000_000;

/// A development chain with our contracts.
pub(crate) struct Money {
    config: ChainConfig,
    /// The escrow.
    pub(crate) escrow: Address,
    /// As it was named.
    pub(crate) chain: String,
    /// What `--chain` is for the processes of the network.
    flag: String,
    /// The one who has everything.
    bank: NodeKey,
}

impl Money {
    /// The chain behind `chain` (as `devnet up --chain` takes it), with `escrow` if that is still there, else with new
    /// contracts.
    pub(crate) async fn prepare(chain: &str, dir: &Path, escrow: Option<Address>) -> Result<Self> {
        let options = ChainOptions { chain: Some(chain.to_owned()), ..ChainOptions::default() };
        let mut config = options.config(Some(dir))?.ok_or_else(|| Error::usage("no chain is given"))?;
        let flag = match &config.backend {
            Backend::Embedded(folder) => format!("embedded:{}", folder.display()),
            Backend::Rpc(_) => chain.to_owned(),
        };
        let bank = dev::key(0)?;
        config.escrow = escrow;
        let there = escrow.is_some() && EvmLedger::connect(config.clone(), bank.clone()).await.is_ok();
        if !there {
            config.escrow = None;
            config.escrow = Some(dev::deploy(&config).await?.escrow);
        }
        let escrow = config.escrow.unwrap_or_default();
        Ok(Self { config, escrow, chain: chain.to_owned(), flag, bank })
    }

    /// What tells a node or coordinator of it.
    pub(crate) fn flags(&self) -> [OsString; 4] {
        ["--chain".into(), self.flag.clone().into(), "--escrow".into(), self.escrow.to_string().into()]
    }

    fn gas(&self) -> Amount {
        if matches!(self.config.backend, Backend::Embedded(_)) { Amount::ZERO } else { ETHER }
    }

    /// Gives the node in `folder` an operator, whose key is in the file `operator`, with stake.
    pub(crate) async fn endow_node(&self, folder: &Path, operator: &Path) -> Result<()> {
        let (node, operator) = (read_key(folder)?, owner_key(operator)?);
        let ledger = EvmLedger::connect(self.config.clone(), operator.clone()).await?;
        if ledger.provider(&node.address()).await?.operator.is_some() {
            return Ok(());
        }
        dev::fund(&self.config, &operator.address(), self.gas(), STAKE).await?;
        dev::fund(&self.config, &node.address(), self.gas(), Amount::ZERO).await?;
        ledger.stake(STAKE).await?;
        let consent = node.sign(&ledger.consent(&operator.address()));
        ledger.delegate(&node.address(), &consent).await?;
        Ok(())
    }

    /// Opens the account from which the coordinator behind `client` pays, if it is not open yet.
    pub(crate) async fn endow_coordinator(&self, client: &Client) -> Result<()> {
        let id: NodeId = client.status().await?.id;
        let account = client.account().await?;
        if account.account.is_some() {
            return Ok(());
        }
        dev::fund(&self.config, &id.address()?, self.gas(), Amount::ZERO).await?;
        let ledger = EvmLedger::connect(self.config.clone(), self.bank.clone()).await?;
        ledger.open(&account.id, DEPOSIT, Some(id.address()?), DEPOSIT).await?;
        Ok(())
    }

    /// The chain, to look at it.
    pub(crate) async fn ledger(&self) -> Result<std::sync::Arc<dyn Ledger>> {
        Ok(EvmLedger::connect(self.config.clone(), self.bank.clone()).await? as _)
    }
}
