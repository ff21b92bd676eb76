//! What a node has earned: the receipts that it signed, what was paid for them, and what was not and why.
//!
//! Pure but for its journal: identities and times are arguments. It never signs a claim for a receipt that it does not
//! know, nor for one twice, and takes no voucher that is worth less than the receipts it comes for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    time::Duration,
};

use conun_storage::{block::Durability, journal::Journal};
use conun_types::{
    AccountId, Address, Amount, Error, JobId, NodeId, Result, SignedReceipt, SignedVoucher, TaskOrder, WorkUnits,
    eip712::Domain,
    payment::StageClaim,
    wire::{Ask, MAX_LIST, Payment, Penalty, StagePay},
};
use serde::{Deserialize, Serialize};

/// Receipts of one coordinator that are remembered while they are not paid: who does not pay gets no more work long before.
const MAX_UNPAID: usize = 1 << 14;
/// Receipts that a coordinator may refuse without having paid any.
const TOLERATED: u64 = 256;
/// Unpaid receipts count against their coordinator for so long, in seconds.
const HELD_AGAINST: u64 = 86_400;

/// A line of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Entry {
    /// A receipt was signed.
    Signed(Box<Work>),
    /// A payment was taken.
    Paid { coordinator: NodeId, payment: Box<Payment> },
}

/// A receipt and what it was promised.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Work {
    /// Who ordered it.
    pub coordinator: NodeId,
    /// Which account pays.
    pub account: AccountId,
    /// The job.
    pub job: JobId,
    /// The stage.
    pub stage: u32,
    /// Price of a unit.
    pub price: Amount,
    /// Unix seconds at which it was signed.
    pub signed: u64,
    /// The receipt.
    pub receipt: SignedReceipt,
}

impl Work {
    /// What `order` of `coordinator` promised for `receipt`.
    #[must_use]
    pub fn of(coordinator: NodeId, order: &TaskOrder, stage: u32, receipt: SignedReceipt, signed: u64) -> Self {
        Self { coordinator, account: order.account, job: order.job, stage, price: order.price, signed, receipt }
    }

    fn amount(&self) -> Amount {
        self.price.times(self.receipt.receipt.units)
    }
}

/// A stage of a job as this node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StageEarnings {
    /// Receipts that were paid.
    pub tasks: u64,
    /// Their units.
    pub units: WorkUnits,
    /// What was paid.
    pub amount: Amount,
    /// Receipts for which nothing has come yet.
    pub unpaid: u64,
    /// What was not paid, and why.
    pub penalties: Vec<String>,
}

/// An account from which this node has earned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountEarnings {
    /// The coordinator that spends it.
    pub coordinator: NodeId,
    /// The best voucher.
    pub voucher: SignedVoucher,
}

/// Receipts of one coordinator that are not paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpaid {
    /// Stages that have any.
    pub stages: usize,
    /// What they would cost.
    pub amount: Amount,
    /// Unix seconds of the oldest.
    pub since: u64,
}

/// All that a node has earned.
#[derive(Default)]
pub struct Till {
    journal: Option<Journal<Entry>>,
    /// By the hash of the order.
    unpaid: HashMap<[u8; 32], Work>,
    accounts: BTreeMap<AccountId, AccountEarnings>,
    stages: BTreeMap<(JobId, u32), StageEarnings>,
    /// The last payment of each account: its reply may have been lost.
    last: HashMap<AccountId, Payment>,
    dealings: HashMap<NodeId, Dealings>,
}

/// How a coordinator has dealt with this node's receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dealings {
    /// Receipts that it paid.
    pub paid: u64,
    /// Receipts that it did not.
    pub refused: u64,
}

impl Dealings {
    /// Whether so much was refused that no honest coordinator's bad luck explains it: replicas of aborted jobs are a few.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.refused > TOLERATED + self.paid / 4
    }
}

