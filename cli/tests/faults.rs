//! The engine over nodes of one process, whose answers and connections a test bends: what cannot be timed from outside.
//! Stores, runner processes, messages and signatures are the real ones.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_engine::{Engine, EngineConfig, JobOptions, JobRecord, JobState};
use conun_network::{ClientOnly, MemoryNet};
use conun_node::{NodeConfig, NodeService};
use conun_storage::{PutOptions, Tables};
use conun_types::{
    Answer, Error, Failure, NodeId, NodeKey, OsRng, Outcome, SignedReceipt, SystemClock, TaskOffer, Vote, WorkUnits,
    eip712::Domain,
    port::{OfferReply, Volunteer},
    wire::{BlockError, ControlReply, ControlRequest, Hello, ReadBlock, WriteBlock},
};
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Two shuffles: a join and an aggregate.
const QUERY: &str = "select a.name, count(*) as n, sum(f.distance) as miles from flights f \
                     join airlines a on f.carrier = a.carrier group by a.name order by a.name";

/// What a test does to a node.
#[async_trait]
trait Meddler: Send + Sync {
    /// What is said to an offer instead of asking the node.
    fn offer(&self) -> Option<OfferReply> {
        None
    }

    /// Before `node` runs a task.
    async fn before(&self, _node: NodeId, _offer: &TaskOffer) {}

    /// Before the answer of the node with `key` is sent.
    fn answer(&self, _key: &NodeKey, honest: Answer) -> Answer {
        honest
    }
}

/// Leaves everything as it is.
struct Nobody;
impl Meddler for Nobody {}

/// A node whose tasks and answers pass through a [`Meddler`].
struct Bent {
    honest: Arc<dyn Volunteer>,
    key: NodeKey,
    meddler: Arc<dyn Meddler>,
}

/// An accepted task that has not begun: the node is told if it never will.
struct Held<'a> {
    node: Option<&'a dyn Volunteer>,
    from: NodeId,
    offer: &'a TaskOffer,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(node) = self.node {
            node.release(self.from, self.offer);
        }
    }
}

#[async_trait]
impl Volunteer for Bent {
    fn hello(&self) -> Hello {
        self.honest.hello()
    }

    async fn offer(&self, from: NodeId, offer: &TaskOffer) -> OfferReply {
        match self.meddler.offer() {
            Some(reply) => reply,
            None => self.honest.offer(from, offer).await,
        }
    }

    async fn run(&self, from: NodeId, offer: TaskOffer, envelope: Bytes) -> Answer {
        let mut held = Held { node: Some(&*self.honest), from, offer: &offer };
        self.meddler.before(self.key.id(), &offer).await;
        held.node = None;
        drop(held);
        let honest = self.honest.run(from, offer, envelope).await;
        self.meddler.answer(&self.key, honest)
    }

    fn release(&self, from: NodeId, offer: &TaskOffer) {
        self.honest.release(from, offer);
    }

    async fn read_block(&self, from: NodeId, request: &ReadBlock) -> Result<Bytes, BlockError> {
        self.honest.read_block(from, request).await
    }

    async fn may_write(&self, from: NodeId, request: &WriteBlock) -> Result<(), BlockError> {
        self.honest.may_write(from, request).await
    }

    async fn write_block(&self, from: NodeId, request: WriteBlock, data: Bytes) -> Result<(), BlockError> {
        self.honest.write_block(from, request, data).await
    }

    async fn control(&self, from: NodeId, request: ControlRequest) -> ControlReply {
        self.honest.control(from, request).await
    }
}

/// A coordinator with two tables on nodes of this process.
struct World {
    engine: Arc<Engine>,
    nodes: Vec<NodeKey>,
    services: Vec<Arc<NodeService>>,
    _root: tempfile::TempDir,
}

impl World {
    async fn new(net: &MemoryNet, nodes: usize, meddler: &Arc<impl Meddler + 'static>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (mut keys, mut services) = (Vec::new(), Vec::new());
        for index in 0..nodes {
            let (key, dir) = (NodeKey::generate(&OsRng), root.path().join(format!("node-{index}")));
            std::fs::create_dir(&dir).unwrap();
            let config = NodeConfig::new(dir, env!("CARGO_BIN_EXE_conun"));
            let service = NodeService::start(config, key.clone()).unwrap();
            let bent = Bent { honest: service.volunteer(), key: key.clone(), meddler: Arc::clone(meddler) as _ };
            service.attach(net.join(&key, &format!("node-{index}"), Arc::new(bent)));
            keys.push(key);
            services.push(service);
        }
        let engine = start_engine(net, root.path()).await;
        Self { engine, nodes: keys, services, _root: root }
    }

