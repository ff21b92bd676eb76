//! Pay: what verdicts accepted becomes vouchers for the nodes and settlements on the chain.
//!
//! What it knows: the account, prices, the book, the port to the ledger. What it must not know: plans, votes, how a
//! transaction looks. Neither a verdict nor an answer waits for pay: a job only asks whether there is money left.

mod book;
mod teller;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conun_types::{
    AccountId, Address, Amount, Clock, Error, ErrorKind, JobId, NodeId, NodeKey, Result, SignedReceipt,
    eip712::Domain,
    hex32,
    ledger::{Account, Included, Ledger},
    payment::SignedSettlement,
    port::Network,
    wire::{Ask, Penalty},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub(crate) use book::Accepted;
use book::Book;

/// How a coordinator pays.
#[derive(Clone)]
pub struct PayConfig {
    /// The chain.
    pub ledger: Arc<dyn Ledger>,
    /// The account that pays; the coordinator's key is its client or its spender.
    pub account: AccountId,
    /// What a work unit is paid.
    pub price: Amount,
    /// What keeping a byte for a day is worth: for quotes of tables; storage itself is not settled yet.
    pub byte_day: Amount,
    /// Folder of the book.
    pub dir: PathBuf,
    /// How often open records are settled without being asked; never, where this is zero.
    pub settle_every: Duration,
}

/// What a coordinator's account looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayStatus {
    /// The chain and the escrow.
    pub domain: Domain,
    /// The account.
    pub id: AccountId,
    /// As the chain has it; nothing where it was never opened.
    pub account: Option<Account>,
    /// Price of a work unit.
    pub price: Amount,
    /// Price of keeping a byte for a day.
    pub byte_day: Amount,
    /// Records that are not settled yet.
    pub open_records: usize,
    /// What they add up to.
    pub open_amount: Amount,
    /// What new jobs may cost.
    pub left: Amount,
}

/// What a settlement did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Number of the batch.
    pub batch: u32,
    /// Root of the Merkle-sum tree over its records.
    pub root: String,
    /// Records.
    pub stages: usize,
    /// What they add up to.
    pub amount: Amount,
    /// The transaction.
    pub included: Included,
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The chain has it.
    Settled(Included),
    /// Another batch has its number: by the client's own key, say.
    Overtaken,
    /// Neither.
    Open,
}

/// How long what the chain said of the account is believed while it cannot be asked.
const BELIEVED_FOR: Duration = Duration::from_secs(300);

/// The pay office of a coordinator.
pub(crate) struct Payments {
    config: PayConfig,
    key: NodeKey,
    network: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
    /// Something is owed that nodes have not signed for.
    wake: Notify,
    /// What the chain last said of the account, and when.
    seen: Mutex<Option<(Duration, Option<Account>)>>,
    /// Whose the nodes are, as the chain last said; nobody's, where the key was taken back.
    operators: Mutex<HashMap<NodeId, Option<Address>>>,
    /// Who was given orders of which running job.
    orders: Mutex<HashMap<JobId, BTreeSet<NodeId>>>,
    /// What the tasks in flight of all jobs cost at least.
    reserved: Mutex<Amount>,
    /// One settlement at a time.
    settling: tokio::sync::Mutex<()>,
}

impl Payments {
    /// Opens the book and starts paying.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn start(
        config: PayConfig,
        key: NodeKey,
        network: Arc<dyn Network>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        std::fs::create_dir_all(&config.dir).map_err(|e| Error::from(e).context(config.dir.display()))?;
        // A book an account: amounts are cumulative within one.
        let path = config.dir.join(format!("book-{}.log", hex_prefix(&config.account)));
        let book = Mutex::new(Book::open(&path, config.account)?);
        let (wake, seen, operators, orders, reserved, settling) = Default::default();
        let payments =
            Arc::new(Self { config, key, network, clock, book, wake, seen, operators, orders, reserved, settling });
        tokio::spawn(teller::run(Arc::downgrade(&payments)));
        tokio::spawn(watch_keys(Arc::downgrade(&payments)));
        if !payments.config.settle_every.is_zero() {
            tokio::spawn(settle_now_and_then(Arc::downgrade(&payments)));
        }
        Ok(payments)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn domain(&self) -> Domain {
        self.config.ledger.domain()
    }

