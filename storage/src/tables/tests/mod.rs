//! Tables over a network in memory: every promise of a put, and what faults and hostile nodes do to it.

mod double;

use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed};

use arrow::{
    array::{Int64Array, RecordBatch, StringArray},
    compute::concat_batches,
    datatypes::{DataType, Field, Schema},
};
use conun_types::{Cid, ErrorKind, wire::Pointer};
use futures::stream;

use self::double::World;
use super::*;
use crate::{erasure::CodeSpec, shard::MIN_SHARD_SIZE};

fn rows(count: usize) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("text", DataType::Utf8, true)]);
    let text = |n: usize| blake3::hash(&n.to_le_bytes()).to_string();
    let ids: Int64Array = (0..count as i64).collect();
    let texts: StringArray = (0..count).map(|n| Some(text(n))).collect();
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(texts)]).unwrap()
}

async fn put_with(tables: &Tables, name: &str, batch: &RecordBatch, code: Option<&str>) -> Result<TableInfo> {
    let options = PutOptions { code: code.map(|c| c.parse::<CodeSpec>().unwrap()), shard_size: MIN_SHARD_SIZE };
    let batches = stream::iter([Ok(batch.clone())]);
    tables.put(name, batch.schema(), Box::pin(batches), &options, &|_| {}).await
}

async fn put(tables: &Tables, name: &str, count: usize) -> Result<TableInfo> {
    put_with(tables, name, &rows(count), None).await
}

/// All rows of a table, from its shards.
async fn get(tables: &Tables, name: &str) -> Result<RecordBatch> {
    let table = tables.table(name)?;
    let mut batches = Vec::new();
    for index in 0..table.shards().len() {
        batches.extend(crate::shard::read(tables.read_shard(&table, index).await?)?.1);
    }
    Ok(concat_batches(&table.schema(), &batches).unwrap())
}

#[tokio::test]
async fn put_list_get_replace_remove() {
    let world = World::new(6);
    let tables = world.tables().await;
    let seen = Mutex::new(PutProgress::default());
    let batch = rows(12_000);
    let options = PutOptions { code: None, shard_size: MIN_SHARD_SIZE };
    let batches = stream::iter([Ok(batch.slice(0, 5000)), Ok(batch.slice(5000, 7000))]);
    let progress = |p| *seen.lock().unwrap() = p;
    let info = tables.put("Flights", batch.schema(), Box::pin(batches), &options, &progress).await.unwrap();
    assert_eq!((info.name.as_str(), info.version, info.rows, info.code.as_str()), ("flights", 1, 12_000, "4+2"));
    assert!(info.available && info.groups > 1 && info.expansion > 1.4, "{info:?}");
    assert_eq!(info.holders.iter().map(|h| h.shards).sum::<usize>(), info.shards + info.parity);
    assert_eq!(seen.lock().unwrap().rows, 12_000);
    assert_eq!(get(&tables, "FLIGHTS").await.unwrap(), batch);

    let old = tables.table("flights").unwrap();
    let info = put(&tables, "flights", 10).await.unwrap();
    assert_eq!((info.version, info.rows, info.shards, info.parity), (2, 10, 1, 2));
    assert_eq!(tables.list().len(), 1);
    assert!(tables.read_shard(&old, 0).await.is_ok(), "a query that runs on the old version goes on");
    assert_eq!(get(&tables, "flights").await.unwrap(), rows(10));
    world.clock.0.fetch_add(4000, Relaxed);
    world.collect();
    assert!(tables.read_shard(&old, 0).await.is_err(), "an hour later it is gone");
    assert_eq!(get(&tables, "flights").await.unwrap(), rows(10));

    tables.remove("flights").await.unwrap();
    assert!(tables.list().is_empty() && world.used() == 0);
    assert_eq!(tables.table("flights").unwrap_err().kind, ErrorKind::Data);
    assert_eq!(put(&tables, "flights", 5).await.unwrap().version, 4, "versions never come again");
}

