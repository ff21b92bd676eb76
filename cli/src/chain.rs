//! From flags to a chain: what `--chain`, `--escrow` and `--chain-id` mean, here once for all commands.

use std::{path::Path, sync::Arc};

use conun_chain::{Backend, ChainConfig, EvmLedger};
use conun_types::{Error, NodeKey, Result, ledger::Ledger};

use crate::args::ChainOptions;

/// Name of the folder in which an embedded chain is kept within a data folder.
const FOLDER: &str = "chain";

impl ChainOptions {
    /// The chain that is meant, if any is; `embedded` without a folder lies in `home`.
    pub(crate) fn config(&self, home: Option<&Path>) -> Result<Option<ChainConfig>> {
        let Some(text) = self.chain.as_deref().filter(|text| !text.is_empty()) else {
            return match self.escrow {
                Some(_) => Err(Error::usage("--escrow without --chain").with_hint("name the chain, too")),
                None => Ok(None),
            };
        };
        let backend = match (text, home) {
            ("embedded", Some(home)) => Backend::Embedded(home.join(FOLDER)),
            ("embedded", None) => {
                return Err(Error::usage("which embedded chain?").with_hint("name its folder: --chain embedded:FOLDER"));
            }
            _ => text.parse()?,
        };
        Ok(Some(ChainConfig { escrow: self.escrow, chain_id: self.chain_id, ..ChainConfig::new(backend) }))
    }

    /// As [`ChainOptions::config`], where a chain is needed.
    pub(crate) fn required(&self) -> Result<ChainConfig> {
        self.config(None)?.ok_or_else(|| {
            Error::usage("no chain is given").with_hint("use --chain embedded:FOLDER, --chain URL, or CONUN_CHAIN")
        })
    }
}

/// The chain that is meant, for transactions of `key`.
pub(crate) async fn ledger(options: &ChainOptions, home: &Path, key: &NodeKey) -> Result<Option<Arc<dyn Ledger>>> {
    match options.config(Some(home))? {
        Some(config) => Ok(Some(EvmLedger::connect(config, key.clone()).await? as _)),
        None => Ok(None),
    }
}
