//! A connection that JSON-RPC requests go over: embedded or HTTP, with retries of what may be asked twice. All methods of
//! Ethereum that we use have their typed forms here.

use std::{
    sync::{Arc, Once},
    time::Duration,
};

use alloy::{
    primitives::{Address, B256, Bytes, U64, U256},
    rpc::{
        client::RpcClient,
        json_rpc::{RpcError, RpcRecv},
        types::{Block, Filter, Log, TransactionReceipt, TransactionRequest},
    },
    sol_types::SolCall,
    transports::{TransportError, TransportErrorKind, http::Http},
};
use conun_types::error::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::{
    config::{Backend, ChainConfig},
    embedded::Embedded,
    reverts,
};

/// Why there is no result.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// No answer came, or none that makes sense.
    Away(String),
    /// The chain answered with an error.
    Refused {
        /// Its words.
        message: String,
        /// What a contract reverted with.
        revert: Option<Bytes>,
        /// Whether it may answer later: it is overloaded, or behind.
        later: bool,
    },
}

impl Trouble {
    /// The error for people: `what` was tried.
    pub(crate) fn while_doing(self, what: &str) -> Error {
        match self {
            Self::Away(why) => Error::unavailable(format!("{what}: {why}")).with_hint("is the chain's address right?"),
            Self::Refused { revert: Some(data), .. } => reverts::explain(&data, what),
            Self::Refused { message, later, .. } => refusal(&message, what, later),
        }
    }
}

/// What people are told where gas cannot be paid.
pub(crate) const NO_ETHER: &str = "too little ether for gas";

fn refusal(message: &str, what: &str, later: bool) -> Error {
    let words = message.to_lowercase();
    if words.contains("insufficient funds") || words.contains("gas required exceeds allowance") {
        return Error::new(ErrorKind::Budget, format!("{what}: {NO_ETHER} ({message})"))
            .with_hint("send the key's address some ether");
    }
    let error = format!("{what}: the chain refuses: {message}");
    if later { Error::unavailable(error) } else { Error::data(error) }
}

impl From<TransportError> for Trouble {
    fn from(error: TransportError) -> Self {
        match error {
            RpcError::ErrorResp(payload) => Self::Refused {
                revert: payload.as_revert_data(),
                later: payload.is_retry_err(),
                message: payload.message.into_owned(),
            },
            RpcError::Transport(TransportErrorKind::HttpError(e)) => Self::Away(format!("HTTP status {}", e.status)),
            RpcError::DeserError { .. } => Self::Away("the answer is no Ethereum JSON-RPC".to_owned()),
            other => Self::Away(cause(&other)),
        }
    }
}

/// The innermost reason, which names neither URL nor internals.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |e| e.source()).last().map_or_else(String::new, ToString::to_string)
}

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    client: Arc<RpcClient>,
    /// What people know the chain by.
    name: String,
    timeout: Duration,
    retries: u32,
}

impl Link {
    /// Opens the folder, or makes a client for the URL (which asks nothing yet).
    pub(crate) async fn open(config: &ChainConfig) -> Result<Self> {
        let client = match &config.backend {
            Backend::Embedded(folder) => {
                let (folder, clock) = (folder.clone(), config.clock.clone());
                let opened = tokio::task::spawn_blocking(move || Embedded::open(&folder, clock)).await;
                RpcClient::new(opened.map_err(|e| Error::internal(e.to_string()))??, true)
            }
            Backend::Rpc(url) => RpcClient::new(Http::with_client(http(config)?, url.clone()), false),
        };
        let name = config.backend.to_string();
        Ok(Self { client: Arc::new(client), name, timeout: config.timeout, retries: config.retries })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// One try.
    pub(crate) async fn ask_once<R: RpcRecv>(&self, method: &'static str, params: &Value) -> Result<R, Trouble> {
        let answer = self.client.request::<_, R>(method, params.clone());
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(Trouble::from),
            Err(_) => Err(Trouble::Away(format!("no answer within {:?}", self.timeout))),
        }
        .map_err(|trouble| match trouble {
            Trouble::Away(why) => Trouble::Away(format!("{} cannot be reached: {why}", self.name)),
            refused => refused,
        })
    }

