//! What the book owes, takes back and settles, across crashes.

use conun_types::{NodeKey, OsRng, eip712::Domain};

use super::*;

const ACCOUNT: AccountId = AccountId([1; 32]);

fn work(node: &NodeKey, job: u8, stage: u32, n: u8) -> Accepted {
    Accepted {
        job: JobId([job; 16]),
        stage,
        node: node.id(),
        price: Amount(10),
        receipt: ClaimedReceipt { order_hash: [n; 32], units: WorkUnits(2) },
        output: Volume { rows: 1, bytes: 1 },
    }
}

struct Scene {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    nodes: [NodeKey; 2],
}

impl Scene {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("book.log");
        Ok(Self { _dir: dir, path, nodes: [(), ()].map(|()| NodeKey::generate(&OsRng)) })
    }

    fn open(&self) -> Result<Book> {
        Book::open(&self.path, ACCOUNT)
    }
}

#[test]
fn what_a_crash_interrupts_is_owed_once() -> Result<()> {
    let scene = Scene::new()?;
    let [a, b] = &scene.nodes;
    let mut book = scene.open()?;
    book.accept(work(a, 1, 1, 1))?;
    book.accept(work(a, 1, 1, 2))?;
    book.accept(work(b, 1, 2, 3))?;
    assert_eq!((book.promised(), book.unsigned().len()), (Amount(60), 0), "nothing is owed while the job runs");
    drop(book);
    for _ in 0..2 {
        let book = scene.open()?;
        assert_eq!((book.owing(&a.id()).cumulative, book.owing(&b.id()).cumulative), (Amount(40), Amount(20)));
        assert_eq!(book.owing(&a.id()).stages[0].receipts.len(), 2);
        assert_eq!(book.open_records(), 2);
    }
    Ok(())
}

#[test]
fn who_cheats_in_a_job_has_nothing_of_it() -> Result<()> {
    let scene = Scene::new()?;
    let [a, b] = &scene.nodes;
    let mut book = scene.open()?;
    book.accept(work(a, 1, 1, 1))?;
    book.accept(work(b, 1, 1, 2))?;
    book.catch(JobId([1; 16]), a.id(), "lied")?;
    book.accept(work(a, 1, 2, 3))?;
    book.accept(work(a, 2, 1, 4))?;
    book.end(JobId([1; 16]), &BTreeSet::new())?;
    book.end(JobId([2; 16]), &BTreeSet::new())?;
    assert_eq!(book.owing(&a.id()).cumulative, Amount(20), "only the other job");
    assert_eq!(book.owing(&a.id()).penalties[0].reason, "lied");
    assert_eq!(book.owing(&b.id()).cumulative, Amount(20));
    Ok(())
}

#[test]
fn what_is_taken_back_before_it_is_owed_is_not_paid() -> Result<()> {
    let scene = Scene::new()?;
    let [a, _] = &scene.nodes;
    let refusal = |n: u8| {
        let (job, reason) = (JobId([1; 16]), "looked at again".to_owned());
        Penalty { job, stage: 1, order_hash: [n; 32], reason }
    };
    let mut book = scene.open()?;
    book.accept(work(a, 1, 1, 1))?;
    book.accept(work(a, 1, 1, 2))?;
    assert!(book.take_back(vec![(a.id(), refusal(2))])?);
    assert_eq!(book.promised(), Amount(20));
    book.owe_now(&a.id())?;
    assert!(!book.take_back(vec![(a.id(), refusal(1))])?, "it is owed");
    book.accept(work(a, 1, 1, 4))?;
    assert!(!book.take_back(vec![(a.id(), refusal(4)), (a.id(), refusal(1))])?, "all or nothing");
    book.end(JobId([1; 16]), &BTreeSet::new())?;
    drop(book);
    let owing = scene.open()?.owing(&a.id());
    assert_eq!((owing.cumulative, owing.stages[0].receipts.len(), owing.penalties.len()), (Amount(40), 2, 1));
    Ok(())
}

#[test]
fn who_is_cleared_is_paid_for_all_that_it_did() -> Result<()> {
    let scene = Scene::new()?;
    let [a, _] = &scene.nodes;
    let job = JobId([1; 16]);
    let mut book = scene.open()?;
    book.accept(work(a, 1, 1, 1))?;
    book.catch(job, a.id(), "lied")?;
    book.accept(work(a, 1, 2, 2))?;
    assert_eq!((book.promised(), book.owing(&a.id()).penalties.len()), (Amount(0), 1));
    book.clear(job, a.id())?;
    drop(book);
    // A crash: what was accepted is owed.
    let owing = scene.open()?.owing(&a.id());
    assert_eq!((owing.cumulative, owing.penalties.len()), (Amount(40), 0));
    Ok(())
}

