//! What commands share: the configuration, and how to reach the coordinator that it, the environment or a flag names.

use std::path::Path;

use conun_api::Client;
use conun_types::{Error, Result};

use crate::{args::Connect, config::Config};

/// The configuration of this run.
pub(crate) struct Context {
    /// From `conun.toml`.
    pub(crate) config: Config,
}

impl Context {
    pub(crate) fn load(config: Option<&Path>) -> Result<Self> {
        Ok(Self { config: Config::load(config)? })
    }

    /// The coordinator's URL, if one is set anywhere: flags and environment come with `connect`.
    pub(crate) fn url(&self, connect: &Connect) -> Option<String> {
        let flag = connect.connect.clone().filter(|url| !url.is_empty());
        flag.or_else(|| self.config.connect.clone())
    }

    /// A client of the configured coordinator.
    pub(crate) async fn client(&self, connect: &Connect) -> Result<Client> {
        let url = self.url(connect).ok_or_else(|| {
            Error::usage("no coordinator is given")
                .with_hint("use --connect http://127.0.0.1:7400, CONUN_CONNECT, or connect in conun.toml")
        })?;
        let token = connect.token.as_deref().or(self.config.token.as_deref());
        Client::connect(&url, token).await
    }
}
