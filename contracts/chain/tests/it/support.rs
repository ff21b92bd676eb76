//! Chains to test on, and people on them.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use conun_chain::{Backend, ChainConfig, EvmLedger, dev};
use conun_types::{Address, Amount, ErrorKind, NodeKey, Result, ambient::Clock, payment::AccountId};
use serde_json::json;

/// Where time begins in tests.
pub(crate) const BEGIN: u64 = 1_900_000_000;
pub(crate) const ONE: u128 = 1_000_000_000_000_000_000;

pub(crate) fn tokens(n: u128) -> Amount {
    Amount(n * ONE)
}

pub(crate) fn account(n: u8) -> AccountId {
    AccountId([n; 32])
}

/// A key that is the same in every run.
pub(crate) fn person(n: u8) -> NodeKey {
    NodeKey::from_bytes(&[n; 32]).unwrap()
}

/// A clock that stands still but for the chain's own second per block.
#[derive(Default)]
pub(crate) struct Frozen(AtomicU64);

impl Frozen {
    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for Frozen {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// anvil, on a free port of the loopback; it ends with this value.
pub(crate) struct Anvil {
    child: Child,
    pub(crate) port: u16,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Anvil {
    /// Nothing where it is not installed, which in CI is a failure.
    pub(crate) async fn start() -> Option<Self> {
        let path = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
        ));
        if !path.is_file() {
            assert!(std::env::var_os("CI").is_none(), "anvil is missing: run npm ci in contracts/");
            eprintln!("SKIPPED: anvil is missing: run npm ci in contracts/");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(path);
        command.args(["--port", &port.to_string(), "--timestamp", &BEGIN.to_string(), "--silent"]);
        // Gas is free, as on the embedded chain.
        command.args(["--block-base-fee-per-gas", "0", "--disable-min-priority-fee"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let anvil = Self { child, port };
        anvil.ready().await;
        Some(anvil)
    }

    async fn ready(&self) {
        let mut config = self.config();
        config.retries = 0;
        let rpc = dev::Rpc::open(&config).await.unwrap();
        let begun = Instant::now();
        // Each block is a second later than the one before, as it is where the embedded chain's clock stands still.
        while rpc.request("anvil_setBlockTimestampInterval", json!([1])).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "anvil does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn config(&self) -> ChainConfig {
        let mut config = ChainConfig::new(self.url().parse().unwrap());
        config.escrow = Some(dev::escrow().unwrap());
        config
    }
}

/// A chain with the contracts on it.
pub(crate) struct World {
    pub(crate) config: ChainConfig,
    _folder: Option<tempfile::TempDir>,
    _anvil: Option<Anvil>,
}

impl World {
    pub(crate) fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = ChainConfig::new(Backend::Embedded(folder.path().join("chain")));
        let clock = Frozen::default();
        clock.set(BEGIN);
        config.clock = Arc::new(clock);
        Self { config, _folder: Some(folder), _anvil: None }
    }

    pub(crate) async fn anvil() -> Option<Self> {
        let anvil = Anvil::start().await?;
        let config = anvil.config();
        dev::deploy(&config).await.unwrap();
        Some(Self { config, _folder: None, _anvil: Some(anvil) })
    }

    pub(crate) async fn ledger(&self, key: &NodeKey) -> Arc<EvmLedger> {
        EvmLedger::connect(self.config.clone(), key.clone()).await.unwrap()
    }

    /// Ether for gas, and tokens.
    pub(crate) async fn fund(&self, key: &NodeKey, n: u128) -> Address {
        dev::fund(&self.config, &key.address(), tokens(1), tokens(n)).await.unwrap();
        key.address()
    }
}

/// What an error says, without what differs from chain to chain.
pub(crate) fn told<T>(result: Result<T>) -> (ErrorKind, String) {
    let error = result.err().expect("an error");
    assert!(!error.message.contains('\n'), "one line: {error}");
    (error.kind, error.message)
}