impl Till {
    /// Opens the till with its journal at `path`, or starts one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: &Path) -> Result<Self> {
        let (journal, entries) = Journal::open(path)?;
        let mut till = Self::default();
        entries.into_iter().for_each(|entry| till.enter(entry));
        till.journal = Some(journal);
        Ok(till)
    }

    /// What the till at `path` says, whose node may be running.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(path: &Path) -> Result<Self> {
        let mut till = Self::default();
        conun_storage::journal::read::<Entry>(path)?.into_iter().for_each(|entry| till.enter(entry));
        Ok(till)
    }

    fn append(&mut self, entry: Entry, durability: Durability) -> Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.append(&entry, durability)?;
        }
        self.enter(entry);
        Ok(())
    }

    fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::Signed(work) => {
                self.stage(work.job, work.stage).unpaid += 1;
                self.unpaid.insert(work.receipt.receipt.order_hash, *work);
            }
            Entry::Paid { coordinator, payment } => self.enter_payment(coordinator, *payment),
        }
    }

    fn enter_payment(&mut self, coordinator: NodeId, payment: Payment) {
        for part in &payment.stages {
            for receipt in &part.receipts {
                self.unpaid.remove(&receipt.order_hash);
            }
            self.dealings.entry(coordinator).or_default().paid += part.receipts.len() as u64;
            let stage = self.stage(part.job, part.stage);
            stage.unpaid = stage.unpaid.saturating_sub(part.receipts.len() as u64);
            stage.tasks += part.receipts.len() as u64;
            stage.units.0 = stage.units.0.saturating_add(units(part).0);
            stage.amount = stage.amount.plus(part.price.times(units(part)));
        }
        // Only of its own orders: whoever could name another's would take the node's pay from it.
        let own = |work: &Work| (work.coordinator, work.account) == (coordinator, payment.account);
        for penalty in &payment.penalties {
            if self.unpaid.get(&penalty.order_hash).is_some_and(own) {
                self.refuse(&penalty.order_hash, &penalty.reason);
            }
        }
        let left: Vec<[u8; 32]> = self
            .unpaid
            .iter()
            .filter(|(_, work)| own(work) && payment.ended.contains(&work.job))
            .map(|(hash, _)| *hash)
            .collect();
        for hash in left {
            self.refuse(&hash, "the job ended before it was needed");
        }
        let voucher = payment.voucher.clone();
        if payment.stages.is_empty() {
            let had = self.accounts.get(&payment.account).map_or(Amount::ZERO, |a| a.voucher.voucher.cumulative);
            self.cover(payment.account, voucher.voucher.cumulative.less(had));
        }
        self.accounts.insert(payment.account, AccountEarnings { coordinator, voucher });
        self.last.insert(payment.account, payment);
    }

    /// A receipt is not paid.
    fn refuse(&mut self, order_hash: &[u8; 32], reason: &str) {
        let Some(work) = self.unpaid.remove(order_hash) else { return };
        self.dealings.entry(work.coordinator).or_default().refused += 1;
        let stage = self.stage(work.job, work.stage);
        stage.unpaid = stage.unpaid.saturating_sub(1);
        stage.penalties.push(reason.to_owned());
    }

    /// Money that came without a list (the coordinator could not tell which receipts were claimed before): the oldest
    /// receipts count as paid, as far as it goes.
    fn cover(&mut self, account: AccountId, mut money: Amount) {
        let of_account = self.unpaid.values().filter(|work| work.account == account);
        let mut works: Vec<Work> = of_account.cloned().collect();
        works.sort_by_key(|work| (work.signed, work.receipt.receipt.order_hash));
        for work in works {
            if work.amount() > money {
                return;
            }
            money = money.less(work.amount());
            self.unpaid.remove(&work.receipt.receipt.order_hash);
            let stage = self.stage(work.job, work.stage);
            stage.unpaid = stage.unpaid.saturating_sub(1);
            stage.tasks += 1;
            stage.units.0 = stage.units.0.saturating_add(work.receipt.receipt.units.0);
            stage.amount = stage.amount.plus(work.amount());
        }
    }

    fn stage(&mut self, job: JobId, stage: u32) -> &mut StageEarnings {
        self.stages.entry((job, stage)).or_default()
    }

    /// Notes a receipt before it is given away.
    ///
    /// # Errors
    /// Those of the file system; Unavailable where too many are unpaid.
    pub fn signed(&mut self, work: Work) -> Result<()> {
        if self.unpaid.values().filter(|w| w.coordinator == work.coordinator).count() >= MAX_UNPAID {
            return Err(Error::unavailable("too many receipts are unpaid"));
        }
        self.append(Entry::Signed(Box::new(work)), Durability::Volatile)
    }

    /// The receipt that was signed for an order of `coordinator` and is not paid yet.
    #[must_use]
    pub fn receipt(&self, coordinator: &NodeId, order_hash: &[u8; 32]) -> Option<&SignedReceipt> {
        self.unpaid.get(order_hash).filter(|work| work.coordinator == *coordinator).map(|work| &work.receipt)
    }

    /// What `coordinator` has not paid of the last day's work, as of `now` (Unix seconds).
    #[must_use]
    pub fn unpaid(&self, coordinator: &NodeId, now: u64) -> Unpaid {
        let recent = |work: &&Work| work.signed.saturating_add(HELD_AGAINST) >= now;
        let works = self.unpaid.values().filter(|work| work.coordinator == *coordinator).filter(recent);
        let mut stages: BTreeMap<(JobId, u32), usize> = BTreeMap::new();
        let mut sum = Unpaid { since: u64::MAX, ..Unpaid::default() };
        for work in works {
            *stages.entry((work.job, work.stage)).or_default() += 1;
            sum.amount = sum.amount.plus(work.amount());
            sum.since = sum.since.min(work.signed);
        }
        let counted = stages.values().map(|receipts| receipts.div_ceil(Ask::RECEIPTS_PER_STAGE)).sum();
        Unpaid { stages: counted, ..sum }
    }

    /// How `coordinator` has dealt with this node so far.
    #[must_use]
    pub fn dealings(&self, coordinator: &NodeId) -> Dealings {
        self.dealings.get(coordinator).copied().unwrap_or_default()
    }

    /// Whether this node has ever worked for `coordinator` from `account`: others have nothing to pay.
    fn knows(&self, coordinator: &NodeId, account: &AccountId) -> bool {
        match self.accounts.get(account) {
            Some(known) => known.coordinator == *coordinator,
            None => self.unpaid.values().any(|work| (work.coordinator, work.account) == (*coordinator, *account)),
        }
    }

    /// Takes a payment of `from` for the node at `provider`; the claims to sign are for its stages, in order. The same
    /// payment again gives the same claims.
    ///
    /// # Errors
    /// Data where the voucher is not what it comes for: wrong signer, too little, unknown or other receipts.
    pub fn pay(
        &mut self,
        from: NodeId,
        provider: Address,
        domain: &Domain,
        payment: Payment,
    ) -> Result<Vec<StageClaim>> {
        let claims = claims(&payment, provider)?;
        if self.last.get(&payment.account) == Some(&payment) {
            return Ok(claims);
        }
        self.check(&from, provider, domain, &payment)?;
        self.append(Entry::Paid { coordinator: from, payment: Box::new(payment) }, Durability::Durable)?;
        Ok(claims)
    }

    fn check(&self, from: &NodeId, provider: Address, domain: &Domain, payment: &Payment) -> Result<()> {
        let voucher = &payment.voucher.voucher;
        let refuse = |what: &str| Err(Error::data(format!("payment: {what}")));
        if voucher.account != payment.account || voucher.provider != provider {
            return refuse("the voucher is for another account or node");
        }
        if !self.knows(from, &payment.account) {
            return refuse("this node has done nothing for it");
        }
        if payment.voucher.signer(domain)? != *from {
            return refuse("the voucher is not signed by who sends it");
        }
        let had = self.accounts.get(&payment.account).map_or(Amount::ZERO, |a| a.voucher.voucher.cumulative);
        if voucher.cumulative < had {
            return refuse("the voucher is worth less than an earlier one");
        }
        let mut seen = BTreeSet::new();
        for part in &payment.stages {
            let fits = |receipt: &conun_types::payment::ClaimedReceipt| {
                self.unpaid.get(&receipt.order_hash).is_some_and(|work| {
                    (work.coordinator, work.account) == (*from, payment.account)
                        && (work.job, work.stage, work.price) == (part.job, part.stage, part.price)
                        && work.receipt.receipt.units == receipt.units
                })
            };
            if !part.receipts.iter().all(|r| fits(r) && seen.insert(r.order_hash)) {
                return refuse("it lists receipts that this node did not sign so, or twice");
            }
        }
        let owed: Amount = payment.stages.iter().map(|part| part.price.times(units(part))).sum();
        let (more, listed) = (voucher.cumulative.less(had), !payment.stages.is_empty());
        // Not more, either: a voucher beyond the account cannot be redeemed at all.
        if more < owed || (listed && more > owed) {
            return refuse("the voucher is not worth the receipts that it comes for");
        }
        if payment.penalties.iter().any(|p| seen.contains(&p.order_hash)) {
            return refuse("it pays a receipt and refuses it");
        }
        Ok(())
    }

    /// Every account that has a voucher.
    #[must_use]
    pub fn accounts(&self) -> &BTreeMap<AccountId, AccountEarnings> {
        &self.accounts
    }

    /// Every stage of every job, oldest first.
    #[must_use]
    pub fn stages(&self) -> &BTreeMap<(JobId, u32), StageEarnings> {
        &self.stages
    }

    /// Receipts older than `age` that nobody paid are given up: they would keep their coordinator out for ever.
    pub fn forget(&mut self, now: Duration, age: Duration) {
        let oldest = now.saturating_sub(age).as_secs();
        self.unpaid.retain(|_, work| work.signed >= oldest);
    }
}

