//! `conun chain`: what people do with their money: deposit, withdraw, stake.

use std::sync::Arc;

use conun_chain::{ChainConfig, Deployment, EvmLedger, dev};
use conun_engine::{PayStatus, Settled};
use conun_node::{till::Till, till_path};
use conun_storage::datadir::read_key;
use conun_types::{
    Address, Amount, Clock, Error, ErrorKind, NodeId, NodeKey, Result, SystemClock,
    ledger::{Included, Ledger},
};
use serde::Serialize;

use crate::{
    args::{Balance, Chain, ChainCommand, Deploy, Deposit, Listing, Sender, Settle, Stake, Withdraw},
    context::Context,
    human, print,
};

/// Dispatches `chain deploy|status|balance|transfer|deposit|withdraw|settle|stake|unstake|revoke`.
pub(crate) async fn run(args: Chain, context: &Context) -> Result<()> {
    match args.command {
        ChainCommand::Deploy(args) => deploy(&args).await,
        ChainCommand::Status(args) => status(&args, context).await,
        ChainCommand::Balance(args) => balance(&args).await,
        ChainCommand::Deposit(args) => deposit(&args, context).await,
        ChainCommand::Withdraw(args) => withdraw(&args, context).await,
        ChainCommand::Settle(args) => settle(&args, context).await,
        ChainCommand::Stake(args) => stake(&args).await,
        ChainCommand::Unstake { amount, sender } => unstake(amount, &sender).await,
        ChainCommand::Transfer { to, amount, sender } => transfer(&to, amount, &sender).await,
        ChainCommand::Revoke { node, sender } => revoke(&node, &sender).await,
    }
}

impl Sender {
    fn key(&self) -> Result<NodeKey> {
        self.dir.key(self.wallet.as_deref())
    }

    /// The chain, with transactions of the wallet. The chain first: whether it is there is known without a password.
    async fn ledger(&self) -> Result<Arc<EvmLedger>> {
        let config = self.config(self.chain.existing()?)?;
        EvmLedger::connect(config, self.key()?).await
    }

    /// The chain. Everybody knows the keys of development accounts: they are for development chains only.
    fn config(&self, mut config: ChainConfig) -> Result<ChainConfig> {
        if self.wallet.as_deref().is_some_and(|wallet| wallet.starts_with("dev:")) {
            config.chain_id.get_or_insert(dev::CHAIN_ID);
            if config.chain_id != Some(dev::CHAIN_ID) {
                return Err(Error::usage("everybody knows the keys of dev:N: they are for development chains only")
                    .with_hint("use a wallet of your own: conun wallet new"));
            }
        }
        Ok(config)
    }
}

/// What was done, in order.
#[derive(Serialize)]
struct Done {
    done: Vec<Step>,
}

/// One transaction.
#[derive(Serialize)]
struct Step {
    what: String,
    tx: String,
    block: u64,
    gas: u64,
}

impl Done {
    fn new() -> Self {
        Self { done: Vec::new() }
    }

    fn add(&mut self, what: impl Into<String>, included: Included) {
        let tx = conun_types::hex32::text(&included.tx);
        self.done.push(Step { what: what.into(), tx, block: included.block, gas: included.gas });
    }

    fn print(&self, json: bool) -> Result<()> {
        if json {
            return print::json(self);
        }
        let row = |s: &Step| vec![s.what.clone(), human::count(s.gas), s.block.to_string(), s.tx.clone()];
        let rows: Vec<_> = self.done.iter().map(row).collect();
        print::table(&["done", ">gas", ">block", "transaction"], &rows)
    }
}

async fn deploy(args: &Deploy) -> Result<()> {
    let (config, key) = (args.sender.config(args.sender.chain.required()?)?, args.sender.key()?);
    let deployment = conun_chain::deploy(&config, &key, args.supply, args.penalty, key.address()).await?;
    if args.sender.json {
        return print::json(&deployment);
    }
    let Deployment { chain_id, token, registry, escrow, disputes, .. } = deployment;
    print::line(&format!(
        "chain     {chain_id}\ntoken     {token}\nregistry  {registry}\nescrow    {escrow}\ndisputes  {disputes}\n\n\
         Name the escrow with --escrow or CONUN_ESCROW; it knows the others."
    ))
}

async fn status(args: &Listing, context: &Context) -> Result<()> {
    let status = context.client(&args.connect).await?.account().await?;
    if args.json { print::json(&status) } else { print::line(&tell_status(&status)) }
}