    /// As often as is configured: for what may be asked twice.
    pub(crate) async fn ask<R: RpcRecv>(&self, method: &'static str, params: Value) -> Result<R, Trouble> {
        let mut pause = Duration::from_millis(100);
        for _ in 0..self.retries {
            match self.ask_once(method, &params).await {
                Err(Trouble::Away(_) | Trouble::Refused { later: true, .. }) => tokio::time::sleep(pause).await,
                done => return done,
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        self.ask_once(method, &params).await
    }

    async fn number(&self, method: &'static str, params: Value) -> Result<u64, Trouble> {
        self.ask::<U64>(method, params).await.map(|n| n.to())
    }

    pub(crate) async fn chain_id(&self) -> Result<u64, Trouble> {
        self.number("eth_chainId", json!([])).await
    }

    pub(crate) async fn head(&self) -> Result<u64, Trouble> {
        self.number("eth_blockNumber", json!([])).await
    }

    pub(crate) async fn code(&self, at: Address) -> Result<Bytes, Trouble> {
        self.ask("eth_getCode", json!([at, "latest"])).await
    }

    /// The sender's next nonce, as far as the node knows, transactions that are in no block included.
    pub(crate) async fn next_nonce(&self, sender: Address) -> Result<u64, Trouble> {
        self.number("eth_getTransactionCount", json!([sender, "pending"])).await
    }

    /// Transactions that `sender` has in blocks up to this one, or up to the last.
    pub(crate) async fn nonce_at(&self, sender: Address, block: Option<u64>) -> Result<u64, Trouble> {
        self.number("eth_getTransactionCount", json!([sender, tag(block)])).await
    }

    pub(crate) async fn receipt(&self, tx: B256) -> Result<Option<TransactionReceipt>, Trouble> {
        self.ask("eth_getTransactionReceipt", json!([tx])).await
    }

    pub(crate) async fn block(&self, number: Option<u64>) -> Result<Option<Block<B256>>, Trouble> {
        self.ask("eth_getBlockByNumber", json!([tag(number), false])).await
    }

    pub(crate) async fn estimate(&self, request: &TransactionRequest) -> Result<u64, Trouble> {
        self.number("eth_estimateGas", json!([request])).await
    }

    /// What a node thinks is a good tip; not all know the method.
    pub(crate) async fn tip(&self) -> Result<u128, Trouble> {
        match self.ask::<U256>("eth_maxPriorityFeePerGas", json!([])).await {
            Ok(tip) => Ok(tip.saturating_to()),
            Err(Trouble::Refused { later: false, .. }) => Ok(1_000_000_000),
            Err(trouble) => Err(trouble),
        }
    }

    pub(crate) async fn call_raw(&self, request: &TransactionRequest, block: Option<u64>) -> Result<Bytes, Trouble> {
        self.ask("eth_call", json!([request, tag(block)])).await
    }

    /// Calls a contract's view, at a block or at the last one.
    pub(crate) async fn view<C: SolCall>(&self, to: Address, call: &C, at: Option<u64>) -> Result<C::Return, Trouble> {
        let request = TransactionRequest::default().to(to).input(call.abi_encode().into());
        let bytes = self.call_raw(&request, at).await?;
        C::abi_decode_returns(&bytes)
            .map_err(|_| Trouble::Away(format!("{to} does not answer {} as our contract would", C::SIGNATURE)))
    }

    pub(crate) async fn logs(&self, filter: &Filter) -> Result<Vec<Log>, Trouble> {
        self.ask("eth_getLogs", json!([filter])).await
    }
}

fn tag(block: Option<u64>) -> Value {
    block.map_or_else(|| json!("latest"), |number| json!(U64::from(number)))
}

/// An HTTP client with our TLS, not whichever a dependency prefers.
fn http(config: &ChainConfig) -> Result<reqwest::Client> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // It fails where somebody has installed one already: as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .connect_timeout(config.timeout)
        .timeout(config.timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| Error::internal(format!("the HTTP client: {e}")))
}