fn units(part: &StagePay) -> WorkUnits {
    WorkUnits(part.receipts.iter().fold(0u64, |sum, r| sum.saturating_add(r.units.0)))
}

/// The claims for a payment's stages, after a look at the length of its lists.
fn claims(payment: &Payment, provider: Address) -> Result<Vec<StageClaim>> {
    let receipts: usize = payment.stages.iter().map(|part| part.receipts.len()).sum();
    let lists = [payment.stages.len(), receipts, payment.penalties.len(), payment.ended.len()];
    let wordy = |p: &Penalty| p.reason.len() > 1024;
    if lists.iter().any(|n| *n > MAX_LIST) || payment.penalties.iter().any(wordy) {
        return Err(Error::data("payment: too many stages or receipts at once"));
    }
    let claim =
        |part: &StagePay| StageClaim::of(payment.account, (part.job, part.stage), provider, part.price, &part.receipts);
    payment.stages.iter().map(claim).collect()
}

#[cfg(test)]
mod tests {
    use conun_types::{NodeKey, OsRng, TaskReceipt, Voucher, payment::ClaimedReceipt};

    use super::*;

    const ACCOUNT: AccountId = AccountId([9; 32]);
    const JOB: JobId = JobId([1; 16]);

    struct Scene {
        coordinator: NodeKey,
        node: NodeKey,
        domain: Domain,
    }

