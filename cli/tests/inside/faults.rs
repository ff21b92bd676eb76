//! The engine over nodes of one process, whose answers and connections a test bends: what cannot be timed from outside.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    log,
    world::{Meddler, Nobody, QUERY, World, rows},
};
use async_trait::async_trait;
use conun_engine::{JobOptions, JobState};
use conun_network::MemoryNet;
use conun_node::{LiarMode, NodeConfig};
use conun_types::{
    Answer, Failure, NodeId, NodeKey, OsRng, Outcome, SignedReceipt, Source, TaskOffer, Vote, WorkUnits,
    eip712::Domain, port::OfferReply,
};

/// Takes every holder of a shuffle block off the network, as soon as a task is about to read one.
struct Assassin {
    net: MemoryNet,
    armed: AtomicBool,
    killed: Mutex<Vec<NodeId>>,
    /// Whose input went missing.
    reader: OnceLock<NodeId>,
    /// Who got tasks.
    asked: Mutex<BTreeSet<NodeId>>,
}

#[async_trait]
impl Meddler for Assassin {
    async fn before(&self, node: NodeId, offer: &TaskOffer) {
        self.asked.lock().unwrap().insert(node);
        // Blocks of a job come with a capability, shards of tables do not.
        let of_others = |s: &&Source| s.holders.iter().all(|h| h.capability.is_some() && h.peer.id != node);
        let block = offer.sources.iter().find(of_others);
        let Some(block) = block.filter(|_| self.armed.swap(false, Ordering::SeqCst)) else { return };
        let holders: Vec<NodeId> = block.holders.iter().map(|h| h.peer.id).collect();
        holders.iter().for_each(|id| self.net.set_offline(*id, true));
        let _ = self.reader.set(node);
        self.killed.lock().unwrap().extend(holders);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_holders_of_a_shuffle_block_may_die_in_mid_query() {
    let net = MemoryNet::new();
    let (armed, killed, reader, asked) = Default::default();
    let assassin = Arc::new(Assassin { net: net.clone(), armed, killed, reader, asked });
    // More nodes than readers of what is lost.
    let world = World::new(&net, 14, &assassin).await;
    let (rows, undisturbed) = world.run().await;
    assert_eq!((rows, undisturbed.state), (Ok(16), JobState::Done));
    assert!(undisturbed.warnings.is_empty(), "{:?}", undisturbed.warnings);

    assassin.armed.store(true, Ordering::SeqCst);
    let (rows, record) = world.run().await;
    assert_eq!((rows, record.digest), (Ok(16), undisturbed.digest));
    assert_eq!(assassin.killed.lock().unwrap().len(), 2, "both replicas of a task");
    assert!(record.warnings.iter().any(|w| w.contains("made again")), "{:?}", record.warnings);
    assert!(record.liars.is_empty(), "who dies does not lie: {:?}", record.liars);

    // Whoever is avoided is for half a minute; replicas are drawn at random among all others.
    assassin.asked.lock().unwrap().clear();
    for _ in 0..6 {
        assert_eq!(world.run().await.0, Ok(16));
    }
    let reader = assassin.reader.get().unwrap();
    assert!(assassin.asked.lock().unwrap().contains(reader), "who misses a block that died with others is not avoided");
}

/// Holds tasks that read blocks until every node has one, and others wait for a place; then takes both holders of a block that
/// all of them read off the network.
struct Ambush {
    net: MemoryNet,
    /// Tasks that are held.
    held: tokio::sync::Barrier,
    sprung: AtomicBool,
    dead: OnceLock<BTreeSet<NodeId>>,
    /// Offers afterwards that name nobody but the dead for a block.
    stale: AtomicUsize,
}

#[async_trait]
impl Meddler for Ambush {
    fn settle_in(&self, _index: usize, config: &mut NodeConfig) {
        config.cores = 1;
    }

    async fn before(&self, _node: NodeId, offer: &TaskOffer) {
        let mut blocks = offer.sources.iter().filter(|s| s.holders.iter().any(|h| h.capability.is_some()));
        let holders = |source: &Source| source.holders.iter().map(|h| h.peer.id).collect::<BTreeSet<NodeId>>();
        if let Some(dead) = self.dead.get() {
            let stale = blocks.any(|block| holders(block).is_subset(dead));
            self.stale.fetch_add(usize::from(stale), Ordering::SeqCst);
            return;
        }
        let Some(block) = blocks.next().filter(|_| !self.sprung.load(Ordering::SeqCst)) else { return };
        if self.held.wait().await.is_leader() {
            self.sprung.store(true, Ordering::SeqCst);
            let both = holders(block);
            both.iter().for_each(|id| self.net.set_offline(*id, true));
            let _ = self.dead.set(both);
        }
        // Those that die here may be dropped: a second barrier would wait for them.
        while self.dead.get().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_got_no_place_before_the_holders_died_is_not_sent_to_them() {
    let (net, nodes) = (MemoryNet::new(), 6);
    let (sprung, dead, stale) = Default::default();
    let held = tokio::sync::Barrier::new(nodes);
    let ambush = Arc::new(Ambush { net: net.clone(), held, sprung, dead, stale });
    let world = World::new(&net, nodes, &ambush).await;
    let run = tokio::time::timeout(Duration::from_secs(60), world.run());
    let (rows, record) = run.await.expect("all nodes got a task that reads blocks");
    assert_eq!((rows, record.state), (Ok(16), JobState::Done), "{:?}", record.error);
    assert_eq!(ambush.dead.get().map(BTreeSet::len), Some(2));
    assert!(record.warnings.iter().any(|w| w.contains("made again")), "{:?}", record.warnings);
    assert_eq!(ambush.stale.load(Ordering::SeqCst), 0, "tasks that waited look for their inputs again");
}

/// Ways to cheat with the receipt, or with what it is a receipt for.
#[derive(Clone, Copy)]
enum Forgery {
    /// Signed by somebody else.
    Signature,
    /// More work than was done.
    Units,
    /// The receipt of an earlier task.
    Replay,
    /// Counts that no task can have.
    Absurd,
}

/// Nodes that forge, each in its way.
struct Forgers {
    ways: OnceLock<HashMap<NodeId, Forgery>>,
    earlier: Mutex<HashMap<NodeId, Vote>>,
}

impl Meddler for Forgers {
    fn answer(&self, key: &NodeKey, honest: Answer) -> Answer {
        let way = self.ways.get().and_then(|ways| ways.get(&key.id()));
        let (Some(way), Outcome::Done(vote)) = (way, &honest.outcome) else { return honest };
        let forged = match way {
            Forgery::Signature => resigned(vote, &NodeKey::generate(&OsRng), |_| {}),
            Forgery::Units => resigned(vote, key, |v| v.receipt.receipt.units = WorkUnits(u64::MAX)),
            Forgery::Replay => self.earlier.lock().unwrap().entry(key.id()).or_insert_with(|| vote.clone()).clone(),
            Forgery::Absurd => resigned(vote, key, |v| {
                v.outputs.iter_mut().for_each(|block| (block.rows, block.bytes) = (u64::MAX, u64::MAX));
                v.receipt.receipt.outputs_root = conun_types::task::outputs_root(&v.outputs);
            }),
        };
        Answer { outcome: Outcome::Done(forged), complaints: honest.complaints }
    }
}

fn resigned(vote: &Vote, key: &NodeKey, forge: impl FnOnce(&mut Vote)) -> Vote {
    let mut vote = vote.clone();
    forge(&mut vote);
    vote.receipt = SignedReceipt::sign(vote.receipt.receipt, &Domain::default(), key);
    vote
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_receipts_convict_who_sent_them_and_nobody_else() {
    log::capture();
    let forgers = Arc::new(Forgers { ways: OnceLock::new(), earlier: Mutex::default() });
    let world = World::new(&MemoryNet::new(), 8, &forgers).await;
    let (rows, honest) = world.run().await;
    assert_eq!((rows, honest.liars.len()), (Ok(16), 0));

    let ways = [Forgery::Signature, Forgery::Units, Forgery::Replay, Forgery::Absurd];
    let guilty: HashMap<NodeId, Forgery> = world.nodes.iter().map(NodeKey::id).zip(ways).collect();
    let expected: BTreeSet<NodeId> = guilty.keys().copied().collect();
    assert!(forgers.ways.set(guilty.clone()).is_ok());
    let mut named = BTreeSet::new();
    // Replicas are drawn at random: it may take some jobs until each forger got a task (or two, to replay the first).
    for _ in 0..40 {
        let (rows, record) = world.run().await;
        assert_eq!((rows, &record.digest), (Ok(16), &honest.digest));
        named.extend(record.liars);
        if named.len() == expected.len() {
            break;
        }
    }
    assert_eq!(named, expected);
    for (node, way) in guilty {
        let why = match way {
            Forgery::Signature => "signed by another key",
            Forgery::Units => "work units",
            Forgery::Replay => "answers another order",
            Forgery::Absurd => "volume",
        };
        assert!(log::warned(&[&node.to_string(), why]), "no warning names {node} and its {why}");
    }
    let honest = world.nodes.iter().map(|key| key.id().to_string());
    assert!(honest.skip(4).all(|node| !log::warned(&[&node])), "nobody else is warned of");
}

/// The first node sends wrong bytes; who gets tasks is noted.
#[derive(Default)]
struct Corrupting(Mutex<BTreeSet<NodeId>>);

#[async_trait]
impl Meddler for Corrupting {
    fn settle_in(&self, index: usize, config: &mut NodeConfig) {
        config.liar = (index == 0).then_some(LiarMode::CorruptBlock);
    }

    async fn before(&self, node: NodeId, _: &TaskOffer) {
        self.0.lock().unwrap().insert(node);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_wrong_bytes_of_a_table_is_warned_of_and_gets_no_task() {
    log::capture();
    let corrupting = Arc::new(Corrupting::default());
    let world = World::new(&MemoryNet::new(), 6, &corrupting).await;
    let culprit = world.nodes[0].id();
    assert!(!log::warned(&[&culprit.to_string()]));
    let tables = world.engine.tables();
    let table = tables.table("flights").unwrap();
    for index in 0..table.shards().len() {
        tables.read_shard(&table, index).await.unwrap();
    }
    assert!(log::warned(&[&culprit.to_string(), "a node did what no honest one does"]));
    for _ in 0..3 {
        let (rows, record) = world.run().await;
        assert_eq!((rows, record.liars.len()), (Ok(16), 0));
    }
    let worked = corrupting.0.lock().unwrap().clone();
    assert!(!worked.contains(&culprit) && worked.len() >= 3, "{worked:?}");
}

/// Holds every task until it is let go.
struct Hold {
    held: AtomicBool,
    reached: tokio::sync::Notify,
}

#[async_trait]
impl Meddler for Hold {
    async fn before(&self, _: NodeId, _: &TaskOffer) {
        if self.held.load(Ordering::SeqCst) {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_frees_its_nodes_at_once() {
    let hold = Arc::new(Hold { held: AtomicBool::new(true), reached: tokio::sync::Notify::new() });
    let world = World::new(&MemoryNet::new(), 6, &hold).await;
    let id = world.engine.submit(QUERY, &JobOptions::default()).await.unwrap().id;
    let engine = Arc::clone(&world.engine);
    let job = tokio::spawn(async move { rows(&engine, id).await });
    hold.reached.notified().await;
    let busy = || world.services.iter().map(|s| s.volunteer().hello().running).sum::<u32>();
    assert!(busy() > 0);
    world.engine.cancel(&id.to_string()).unwrap();
    let error = job.await.unwrap().unwrap_err();
    assert!(error.message.contains("cancelled"), "{error}");
    assert_eq!(world.record(id).await.state, JobState::Cancelled);
    let freed = async {
        while busy() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed).await.unwrap();

    hold.held.store(false, Ordering::SeqCst);
    assert_eq!(world.run().await.0, Ok(16), "the nodes are well");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_gone_is_one_clear_error() {
    let net = MemoryNet::new();
    let world = World::new(&net, 6, &Arc::new(Nobody)).await;
    world.nodes.iter().for_each(|key| net.set_offline(key.id(), true));
    let (rows, record) = world.run().await;
    assert!(rows.is_err());
    let error = record.error.unwrap();
    assert_eq!(error.kind, conun_types::ErrorKind::Unavailable, "{error}");
    assert!(error.hint.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_lost_too_many_of_its_holders_is_named() {
    let net = MemoryNet::new();
    let world = World::new(&net, 6, &Arc::new(Nobody)).await;
    // Four of six shards make a group.
    world.nodes.iter().take(3).for_each(|key| net.set_offline(key.id(), true));
    // Of the other table, which has one shard on three of the nodes, nobody knows whether it is lost as well.
    let statement = "select carrier, count(*) from flights group by carrier";
    let id = world.engine.submit(statement, &JobOptions::default()).await.unwrap().id;
    let (rows, record) = (rows(&world.engine, id).await, world.record(id).await);
    let error = record.error.unwrap();
    assert!(rows.is_err() && error.kind == conun_types::ErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("an input is not to be had") && error.message.contains("'flights'"), "{error}");
    assert!(error.hint.unwrap().contains("conun show"));
}

/// Nodes that are no use at first: so many offers are answered with "busy", then so many tasks fail.
struct Sluggish {
    busy: AtomicUsize,
    failing: AtomicUsize,
}

fn count_down(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

impl Meddler for Sluggish {
    fn offer(&self) -> Option<OfferReply> {
        count_down(&self.busy).then_some(OfferReply::Busy { retry_after: Duration::from_millis(20) })
    }

    fn answer(&self, _: &NodeKey, honest: Answer) -> Answer {
        match count_down(&self.failing) {
            true => Answer { outcome: Outcome::Failed(Failure::Node("out of order".into())), complaints: Vec::new() },
            false => honest,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_nodes_are_waited_for_and_failed_ones_get_a_second_chance() {
    let sluggish = Arc::new(Sluggish { busy: AtomicUsize::new(0), failing: AtomicUsize::new(0) });
    let world = World::new(&MemoryNet::new(), 6, &sluggish).await;
    for (busy, failing) in [(200, 0), (0, 12), (50, 6)] {
        sluggish.busy.store(busy, Ordering::SeqCst);
        sluggish.failing.store(failing, Ordering::SeqCst);
        let run = tokio::time::timeout(Duration::from_secs(60), world.run());
        let (rows, record) = run.await.expect("it never hangs");
        assert_eq!(rows, Ok(16), "{busy} busy, {failing} failing: {:?}", record.error);
        assert!(record.liars.is_empty() && sluggish.busy.load(Ordering::SeqCst) == 0);
    }
}

/// Tasks that take a while.
struct Slow;

#[async_trait]
impl Meddler for Slow {
    fn settle_in(&self, _index: usize, config: &mut NodeConfig) {
        config.cores = 1;
    }

    async fn before(&self, _node: NodeId, _offer: &TaskOffer) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_jobs_share_the_volunteers() {
    let world = World::new(&MemoryNet::new(), 6, &Arc::new(Slow)).await;
    let alone = world.run().await.1;
    let tasks: u64 = alone.stages.iter().map(|s| s.tasks).sum();
    let mut jobs = Vec::new();
    for _ in 0..8 {
        jobs.push(world.engine.submit(QUERY, &JobOptions::default()).await.unwrap().id);
    }
    // All at once; the moment at which the first one ends is looked at.
    let run = jobs.iter().map(|id| Box::pin(rows(&world.engine, *id)));
    let (first, _, others) = futures::future::select_all(run).await;
    let done = |id: &conun_types::JobId| -> u64 {
        world.engine.job(&id.to_string()).unwrap().stages.iter().map(|s| s.tasks_done).sum()
    };
    let progress: Vec<u64> = jobs.iter().map(done).collect();
    assert!(progress.iter().all(|done| *done * 2 >= tasks), "of {tasks} tasks each: {progress:?}");
    assert_eq!(first, Ok(16));
    assert!(futures::future::join_all(others).await.into_iter().all(|rows| rows == Ok(16)));
}
