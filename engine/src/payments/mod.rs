//! Pay: what verdicts accepted becomes vouchers for the nodes and settlements on the chain.
//!
//! What it knows: the account, prices, the book, the port to the ledger. What it must not know: plans, votes, how a
//! transaction looks. Neither a verdict nor an answer waits for pay: a job only asks whether there is money left.

mod book;
mod teller;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conun_types::{
    AccountId, Amount, Clock, Error, ErrorKind, JobId, NodeId, NodeKey, Result, SignedReceipt,
    eip712::Domain,
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
    /// Nodes whose keys their operators took back.
    revoked: Mutex<HashSet<NodeId>>,
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
        let (wake, seen, revoked, settling) = Default::default();
        let payments = Arc::new(Self { config, key, network, clock, book, wake, seen, revoked, settling });
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
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner).contains(node);
        !revoked && ask.domain == self.domain() && ask.price <= self.config.price
    }

    /// Asks the chain whose keys were taken back.
    async fn look_for_revoked(&self) {
        for (peer, _) in self.network.volunteers().into_iter().filter(|(_, hello)| hello.pay.is_some()) {
            let Ok(address) = peer.id.address() else { continue };
            let Ok(provider) = self.config.ledger.provider(&address).await else { return };
            let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
            if provider.revoked {
                revoked.insert(peer.id);
            } else {
                revoked.remove(&peer.id);
            }
        }
    }

    /// Notes what a verdict accepted, and pays at once where the node has waited for too many stages.
    pub(crate) fn accepted(&self, work: Accepted) -> Result<()> {
        let node = work.node;
        let mut book = self.book();
        book.accept(work)?;
        if book.waiting_stages(&node) * 2 >= self.exposure(&node) {
            book.owe_now(&node)?;
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

    /// `node` cheated in `job`.
    pub(crate) fn caught(&self, job: JobId, node: NodeId, reason: &str) {
        if let Err(error) = self.book().catch(job, node, reason) {
            tracing::error!(%error, %node, "a penalty is not in the book");
        }
    }

    /// `job` has ended: what it accepted is owed.
    pub(crate) fn end(&self, job: JobId) {
        if let Err(error) = self.book().end(job) {
            tracing::error!(%error, %job, "what a job owes is not in the book");
        }
        self.wake.notify_one();
    }

    /// What jobs may cost from now on: what the account has for us, less what is promised and not on the chain yet.
    pub(crate) async fn left(&self) -> Result<Amount> {
        let account = self.look().await?.ok_or_else(|| self.no_account())?;
        Ok(self.left_of(&account))
    }

    fn left_of(&self, account: &Account) -> Amount {
        let promised = self.book().total();
        let all = account.left_for(&self.key.address()).plus(account.earned);
        if account.refund_at == 0 { all.less(promised.max(account.earned)) } else { Amount::ZERO }
    }

    async fn look(&self) -> Result<Option<Account>> {
        let now = self.clock.now();
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, account)) = seen
            && now.saturating_sub(at) < Duration::from_secs(2)
        {
            return Ok(account);
        }
        let account = self.config.ledger.account(&self.config.account).await?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, account));
        Ok(account)
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
        let mut book = self.book();
        let Some(settlement) = book.next_settlement(account.batches)? else { return Ok(None) };
        let signed = SignedSettlement::sign(settlement, &self.domain(), &self.key)?;
        book.sign_batch(signed.clone())?;
        Ok(Some(signed))
    }

    async fn send(&self, signed: SignedSettlement) -> Result<Settled> {
        let included = match self.config.ledger.settle(&signed).await {
            Ok(included) => included,
            Err(error) => {
                self.drop_if_overtaken(&signed).await?;
                return Err(error.context("settlement"));
            }
        };
        self.book().settled()?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let tree = signed.settlement.tree()?;
        let settled = Settled {
            batch: signed.settlement.batch,
            root: hex_of(&tree.root()),
            stages: signed.settlement.records.len(),
            amount: Amount(tree.total()),
            included,
        };
        tracing::info!(batch = settled.batch, stages = settled.stages, amount = %settled.amount, "settled");
        Ok(settled)
    }

    /// A batch whose number was taken by another settlement (by the client's own key, say) is settled again under the next.
    async fn drop_if_overtaken(&self, signed: &SignedSettlement) -> Result<()> {
        let account = self.config.ledger.account(&self.config.account).await?;
        if account.is_some_and(|account| account.batches > signed.settlement.batch) {
            self.book().dropped()?;
        }
        Ok(())
    }

    /// Shows the chain two receipts that a node signed for one order.
    pub(crate) async fn prove_equivocation(&self, first: &SignedReceipt, second: &SignedReceipt) -> Result<Included> {
        self.config.ledger.prove_equivocation(first, second).await
    }
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn hex_prefix(account: &AccountId) -> String {
    account.to_string().chars().skip(2).take(16).collect()
}

/// How often the chain is asked whose keys were taken back.
const WATCH: Duration = Duration::from_secs(5);

async fn watch_keys(payments: std::sync::Weak<Payments>) {
    while let Some(payments) = payments.upgrade() {
        payments.look_for_revoked().await;
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
