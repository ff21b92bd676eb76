//! The end of the demo: what is owed is settled on the embedded chain, read back from its events, compared with the
//! receipts, and drawn by the providers.

use std::collections::BTreeMap;

use conun_api::Client;
use conun_types::{Address, Amount, Error, JobId, NodeId, Result};
use serde::Serialize;

use crate::command::{devnet::Money, job::transcript};

/// What was paid. Issue 3 fixes the first names.
#[derive(Serialize)]
pub(super) struct Settlement {
    /// Chain id.
    pub(super) chain: u64,
    /// Of all settlements.
    pub(super) gas: u64,
    /// Stage records.
    pub(super) stages: usize,
    /// Tokens (in the smallest unit) by the address of the node that earned them.
    pub(super) paid: BTreeMap<Address, Amount>,
    /// Merkle-sum root of the (last) batch.
    pub(super) root: String,
    /// Whether the records in the events give the roots and are what the receipts add up to, for every job.
    pub(super) matched: bool,
    /// Of the payout address behind each node.
    pub(super) balances: Vec<Balance>,
}

/// What a provider has.
#[derive(Serialize)]
pub(super) struct Balance {
    pub(super) node: NodeId,
    /// The node's, as in `paid`.
    pub(super) address: Address,
    pub(super) index: Option<usize>,
    pub(super) payout: Address,
    pub(super) before: Amount,
    pub(super) after: Amount,
}

/// Settles, draws, and looks.
pub(super) async fn settle(client: &Client, money: &Money, jobs: &[JobId], nodes: &[NodeId]) -> Result<Settlement> {
    let ledger = money.ledger().await?;
    let account = client.account().await?.id;
    let mut balances = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let address = node.address()?;
        let payout = ledger.provider(&address).await?.payout;
        let before = ledger.balance(&payout).await?;
        balances.push(Balance { node: *node, address, index: Some(index), payout, before, after: before });
    }
    let settled = client.settle().await?;
    let root = settled.last().map(|batch| batch.root.clone()).ok_or_else(|| Error::internal("nothing was settled"))?;
    let batches = ledger.settlements(&account).await?;
    for job in jobs {
        let transcript = transcript(client, &job.to_string()).await?;
        transcript.verify_settled(&transcript.verify()?, &batches)?;
    }
    let mut paid = BTreeMap::new();
    for balance in &mut balances {
        let provider = balance.node.address()?;
        let earned = ledger.earned(&account, &provider).await?.earned;
        if earned > Amount::ZERO {
            ledger.draw(&account, &provider).await?;
            paid.insert(provider, earned);
        }
        balance.after = ledger.balance(&balance.payout).await?;
        if balance.after.less(balance.before) != earned {
            return Err(Error::verification(format!("node {} earned {earned} and got something else", balance.node)));
        }
    }
    Ok(Settlement {
        chain: ledger.domain().chain_id,
        gas: settled.iter().map(|batch| batch.included.gas).sum(),
        stages: settled.iter().map(|batch| batch.stages).sum(),
        paid,
        root,
        // Whatever does not match is an error above.
        matched: true,
        balances,
    })
}