    impl Scene {
        fn new() -> Self {
            let [coordinator, node] = [(), ()].map(|()| NodeKey::generate(&OsRng));
            Self { coordinator, node, domain: Domain { chain_id: 1, escrow: Address([1; 20]) } }
        }

        fn work(&self, n: u8, stage: u32) -> Work {
            let receipt = TaskReceipt {
                order_hash: [n; 32],
                provider: self.node.address(),
                profile: [0; 32],
                inputs_root: [0; 32],
                outputs_root: [0; 32],
                rows: 0,
                bytes: 0,
                units: WorkUnits(n.into()),
            };
            let receipt = SignedReceipt::sign(receipt, &self.domain, &self.node);
            let coordinator = self.coordinator.id();
            Work { coordinator, account: ACCOUNT, job: JOB, stage, price: Amount(10), signed: 100, receipt }
        }

        fn payment(&self, cumulative: u128, stage: u32, receipts: &[u8]) -> Payment {
            let voucher = Voucher { account: ACCOUNT, provider: self.node.address(), cumulative: Amount(cumulative) };
            let receipts =
                receipts.iter().map(|n| ClaimedReceipt { order_hash: [*n; 32], units: WorkUnits((*n).into()) });
            Payment {
                account: ACCOUNT,
                voucher: SignedVoucher::sign(voucher, &self.domain, &self.coordinator),
                stages: vec![StagePay { job: JOB, stage, price: Amount(10), receipts: receipts.collect() }],
                penalties: Vec::new(),
                ended: Vec::new(),
            }
        }