#[tokio::test]
async fn tables_survive_a_restart_and_leases_are_renewed() {
    let world = World::new(6);
    put(&world.tables().await, "t", 3000).await.unwrap();
    let tables = world.tables().await;
    assert_eq!(get(&tables, "t").await.unwrap(), rows(3000));
    for _ in 0..5 {
        world.clock.0.fetch_add(3 * 24 * 3600, Relaxed);
        tables.keep_alive().await;
        world.collect();
    }
    assert_eq!(get(&tables, "t").await.unwrap(), rows(3000));
    assert!(tables.info("t").await.unwrap().available);
    world.clock.0.fetch_add(8 * 24 * 3600, Relaxed);
    world.collect();
    assert_eq!(world.used(), 0, "a coordinator that never comes back holds nothing");
    assert!(!tables.info("t").await.unwrap().available);
}

#[tokio::test]
async fn m_losses_are_read_around_one_more_is_told() {
    for (nodes, code) in [(6, "4+2"), (3, "1+2"), (12, "4+8")] {
        let world = World::new(nodes);
        let tables = world.tables().await;
        put_with(&tables, "t", &rows(8000), Some(code)).await.unwrap();
        let m = usize::from(code.parse::<CodeSpec>().unwrap().parity);
        for lost in 0..m {
            world.nodes[lost].online.store(false, Relaxed);
        }
        assert_eq!(get(&tables, "t").await.unwrap(), rows(8000), "{code}");
        assert!(tables.info("t").await.unwrap().available);
        world.nodes[m].online.store(false, Relaxed);
        let error = get(&tables, "t").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert!(error.message.contains("'t'") && error.hint.is_some(), "{error}");
        let info = tables.info("t").await.unwrap();
        assert!(!info.available && info.warnings.iter().any(|w| w.contains("not connected")), "{info:?}");
    }
}

/// Notes who is caught at what, the block's name left out.
fn watched(tables: &Tables) -> Arc<Mutex<BTreeSet<(NodeId, String)>>> {
    let caught = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&caught);
    tables.watch(move |node, what| {
        let what = what.split(" block ").next().unwrap_or_default().to_owned();
        noted.lock().unwrap().insert((node, what));
    });
    caught
}

#[tokio::test]
async fn nodes_that_lie_or_forget_are_read_around() {
    let world = World::new(6);
    let tables = world.tables().await;
    put(&tables, "t", 8000).await.unwrap();
    let caught = watched(&tables);
    assert_eq!(get(&tables, "t").await.unwrap(), rows(8000));
    assert!(caught.lock().unwrap().is_empty());
    world.nodes[0].corrupt.store(true, Relaxed);
    world.nodes[1].lose_everything();
    assert_eq!(get(&tables, "t").await.unwrap(), rows(8000));
    // Who lies is told to whoever keeps count; who forgets is not.
    let caught: Vec<_> = caught.lock().unwrap().iter().cloned().collect();
    assert!(
        matches!(&caught[..], [(node, what)] if *node == world.nodes[0].id && what.contains("wrong bytes")),
        "{caught:?}"
    );
    let info = tables.info("t").await.unwrap();
    assert!(info.available && info.warnings.iter().any(|w| w.contains("missing")), "{info:?}");
}

#[tokio::test]
async fn copies_are_sources_of_the_shard_itself() {
    let world = World::new(3);
    let tables = world.tables().await;
    put_with(&tables, "t", &rows(100), Some("1+2")).await.unwrap();
    let table = tables.table("t").unwrap();
    let source = tables.source(&table, 0).unwrap();
    assert_eq!((source.holders.len(), source.recovery), (3, None));
    world.nodes[1].online.store(false, Relaxed);
    assert_eq!(tables.sources(&table)[0].holders.len(), 2);
    assert!(tables.source(&table, 99).is_err());
}