    pub(crate) fn account(&self) -> AccountId {
        self.config.account
    }

    pub(crate) fn price(&self) -> Amount {
        self.config.price
    }

    /// Whether a node that asks so much may be given work: it is paid where we pay, for no more, and its key is good.
    pub(crate) fn suits(&self, node: &NodeId, ask: &Ask) -> bool {
        let known = self.operator(node).is_some();
        let fits = ask.price <= self.config.price && ask.exposure >= Ask::LEAST_EXPOSURE;
        known && ask.domain == self.domain() && fits
    }

    /// Whose votes those of `node` are: its operator's, where the chain names one, else its own. Nothing where the chain was
    /// not asked yet, or the key was taken back.
    pub(crate) fn operator(&self, node: &NodeId) -> Option<Address> {
        self.operators.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied().flatten()
    }

    /// Asks the chain whose the volunteers are: all of them, or those that it was not asked about yet.
    async fn look_for_operators(&self, all: bool) {
        for (peer, _) in self.network.volunteers().into_iter().filter(|(_, hello)| hello.pay.is_some()) {
            let known = || self.operators.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&peer.id);
            if !all && known() {
                continue;
            }
            let Ok(address) = peer.id.address() else { continue };
            let Ok(provider) = self.config.ledger.provider(&address).await else { return };
            let operator = (!provider.revoked).then(|| provider.operator.unwrap_or(address));
            self.operators.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.id, operator);
        }
    }

    /// Notes what a verdict accepted, and pays at once where the node has waited for too many stages.
    pub(crate) fn accepted(&self, work: Accepted) -> Result<()> {
        let node = work.node;
        let waiting = {
            let mut book = self.book();
            book.accept(work)?;
            book.waiting_stages(&node) * 2
        };
        // Only then are the volunteers looked through: nobody wants to be paid sooner.
        if waiting >= Ask::LEAST_EXPOSURE as usize && waiting >= self.exposure(&node) {
            self.book().owe_now(&node)?;
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Stages for which `node` works unpaid.
    fn exposure(&self, node: &NodeId) -> usize {
        let volunteers = self.network.volunteers();
        let ask = volunteers.into_iter().find(|(peer, _)| peer.id == *node).and_then(|(_, hello)| hello.pay);
        ask.map_or(usize::MAX, |ask| ask.exposure as usize)
    }

    /// Notes that a receipt is not paid.
    pub(crate) fn refused(&self, node: NodeId, penalty: Penalty) -> Result<()> {
        self.book().refuse(node, penalty)
    }

    /// Takes back what was accepted of a task; tells whether it could: nothing of it may be owed yet.
    pub(crate) fn take_back(&self, task: Vec<(NodeId, Penalty)>) -> Result<bool> {
        self.book().take_back(task)
    }

    /// `node` cheated in `job`.
    pub(crate) fn caught(&self, job: JobId, node: NodeId, reason: &str) {
        let reason = format!("nothing of this job is paid, since the node was caught in it: {reason}");
        if let Err(error) = self.book().catch(job, node, &reason) {
            tracing::error!(%error, %node, "a penalty is not in the book");
        }
    }

    /// `node`, which was caught in `job`, is not to blame.
    pub(crate) fn cleared(&self, job: JobId, node: NodeId) {
        if let Err(error) = self.book().clear(job, node) {
            tracing::error!(%error, %node, "that a node is not to blame is not in the book");
        }
    }

    /// `node` was given an order of `job`.
    pub(crate) fn ordered(&self, job: JobId, node: NodeId) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).entry(job).or_default().insert(node);
    }

    /// `job` has ended: what it accepted is owed.
    pub(crate) fn end(&self, job: JobId) {
        let ordered = self.orders.lock().unwrap_or_else(PoisonError::into_inner).remove(&job).unwrap_or_default();
        if let Err(error) = self.book().end(job, &ordered) {
            tracing::error!(%error, %job, "what a job owes is not in the book");
        }
        self.wake.notify_one();
    }

    /// What jobs may cost from now on: what the account has for us, less what is promised and not on the chain yet (what was
    /// redeemed meanwhile is counted twice: rather too little than too much).
    pub(crate) async fn left(&self) -> Result<Amount> {
        let account = self.look().await?.ok_or_else(|| self.no_account())?;
        Ok(self.left_of(&account))
    }

    fn left_of(&self, account: &Account) -> Amount {
        let promised = self.book().promised();
        let left = account.left_for(&self.key.address());
        if account.refund_at == 0 { left.less(promised) } else { Amount::ZERO }
    }

    /// Sets `amount` aside for a task of any job, until [`Payments::give_back`]; all that is set aside now.
    pub(crate) fn set_aside(&self, amount: Amount) -> Amount {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved = reserved.plus(amount);
        *reserved
    }

    /// Whether the account has what is set aside.
    ///
    /// # Errors
    /// Budget where it has not.
    pub(crate) async fn cover(&self, all: Amount) -> Result<()> {
        let left = self.left().await?;
        if left >= all {
            return Ok(());
        }
        let text = format!("the account has {left} left, running tasks and the next one cost {all} or more");
        Err(Error::new(ErrorKind::Budget, text).with_hint("deposit more with: conun chain deposit AMOUNT"))
    }

    /// What was set aside is not needed any more.
    pub(crate) fn give_back(&self, amount: Amount) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved = reserved.less(amount);
    }

    fn forget_seen(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn look(&self) -> Result<Option<Account>> {
        let now = self.clock.now();
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, account)) = seen
            && now.saturating_sub(at) < Duration::from_secs(2)
        {
            return Ok(account);
        }
        match self.config.ledger.account(&self.config.account).await {
            Ok(account) => {
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, account));
                Ok(account)
            }
            // Jobs go on for a while where the chain cannot be asked: the book knows what was promised since.
            Err(error) => match seen {
                Some((at, account)) if now.saturating_sub(at) < BELIEVED_FOR => {
                    tracing::warn!(%error, "the chain cannot be asked how the account stands");
                    Ok(account)
                }
                _ => Err(error),
            },
        }
    }

    fn no_account(&self) -> Error {
        Error::new(ErrorKind::Budget, format!("the account {} was never opened", self.config.account))
            .with_hint("deposit tokens with: conun chain deposit AMOUNT")
    }

    /// Fails where nothing is left to pay a job with.
    pub(crate) async fn require_funds(&self) -> Result<()> {
        if self.left().await? > Amount::ZERO {
            return Ok(());
        }
        // Tokens may have come since the chain was asked last.
        self.forget_seen();
        if self.left().await? > Amount::ZERO {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Budget, "the account has nothing left for this coordinator")
            .with_hint("deposit more with: conun chain deposit AMOUNT"))
    }

    /// How the account stands.
    pub(crate) async fn status(&self) -> Result<PayStatus> {
        let account = self.config.ledger.account(&self.config.account).await?;
        let (open_records, open_amount) = {
            let book = self.book();
            (book.open_records(), book.open_amount())
        };
        Ok(PayStatus {
            domain: self.domain(),
            id: self.config.account,
            account,
            price: self.config.price,
            byte_day: self.config.byte_day,
            open_records,
            open_amount,
            left: account.map_or(Amount::ZERO, |account| self.left_of(&account)),
        })
    }

    /// Settles everything that is open, batch by batch.
    ///
    /// # Errors
    /// The ledger's. What was not settled stays open; trying again never pays twice.
    pub(crate) async fn settle(&self) -> Result<Vec<Settled>> {
        let _one = self.settling.lock().await;
        let mut done = Vec::new();
        while let Some(settlement) = self.next_batch().await? {
            done.push(self.send(settlement).await?);
        }
        Ok(done)
    }

    /// The batch that is in flight, or the next one, signed and written down.
    async fn next_batch(&self) -> Result<Option<SignedSettlement>> {
        if let Some(batch) = self.book().batch() {
            return Ok(Some(batch.clone()));
        }
        if self.book().open_records() == 0 {
            return Ok(None);
        }
        let account = self.config.ledger.account(&self.config.account).await?.ok_or_else(|| self.no_account())?;
        let most = account.left_for(&self.key.address());
        let mut book = self.book();
        let Some(settlement) = book.next_settlement(account.batches, most)? else {
            let text = format!("{} tokens are owed and the account has {most}", book.open_amount());
            return Err(Error::new(ErrorKind::Budget, text).with_hint("deposit more with: conun chain deposit AMOUNT"));
        };
        let signed = SignedSettlement::sign(settlement, &self.domain(), &self.key)?;
        book.sign_batch(signed.clone())?;
        Ok(Some(signed))
    }

    async fn send(&self, signed: SignedSettlement) -> Result<Settled> {
        let included = match self.config.ledger.settle(&signed).await {
            Ok(included) => included,
            Err(error) => match self.look_for(&signed).await? {
                Fate::Settled(included) => included,
                fate => {
                    // What was refused for want of money may be settled in smaller batches.
                    if fate == Fate::Overtaken || error.kind == ErrorKind::Budget {
                        self.book().dropped()?;
                    }
                    return Err(error.context("settlement"));
                }
            },
        };
        self.book().settled()?;
        self.forget_seen();
        let tree = signed.settlement.tree()?;
        let settled = Settled {
            batch: signed.settlement.batch,
            root: hex32::text(&tree.root()),
            stages: signed.settlement.records.len(),
            amount: Amount(tree.total()),
            included,
        };
        tracing::info!(batch = settled.batch, stages = settled.stages, amount = %settled.amount, "settled");
        Ok(settled)
    }

    /// What became of a batch that seemed to fail: only what the chain itself says counts.
    async fn look_for(&self, signed: &SignedSettlement) -> Result<Fate> {
        let batches = self.config.ledger.settlements(&self.config.account).await?;
        let root = signed.settlement.tree()?.root();
        let found = batches.into_iter().find(|batch| batch.batch == signed.settlement.batch);
        Ok(match found {
            Some(batch) if batch.root == root => Fate::Settled(batch.included),
            Some(_) => Fate::Overtaken,
            None => Fate::Open,
        })
    }

    /// Shows the chain two receipts that a node signed for one order.
    pub(crate) async fn prove_equivocation(&self, first: &SignedReceipt, second: &SignedReceipt) -> Result<Included> {
        self.config.ledger.prove_equivocation(first, second).await
    }
}

fn hex_prefix(account: &AccountId) -> String {
    account.to_string().chars().skip(2).take(16).collect()
}

/// How often the chain is asked about volunteers that it was not asked about.
const WATCH: Duration = Duration::from_millis(200);
/// Every so many times it is asked about all of them: keys are delegated and taken back.
const WATCH_ALL: u64 = 25;

async fn watch_keys(payments: std::sync::Weak<Payments>) {
    for round in 0u64.. {
        let Some(payments) = payments.upgrade() else { return };
        payments.look_for_operators(round.is_multiple_of(WATCH_ALL)).await;
        drop(payments);
        tokio::time::sleep(WATCH).await;
    }
}

async fn settle_now_and_then(payments: std::sync::Weak<Payments>) {
    loop {
        let Some(every) = payments.upgrade().map(|p| p.config.settle_every) else { return };
        tokio::time::sleep(every).await;
        let Some(payments) = payments.upgrade() else { return };
        if let Err(error) = payments.settle().await {
            tracing::warn!(%error, "what is owed could not be settled; it will be tried again");
        }
    }
}
