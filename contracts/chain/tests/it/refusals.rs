//! What users do wrong: one clear line, the right kind, and nothing is spent.

use std::time::Duration;

use alloy::{
    consensus::{SignableTransaction, TxEip1559},
    eips::eip2718::Encodable2718,
    network::TxSignerSync,
    primitives::{Bytes, TxKind, U256},
    signers::local::PrivateKeySigner,
    sol_types::{SolCall, SolConstructor, SolValue},
};
use conun_chain::{Backend, ChainConfig, EvmLedger, deploy, dev};
use conun_types::{Address, Amount, ErrorKind, NodeKey, ledger::Ledger};
use serde_json::json;

use crate::{
    abi::{JobEscrow, disputes::Disputes, registry::ProviderRegistry},
    story::{settlement, voucher},
    support::{World, account, person, tokens, told},
};

#[tokio::test]
async fn wrong_chains_and_wrong_addresses_are_told_apart() {
    let world = World::embedded();
    let connect = async |config: ChainConfig| EvmLedger::connect(config, person(1)).await;
    let mut config = world.config.clone();
    config.chain_id = Some(1);
    assert_eq!(told(connect(config).await).0, ErrorKind::Usage);

    let mut config = world.config.clone();
    config.escrow = Some(Address([9; 20]));
    let (kind, line) = told(connect(config).await);
    assert_eq!(kind, ErrorKind::Usage);
    assert!(line.contains("there is no contract at 0x0909"), "{line}");

    let token = world.ledger(&person(1)).await.deployment().token;
    let mut config = world.config.clone();
    config.escrow = Some(token);
    let (kind, line) = told(connect(config).await);
    assert_eq!(kind, ErrorKind::Usage);
    assert!(line.contains("not conun's escrow"), "{line}");

    let mut config = ChainConfig::new("http://127.0.0.1:1".parse().unwrap());
    (config.retries, config.timeout) = (1, Duration::from_secs(1));
    assert_eq!(told(connect(config.clone()).await).0, ErrorKind::Unavailable);
    config.escrow = Some(Address([9; 20]));
    let (kind, line) = told(connect(config).await);
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(line.contains("http://127.0.0.1:1 cannot be reached"), "{line}");
}

#[tokio::test]
async fn what_is_no_ethereum_node_is_named() {
    use tokio::{io::AsyncWriteExt, net::TcpListener};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let page = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>";
            let _ = socket.write_all(page).await;
        }
    });
    let mut config = ChainConfig::new(format!("http://127.0.0.1:{port}").parse().unwrap());
    config.retries = 0;
    config.escrow = Some(Address([9; 20]));
    assert_eq!(told(EvmLedger::connect(config, person(1)).await).0, ErrorKind::Unavailable);
}

#[tokio::test]
async fn without_funds_nothing_is_spent() {
    let world = World::embedded();
    let (poor, rich) = (person(1), person(2));
    world.fund(&rich, 10).await;
    let ledger = world.ledger(&poor).await;
    for amount in [tokens(1), Amount(u128::MAX)] {
        let (kind, line) = told(ledger.open(&account(1), amount, None, Amount::ZERO).await);
        assert_eq!(kind, ErrorKind::Budget);
        assert!(line.contains("has 0 tokens"), "{line}");
        assert_eq!(told(ledger.stake(amount).await).0, ErrorKind::Budget);
    }
    let rich = world.ledger(&rich).await;
    rich.open(&account(1), tokens(1), None, Amount::ZERO).await.unwrap();
    assert_eq!(told(rich.top_up(&account(1), Amount(u128::MAX)).await).0, ErrorKind::Budget);
    assert_eq!(told(rich.unstake(Amount(u128::MAX)).await).0, ErrorKind::Budget);
    assert_eq!(rich.balance(&rich.sender()).await.unwrap(), tokens(9));
    assert_eq!(nonce(&world, &poor).await, 0, "nothing was sent");
}

async fn nonce(world: &World, key: &NodeKey) -> u64 {
    let rpc = dev::Rpc::open(&world.config).await.unwrap();
    let count = rpc.request("eth_getTransactionCount", json!([key.address(), "latest"])).await.unwrap();
    u64::from_str_radix(&count.as_str().unwrap()[2..], 16).unwrap()
}

