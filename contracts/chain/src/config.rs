//! Which chain, how patient to be with it, and how it is written on a command line.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use conun_types::{
    ambient::{Clock, SystemClock},
    error::{Error, Result},
    identity::Address,
};
use reqwest::Url;

/// Where the chain is.
#[derive(Clone, PartialEq, Eq)]
pub enum Backend {
    /// In a folder, executed by whoever opens it: for development. Text form: `embedded:PATH`.
    Embedded(PathBuf),
    /// Behind JSON-RPC. Text form: an `http` or `https` URL.
    Rpc(Url),
}

/// What people may read: of a URL neither path, query nor password, which often hold a key.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(folder) => write!(f, "embedded:{}", folder.display()),
            Self::Rpc(url) => write!(f, "{}", url.origin().ascii_serialization()),
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage(format!("not a chain: {why}")).with_hint("write embedded:FOLDER, or an http or https URL")
        };
        if let Some(folder) = text.strip_prefix("embedded:") {
            return if folder.is_empty() { Err(wrong("no folder")) } else { Ok(Self::Embedded(folder.into())) };
        }
        // The text is not repeated: it may hold a key.
        let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
        match url.scheme() {
            "http" | "https" => Ok(Self::Rpc(url)),
            other => Err(wrong(&format!("the scheme {other}:"))),
        }
    }
}

/// Settings of a connection to a chain.
#[derive(Clone)]
pub struct ChainConfig {
    /// Where it is.
    pub backend: Backend,
    /// The escrow. An embedded chain has one from the start, which is taken where none is named.
    pub escrow: Option<Address>,
    /// The chain id that it must have, if any will not do.
    pub chain_id: Option<u64>,
    /// How many blocks, its own included, must hold a transaction before it counts, and how old the state must be that
    /// others' money is judged by. By default 0 for an embedded chain, 1 for a development chain (31337), else 3.
    pub confirmations: Option<u64>,
    /// The first block in which the escrow's events may be: that of its deployment saves long searches.
    pub since: u64,
    /// How long to wait for a transaction.
    pub patience: Duration,
    /// How long to wait for one answer.
    pub timeout: Duration,
    /// How often to ask again where no answer came.
    pub retries: u32,
    /// Dates the blocks of an embedded chain.
    pub clock: Arc<dyn Clock>,
}

impl ChainConfig {
    /// The usual settings.
    #[must_use]
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            escrow: None,
            chain_id: None,
            confirmations: None,
            since: 0,
            patience: Duration::from_secs(180),
            timeout: Duration::from_secs(20),
            retries: 4,
            clock: Arc::new(SystemClock),
        }
    }
}

impl fmt::Debug for ChainConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainConfig")
            .field("backend", &self.backend)
            .field("escrow", &self.escrow)
            .field("chain_id", &self.chain_id)
            .field("confirmations", &self.confirmations)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_read_and_secrets_not_shown() -> Result<()> {
        assert_eq!("embedded:/a/b".parse::<Backend>()?, Backend::Embedded("/a/b".into()));
        let url = "https://user:secret@rpc.example.org:8545/v2/secret?key=secret";
        let backend: Backend = url.parse()?;
        assert_eq!(backend.to_string(), "https://rpc.example.org:8545");
        assert!(!format!("{:?}", ChainConfig::new(backend)).contains("secret"));
        for wrong in ["", "embedded:", "ws://x", "/a/b", "http://"] {
            let error = wrong.parse::<Backend>().unwrap_err();
            assert_eq!(error.kind, conun_types::ErrorKind::Usage, "{wrong}");
        }
        Ok(())
    }
}