        fn pay(&self, till: &mut Till, payment: Payment) -> Result<Vec<StageClaim>> {
            till.pay(self.coordinator.id(), self.node.address(), &self.domain, payment)
        }
    }

    #[test]
    fn receipts_are_paid_once_and_survive_a_restart() -> Result<()> {
        let (scene, folder) = (Scene::new(), tempfile::tempdir()?);
        let path = folder.path().join("till.log");
        let mut till = Till::open(&path)?;
        for n in 1..=3 {
            till.signed(scene.work(n, 1))?;
        }
        let expected = Unpaid { stages: 1, amount: Amount(60), since: 100 };
        assert_eq!(till.unpaid(&scene.coordinator.id(), 200), expected);
        let payment = scene.payment(30, 1, &[1, 2]);
        let claims = scene.pay(&mut till, payment.clone())?;
        assert_eq!((claims[0].tasks, claims[0].units, claims[0].amount), (2, WorkUnits(3), Amount(30)));
        drop(till);
        let mut till = Till::open(&path)?;
        assert_eq!(scene.pay(&mut till, payment)?, claims, "whose answer was lost asks again");
        assert!(scene.pay(&mut till, scene.payment(60, 1, &[1, 2])).is_err(), "claimed twice");
        assert_eq!(till.unpaid(&scene.coordinator.id(), 200).amount, Amount(30));
        scene.pay(&mut till, scene.payment(60, 1, &[3]))?;
        assert_eq!(till.unpaid(&scene.coordinator.id(), 200).stages, 0);
        assert_eq!(till.stages()[&(JOB, 1)].amount, Amount(60));
        assert_eq!(till.accounts()[&ACCOUNT].voucher.voucher.cumulative, Amount(60));
        Ok(())
    }

    #[test]
    fn bad_payments_are_refused_and_change_nothing() -> Result<()> {
        let scene = Scene::new();
        let mut till = Till::default();
        till.signed(scene.work(1, 1))?;
        till.signed(scene.work(2, 1))?;
        let stranger = Scene { node: scene.node.clone(), ..Scene::new() };
        let elsewhere = Scene {
            domain: Domain { chain_id: 2, ..scene.domain },
            node: scene.node.clone(),
            coordinator: scene.coordinator.clone(),
        };
        let mut inflated = scene.payment(10, 1, &[1]);
        inflated.stages[0].receipts[0].units = WorkUnits(2);
        let mut cheap = scene.payment(10, 1, &[1]);
        cheap.stages[0].price = Amount(1);
        let cases = [
            ("too little", scene.payment(9, 1, &[1])),
            ("more than can be had", scene.payment(11, 1, &[1])),
            ("unknown receipt", scene.payment(70, 1, &[7])),
            ("another stage", scene.payment(10, 2, &[1])),
            ("twice in one", scene.payment(20, 1, &[1, 1])),
            ("a stranger's signature", stranger.payment(10, 1, &[1])),
            ("another chain", elsewhere.payment(10, 1, &[1])),
            ("other units", inflated),
            ("another price", cheap),
        ];
        for (what, payment) in cases {
            assert!(scene.pay(&mut till, payment).is_err(), "{what}");
        }
        assert_eq!(till.unpaid(&scene.coordinator.id(), 200).amount, Amount(30));
        scene.pay(&mut till, scene.payment(10, 1, &[1]))?;
        assert!(scene.pay(&mut till, scene.payment(9, 1, &[])).is_err(), "vouchers never shrink");
        Ok(())
    }