#[tokio::test]
async fn without_ether_on_a_chain_that_wants_it_nothing_is_spent() {
    let Some(world) = World::anvil().await else { return };
    let rpc = dev::Rpc::open(&world.config).await.unwrap();
    rpc.request("anvil_setNextBlockBaseFeePerGas", json!(["0x3b9aca00"])).await.unwrap();
    rpc.request("evm_mine", json!([])).await.unwrap();
    let key = person(1);
    dev::fund(&world.config, &key.address(), Amount::ZERO, tokens(5)).await.unwrap();
    let ledger = world.ledger(&key).await;
    let (kind, line) = told(ledger.open(&account(1), tokens(5), None, Amount::ZERO).await);
    assert_eq!(kind, ErrorKind::Budget, "{line}");
    assert!(line.contains("ether"), "{line}");
    assert_eq!(ledger.balance(&key.address()).await.unwrap(), tokens(5));
}

#[tokio::test]
async fn revoked_nodes_earn_nothing_and_absurd_amounts_are_refused() {
    let world = World::embedded();
    let (client, node) = (person(1), person(2));
    world.fund(&client, 10).await;
    let ledger = world.ledger(&client).await;
    let id = account(1);
    ledger.open(&id, tokens(10), None, Amount::ZERO).await.unwrap();
    ledger.delegate(&node.address(), &node.sign(&ledger.consent(&client.address()))).await.unwrap();
    ledger.revoke(&node.address()).await.unwrap();
    let before = nonce(&world, &client).await;
    let word = voucher(&ledger.domain(), &client, 1, &node, tokens(1));
    let (kind, line) = told(ledger.redeem(&word).await);
    assert_eq!(kind, ErrorKind::Data);
    assert!(line.contains("revoked"), "{line}");
    let absurd = settlement(&ledger.domain(), &client, (1, 0), &[(&node, Amount(u128::MAX))], vec![]);
    assert_eq!(told(ledger.settle(&absurd).await).0, ErrorKind::Budget);
    let both = [(&node, Amount(u128::MAX)), (&client, Amount(u128::MAX))];
    let absurd = settlement(&ledger.domain(), &client, (1, 0), &both, vec![]);
    assert_eq!(told(ledger.settle(&absurd).await).0, ErrorKind::Budget);
    assert_eq!(nonce(&world, &client).await, before, "nothing was sent");
}

/// Sends a transaction that creates a contract, from development account 0.
async fn create(rpc: &dev::Rpc, input: Vec<u8>) {
    let signer = PrivateKeySigner::from_slice(&dev::key(0).unwrap().to_bytes()).unwrap();
    let count = rpc.request("eth_getTransactionCount", json!([signer.address(), "latest"])).await.unwrap();
    let nonce = u64::from_str_radix(&count.as_str().unwrap()[2..], 16).unwrap();
    let mut tx = TxEip1559 {
        chain_id: 31337,
        nonce,
        gas_limit: 8_000_000,
        to: TxKind::Create,
        input: input.into(),
        ..Default::default()
    };
    let signature = signer.sign_transaction_sync(&mut tx).unwrap();
    let raw = Bytes::from(tx.into_signed(signature).encoded_2718());
    rpc.request("eth_sendRawTransaction", json!([raw])).await.unwrap();
}

/// Contracts over a token that has no permits, returns nothing, and wants an allowance to be zero before it changes.
async fn plain_world() -> World {
    let mut world = World::embedded();
    let rpc = dev::Rpc::open(&world.config).await.unwrap();
    let deployer: alloy::primitives::Address = dev::key(0).unwrap().address().0.into();
    let at = |n: u64| deployer.create(4 + n);
    let code = |file: &str| {
        let path = format!("{}/../artifacts/{file}.json", env!("CARGO_MANIFEST_DIR"));
        let artefact: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        hex::decode(&artefact["bytecode"].as_str().unwrap()[2..]).unwrap()
    };
    let plain = hex::decode(include_str!("plain.hex").trim()).unwrap();
    let supply = U256::from(tokens(1_000_000).0);
    create(&rpc, [plain, (deployer, supply).abi_encode()].concat()).await;
    let registry = ProviderRegistry::constructorCall { token_: at(0), escrow_: at(2), disputes_: at(3) };
    create(&rpc, [code("ProviderRegistry"), registry.abi_encode()].concat()).await;
    let escrow = JobEscrow::constructorCall { token_: at(0), registry_: at(1), owner_: deployer };
    create(&rpc, [code("JobEscrow"), escrow.abi_encode()].concat()).await;
    let disputes = Disputes::constructorCall { escrow_: at(2), penalty_: U256::from(1) };
    create(&rpc, [code("Disputes"), disputes.abi_encode()].concat()).await;
    world.config.escrow = Some(Address(at(2).into()));
    world
}

