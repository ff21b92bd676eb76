//! `conun node earnings`: what a node has earned, from its own books and, where there is a chain, from there.

use std::collections::BTreeMap;

use conun_chain::EvmLedger;
use conun_node::{
    till::{AccountEarnings, StageEarnings, Till},
    till_path,
};
use conun_storage::datadir::read_key;
use conun_types::{
    AccountId, Address, Amount, Error, JobId, Result,
    ledger::{Ledger, Provider},
};
use serde::Serialize;

use crate::{args::Earnings, human, print};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    node: Address,
    /// What the node's book says: all that it has vouchers for.
    earned: Amount,
    /// What the registry knows of the node and its operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<Provider>,
    unpaid_receipts: u64,
    accounts: Vec<AccountRow>,
    stages: Vec<StageRow>,
}

#[derive(Serialize)]
struct AccountRow {
    account: AccountId,
    #[serde(flatten)]
    earnings: AccountEarnings,
    /// What the chain has credited, and paid out.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_chain: Option<conun_types::ledger::Earned>,
}

#[derive(Serialize)]
struct StageRow {
    job: JobId,
    stage: u32,
    #[serde(flatten)]
    earnings: StageEarnings,
}

/// Prints what the node in a folder has earned.
pub(crate) async fn run(args: Earnings) -> Result<()> {
    let path = till_path(&args.dir);
    let node = read_key(&args.dir)?;
    if !path.exists() {
        return Err(Error::data(format!("the node in {} has never worked for pay", args.dir.display()))
            .with_hint("start it with --chain"));
    }
    let till = Till::read(&path)?;
    let ledger = match args.chain.config(None)? {
        Some(config) => Some(EvmLedger::connect(config, node.clone()).await?),
        None => None,
    };
    let mut accounts = Vec::new();
    for (account, earnings) in till.accounts() {
        let on_chain = match &ledger {
            Some(ledger) => Some(ledger.earned(account, &node.address()).await?),
            None => None,
        };
        accounts.push(AccountRow { account: *account, earnings: earnings.clone(), on_chain });
    }
    let provider = match &ledger {
        Some(ledger) => Some(ledger.provider(&node.address()).await?),
        None => None,
    };
    let report = report(node.address(), provider, accounts, till.stages());
    if args.json { print::json(&report) } else { tell(&report) }
}

fn report(
    node: Address,
    provider: Option<Provider>,
    accounts: Vec<AccountRow>,
    stages: &BTreeMap<(JobId, u32), StageEarnings>,
) -> Report {
    let row = |((job, stage), earnings): (&(JobId, u32), &StageEarnings)| StageRow {
        job: *job,
        stage: *stage,
        earnings: earnings.clone(),
    };
    Report {
        node,
        provider,
        earned: accounts.iter().map(|a| a.earnings.voucher.voucher.cumulative).sum(),
        unpaid_receipts: stages.values().map(|s| s.unpaid).sum(),
        accounts,
        stages: stages.iter().map(row).collect(),
    }
}

fn tell(report: &Report) -> Result<()> {
    let row = |row: &StageRow| {
        let mut note = row.earnings.penalties.join("; ");
        if row.earnings.unpaid > 0 {
            note = format!("{} not paid yet{}{note}", row.earnings.unpaid, if note.is_empty() { "" } else { "; " });
        }
        vec![
            row.job.to_string(),
            row.stage.to_string(),
            human::count(row.earnings.tasks),
            human::count(row.earnings.units.0),
            row.earnings.amount.to_string(),
            note,
        ]
    };
    let rows: Vec<_> = report.stages.iter().map(row).collect();
    print::table(&["job", ">stage", ">tasks", ">units", ">tokens", "not paid"], &rows)?;
    print::line("")?;
    for account in &report.accounts {
        let chain = account.on_chain.map(|c| format!(", {} on the chain, {} drawn", c.earned, c.drawn));
        let vouched = account.earnings.voucher.voucher.cumulative;
        print::line(&format!(
            "account {}: vouchers for {vouched} tokens{}",
            account.account,
            chain.unwrap_or_default()
        ))?;
    }
    if let Some(provider) = &report.provider {
        let operator = provider.operator.map_or_else(|| "none".to_owned(), |operator| operator.to_string());
        print::line(&format!("operator {operator}, stake {} tokens, pay goes to {}", provider.stake, provider.payout))?;
        if provider.unbonding > Amount::ZERO {
            print::line(&format!("{} tokens of stake are on their way out", provider.unbonding))?;
        }
        if provider.convictions > 0 {
            print::line(&format!("the operator was slashed {} times", provider.convictions))?;
        }
        if provider.revoked {
            print::line("the node's key was taken back: it earns nothing more")?;
        }
    }
    print::line(&format!("node {} has earned {} tokens", report.node, report.earned))
}
