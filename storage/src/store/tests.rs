//! The store through its public door: quotas, leases, privacy, and what survives a crash.

use std::sync::atomic::Ordering;

use super::*;
use crate::testing::{ManualClock, key, node};

const LEN: usize = 10_000;

struct Fixture {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    limits: Limits,
}

impl Fixture {
    fn new(total: u64) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: Arc::new(ManualClock::at(1000)), limits: Limits::of(total) }
    }

    /// Opening it again without closing it first is what `kill -9` looks like to the files.
    fn open(&self) -> Store {
        Store::open(self.dir.path(), node(0), self.limits, self.clock.clone()).unwrap()
    }
}

fn block(n: u8) -> Bytes {
    Bytes::from(vec![n; LEN])
}

fn write(n: u8, kind: LeaseKind, expires: u64) -> WriteBlock {
    let lease = Lease { id: LeaseId::named(&format!("{kind:?}")), kind, expires };
    WriteBlock { cid: Cid::raw(&block(n)), len: LEN as u64, lease }
}

fn keep(store: &Store, from: u64, n: u8, kind: LeaseKind) -> Result<(), BlockError> {
    let request = write(n, kind, 2000);
    store.admit(node(from), &request)?;
    store.keep(node(from), &request, block(n))
}

fn cid(n: u8) -> Cid {
    Cid::raw(&block(n))
}

#[test]
fn blocks_leases_pins_and_pointers_survive_a_crash() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    keep(&store, 1, 1, LeaseKind::Table).unwrap();
    keep(&store, 1, 2, LeaseKind::Job).unwrap();
    keep(&store, 2, 3, LeaseKind::Table).unwrap();
    store.pin(node(0), cid(3)).unwrap();
    store.put_pointer(Pointer::sign(&key(1), "t", 1, Some(cid(1)))).unwrap();
    store.end_lease(node(1), LeaseId::named("Job")).unwrap();
    drop(store);

    let store = fixture.open();
    assert_eq!(store.read(&cid(1)).unwrap(), block(1));
    assert!(!store.contains(&cid(2)), "its lease was ended");
    assert_eq!(store.pins(), [(node(0), cid(3))]);
    assert_eq!(store.pointers().len(), 1);
    assert_eq!(store.gc(2001).unwrap(), Collected { blocks: 1, bytes: LEN as u64 });
    assert!(!store.contains(&cid(1)) && store.contains(&cid(3)), "the pin stays");
    store.unpin(node(0), cid(3)).unwrap();
    assert_eq!(store.usage(), (0, 1 << 20));
    assert_eq!(store.unpin(node(0), cid(3)), Err(BlockError::NotFound));
    assert_eq!(store.pin(node(0), cid(3)), Err(BlockError::NotFound));
    drop(store);
    assert_eq!(fixture.open().usage().0, 0);
}

#[test]
fn quotas_hold_in_all_and_for_each_coordinator() {
    let mut fixture = Fixture::new(4 * LEN as u64);
    fixture.limits.per_coordinator = 2 * LEN as u64;
    let store = fixture.open();
    for n in [1, 2] {
        keep(&store, 1, n, LeaseKind::Table).unwrap();
    }
    assert_eq!(keep(&store, 1, 3, LeaseKind::Table), Err(BlockError::QuotaExceeded));
    keep(&store, 1, 1, LeaseKind::Job).unwrap();
    for n in [3, 4] {
        keep(&store, 2, n, LeaseKind::Cache).unwrap();
    }
    store.read(&cid(3)).unwrap();
    keep(&store, 3, 5, LeaseKind::Table).unwrap();
    assert!(store.contains(&cid(3)) && !store.contains(&cid(4)), "the cache gives way, longest unused first");
    keep(&store, 3, 6, LeaseKind::Table).unwrap();
    assert_eq!(keep(&store, 4, 7, LeaseKind::Table), Err(BlockError::QuotaExceeded), "no caches left");
    assert_eq!(store.usage(), (4 * LEN as u64, 4 * LEN as u64));
}