fn tell_status(status: &PayStatus) -> String {
    let mut lines = vec![
        format!("chain      {}, escrow {}", status.domain.chain_id, status.domain.escrow),
        format!("account    {}", status.id),
        format!("price      {} tokens a work unit", status.price),
    ];
    match &status.account {
        None => lines.push("           not opened: deposit tokens with conun chain deposit AMOUNT".to_owned()),
        Some(account) => {
            lines.push(format!("client     {}", account.client));
            lines.extend(account.spender.map(|s| format!("spender    {s}, up to {} tokens", account.spender_cap)));
            lines.push(format!("deposit    {} tokens", account.deposit));
            lines.push(format!("settled    {} tokens in {} batches", account.earned, account.batches));
            if account.refund_at != 0 {
                lines.push(format!("closing    the rest can be had after {} (Unix seconds)", account.refund_at));
            }
        }
    }
    lines.push(format!(
        "owed       {} tokens in {} stage records, not settled yet",
        status.open_amount, status.open_records
    ));
    lines.push(format!("left       {} tokens for new jobs", status.left));
    lines.join("\n")
}

async fn balance(args: &Balance) -> Result<()> {
    let address = match args.address {
        Some(address) => address,
        None => args.dir.key(args.wallet.as_deref())?.address(),
    };
    let ledger = EvmLedger::connect(args.chain.existing()?, dev::key(0)?).await?;
    let (tokens, token) = (ledger.balance(&address).await?, ledger.deployment().token);
    if args.json {
        return print::json(&serde_json::json!({ "address": address, "tokens": tokens, "token": token }));
    }
    print::line(&format!("{address} has {tokens} tokens (of the contract {token})"))
}

/// Opens the coordinator's account, or adds to it.
async fn deposit(args: &Deposit, context: &Context) -> Result<()> {
    let client = context.client(&args.connect).await?;
    let status = client.account().await?;
    let ledger = args.sender.ledger().await?;
    check_same_chain(&status, ledger.as_ref())?;
    let coordinator = client.status().await?.id.address()?;
    let mut done = Done::new();
    match &status.account {
        None => {
            let cap = args.cap.unwrap_or(args.amount);
            let included = ledger.open(&status.id, args.amount, Some(coordinator), cap).await?;
            done.add(
                format!("opened the account with {} tokens, the coordinator may spend {cap}", args.amount),
                included,
            );
        }
        // Whoever opened it first, perhaps to have others fill it, would get the rest.
        Some(account) if account.refund_at != 0 => {
            return Err(Error::data("the account is being closed: its client asked for the rest").with_hint(
                "start the coordinator with another --account, any 64 hexadecimal digits, and deposit into that",
            ));
        }
        Some(account) if account.client != ledger.sender() && !args.gift => {
            return Err(Error::data(format!("the account is {}'s, not the wallet's", account.client))
                .with_hint("add to it all the same with --gift, or start the coordinator with another --account"));
        }
        Some(account) => {
            done.add(format!("deposited {} tokens", args.amount), ledger.top_up(&status.id, args.amount).await?);
            // Who adds to an account wants it spent; only its client may say so.
            let cap = args.cap.unwrap_or_else(|| account.spender_cap.plus(args.amount));
            if account.client == ledger.sender() && account.client != coordinator {
                let included = ledger.set_spender(&status.id, Some(coordinator), cap).await?;
                done.add(format!("the coordinator may spend {cap} tokens in all"), included);
            }
        }
    }
    done.print(args.sender.json)
}

fn check_same_chain(status: &PayStatus, ledger: &EvmLedger) -> Result<()> {
    let here = ledger.domain();
    if here == status.domain {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the coordinator pays on chain {} by {}, this is chain {} with {}",
        status.domain.chain_id, status.domain.escrow, here.chain_id, here.escrow
    ))
    .with_hint("use the --chain and --escrow of the coordinator"))
}

/// Everything that can be had: a node's pay, or the rest of a deposit and free stake.
async fn withdraw(args: &Withdraw, context: &Context) -> Result<()> {
    let ledger = args.sender.ledger().await?;
    let mut done = Done::new();
    let went = match (&args.node, args.deposit) {
        (Some(folder), _) => draw(ledger.as_ref(), folder, &mut done).await,
        (None, true) => {
            let status = context.client(&args.connect).await?.account().await?;
            refund(ledger.as_ref(), &status, &mut done).await
        }
        (None, false) => free_stake(ledger.as_ref(), &mut done).await,
    };
    if let Err(error) = went {
        // What was done before it failed is told first.
        if !done.done.is_empty() {
            done.print(args.sender.json)?;
        }
        return Err(error);
    }
    if done.done.is_empty() {
        return Err(Error::new(ErrorKind::Data, "there is nothing to withdraw").with_hint(
            "see conun chain status, conun node earnings; unbonding stake takes 21 days, a deposit's rest 7",
        ));
    }
    done.print(args.sender.json)
}

/// Redeems the vouchers of the node in `folder` that are worth more than the chain has credited, and has its pay sent.
async fn draw(ledger: &EvmLedger, folder: &std::path::Path, done: &mut Done) -> Result<()> {
    let node = read_key(folder)?.address();
    let till = Till::read(&till_path(folder))?;
    for (id, account) in till.accounts() {
        let voucher = &account.voucher;
        if voucher.voucher.cumulative > ledger.earned(id, &node).await?.earned {
            let worth = voucher.voucher.cumulative;
            match ledger.redeem(voucher).await {
                Ok(included) => done.add(format!("redeemed a voucher for {worth} tokens in all"), included),
                // One that cannot be redeemed must not keep the others.
                Err(error) => print::tell(&format!("warning: the voucher of account {id} stays: {error}")),
            }
        }
        let earned = ledger.earned(id, &node).await?;
        if earned.earned > earned.drawn {
            let payout = ledger.provider(&node).await?.payout;
            let amount = earned.earned.less(earned.drawn);
            done.add(format!("drew {amount} tokens to {payout}"), ledger.draw(id, &node).await?);
        }
    }
    Ok(())
}

