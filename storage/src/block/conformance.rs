//! What every [`BlockStore`] does; a new one joins by one more line in `stores`.

use super::*;

fn stores() -> Vec<(tempfile::TempDir, Box<dyn BlockStore>)> {
    let dir = || tempfile::tempdir().unwrap();
    let disk = dir();
    let on_disk = DiskBlocks::open(&disk.path().join("blocks")).unwrap();
    vec![(dir(), Box::new(MemoryBlocks::default())), (disk, Box::new(on_disk))]
}

fn block(n: usize) -> (Cid, Bytes) {
    let bytes = Bytes::from(vec![n as u8; n * 1000]);
    (Cid::raw(&bytes), bytes)
}

#[test]
fn keeps_gives_lists_and_removes() {
    for (_dir, store) in stores() {
        for (n, durability) in [(0, Durability::Durable), (1, Durability::Volatile), (2, Durability::Durable)] {
            let (cid, bytes) = block(n);
            assert_eq!(store.get(&cid), Err(BlockError::NotFound));
            assert_eq!(store.size(&cid), None);
            store.put(&cid, &bytes, durability).unwrap();
            store.put(&cid, &bytes, durability).unwrap();
            assert_eq!(store.get(&cid).unwrap(), bytes);
            assert_eq!(store.size(&cid), Some(bytes.len() as u64));
        }
        let mut listed = store.list().unwrap();
        listed.sort_by_key(|(_, len)| *len);
        assert_eq!(listed, [(block(0).0, 0), (block(1).0, 1000), (block(2).0, 2000)]);
        store.remove(&block(1).0).unwrap();
        store.remove(&block(1).0).unwrap();
        assert_eq!(store.get(&block(1).0), Err(BlockError::NotFound));
        assert_eq!(store.list().unwrap().len(), 2);
    }
}

#[test]
fn refuses_bytes_of_another_block() {
    for (_dir, store) in stores() {
        let error = store.put(&block(1).0, &block(2).1, Durability::Durable);
        assert!(matches!(error, Err(BlockError::Invalid(_))));
        assert_eq!(store.size(&block(1).0), None);
        assert!(store.list().unwrap().is_empty());
    }
}

#[test]
fn serves_many_threads() {
    for (_dir, store) in stores() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..20 {
                        let (cid, bytes) = block(n);
                        store.put(&cid, &bytes, Durability::Volatile).unwrap();
                        assert_eq!(store.get(&cid).unwrap(), bytes);
                    }
                });
            }
        });
        assert_eq!(store.list().unwrap().len(), 20);
    }
}