    /// Runs the query to its end.
    async fn run(&self) -> (Result<usize, Error>, JobRecord) {
        let id = self.engine.submit(QUERY, &JobOptions::default()).await.unwrap().id;
        let rows = rows(&self.engine, id).await;
        (rows, self.record(id).await)
    }

    /// The record once the job has ended: its end is noted just after the last batch.
    async fn record(&self, id: conun_types::JobId) -> JobRecord {
        loop {
            let record = self.engine.job(&id.to_string()).unwrap();
            if !matches!(record.state, JobState::Planned | JobState::Running) {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn rows(engine: &Arc<Engine>, id: conun_types::JobId) -> Result<usize, Error> {
    let batches: Result<Vec<_>, _> = engine.results(id)?.try_collect().await;
    let batches = batches.map_err(|e| Error::data(e.to_string()))?;
    Ok(batches.iter().map(|b| b.num_rows()).sum())
}

async fn start_engine(net: &MemoryNet, root: &Path) -> Arc<Engine> {
    let (key, clock, rng) = (NodeKey::generate(&OsRng), Arc::new(SystemClock), Arc::new(OsRng));
    let network = net.join(&key, "coordinator", Arc::new(ClientOnly::default()));
    let dir = root.join("coordinator");
    std::fs::create_dir_all(dir.join("jobs")).unwrap();
    let tables = Tables::open(&dir, key.clone(), Arc::clone(&network), clock.clone(), rng.clone()).await.unwrap();
    for name in ["airlines", "flights"] {
        let path = conun_sql_examples::nycflights13_dir().join(format!("{name}.parquet"));
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
        let schema = arrow::record_batch::RecordBatchReader::schema(&reader);
        let batches = futures::stream::iter(reader).map_err(|e| Error::data(e.to_string())).boxed();
        let options = PutOptions { code: Some("4+2".parse().unwrap()), shard_size: 512 << 10 };
        tables.put(name, schema, batches, &options, &|_| {}).await.unwrap();
    }
    Engine::start(EngineConfig::new(dir.join("jobs")), key, network, tables, clock, rng, None).unwrap()
}

/// Takes every holder of a shuffle block off the network, as soon as a task is about to read one.
struct Assassin {
    net: MemoryNet,
    armed: AtomicBool,
    killed: Mutex<Vec<NodeId>>,
}

#[async_trait]
impl Meddler for Assassin {
    async fn before(&self, _: NodeId, offer: &TaskOffer) {
        // Blocks of a job come with a capability, shards of tables do not.
        let block = offer.sources.iter().find(|s| s.holders.iter().any(|h| h.capability.is_some()));
        let Some(block) = block.filter(|_| self.armed.swap(false, Ordering::SeqCst)) else { return };
        let holders: Vec<NodeId> = block.holders.iter().map(|h| h.peer.id).collect();
        holders.iter().for_each(|id| self.net.set_offline(*id, true));
        self.killed.lock().unwrap().extend(holders);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_holders_of_a_shuffle_block_may_die_in_mid_query() {
    let net = MemoryNet::new();
    let assassin =
        Arc::new(Assassin { net: net.clone(), armed: AtomicBool::new(false), killed: Mutex::new(Vec::new()) });
    let world = World::new(&net, 6, &assassin).await;
    let (rows, undisturbed) = world.run().await;
    assert_eq!((rows, undisturbed.state), (Ok(16), JobState::Done));
    assert!(undisturbed.warnings.is_empty(), "{:?}", undisturbed.warnings);

    assassin.armed.store(true, Ordering::SeqCst);
    let (rows, record) = world.run().await;
    assert_eq!((rows, record.digest), (Ok(16), undisturbed.digest));
    assert_eq!(assassin.killed.lock().unwrap().len(), 2, "both replicas of a task");
    assert!(record.warnings.iter().any(|w| w.contains("made again")), "{:?}", record.warnings);
    assert!(record.liars.is_empty(), "who dies does not lie: {:?}", record.liars);
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
    let forgers = Arc::new(Forgers { ways: OnceLock::new(), earlier: Mutex::default() });
    let world = World::new(&MemoryNet::new(), 8, &forgers).await;
    let (rows, honest) = world.run().await;
    assert_eq!((rows, honest.liars.len()), (Ok(16), 0));

    let ways = [Forgery::Signature, Forgery::Units, Forgery::Replay, Forgery::Absurd];
    let guilty: HashMap<NodeId, Forgery> = world.nodes.iter().map(NodeKey::id).zip(ways).collect();
    let expected: BTreeSet<NodeId> = guilty.keys().copied().collect();
    assert!(forgers.ways.set(guilty).is_ok());
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
