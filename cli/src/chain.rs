//! From flags to a chain: what `--chain`, `--escrow` and `--chain-id` mean, here once for all commands.

use std::{path::Path, sync::Arc, time::Duration};

use conun_chain::{Backend, ChainConfig, EvmLedger};
use conun_types::{Error, NodeKey, Result, ledger::Ledger};

use crate::args::ChainOptions;

/// How long a chain may take to answer, and how often it is asked again: a person waits.
const TIMEOUT: Duration = Duration::from_secs(5);
const RETRIES: u32 = 2;
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
        let (escrow, chain_id, since) = (self.escrow, self.chain_id, self.since);
        let config = ChainConfig::new(backend);
        Ok(Some(ChainConfig { escrow, chain_id, since, timeout: TIMEOUT, retries: RETRIES, ..config }))
    }

    /// As [`ChainOptions::config`], where a chain is needed, which may be new.
    pub(crate) fn required(&self) -> Result<ChainConfig> {
        self.config(None)?.ok_or_else(|| {
            Error::usage("no chain is given").with_hint("use --chain embedded:FOLDER, --chain URL, or CONUN_CHAIN")
        })
    }

    /// As [`ChainOptions::required`]; a mistyped folder must not become a chain of its own.
    pub(crate) fn existing(&self) -> Result<ChainConfig> {
        let config = self.required()?;
        match &config.backend {
            Backend::Embedded(folder) if !folder.is_dir() => {
                Err(Error::usage(format!("there is no embedded chain in {}", folder.display()))
                    .with_hint("make one with: conun chain deploy --chain embedded:FOLDER --wallet dev:0"))
            }
            _ => Ok(config),
        }
    }
}

/// The chain that is meant, for transactions of `key`.
pub(crate) async fn ledger(options: &ChainOptions, home: &Path, key: &NodeKey) -> Result<Option<Arc<dyn Ledger>>> {
    match options.config(Some(home))? {
        Some(config) => Ok(Some(EvmLedger::connect(config, key.clone()).await? as _)),
        None => Ok(None),
    }
}
