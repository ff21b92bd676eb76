//! The book of an account: what was accepted, what is owed to whom, what was vouched for and settled. Values and a
//! journal; no network, no chain, no clock.
//!
//! A line is written before anything that follows from it is signed, so that a crash at any point neither pays twice nor
//! forgets what was accepted: what a running job had accepted is owed once the book is opened again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use conun_storage::{block::Durability, journal::Journal};
use conun_types::{
    AccountId, Address, Amount, JobId, NodeId, Result, StageRecord, Volume, WorkUnits,
    payment::{ClaimedReceipt, Earning, Settlement, SignedClaim, SignedSettlement},
    wire::{Ask, Penalty, StagePay},
};
use serde::{Deserialize, Serialize};

/// Records of one settlement: about 1,600 gas each, of the 16.7 million that a transaction may use.
const MAX_RECORDS: usize = 2_000;
/// Nodes in one settlement: up to 29,000 gas each.
const MAX_PROVIDERS: usize = 250;
/// Lines after which the book is rewritten when nothing is in flight.
const COMPACT_AT: usize = 20_000;

/// A receipt that a verdict accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    pub(crate) job: JobId,
    pub(crate) stage: u32,
    pub(crate) node: NodeId,
    pub(crate) price: Amount,
    pub(crate) receipt: ClaimedReceipt,
    /// What came out, for the record.
    pub(crate) output: Volume,
}

/// A line of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Entry {
    /// A verdict accepted a receipt; it is owed once its job lets go of it.
    Accepted(Box<Accepted>),
    /// A receipt is not paid, even if it was accepted before; none that is owed is refused.
    Refused { node: NodeId, penalty: Penalty },
    /// A node cheated in a job: nothing of it is paid there.
    Caught { job: JobId, node: NodeId, reason: String },
    /// A node was not to blame in a job: what it did there is paid as if nothing had been.
    Cleared { job: JobId, node: NodeId },
    /// What a node did in a job so far is owed.
    Owed { job: JobId, node: NodeId },
    /// The job has ended: the node's other replicas were not needed.
    Ended { job: JobId, node: NodeId },
    /// The node has a voucher, and signed for what came with it.
    Vouched { node: NodeId, told: Told, claims: Vec<SignedClaim> },
    /// A settlement was signed.
    Batch(Box<SignedSettlement>),
    /// The chain has it.
    Settled,
    /// Another batch took its number: its records are to be settled again.
    Dropped,
    /// What was owed in all when the book was rewritten.
    Total { node: NodeId, cumulative: Amount, vouched: Amount },
    /// A record that was not settled when the book was rewritten.
    Open(Box<StageRecord>),
}

/// What a node was told with a voucher.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Worth of the voucher.
    pub(crate) cumulative: Amount,
    /// The receipts that were new in it.
    pub(crate) stages: Vec<StagePay>,
    /// How many penalties.
    pub(crate) penalties: u64,
    /// Jobs that it was told have ended.
    pub(crate) ended: Vec<JobId>,
}

/// What is owed to a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owing {
    /// In all, from the first day.
    pub(crate) cumulative: Amount,
    /// Up to where the node has signed for it.
    pub(crate) vouched: Amount,
    /// What is new since then.
    pub(crate) stages: Vec<StagePay>,
    /// What is refused and not told yet.
    pub(crate) penalties: Vec<Penalty>,
    /// Jobs that have ended since.
    pub(crate) ended: Vec<JobId>,
}

impl Owing {
    /// Forgets what the node was told; what came to be owed meanwhile stays.
    fn take(&mut self, told: &Told) {
        self.vouched = self.vouched.max(told.cumulative);
        let gone: BTreeSet<_> = told.stages.iter().flat_map(|s| &s.receipts).map(|r| r.order_hash).collect();
        for stage in &mut self.stages {
            stage.receipts.retain(|r| !gone.contains(&r.order_hash));
        }
        self.stages.retain(|stage| !stage.receipts.is_empty());
        let penalties = usize::try_from(told.penalties).unwrap_or(usize::MAX).min(self.penalties.len());
        self.penalties.drain(..penalties);
        self.ended.retain(|job| !told.ended.contains(job));
    }
}

/// The book.
pub(crate) struct Book {
    account: AccountId,
    journal: Journal<Entry>,
    /// Accepted in jobs that run.
    running: BTreeMap<(JobId, NodeId), Vec<Accepted>>,
    /// Who was caught in a running job, and what it did there.
    caught: BTreeMap<(JobId, NodeId), Vec<Accepted>>,
    owing: BTreeMap<NodeId, Owing>,
    /// Owed and not settled.
    records: BTreeMap<(JobId, u32, NodeId), StageRecord>,
    batch: Option<SignedSettlement>,
    /// The records of that batch.
    in_batch: BTreeMap<(JobId, u32, NodeId), StageRecord>,
}