#[tokio::test]
async fn a_failing_node_is_replaced_while_putting() {
    let world = World::new(8);
    let tables = world.tables().await;
    world.nodes[0].refuse_writes.store(true, Relaxed);
    world.nodes[1].busy.store(2, Relaxed);
    let info = put(&tables, "t", 8000).await.unwrap();
    assert!(info.holders.iter().all(|holder| holder.node != world.nodes[0].id));
    assert_eq!(get(&tables, "t").await.unwrap(), rows(8000));
}

#[tokio::test]
async fn a_failed_put_leaves_the_old_version_and_no_blocks() {
    let world = World::new(6);
    let tables = world.tables().await;
    put(&tables, "t", 100).await.unwrap();
    let before = world.used();

    world.nodes[3].refuse_writes.store(true, Relaxed);
    let error = put(&tables, "t", 8000).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("'t' was not stored") && error.hint.is_some(), "{error}");
    assert_eq!(world.used(), before, "the new blocks are gone");
    world.nodes[3].refuse_writes.store(false, Relaxed);

    let broken = stream::iter([Ok(rows(5000)), Err(Error::data("line 5001 is broken"))]);
    let options = PutOptions { code: None, shard_size: MIN_SHARD_SIZE };
    let error = tables.put("t", rows(1).schema(), Box::pin(broken), &options, &|_| {}).await.unwrap_err();
    assert!(error.kind == ErrorKind::Data && error.message.contains("line 5001"), "{error}");
    assert_eq!((world.used(), tables.table("t").unwrap().manifest.version), (before, 1));
    assert_eq!(get(&tables, "t").await.unwrap(), rows(100));
    assert_eq!(put(&tables, "t", 50).await.unwrap().version, 2);
}

#[tokio::test]
async fn full_nodes_are_passed_over_or_told() {
    let world = World::with_quota(8, |n| if n == 0 { 1000 } else { 1 << 20 });
    let tables = world.tables().await;
    let info = put(&tables, "t", 3000).await.unwrap();
    assert!(info.holders.iter().all(|holder| holder.node != world.nodes[0].id));
    let before = world.used();
    let error = put(&tables, "big", 200_000).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("'big'") && error.message.contains("room"), "{error}");
    assert_eq!(world.used(), before);
    // Nodes that lied about their room refuse at the door.
    let liars = World::with_quota(6, |_| 10_000);
    liars.nodes.iter().for_each(|node| node.boast.store(true, Relaxed));
    let error = put(&liars.tables().await, "t", 3000).await.unwrap_err();
    assert!(error.message.contains("quota"), "{error}");
}