#[test]
fn hostile_writes_are_refused() {
    let store = Fixture::new(1 << 20).open();
    let good = write(1, LeaseKind::Table, 2000);
    let lease = |expires| Lease { expires, ..good.lease };
    for (bad, what) in [
        (WriteBlock { len: u64::MAX, ..good.clone() }, "absurd length"),
        (WriteBlock { len: MAX_BLOCK + 1, ..good.clone() }, "too long"),
        (WriteBlock { lease: lease(999), ..good.clone() }, "over"),
        (WriteBlock { lease: lease(u64::MAX), ..good.clone() }, "for ever, and not a pin"),
    ] {
        assert!(matches!(store.admit(node(1), &bad), Err(BlockError::Invalid(_))), "{what}");
    }
    for bytes in [block(2), block(1).slice(1..), Bytes::new()] {
        assert!(matches!(store.keep(node(1), &good, bytes), Err(BlockError::Invalid(_))));
    }
    let forged = Pointer { version: 9, ..Pointer::sign(&key(1), "t", 1, None) };
    assert!(store.put_pointer(forged).is_err());
    assert_eq!((store.usage().0, store.pointers().len()), (0, 0));
    keep(&store, 1, 1, LeaseKind::Table).unwrap();
}

#[test]
fn a_lease_never_opens_anothers_private_block() {
    let store = Fixture::new(1 << 20).open();
    keep(&store, 1, 1, LeaseKind::Job).unwrap();
    keep(&store, 1, 2, LeaseKind::Table).unwrap();
    let lease = Lease { id: LeaseId::named("x"), kind: LeaseKind::Table, expires: 3000 };
    assert_eq!(store.renew(node(2), &[cid(1), cid(2), cid(3)], lease).unwrap(), [false, true, false]);
    assert!(!store.is_public(&cid(1)) && store.is_public(&cid(2)));
    let shown = |from, n| store.shows(&node(from), &cid(n));
    assert_eq!([shown(1, 1), shown(2, 1), shown(3, 2), shown(3, 3)], [true, false, true, false]);
    assert_eq!(store.renew(node(1), &[], Lease { id: LeaseId::named("none"), ..lease }).unwrap(), [false; 0]);
    store.end_lease(node(1), LeaseId::named("Table")).unwrap();
    assert!(store.contains(&cid(2)), "the second coordinator still keeps it");
    store.renew(node(1), &[], Lease { id: LeaseId::named("Job"), kind: LeaseKind::Job, expires: 5000 }).unwrap();
    store.gc(4000).unwrap();
    assert!(store.contains(&cid(1)) && !store.contains(&cid(2)));
    assert!(store.renew(node(2), &vec![cid(1); MAX_LIST + 1], lease).is_err());
}

#[test]
fn damaged_missing_and_orphaned_files_are_found() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    for n in [1, 2, 3] {
        keep(&store, 1, n, LeaseKind::Table).unwrap();
    }
    let file = |n| fixture.dir.path().join(format!("blocks/{:02x}/{}", cid(n).digest()[0], cid(n)));
    std::fs::write(file(1), b"damaged").unwrap();
    assert_eq!(store.read(&cid(1)), Err(BlockError::NotFound));
    assert!(!store.contains(&cid(1)));
    keep(&store, 1, 1, LeaseKind::Table).unwrap();
    std::fs::remove_file(file(2)).unwrap();
    drop(store);
    let store = fixture.open();
    assert!(store.contains(&cid(1)) && !store.contains(&cid(2)));
    drop(store);

    std::fs::remove_file(fixture.dir.path().join("leases.log")).unwrap();
    let store = fixture.open();
    assert!(store.contains(&cid(3)) && !store.is_public(&cid(3)), "kept for a day, as a cache");
    fixture.clock.0.store(1001 + ORPHAN_GRACE, Ordering::Relaxed);
    assert_eq!(store.gc(1001 + ORPHAN_GRACE).unwrap().blocks, 2);
    assert!(!file(3).exists());
}

#[test]
fn the_journal_stays_short() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    keep(&store, 1, 1, LeaseKind::Job).unwrap();
    for expires in 2000..2000 + 2 * COMPACT_MIN as u64 {
        let lease = Lease { id: LeaseId::named("Job"), kind: LeaseKind::Job, expires };
        store.renew(node(1), &[cid(1)], lease).unwrap();
    }
    assert!(store.state().journal.as_ref().unwrap().records() <= COMPACT_MIN);
    drop(store);
    assert!(fixture.open().contains(&cid(1)));
}

#[test]
fn threads_share_it() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    std::thread::scope(|scope| {
        for from in 1..=4 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..10 {
                    keep(store, from, n, LeaseKind::Job).unwrap();
                    assert_eq!(store.read(&cid(n)).unwrap(), block(n));
                }
                store.end_lease(node(from), LeaseId::named("Job")).unwrap();
            });
        }
    });
    assert_eq!(store.usage().0, 0);
    assert!(store.state().reserved.is_empty());
}