impl Book {
    /// Opens the book of `account` at `path`.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn open(path: &Path, account: AccountId) -> Result<Self> {
        let (journal, entries) = Journal::open(path)?;
        let mut book = Self {
            account,
            journal,
            running: BTreeMap::new(),
            caught: BTreeMap::new(),
            owing: BTreeMap::new(),
            records: BTreeMap::new(),
            batch: None,
            in_batch: BTreeMap::new(),
        };
        for entry in entries {
            book.enter(entry)?;
        }
        let interrupted: Vec<(JobId, NodeId)> = book.running.keys().copied().collect();
        for (job, node) in interrupted {
            book.write(Entry::Owed { job, node }, Durability::Durable)?;
        }
        book.compact()?;
        Ok(book)
    }

    fn write(&mut self, entry: Entry, durability: Durability) -> Result<()> {
        self.journal.append(&entry, durability)?;
        self.enter(entry)
    }

    fn enter(&mut self, entry: Entry) -> Result<()> {
        match entry {
            Entry::Accepted(work) => {
                // It may have been refused before the verdict on its task became another one.
                if let Some(owing) = self.owing.get_mut(&work.node) {
                    owing.penalties.retain(|penalty| penalty.order_hash != work.receipt.order_hash);
                }
                match self.caught.get_mut(&(work.job, work.node)) {
                    Some(unpaid) => unpaid.push(*work),
                    None => self.running.entry((work.job, work.node)).or_default().push(*work),
                }
            }
            Entry::Refused { node, penalty } => {
                if let Some(works) = self.running.get_mut(&(penalty.job, node)) {
                    works.retain(|work| work.receipt.order_hash != penalty.order_hash);
                }
                self.owing.entry(node).or_default().penalties.push(penalty);
            }
            Entry::Caught { job, node, reason } => self.enter_caught(job, node, &reason),
            Entry::Cleared { job, node } => {
                for work in self.caught.remove(&(job, node)).unwrap_or_default() {
                    self.enter(Entry::Accepted(Box::new(work)))?;
                }
            }
            Entry::Owed { job, node } => self.enter_owed(job, node)?,
            Entry::Ended { job, node } => self.owing.entry(node).or_default().ended.push(job),
            Entry::Vouched { node, told, .. } => self.owing.entry(node).or_default().take(&told),
            Entry::Batch(settlement) => {
                let of = |r: &StageRecord| (r.job, r.stage, r.provider);
                let taken: BTreeSet<_> = settlement.settlement.records.iter().map(of).collect();
                let (inside, rest) =
                    std::mem::take(&mut self.records).into_iter().partition(|(_, r)| taken.contains(&of(r)));
                (self.in_batch, self.records) = (inside, rest);
                self.batch = Some(*settlement);
            }
            Entry::Settled => {
                self.batch = None;
                self.in_batch.clear();
            }
            Entry::Dropped => {
                self.batch = None;
                for (key, record) in std::mem::take(&mut self.in_batch) {
                    add(self.records.entry(key), record);
                }
            }
            Entry::Total { node, cumulative, vouched } => {
                self.owing.insert(node, Owing { cumulative, vouched, ..Owing::default() });
            }
            Entry::Open(record) => {
                let node = self.owing.keys().find(|n| n.address().is_ok_and(|a| a == record.provider)).copied();
                if let Some(node) = node {
                    self.records.insert((record.job, record.stage, node), *record);
                }
            }
        }
        Ok(())
    }

    fn enter_caught(&mut self, job: JobId, node: NodeId, reason: &str) {
        let void = self.running.remove(&(job, node)).unwrap_or_default();
        let penalty = |work: &Accepted| Penalty {
            job,
            stage: work.stage,
            order_hash: work.receipt.order_hash,
            reason: reason.to_owned(),
        };
        self.owing.entry(node).or_default().penalties.extend(void.iter().map(penalty));
        self.caught.insert((job, node), void);
    }

    fn enter_owed(&mut self, job: JobId, node: NodeId) -> Result<()> {
        let provider = node.address()?;
        for work in self.running.remove(&(job, node)).unwrap_or_default() {
            let record = record_of(&work, provider);
            let owing = self.owing.entry(node).or_default();
            owing.cumulative = owing.cumulative.plus(record.amount);
            let same = |s: &&mut StagePay| (s.job, s.stage, s.price) == (job, work.stage, work.price);
            match owing.stages.iter_mut().find(same) {
                Some(stage) => stage.receipts.push(work.receipt),
                None => owing.stages.push(StagePay {
                    job,
                    stage: work.stage,
                    price: work.price,
                    receipts: vec![work.receipt],
                }),
            }
            add(self.records.entry((job, work.stage, node)), record);
        }
        Ok(())
    }

    /// Notes a receipt that a verdict accepted.
    pub(crate) fn accept(&mut self, work: Accepted) -> Result<()> {
        self.write(Entry::Accepted(Box::new(work)), Durability::Volatile)
    }

    /// Takes back what was accepted of a task, if nothing of it is owed yet; tells whether it did. All of it or nothing: voters
    /// who said the same are paid alike.
    pub(crate) fn take_back(&mut self, task: Vec<(NodeId, Penalty)>) -> Result<bool> {
        let runs = |(node, penalty): &(NodeId, Penalty)| {
            let works = self.running.get(&(penalty.job, *node)).into_iter().flatten();
            works.into_iter().any(|work| work.receipt.order_hash == penalty.order_hash)
        };
        let all = task.iter().filter(|(node, penalty)| !self.caught.contains_key(&(penalty.job, *node))).all(runs);
        if all {
            task.into_iter().try_for_each(|(node, penalty)| self.refuse(node, penalty))?;
        }
        Ok(all)
    }

    /// Notes a receipt that is not paid, and why.
    pub(crate) fn refuse(&mut self, node: NodeId, penalty: Penalty) -> Result<()> {
        self.write(Entry::Refused { node, penalty }, Durability::Volatile)
    }

    /// Notes that `node` cheated in `job`: what is not owed yet never will be.
    pub(crate) fn catch(&mut self, job: JobId, node: NodeId, reason: &str) -> Result<()> {
        if self.caught.contains_key(&(job, node)) {
            return Ok(());
        }
        self.write(Entry::Caught { job, node, reason: reason.to_owned() }, Durability::Volatile)
    }

    /// Notes that `node`, which was caught in `job`, is not to blame.
    pub(crate) fn clear(&mut self, job: JobId, node: NodeId) -> Result<()> {
        if !self.caught.contains_key(&(job, node)) {
            return Ok(());
        }
        self.write(Entry::Cleared { job, node }, Durability::Volatile)
    }

    /// Stages of running jobs and of unsigned vouchers for which `node` waits.
    pub(crate) fn waiting_stages(&self, node: &NodeId) -> usize {
        let running = self.running.iter().filter(|((_, n), _)| n == node);
        let mut stages: BTreeMap<(JobId, u32), usize> = BTreeMap::new();
        for work in running.flat_map(|(_, works)| works) {
            *stages.entry((work.job, work.stage)).or_default() += 1;
        }
        for stage in self.owing.get(node).iter().flat_map(|owing| &owing.stages) {
            *stages.entry((stage.job, stage.stage)).or_default() += stage.receipts.len();
        }
        stages.values().map(|receipts| receipts.div_ceil(Ask::RECEIPTS_PER_STAGE)).sum()
    }

    /// Everything that `node` did in running jobs is owed now.
    pub(crate) fn owe_now(&mut self, node: &NodeId) -> Result<()> {
        let jobs: Vec<JobId> = self.running.keys().filter(|(_, n)| n == node).map(|(job, _)| *job).collect();
        jobs.into_iter().try_for_each(|job| self.write(Entry::Owed { job, node: *node }, Durability::Durable))
    }

    /// `job` has ended: what it accepted is owed, and the nodes that had orders for it are told that no more is needed.
    pub(crate) fn end(&mut self, job: JobId, ordered: &BTreeSet<NodeId>) -> Result<()> {
        let nodes: Vec<NodeId> = self.running.keys().filter(|(j, _)| *j == job).map(|(_, node)| *node).collect();
        for node in ordered {
            self.write(Entry::Ended { job, node: *node }, Durability::Volatile)?;
        }
        // One wait for the disk makes all of it durable.
        let last = nodes.len().saturating_sub(1);
        for (at, node) in nodes.into_iter().enumerate() {
            let durability = if at == last { Durability::Durable } else { Durability::Volatile };
            self.write(Entry::Owed { job, node }, durability)?;
        }
        self.caught.retain(|(j, _), _| *j != job);
        Ok(())
    }

    /// Whom something is owed or to be told: nodes that have not signed for all of it.
    pub(crate) fn unsigned(&self) -> Vec<NodeId> {
        let waits = |o: &Owing| o.cumulative > o.vouched || !o.penalties.is_empty() || !o.ended.is_empty();
        self.owing.iter().filter(|(_, owing)| waits(owing)).map(|(node, _)| *node).collect()
    }

    /// What is owed to `node`.
    pub(crate) fn owing(&self, node: &NodeId) -> Owing {
        self.owing.get(node).cloned().unwrap_or_default()
    }

    /// `node` took a voucher with what it was `told`, and signed `claims`.
    pub(crate) fn vouched(&mut self, node: NodeId, told: Told, claims: Vec<SignedClaim>) -> Result<()> {
        self.write(Entry::Vouched { node, told, claims }, Durability::Durable)
    }

    /// What is promised and not on the chain yet: open records, and what running jobs will add if they end well.
    pub(crate) fn promised(&self) -> Amount {
        let running = self.running.values().flatten().map(|w| w.price.times(w.receipt.units));
        running.chain([self.open_amount()]).sum()
    }

    /// Records that are owed and not settled.
    pub(crate) fn open_records(&self) -> usize {
        self.records.len() + self.in_batch.len()
    }

    /// What those records add up to.
    pub(crate) fn open_amount(&self) -> Amount {
        self.records.values().chain(self.in_batch.values()).map(|r| r.amount).sum()
    }

    /// A settlement that was signed and may or may not have reached the chain.
    pub(crate) fn batch(&self) -> Option<&SignedSettlement> {
        self.batch.as_ref()
    }

    /// The next settlement, as batch number `batch`, of what the account can pay for with `most`; `None` where nothing is
    /// open, or not even one record is affordable.
    pub(crate) fn next_settlement(&self, batch: u32, most: Amount) -> Result<Option<Settlement>> {
        let (mut records, mut later, mut sum) = (Vec::new(), BTreeMap::<Address, Amount>::new(), Amount::ZERO);
        let mut providers: BTreeSet<Address> = BTreeSet::new();
        for record in self.records.values() {
            let known = providers.contains(&record.provider);
            let room = records.len() < MAX_RECORDS && (known || providers.len() < MAX_PROVIDERS);
            if room && record.amount <= Amount::MAX_RECORD && sum.plus(record.amount) <= most {
                sum = sum.plus(record.amount);
                providers.insert(record.provider);
                records.push(record.clone());
            } else {
                let of_provider = later.entry(record.provider).or_default();
                *of_provider = of_provider.plus(record.amount);
            }
        }
        if records.is_empty() {
            return Ok(None);
        }
        // Who has earned appears with all that it has earned, less what later batches will add.
        let mut earnings = Vec::new();
        for (node, owing) in &self.owing {
            let provider = node.address()?;
            if providers.contains(&provider) {
                let rest = later.get(&provider).copied().unwrap_or_default();
                earnings.push(Earning { provider, cumulative: owing.cumulative.less(rest) });
            }
        }
        Ok(Some(Settlement { account: self.account, batch, earnings, records }))
    }

    /// Notes a signed settlement, before it is sent.
    pub(crate) fn sign_batch(&mut self, settlement: SignedSettlement) -> Result<()> {
        self.write(Entry::Batch(Box::new(settlement)), Durability::Durable)
    }

    /// The chain has the batch.
    pub(crate) fn settled(&mut self) -> Result<()> {
        self.write(Entry::Settled, Durability::Durable)?;
        self.compact()
    }

    /// Another batch took its number.
    pub(crate) fn dropped(&mut self) -> Result<()> {
        self.write(Entry::Dropped, Durability::Durable)
    }

    /// Rewrites a long book as what still matters of it.
    fn compact(&mut self) -> Result<()> {
        let at_rest = self.running.is_empty() && self.batch.is_none() && self.unsigned().is_empty();
        if self.journal.records() < COMPACT_AT || !at_rest {
            return Ok(());
        }
        let total =
            |(node, o): (&NodeId, &Owing)| Entry::Total { node: *node, cumulative: o.cumulative, vouched: o.vouched };
        let totals = self.owing.iter().map(total);
        let open = self.records.values().map(|record| Entry::Open(Box::new(record.clone())));
        let entries: Vec<Entry> = totals.chain(open).collect();
        self.journal.rewrite(&entries)
    }
}

fn record_of(work: &Accepted, provider: Address) -> StageRecord {
    StageRecord {
        job: work.job,
        stage: work.stage,
        provider,
        tasks: 1,
        rows: work.output.rows,
        bytes: work.output.bytes,
        units: work.receipt.units,
        amount: work.price.times(work.receipt.units),
    }
}

type RecordEntry<'a> = std::collections::btree_map::Entry<'a, (JobId, u32, NodeId), StageRecord>;

fn add(entry: RecordEntry<'_>, record: StageRecord) {
    entry
        .and_modify(|sum| {
            sum.tasks += record.tasks;
            sum.rows = sum.rows.saturating_add(record.rows);
            sum.bytes = sum.bytes.saturating_add(record.bytes);
            sum.units = WorkUnits(sum.units.0.saturating_add(record.units.0));
            sum.amount = sum.amount.plus(record.amount);
        })
        .or_insert(record);
}

#[cfg(test)]
mod tests;
