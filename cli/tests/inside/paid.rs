//! Worlds in which work is paid, on the embedded chain.

use std::{path::Path, sync::Arc, time::Duration};

use conun_chain::{Backend, ChainConfig, EvmLedger, dev};
use conun_engine::PayConfig;
use conun_node::PayTerms;
use conun_types::{AccountId, Amount, NodeKey, ledger::Ledger};

use crate::world::World;

pub(crate) const ACCOUNT: AccountId = AccountId([7; 32]);
pub(crate) const PRICE: Amount = Amount(1_000);
/// Stages that nodes work for unpaid.
pub(crate) const EXPOSURE: u32 = 8;

/// The embedded chain in `root`, for transactions of `key`.
pub(crate) fn ledger(root: &Path, key: &NodeKey) -> Arc<EvmLedger> {
    let config = ChainConfig::new(Backend::Embedded(root.join("chain")));
    let (key, connect) = (key.clone(), EvmLedger::connect);
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(connect(config, key))).unwrap()
}

/// Terms of a node, and of the coordinator: development account 0 is client and coordinator's purse in one.
pub(crate) fn pay(root: &Path, node: Option<&NodeKey>) -> (Option<PayTerms>, Option<PayConfig>) {
    let Some(node) = node else {
        let config = PayConfig {
            ledger: ledger(root, &dev::key(0).unwrap()),
            account: ACCOUNT,
            price: PRICE,
            byte_day: Amount::ZERO,
            dir: root.join("payments"),
            settle_every: Duration::ZERO,
        };
        return (None, Some(config));
    };
    let redeem_after = Duration::from_secs(3600);
    let terms = PayTerms { ledger: ledger(root, node), price: PRICE, exposure: EXPOSURE, redeem_after };
    (Some(terms), None)
}

/// Opens the coordinator's account with a thousand tokens; the ledger of whoever paid them.
pub(crate) async fn fund(world: &World) -> Arc<EvmLedger> {
    let bank = ledger(world.root.path(), &dev::key(0).unwrap());
    let deposit: Amount = "1000".parse().unwrap();
    bank.open(&ACCOUNT, deposit, Some(world.engine.id().address().unwrap()), deposit).await.unwrap();
    bank
}