#[tokio::test]
async fn tokens_without_permits_are_approved() {
    let world = plain_world().await;
    let key = person(1);
    world.fund(&key, 100).await;
    let ledger = world.ledger(&key).await;
    ledger.open(&account(1), tokens(10), None, Amount::ZERO).await.unwrap();
    ledger.top_up(&account(1), tokens(5)).await.unwrap();
    ledger.stake(tokens(20)).await.unwrap();
    assert_eq!(ledger.balance(&key.address()).await.unwrap(), tokens(65));
    assert_eq!(ledger.account(&account(1)).await.unwrap().unwrap().deposit, tokens(15));
    let (kind, _) = told(ledger.open(&account(2), tokens(66), None, Amount::ZERO).await);
    assert_eq!(kind, ErrorKind::Budget);
    let (kind, _) = told(ledger.open(&account(1), tokens(1), None, Amount::ZERO).await);
    assert_eq!(kind, ErrorKind::Data);
}

#[tokio::test]
async fn contracts_are_deployed_with_other_terms() {
    let world = World::embedded();
    let (deployer, owner) = (person(1), person(2));
    let deployment = deploy(&world.config, &deployer, tokens(77), tokens(3), owner.address()).await.unwrap();
    let text = serde_json::to_string(&deployment).unwrap();
    assert_eq!(serde_json::from_str::<conun_chain::Deployment>(&text).unwrap(), deployment);
    let mut config = world.config.clone();
    config.escrow = Some(deployment.escrow);
    config.since = deployment.since;
    let ledger = EvmLedger::connect(config, deployer.clone()).await.unwrap();
    assert_eq!(ledger.balance(&deployer.address()).await.unwrap(), tokens(77));
    assert_eq!(ledger.domain().escrow, deployment.escrow);
    assert_eq!(ledger.deployment(), deployment);
}

#[tokio::test]
async fn the_embedded_chain_refuses_as_geth_does() {
    let world = World::embedded();
    let Backend::Embedded(_) = &world.config.backend else { panic!("not embedded") };
    let rpc = dev::Rpc::open(&world.config).await.unwrap();
    let refused = async |method: &'static str, params| told(rpc.request(method, params).await).1;
    assert!(refused("eth_sendRawTransaction", json!(["0x1234"])).await.contains("failed to decode"));
    assert!(refused("eth_sendRawTransaction", json!([])).await.contains("invalid params"));
    assert!(refused("eth_nonsense", json!([])).await.contains("does not exist"));
    assert!(refused("eth_getBalance", json!([person(1).address(), "0x0"])).await.contains("last block's state"));
    let signer = PrivateKeySigner::from_slice(&person(1).to_bytes()).unwrap();
    let tx = TxEip1559 {
        chain_id: 31337,
        nonce: 1,
        gas_limit: 21_000,
        to: TxKind::Call([1; 20].into()),
        ..Default::default()
    };
    let variants = [
        (tx.clone(), "nonce too high"),
        (TxEip1559 { chain_id: 1, ..tx.clone() }, "chain id"),
        (TxEip1559 { nonce: 0, value: U256::from(1), ..tx.clone() }, "insufficient funds"),
        (TxEip1559 { nonce: 0, gas_limit: 31_000_000, ..tx.clone() }, "gas limit"),
        (TxEip1559 { nonce: 0, gas_limit: 20_000, ..tx }, "gas"),
    ];
    for (mut tx, words) in variants {
        let signature = signer.sign_transaction_sync(&mut tx).unwrap();
        let raw = Bytes::from(tx.into_signed(signature).encoded_2718());
        let line = refused("eth_sendRawTransaction", json!([raw])).await;
        assert!(line.contains(words), "{words}: {line}");
    }
    let data = Bytes::from(JobEscrow::drawCall { job: [1; 32].into(), provider: [2; 20].into() }.abi_encode());
    let escrow = dev::escrow().unwrap();
    let line = refused("eth_call", json!([{ "to": escrow, "input": data }, "latest"])).await;
    assert!(line.contains("nothing to take"), "revert data is decoded: {line}");
}