/// Asks for the rest of a deposit, or takes it where the time has come.
async fn refund(ledger: &EvmLedger, status: &PayStatus, done: &mut Done) -> Result<()> {
    let Some(account) = status.account.filter(|account| account.client == ledger.sender()) else {
        return Err(Error::data("the coordinator's account is not the wallet's").with_hint("see conun chain status"));
    };
    if account.refund_at == 0 {
        let included = ledger.ask_refund(&status.id).await?;
        done.add("asked for the rest of the deposit: it can be had in 7 days, until then vouchers count", included);
        return Ok(());
    }
    let rest = account.deposit.less(account.earned);
    done.add(format!("took back {rest} tokens"), ledger.refund(&status.id).await?);
    Ok(())
}

async fn free_stake(ledger: &EvmLedger, done: &mut Done) -> Result<()> {
    let operator = ledger.provider(&ledger.sender()).await?;
    let now = SystemClock.unix_seconds();
    if operator.unbonding > Amount::ZERO && operator.release_at <= now {
        done.add(format!("took out {} tokens of stake", operator.unbonding), ledger.withdraw_stake().await?);
    }
    Ok(())
}

async fn settle(args: &Settle, context: &Context) -> Result<()> {
    let settled = context.client(&args.listing.connect).await?.settle().await?;
    if args.listing.json {
        return print::json(&serde_json::json!({ "settled": settled }));
    }
    if settled.is_empty() {
        return print::line("nothing is owed");
    }
    let row = |s: &Settled| {
        let (stages, gas) = (human::count(s.stages as u64), human::count(s.included.gas));
        vec![s.batch.to_string(), stages, s.amount.to_string(), gas, s.root.clone()]
    };
    let rows: Vec<_> = settled.iter().map(row).collect();
    print::table(&[">batch", ">records", ">tokens", ">gas", "root"], &rows)
}

async fn stake(args: &Stake) -> Result<()> {
    let ledger = args.sender.ledger().await?;
    // Everything that can be wrong is found before anything is spent.
    let mut nodes = Vec::new();
    for folder in &args.node {
        let node = read_key(folder)?;
        match ledger.provider(&node.address()).await?.operator {
            None => nodes.push(node),
            Some(operator) if operator == ledger.sender() => {}
            Some(operator) => {
                return Err(Error::data(format!("node {} belongs to the operator {operator}", node.address()))
                    .with_hint("a node has one operator for ever: give it a new data folder"));
            }
        }
    }
    let mut done = Done::new();
    let went = stake_for(ledger.as_ref(), args, &nodes, &mut done).await;
    if went.is_ok() || !done.done.is_empty() {
        done.print(args.sender.json)?;
    }
    went
}

async fn stake_for(ledger: &EvmLedger, args: &Stake, nodes: &[NodeKey], done: &mut Done) -> Result<()> {
    done.add(format!("staked {} tokens", args.amount), ledger.stake(args.amount).await?);
    if let Some(payout) = &args.payout {
        done.add(format!("pay goes to {payout}"), ledger.set_payout(payout).await?);
    }
    for node in nodes {
        let consent = node.sign(&ledger.consent(&ledger.sender()));
        let included = ledger.delegate(&node.address(), &consent).await?;
        done.add(format!("stands for node {}", node.address()), included);
    }
    Ok(())
}

async fn transfer(to: &Address, amount: Amount, sender: &Sender) -> Result<()> {
    let ledger = sender.ledger().await?;
    let mut done = Done::new();
    done.add(format!("sent {amount} tokens to {to}"), ledger.transfer(to, amount).await?);
    done.print(sender.json)
}

async fn unstake(amount: Amount, sender: &Sender) -> Result<()> {
    let ledger = sender.ledger().await?;
    let mut done = Done::new();
    let included = ledger.unstake(amount).await?;
    done.add(format!("{amount} tokens are on their way out: take them with conun chain withdraw in 21 days"), included);
    done.print(sender.json)
}

async fn revoke(node: &str, sender: &Sender) -> Result<()> {
    let address: Address = match (node.starts_with("0x"), node.parse::<NodeId>()) {
        (true, _) => node.parse()?,
        (false, Ok(id)) => id.address()?,
        (false, Err(_)) => read_key(std::path::Path::new(node))?.address(),
    };
    let ledger = sender.ledger().await?;
    let mut done = Done::new();
    done.add(
        format!("took back the key of node {address}: it earns nothing from now on"),
        ledger.revoke(&address).await?,
    );
    done.print(sender.json)
}