    #[test]
    fn money_without_a_list_pays_the_oldest() -> Result<()> {
        let scene = Scene::new();
        let mut till = Till::default();
        till.signed(Work { signed: 50, ..scene.work(2, 1) })?;
        till.signed(scene.work(3, 1))?;
        let bare = Payment { stages: Vec::new(), ..scene.payment(45, 1, &[]) };
        scene.pay(&mut till, bare)?;
        assert_eq!(
            till.unpaid(&scene.coordinator.id(), 200).amount,
            Amount(30),
            "20 of 45 were enough for the first only"
        );
        Ok(())
    }

    #[test]
    fn penalties_say_why_and_end_the_wait() -> Result<()> {
        let scene = Scene::new();
        let mut till = Till::default();
        till.signed(scene.work(1, 4))?;
        let mut payment = scene.payment(0, 4, &[]);
        payment.stages.clear();
        payment.penalties = vec![Penalty { job: JOB, stage: 4, order_hash: [1; 32], reason: "outvoted".to_owned() }];
        scene.pay(&mut till, payment)?;
        assert_eq!(till.stages()[&(JOB, 4)].penalties, ["outvoted"]);
        assert_eq!(till.unpaid(&scene.coordinator.id(), 200).stages, 0);
        assert!(till.receipt(&scene.coordinator.id(), &[1; 32]).is_none());
        Ok(())
    }

    #[test]
    fn strangers_have_nothing_to_say_about_an_account() -> Result<()> {
        let scene = Scene::new();
        let stranger = Scene { node: scene.node.clone(), ..Scene::new() };
        let mut till = Till::default();
        till.signed(scene.work(1, 1))?;
        let worthless = Payment { stages: Vec::new(), ..stranger.payment(u128::MAX, 1, &[]) };
        let from = stranger.coordinator.id();
        assert!(till.pay(from, scene.node.address(), &stranger.domain, worthless).is_err());
        let penalty = Penalty { job: JOB, stage: 1, order_hash: [1; 32], reason: String::new() };
        till.signed(stranger.work(2, 1))?;
        let mut payment = stranger.payment(20, 1, &[2]);
        payment.penalties = vec![penalty];
        payment.ended = vec![JOB];
        till.pay(from, scene.node.address(), &stranger.domain, payment)?;
        assert_eq!(till.unpaid(&scene.coordinator.id(), 200).amount, Amount(10), "it is still owed");
        Ok(())
    }

    #[test]
    fn who_refuses_nearly_everything_is_known_for_it() -> Result<()> {
        let scene = Scene::new();
        let mut till = Till::default();
        assert!(!till.dealings(&scene.coordinator.id()).is_bad());
        for n in 0..=255u8 {
            till.signed(scene.work(n, 1))?;
        }
        let payment = Payment { ended: vec![JOB], stages: Vec::new(), ..scene.payment(0, 1, &[]) };
        scene.pay(&mut till, payment)?;
        assert_eq!(till.dealings(&scene.coordinator.id()), Dealings { paid: 0, refused: 256 });
        till.signed(Work { job: JobId([2; 16]), ..scene.work(9, 1) })?;
        let again = Payment { ended: vec![JobId([2; 16])], stages: Vec::new(), ..scene.payment(0, 1, &[]) };
        scene.pay(&mut till, again)?;
        assert!(till.dealings(&scene.coordinator.id()).is_bad());
        Ok(())
    }

    #[test]
    fn old_debts_are_given_up() -> Result<()> {
        let scene = Scene::new();
        let mut till = Till::default();
        till.signed(scene.work(1, 1))?;
        let day = Duration::from_secs(86_400);
        till.forget(Duration::from_secs(200), day);
        assert_eq!(till.unpaid(&scene.coordinator.id(), 200).stages, 1);
        assert_eq!(till.unpaid(&scene.coordinator.id(), 200_000).stages, 0, "held against it for a day");
        till.forget(Duration::from_secs(100) + day + Duration::from_secs(1), day);
        assert_eq!(till.unpaid(&scene.coordinator.id(), 200).stages, 0);
        Ok(())
    }
}