#[tokio::test]
async fn networks_too_small_are_told_what_to_do() {
    let error = put(&World::new(0).tables().await, "t", 1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let small = World::new(2);
    let tables = small.tables().await;
    let error = put_with(&tables, "t", &rows(1), Some("4+2")).await.unwrap_err();
    assert!(error.message.contains("needs 6 nodes, 2 are"), "{error}");
    let info = put(&tables, "t", 1).await.unwrap();
    assert!(info.code == "none" && info.warnings[0].contains("without redundancy"));
    for name in ["", "a b", "1st"] {
        assert_eq!(put(&tables, name, 1).await.unwrap_err().kind, ErrorKind::Usage);
    }
}

#[tokio::test]
async fn two_puts_of_one_table_do_not_mix() {
    let world = World::new(6);
    let tables = world.tables().await;
    let (big, small) = (rows(8000), rows(10));
    let (first, second) = tokio::join!(put_with(&tables, "t", &big, None), put_with(&tables, "t", &small, None));
    assert_eq!(first.unwrap().version, 1);
    assert_eq!(second.unwrap_err().kind, ErrorKind::Usage);
    assert_eq!(get(&tables, "t").await.unwrap().num_rows(), 8000);
}

#[tokio::test]
async fn pins_keep_tables_that_were_removed() {
    let world = World::new(6);
    let tables = world.tables().await;
    let cid = put(&tables, "t", 3000).await.unwrap().manifest;
    let table = tables.table("t").unwrap();
    tables.pin(cid).await.unwrap();
    tables.remove("t").await.unwrap();
    world.clock.0.fetch_add(365 * 24 * 3600, Relaxed);
    world.collect();
    assert!(tables.read_shard(&table, 0).await.is_ok());
    assert_eq!(world.tables().await.pins(), [cid]);
    tables.unpin(cid).await.unwrap();
    assert_eq!((world.used(), tables.pins().len()), (0, 0));
    assert_eq!(tables.unpin(cid).await.unwrap_err().kind, ErrorKind::Data);
    assert_eq!(tables.pin(cid).await.unwrap_err().kind, ErrorKind::Data);
}

#[tokio::test]
async fn own_tables_come_back_after_the_folder_is_lost() {
    let world = World::new(6);
    let tables = world.tables().await;
    put(&tables, "kept", 3000).await.unwrap();
    put(&tables, "kept", 4000).await.unwrap();
    put(&tables, "gone", 10).await.unwrap();
    tables.remove("gone").await.unwrap();
    world.lose_folder();
    world.nodes[0].online.store(false, Relaxed);
    let tables = world.tables().await;
    assert!(tables.list().is_empty());
    assert_eq!(tables.recover().await.unwrap(), ["kept"]);
    assert_eq!(get(&tables, "kept").await.unwrap(), rows(4000));
    assert!(tables.recover().await.unwrap().is_empty(), "nothing new");
    assert_eq!(put(&tables, "gone", 10).await.unwrap().version, 3);

    world.lose_folder();
    let tables = world.tables().await;
    assert_eq!(put(&tables, "kept", 20).await.unwrap().version, 3, "a put without recovery is still newer");
}

#[tokio::test]
async fn a_lost_keys_tables_come_back_if_two_nodes_agree() {
    let world = World::new(6);
    put(&world.tables().await, "t", 3000).await.unwrap();
    world.lose_folder();
    let heir = world.tables_of(77).await;
    // One node plants a newer table of the same owner's name and one of its own.
    let planted = Pointer::sign(&crate::testing::key(99), "t", 9, Some(Cid::raw(b"planted")));
    world.nodes[0].store.put_pointer(planted.clone()).unwrap();
    world.nodes[0].store.put_pointer(Pointer::sign(&crate::testing::key(99), "u", 1, Some(Cid::raw(b"x")))).unwrap();
    assert_eq!(heir.recover().await.unwrap(), ["t"]);
    assert_eq!(get(&heir, "t").await.unwrap(), rows(3000));
    world.clock.0.fetch_add(6 * 24 * 3600, Relaxed);
    heir.keep_alive().await;
    world.clock.0.fetch_add(6 * 24 * 3600, Relaxed);
    world.collect();
    assert_eq!(get(&heir, "t").await.unwrap(), rows(3000), "the heir keeps it alive");
    assert_eq!(put(&heir, "t", 10).await.unwrap().version, 2);

    // Two owners claim the name, each with two nodes: nobody is believed.
    world.nodes[1].store.put_pointer(planted).unwrap();
    world.lose_folder();
    assert!(world.tables_of(78).await.recover().await.unwrap().is_empty());
}

#[tokio::test]
async fn who_gives_a_wrong_manifest_or_a_forged_pointer_is_caught() {
    let world = World::new(6);
    put(&world.tables().await, "t", 100).await.unwrap();
    world.lose_folder();
    let tables = world.tables().await;
    let caught = watched(&tables);
    for node in &world.nodes[..5] {
        node.corrupt.store(true, Relaxed);
    }
    let forged = Pointer { version: 5, ..Pointer::sign(&world.key, "t", 1, None) };
    world.nodes[5].say_pointers(vec![forged]);
    assert_eq!(tables.recover().await.unwrap(), ["t"], "the last one has the right manifest");
    let caught: BTreeMap<NodeId, String> = caught.lock().unwrap().iter().cloned().collect();
    for node in world.nodes[..5].iter() {
        assert!(caught.get(&node.id).is_some_and(|what| what.contains("wrong bytes")), "{caught:?}");
    }
    assert!(caught.get(&world.nodes[5].id).is_some_and(|what| what.contains("forged pointer")), "{caught:?}");
}

#[tokio::test]
async fn hostile_pointers_and_manifests_are_refused() {
    let world = World::new(6);
    let tables = world.tables().await;
    put(&tables, "t", 100).await.unwrap();
    let (manifest, real) = (tables.table("t").unwrap().manifest.clone(), tables.table("t").unwrap().cid);
    world.lose_folder();
    let tables = world.tables().await;
    // Our own pointer, moved by a stranger.
    let good = Pointer::sign(&world.key, "t", 1, None);
    for node in world.nodes.iter() {
        node.say_pointers(vec![
            Pointer { version: 5, ..good.clone() },
            Pointer { manifest: Some(real), ..good.clone() },
            Pointer { owner: world.key.id(), ..Pointer::sign(&crate::testing::key(5), "t", 1, Some(real)) },
            Pointer { table: "../../etc/passwd".into(), ..good.clone() },
            Pointer::sign(&crate::testing::key(5), "../up", 1, Some(Cid::raw(b"x"))),
            Pointer::sign(&world.key, "missing", 1, Some(Cid::raw(b"nowhere"))),
        ]);
    }
    assert!(tables.recover().await.unwrap().is_empty() && tables.inner.catalog.all().is_empty());
    // A pointer that we signed, to a manifest of another table.
    let (bytes, cid) = crate::manifest::Manifest { table: "other".into(), ..manifest }.encode().unwrap();
    world.plant(cid, &bytes);
    world.nodes.iter().for_each(|node| node.say_pointers(vec![Pointer::sign(&world.key, "t", 1, Some(cid))]));
    assert!(tables.recover().await.unwrap().is_empty());
    let junk = vec![0xff; 100];
    let cid = Cid::of(conun_types::Codec::DagCbor, &junk);
    world.plant(cid, &junk);
    world.nodes.iter().for_each(|node| node.say_pointers(vec![Pointer::sign(&world.key, "t", 1, Some(cid))]));
    assert!(tables.recover().await.unwrap().is_empty());
}

#[tokio::test]
async fn unknown_tables_and_damaged_files() {
    let world = World::new(6);
    let tables = world.tables().await;
    put(&tables, "flights", 10).await.unwrap();
    assert!(tables.table("flight").unwrap_err().hint.unwrap().contains("flights"));
    std::fs::write(world.folder().join("flights.table"), b"damaged").unwrap();
    let tables = world.tables().await;
    assert!(tables.list().is_empty());
    assert_eq!(tables.recover().await.unwrap(), ["flights"]);
}

#[tokio::test]
async fn upkeep_ends_with_the_tables() {
    let world = World::new(3);
    let tables = world.tables().await;
    let task = tables.spawn_upkeep(std::time::Duration::from_millis(5));
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!task.is_finished());
    drop(tables);
    task.await.unwrap();
}

/// Servers run these on any thread: a guard held over an await would not compile here.
#[tokio::test]
async fn every_call_may_move_between_threads() {
    async fn elsewhere<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
        tokio::spawn(work).await.unwrap()
    }
    let world = World::new(6);
    let tables = world.tables().await;
    let (t, batch) = (tables.clone(), rows(100));
    elsewhere(async move { put(&t, "t", batch.num_rows()).await.unwrap() }).await;
    let t = tables.clone();
    elsewhere(async move {
        assert_eq!(get(&t, "t").await.unwrap().num_rows(), 100);
        let cid = t.info("t").await.unwrap().manifest;
        t.pin(cid).await.unwrap();
        t.unpin(cid).await.unwrap();
        t.recover().await.unwrap();
        t.keep_alive().await;
        t.remove("t").await.unwrap();
    })
    .await;
}
