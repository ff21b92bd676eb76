//! Whatever the network, the chain or a killed process do: nobody is paid twice, and nothing counts that may be undone.

use std::{
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use conun_chain::{ChainConfig, EvmLedger, dev};
use conun_types::{Amount, ErrorKind, ledger::Ledger};
use serde_json::json;

use crate::{
    proxy::{Mood, Proxy},
    story::{People, people, record, settlement},
    support::{World, account, tokens},
};

/// anvil with an open account, behind a proxy that is fair as yet.
struct Stage {
    world: World,
    proxy: Proxy,
    people: People,
    /// Through the proxy.
    config: ChainConfig,
}

async fn stage() -> Option<Stage> {
    let world = World::anvil().await?;
    let people = people();
    world.fund(&people.client, 1_000).await;
    let ledger = world.ledger(&people.client).await;
    ledger.open(&account(1), tokens(100), None, Amount::ZERO).await.unwrap();
    let port = world.config.backend.to_string().rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::before(port).await;
    let mut config = world.config.clone();
    config.backend = format!("http://127.0.0.1:{}", proxy.port).parse().unwrap();
    config.retries = 1;
    config.timeout = Duration::from_secs(2);
    config.patience = Duration::from_secs(20);
    Some(Stage { world, proxy, people, config })
}

impl Stage {
    async fn ledger(&self) -> std::sync::Arc<EvmLedger> {
        EvmLedger::connect(self.config.clone(), self.people.client.clone()).await.unwrap()
    }

    /// Transactions of the client's that are in blocks.
    async fn sent(&self) -> u64 {
        let rpc = dev::Rpc::open(&self.world.config).await.unwrap();
        let count =
            rpc.request("eth_getTransactionCount", json!([self.people.client.address(), "latest"])).await.unwrap();
        u64::from_str_radix(&count.as_str().unwrap()[2..], 16).unwrap()
    }

    /// Batch `n` pays the node ten more.
    fn batch(&self, ledger: &EvmLedger, n: u32) -> conun_types::payment::SignedSettlement {
        let (node, total) = (&self.people.node, tokens(10 * u128::from(n + 1)));
        settlement(&ledger.domain(), &self.people.client, (1, n), &[(node, total)], vec![record(n, node, tokens(10))])
    }

    /// That `n` batches were settled, by as many transactions, and what they say is paid.
    async fn assert_paid(&self, n: u32) {
        let ledger = self.world.ledger(&self.people.client).await;
        let state = ledger.account(&account(1)).await.unwrap().unwrap();
        assert_eq!((state.batches, state.earned), (n, tokens(10 * u128::from(n))));
        assert_eq!(ledger.settlements(&account(1)).await.unwrap().len(), n as usize);
        assert_eq!(self.sent().await, 1 + u64::from(n), "one transaction a batch, after the one that opened");
    }
}

#[tokio::test]
async fn every_kind_of_bad_connection_pays_once() {
    let Some(stage) = stage().await else { return };
    let ledger = stage.ledger().await;
    for (n, mood) in [Mood::DropsAnswers, Mood::Twice, Mood::Lies].into_iter().enumerate() {
        stage.proxy.set(mood);
        let settled = ledger.settle(&stage.batch(&ledger, n as u32)).await;
        settled.unwrap_or_else(|e| panic!("{mood:?}: {e}"));
        stage.assert_paid(n as u32 + 1).await;
    }
}

#[tokio::test]
async fn a_chain_that_comes_back_is_waited_for() {
    let Some(stage) = stage().await else { return };
    let ledger = stage.ledger().await;
    for (n, mood) in [Mood::DropsRequests, Mood::Busy, Mood::Away].into_iter().enumerate() {
        let batch = stage.batch(&ledger, n as u32);
        // It goes away when the transaction is on its way, and comes back two seconds later.
        stage.proxy.set(if mood == Mood::DropsRequests { mood } else { Mood::HoldsAfter });
        let seen = stage.proxy.sent.load(Ordering::SeqCst);
        let settling = tokio::spawn({
            let ledger = ledger.clone();
            async move { ledger.settle(&batch).await }
        });
        while stage.proxy.sent.load(Ordering::SeqCst) == seen {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stage.proxy.set(mood);
        tokio::time::sleep(Duration::from_secs(2)).await;
        stage.proxy.set(Mood::Fair);
        settling.await.unwrap().unwrap_or_else(|e| panic!("{mood:?}: {e}"));
        stage.assert_paid(n as u32 + 1).await;
    }
}

#[tokio::test]
async fn a_chain_that_stays_away_is_an_error_and_a_second_try_finds_what_was_done() {
    let Some(mut stage) = stage().await else { return };
    stage.config.patience = Duration::from_secs(1);
    let ledger = stage.ledger().await;
    stage.proxy.set(Mood::Away);
    let error = ledger.settle(&stage.batch(&ledger, 0)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("cannot be reached"), "{error}");
    stage.assert_paid(0).await;
    // Sent, but for all we know not taken.
    stage.proxy.set(Mood::HoldsAfter);
    let seen = stage.proxy.sent.load(Ordering::SeqCst);
    let settling = tokio::spawn({
        let (ledger, batch) = (ledger.clone(), stage.batch(&ledger, 0));
        async move { ledger.settle(&batch).await }
    });
    while stage.proxy.sent.load(Ordering::SeqCst) == seen {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.proxy.set(Mood::Away);
    let error = settling.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    stage.proxy.set(Mood::Fair);
    ledger.settle(&stage.batch(&ledger, 0)).await.unwrap();
    stage.assert_paid(1).await;
}

/// What the child process of the next test runs.
#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn child_settles() {
    let Ok(url) = std::env::var("CONUN_TEST_RPC") else { return };
    let mut config = ChainConfig::new(url.parse().unwrap());
    config.escrow = Some(dev::escrow().unwrap());
    let people = people();
    let ledger = EvmLedger::connect(config, people.client.clone()).await.unwrap();
    let batch: u32 = std::env::var("CONUN_TEST_BATCH").unwrap().parse().unwrap();
    let total = tokens(10 * u128::from(batch + 1));
    let records = vec![record(batch, &people.node, tokens(10))];
    let words = settlement(&ledger.domain(), &people.client, (1, batch), &[(&people.node, total)], records);
    ledger.settle(&words).await.unwrap();
}

#[tokio::test]
async fn a_process_killed_while_it_sends_is_continued_by_the_next() {
    let Some(stage) = stage().await else { return };
    let ledger = stage.world.ledger(&stage.people.client).await;
    for (n, mood) in [Mood::HoldsBefore, Mood::HoldsAfter].into_iter().enumerate() {
        stage.proxy.set(mood);
        let seen = stage.proxy.sent.load(Ordering::SeqCst);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "faults::child_settles"])
            .env("CONUN_TEST_RPC", format!("http://127.0.0.1:{}", stage.proxy.port))
            .env("CONUN_TEST_BATCH", n.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while stage.proxy.sent.load(Ordering::SeqCst) == seen {
            assert!(begun.elapsed() < Duration::from_secs(30), "the child sends nothing");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        ledger.settle(&stage.batch(&ledger, n as u32)).await.unwrap();
        stage.assert_paid(n as u32 + 1).await;
    }
}

#[tokio::test]
async fn what_a_reorganization_drops_is_sent_again_and_did_not_count_before() {
    let Some(stage) = stage().await else { return };
    let rpc = dev::Rpc::open(&stage.world.config).await.unwrap();
    let mine = async |blocks: u32| {
        for _ in 0..blocks {
            rpc.request("evm_mine", json!([])).await.unwrap();
        }
    };
    let mut config = stage.world.config.clone();
    config.confirmations = Some(4);
    config.patience = Duration::from_secs(30);
    mine(4).await;
    let careful = EvmLedger::connect(config, stage.people.client.clone()).await.unwrap();
    let batch = stage.batch(&careful, 0);
    let settling = tokio::spawn({
        let (careful, batch) = (careful.clone(), batch.clone());
        async move { careful.settle(&batch).await }
    });
    let begun = Instant::now();
    while stage.sent().await < 2 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the transaction is in no block");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mine(2).await;
    let first = stage.world.ledger(&stage.people.client).await.settlements(&account(1)).await.unwrap();
    assert_eq!(first.len(), 1, "it is in a block");
    assert!(careful.settlements(&account(1)).await.unwrap().is_empty(), "which may yet be undone");
    assert_eq!(careful.account(&account(1)).await.unwrap().unwrap().batches, 0);
    assert!(!settling.is_finished());

    rpc.request("anvil_reorg", json!([3, []])).await.unwrap();
    let begun = Instant::now();
    while !settling.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(25), "it was not sent again");
        mine(1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let included = settling.await.unwrap().unwrap();
    let now = careful.settlements(&account(1)).await.unwrap();
    assert_eq!(now.len(), 1);
    assert_eq!(now[0].included, included);
    assert_eq!(included.tx, first[0].included.tx, "the same bytes");
    assert_ne!(included.block, first[0].included.block, "in another block");
    stage.assert_paid(1).await;
}