#[test]
fn what_is_accepted_after_all_is_paid_and_not_refused() -> Result<()> {
    let scene = Scene::new()?;
    let [a, _] = &scene.nodes;
    let mut book = scene.open()?;
    let reason = "the votes make no verdict".to_owned();
    book.refuse(a.id(), Penalty { job: JobId([1; 16]), stage: 1, order_hash: [1; 32], reason })?;
    book.accept(work(a, 1, 1, 1))?;
    book.end(JobId([1; 16]), &BTreeSet::new())?;
    let owing = book.owing(&a.id());
    assert_eq!((owing.cumulative, owing.penalties.len()), (Amount(20), 0));
    Ok(())
}

#[test]
fn a_batch_is_settled_once_whenever_the_process_dies() -> Result<()> {
    let scene = Scene::new()?;
    let [a, _] = &scene.nodes;
    let mut book = scene.open()?;
    book.accept(work(a, 1, 1, 1))?;
    book.end(JobId([1; 16]), &BTreeSet::new())?;
    let settlement =
        book.next_settlement(0, Amount(u128::MAX))?.ok_or_else(|| conun_types::Error::internal("nothing open"))?;
    assert_eq!(settlement.earnings[0].cumulative, Amount(20));
    book.sign_batch(SignedSettlement::sign(settlement.clone(), &Domain::default(), a)?)?;
    drop(book);
    let mut book = scene.open()?;
    assert_eq!(book.batch().map(|b| &b.settlement), Some(&settlement), "it is sent again, as it was");
    assert!(book.next_settlement(1, Amount(u128::MAX))?.is_none());
    book.accept(work(a, 2, 1, 2))?;
    book.end(JobId([2; 16]), &BTreeSet::new())?;
    book.settled()?;
    drop(book);
    let mut book = scene.open()?;
    assert!(book.batch().is_none());
    let next =
        book.next_settlement(1, Amount(u128::MAX))?.ok_or_else(|| conun_types::Error::internal("nothing open"))?;
    assert_eq!((next.records.len(), next.earnings[0].cumulative), (1, Amount(40)));
    book.sign_batch(SignedSettlement::sign(next.clone(), &Domain::default(), a)?)?;
    book.dropped()?;
    assert_eq!(
        book.next_settlement(7, Amount(u128::MAX))?.map(|s| s.records),
        Some(next.records),
        "under another number"
    );
    Ok(())
}

#[test]
fn vouchers_cover_what_was_owed_when_they_were_signed() -> Result<()> {
    let scene = Scene::new()?;
    let [a, _] = &scene.nodes;
    let mut book = scene.open()?;
    book.accept(work(a, 1, 1, 1))?;
    assert_eq!(book.waiting_stages(&a.id()), 1);
    book.owe_now(&a.id())?;
    let Owing { cumulative, stages, .. } = book.owing(&a.id());
    book.accept(work(a, 1, 1, 2))?;
    book.end(JobId([1; 16]), &BTreeSet::new())?;
    book.vouched(a.id(), Told { cumulative, stages, ..Told::default() }, Vec::new())?;
    assert_eq!(book.unsigned(), [a.id()], "what came meanwhile is still to be told");
    assert_eq!(book.owing(&a.id()).stages[0].receipts.len(), 1);
    assert_eq!((book.open_records(), book.open_amount()), (1, Amount(40)), "one record a stage");
    drop(book);
    assert_eq!(scene.open()?.owing(&a.id()).vouched, Amount(20));
    Ok(())
}

#[test]
fn a_settlement_stays_within_the_account_and_what_a_transaction_holds() -> Result<()> {
    let scene = Scene::new()?;
    let [a, b] = &scene.nodes;
    let mut book = scene.open()?;
    for (n, node) in [(1, a), (2, b), (3, a)] {
        book.accept(work(node, n, 1, n))?;
        book.end(JobId([n; 16]), &BTreeSet::new())?;
    }
    assert!(book.next_settlement(0, Amount(19))?.is_none());
    let some = book.next_settlement(0, Amount(50))?.ok_or_else(|| conun_types::Error::internal("nothing"))?;
    assert_eq!(some.records.len(), 2);
    let earned: Amount = some.earnings.iter().map(|e| e.cumulative).sum();
    assert_eq!(earned, Amount(40), "what is left out is not credited yet");
    Ok(())
}

#[test]
fn nodes_are_told_of_jobs_that_ended() -> Result<()> {
    let scene = Scene::new()?;
    let [a, b] = &scene.nodes;
    let mut book = scene.open()?;
    book.accept(work(a, 1, 1, 1))?;
    book.end(JobId([1; 16]), &BTreeSet::from([a.id(), b.id()]))?;
    assert_eq!(book.owing(&b.id()).ended, [JobId([1; 16])]);
    let told = Told { ended: vec![JobId([1; 16])], ..Told::default() };
    book.vouched(b.id(), told, Vec::new())?;
    assert_eq!(book.unsigned(), [a.id()]);
    Ok(())
}
