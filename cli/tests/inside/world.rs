//! A coordinator and nodes of one process, whose answers and connections a test bends. Stores, runner processes, messages
//! and signatures are the real ones.

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use conun_engine::{Engine, EngineConfig, JobOptions, JobRecord, JobState, PayConfig};
use conun_network::{ClientOnly, MemoryNet};
use conun_node::{NodeConfig, NodeService, PayTerms};
use conun_storage::{PutOptions, Tables};
use conun_types::{
    Answer, Error, NodeId, NodeKey, OsRng, SystemClock, TaskOffer,
    port::{OfferReply, Volunteer},
    wire::{BlockError, ControlReply, ControlRequest, Hello, ReadBlock, WriteBlock},
};
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Two shuffles: a join and an aggregate.
pub(crate) const QUERY: &str = "select a.name, count(*) as n, sum(f.distance) as miles from flights f \
                     join airlines a on f.carrier = a.carrier group by a.name order by a.name";

/// What a test does to a node.
#[async_trait]
pub(crate) trait Meddler: Send + Sync {
    /// Other settings of a node.
    fn settle_in(&self, _index: usize, _config: &mut NodeConfig) {}

    /// What is said to an offer instead of asking the node.
    fn offer(&self) -> Option<OfferReply> {
        None
    }

    /// Before `node` runs a task.
    async fn before(&self, _node: NodeId, _offer: &TaskOffer) {}

    /// What is said to a question instead of asking the node.
    fn control(&self, _request: &ControlRequest) -> Option<ControlReply> {
        None
    }

    /// Before the answer of the node with `key` is sent.
    fn answer(&self, _key: &NodeKey, honest: Answer) -> Answer {
        honest
    }
}

/// Leaves everything as it is.
pub(crate) struct Nobody;
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

    fn examine(&self, from: NodeId, offer: &TaskOffer, envelope: &[u8]) -> Result<(), String> {
        self.honest.examine(from, offer, envelope)
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
        match self.meddler.control(&request) {
            Some(reply) => reply,
            None => self.honest.control(from, request).await,
        }
    }
}

/// A coordinator with two tables on nodes of this process.
pub(crate) struct World {
    pub(crate) engine: Arc<Engine>,
    pub(crate) nodes: Vec<NodeKey>,
    pub(crate) services: Vec<Arc<NodeService>>,
    pub(crate) root: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new(net: &MemoryNet, nodes: usize, meddler: &Arc<impl Meddler + 'static>) -> Self {
        Self::paid(net, nodes, meddler, |_, _| (None, None)).await
    }

    /// As [`World::new`], for pay: `pay` gives the terms of a node, or (without a node) how the coordinator pays.
    pub(crate) async fn paid(
        net: &MemoryNet,
        nodes: usize,
        meddler: &Arc<impl Meddler + 'static>,
        pay: impl Fn(&Path, Option<&NodeKey>) -> (Option<PayTerms>, Option<PayConfig>),
    ) -> Self {
        Self::tweaked(net, nodes, meddler, pay, |_| {}).await
    }

    /// As [`World::paid`], with other settings of the coordinator.
    pub(crate) async fn tweaked(
        net: &MemoryNet,
        nodes: usize,
        meddler: &Arc<impl Meddler + 'static>,
        pay: impl Fn(&Path, Option<&NodeKey>) -> (Option<PayTerms>, Option<PayConfig>),
        tweak: impl FnOnce(&mut EngineConfig),
    ) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (mut keys, mut services) = (Vec::new(), Vec::new());
        for index in 0..nodes {
            let (key, dir) = (NodeKey::generate(&OsRng), root.path().join(format!("node-{index}")));
            std::fs::create_dir(&dir).unwrap();
            let mut config = NodeConfig::new(dir, env!("CARGO_BIN_EXE_conun"));
            meddler.settle_in(index, &mut config);
            let terms = pay(root.path(), Some(&key)).0;
            let service = NodeService::start_with(config, key.clone(), terms, Arc::new(SystemClock)).unwrap();
            let bent = Bent { honest: service.volunteer(), key: key.clone(), meddler: Arc::clone(meddler) as _ };
            service.attach(net.join(&key, &format!("node-{index}"), Arc::new(bent)));
            keys.push(key);
            services.push(service);
        }
        let (key, config) = (NodeKey::generate(&OsRng), pay(root.path(), None).1);
        let engine = start_engine(net, root.path(), key, config, tweak).await;
        put_tables(&engine).await;
        Self { engine, nodes: keys, services, root }
    }

    /// Runs the query to its end.
    pub(crate) async fn run(&self) -> (Result<usize, Error>, JobRecord) {
        self.run_with(&JobOptions::default()).await
    }

    /// The same with options.
    pub(crate) async fn run_with(&self, options: &JobOptions) -> (Result<usize, Error>, JobRecord) {
        let id = self.engine.submit(QUERY, options).await.unwrap().id;
        let rows = rows(&self.engine, id).await;
        (rows, self.record(id).await)
    }

    /// The record once the job has ended: its end is noted just after the last batch.
    pub(crate) async fn record(&self, id: conun_types::JobId) -> JobRecord {
        loop {
            let record = self.engine.job(&id.to_string()).unwrap();
            if !matches!(record.state, JobState::Planned | JobState::Running) {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) async fn rows(engine: &Arc<Engine>, id: conun_types::JobId) -> Result<usize, Error> {
    let batches: Result<Vec<_>, _> = engine.results(id)?.try_collect().await;
    let batches = batches.map_err(|e| Error::data(e.to_string()))?;
    Ok(batches.iter().map(|b| b.num_rows()).sum())
}

async fn start_engine(
    net: &MemoryNet,
    root: &Path,
    key: NodeKey,
    pay: Option<PayConfig>,
    tweak: impl FnOnce(&mut EngineConfig),
) -> Arc<Engine> {
    let (clock, rng) = (Arc::new(SystemClock), Arc::new(OsRng));
    let network = net.join(&key, "coordinator", Arc::new(ClientOnly::default()));
    let dir = root.join("coordinator");
    std::fs::create_dir_all(dir.join("jobs")).unwrap();
    let tables = Tables::open(&dir, key.clone(), Arc::clone(&network), clock.clone(), rng.clone()).await.unwrap();
    let mut config = EngineConfig::new(dir.join("jobs"));
    config.cache_bytes = 0;
    tweak(&mut config);
    Engine::start(config, key, network, tables, clock, rng, pay).unwrap()
}

async fn put_tables(engine: &Engine) {
    for name in ["airlines", "flights"] {
        put_again(engine, name, usize::MAX).await;
    }
}

/// Stores the first `rows` rows of a table.
pub(crate) async fn put_again(engine: &Engine, name: &str, rows: usize) {
    let path = conun_sql_examples::nycflights13_dir().join(format!("{name}.parquet"));
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().with_limit(rows).build().unwrap();
    let schema = arrow::record_batch::RecordBatchReader::schema(&reader);
    let batches = futures::stream::iter(reader).map_err(|e| Error::data(e.to_string())).boxed();
    let options = PutOptions { code: Some("4+2".parse().unwrap()), shard_size: 512 << 10 };
    engine.tables().put(name, schema, batches, &options, &|_| {}).await.unwrap();
}
