//! Several processes on one embedded chain, and processes that share a key.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
};

use conun_chain::{Backend, ChainConfig, EvmLedger, dev};
use conun_types::{AccountId, Amount, ErrorKind, ledger::Ledger};

use crate::support::{World, account, person, tokens};

fn id(process: u8, n: u8) -> AccountId {
    let mut bytes = [process; 32];
    bytes[0] = n;
    AccountId(bytes)
}

/// What the child processes of the next test run.
#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn child_opens() {
    let Ok(folder) = std::env::var("CONUN_TEST_FOLDER") else { return };
    let process: u8 = std::env::var("CONUN_TEST_PROCESS").unwrap().parse().unwrap();
    let config = ChainConfig::new(Backend::Embedded(folder.into()));
    // All processes send with the same key: nonces are raced for.
    let ledger = EvmLedger::connect(config, dev::key(0).unwrap()).await.unwrap();
    for n in 0..5 {
        ledger.open(&id(process, n), tokens(1), None, Amount::ZERO).await.unwrap();
    }
}

fn child(folder: &std::path::Path, process: u8) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "sharing::child_opens"])
        .env("CONUN_TEST_FOLDER", folder)
        .env("CONUN_TEST_PROCESS", process.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn processes_share_a_folder_and_even_a_key() {
    let folder = tempfile::tempdir().unwrap();
    // They also race to create the chain.
    let children: Vec<_> = (1..4).map(|n| child(folder.path(), n)).collect();
    let config = ChainConfig::new(Backend::Embedded(folder.path().to_owned()));
    let ledger = EvmLedger::connect(config, person(1)).await.unwrap();
    for child in children {
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }
    for process in 1..4 {
        for n in 0..5 {
            assert_eq!(ledger.account(&id(process, n)).await.unwrap().unwrap().deposit, tokens(1), "{process} {n}");
        }
    }
    let left = ledger.balance(&dev::key(0).unwrap().address()).await.unwrap();
    assert_eq!(left, tokens(1_000_000_000 - 15), "each opened once");
}

#[tokio::test]
async fn many_tasks_share_one_ledger_and_its_key() {
    for world in [Some(World::embedded()), World::anvil().await].into_iter().flatten() {
        let key = person(1);
        world.fund(&key, 100).await;
        let (one, other) = (world.ledger(&key).await, world.ledger(&key).await);
        let open = |ledger: Arc<EvmLedger>, n| async move {
            ledger.open(&account(n), tokens(1), None, Amount::ZERO).await.map(|i| i.tx)
        };
        // Permits carry nonces of their own, which are raced for, too: then an approval of its own comes first.
        let mut work: Vec<_> = Vec::new();
        for n in 1..9 {
            work.push(tokio::spawn(open(if n % 2 == 0 { one.clone() } else { other.clone() }, n)));
        }
        for task in work {
            task.await.unwrap().unwrap();
        }
        assert_eq!(one.balance(&key.address()).await.unwrap(), tokens(92));
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_damage_is_named() {
    let world = World::embedded();
    let Backend::Embedded(folder) = &world.config.backend else { panic!("not embedded") };
    let path = folder.join("chain.log");
    let key = person(1);
    world.fund(&key, 100).await;
    world.ledger(&key).await.open(&account(1), tokens(1), None, Amount::ZERO).await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 7]).unwrap();
    let ledger = world.ledger(&key).await;
    assert!(ledger.account(&account(1)).await.unwrap().is_none(), "its block was cut off");
    ledger.open(&account(1), tokens(2), None, Amount::ZERO).await.unwrap();
    assert_eq!(world.ledger(&key).await.account(&account(1)).await.unwrap().unwrap().deposit, tokens(2));

    let mut damaged = std::fs::read(&path).unwrap();
    damaged[500] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let error = EvmLedger::connect(world.config.clone(), key).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Data);
    assert!(error.message.contains("chain.log is damaged"), "{error}");
}

#[tokio::test]
async fn the_chain_is_there_after_a_restart_and_time_passes_without_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = ChainConfig::new(Backend::Embedded(folder.path().to_owned()));
    let clock = Arc::new(crate::support::Frozen::default());
    clock.set(crate::support::BEGIN);
    config.clock = clock.clone();
    let key = dev::key(0).unwrap();
    let ledger = EvmLedger::connect(config.clone(), key.clone()).await.unwrap();
    ledger.open(&account(1), tokens(5), None, Amount::ZERO).await.unwrap();
    ledger.ask_refund(&account(1)).await.unwrap();
    drop(ledger);
    let ledger = EvmLedger::connect(config, key).await.unwrap();
    let state = ledger.account(&account(1)).await.unwrap().unwrap();
    assert_eq!(state.deposit, tokens(5));
    assert_eq!(ledger.refund(&account(1)).await.unwrap_err().kind, ErrorKind::Data, "not yet");
    clock.set(state.refund_at);
    ledger.refund(&account(1)).await.unwrap();
}
