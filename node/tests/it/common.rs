//! Nodes joined in memory, a coordinator's key, and a real task: a sum over a Parquet shard.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_executor::{BlockReaderExec, encode_plan, object_store::shards_url};
use conun_node::{LiarMode, NodeConfig, NodeService};
use conun_types::{
    AccountId, Amount, Answer, Capability, Cid, Clock, Holder, InputBlock, InputShard, JobId, Lease, LeaseId,
    LeaseKind, NodeId, NodeKey, OsRng, PeerAddr, SignedOrder, Source, SystemClock, TaskEnvelope, TaskOffer, TaskOrder,
    Volume, codec,
    eip712::Domain,
    port::{CallError, Network, OfferReply, Volunteer},
    wire::{ControlReply, ControlRequest, Hello, ReadBlock, WriteBlock},
};
use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch, StringArray},
        datatypes::SchemaRef,
    },
    datasource::{
        listing::PartitionedFile,
        memory::DataSourceExec,
        physical_plan::{FileScanConfigBuilder, ParquetSource},
    },
    functions_aggregate::sum::sum_udaf,
    parquet::arrow::ArrowWriter,
    physical_expr::{aggregate::AggregateExprBuilder, expressions::col},
    physical_plan::{
        ExecutionPlan, Partitioning,
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
    },
};

/// Nodes that reach each other directly.
#[derive(Default)]
pub(crate) struct Wire {
    nodes: Mutex<HashMap<NodeId, Arc<dyn Volunteer>>>,
    /// Nodes that went away without a word: questions to them stay open.
    pub(crate) silent: Mutex<HashSet<NodeId>>,
    /// Questions that are open.
    open: AtomicU64,
    /// Blocks that were asked for while a question was open.
    pub(crate) hedged: AtomicU64,
}

/// A question that a silent node does not answer.
struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    fn new(open: &'a AtomicU64) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Wire {
    pub(crate) fn join(&self, id: NodeId, volunteer: Arc<dyn Volunteer>) {
        self.nodes.lock().unwrap().insert(id, volunteer);
    }

    /// Does not come back from a silent node.
    async fn wait_for(&self, peer: NodeId) {
        if self.silent.lock().unwrap().contains(&peer) {
            let _open = Open::new(&self.open);
            std::future::pending::<()>().await;
        }
        if self.open.load(Ordering::SeqCst) > 0 {
            self.hedged.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn peer(&self, peer: &PeerAddr) -> Result<Arc<dyn Volunteer>, CallError> {
        let found = self.nodes.lock().unwrap().get(&peer.id).cloned();
        found.ok_or(CallError::Unreachable { peer: peer.id, reason: "gone".into() })
    }
}

/// One node's view of the wire.
pub(crate) struct Link {
    pub(crate) wire: Arc<Wire>,
    pub(crate) local: NodeId,
}

#[async_trait]
impl Network for Link {
    fn local_id(&self) -> NodeId {
        self.local
    }

    fn local_addr(&self) -> PeerAddr {
        PeerAddr { id: self.local, addrs: Vec::new() }
    }

    fn volunteers(&self) -> Vec<(PeerAddr, Hello)> {
        let seats = self.wire.nodes.lock().unwrap();
        let others = seats.iter().filter(|(id, _)| **id != self.local);
        others.map(|(id, volunteer)| (PeerAddr { id: *id, addrs: Vec::new() }, volunteer.hello())).collect()
    }

    async fn run_task(&self, peer: &PeerAddr, offer: TaskOffer, envelope: Bytes) -> Result<Answer, CallError> {
        let volunteer = self.wire.peer(peer)?;
        match volunteer.offer(self.local, &offer).await {
            OfferReply::Accept => match volunteer.examine(self.local, &offer, &envelope) {
                Ok(()) => Ok(volunteer.run(self.local, offer, envelope).await),
                Err(reason) => {
                    volunteer.release(self.local, &offer);
                    Err(CallError::Refused { peer: peer.id, reason })
                }
            },
            OfferReply::Busy { retry_after } => Err(CallError::Busy { peer: peer.id, retry_after }),
            OfferReply::Refused(reason) | OfferReply::Breach(reason) => {
                Err(CallError::Refused { peer: peer.id, reason })
            }
        }
    }

    async fn read_block(&self, peer: &PeerAddr, request: ReadBlock) -> Result<Bytes, CallError> {
        self.wire.wait_for(peer.id).await;
        let read = self.wire.peer(peer)?.read_block(self.local, &request).await;
        let bytes = read.map_err(|error| CallError::Block { peer: peer.id, error })?;
        if request.cid.matches(&bytes) {
            return Ok(bytes);
        }
        Err(CallError::Misbehaved { peer: peer.id, reason: "wrong bytes".into() })
    }

    async fn write_block(&self, peer: &PeerAddr, request: WriteBlock, data: Bytes) -> Result<(), CallError> {
        let written = self.wire.peer(peer)?.write_block(self.local, request, data).await;
        written.map_err(|error| CallError::Block { peer: peer.id, error })
    }

    async fn control(&self, peer: &PeerAddr, request: ControlRequest) -> Result<ControlReply, CallError> {
        Ok(self.wire.peer(peer)?.control(self.local, request).await)
    }
}

/// A node with its folder.
pub(crate) struct Node {
    pub(crate) service: Arc<NodeService>,
    pub(crate) volunteer: Arc<dyn Volunteer>,
    pub(crate) key: NodeKey,
    pub(crate) folder: tempfile::TempDir,
}

impl Node {
    pub(crate) fn addr(&self) -> PeerAddr {
        PeerAddr { id: self.key.id(), addrs: Vec::new() }
    }
}

/// A coordinator and the nodes it can reach.
pub(crate) struct World {
    pub(crate) coordinator: NodeKey,
    pub(crate) wire: Arc<Wire>,
    nonce: AtomicU64,
}

pub(crate) fn config(folder: &tempfile::TempDir) -> NodeConfig {
    let runner = env!("CARGO_BIN_EXE_conun-test-node-runner");
    NodeConfig {
        runner_args: Vec::new(),
        gc_interval: Duration::from_millis(200),
        ..NodeConfig::new(folder.path(), runner)
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self { coordinator: NodeKey::generate(&OsRng), wire: Arc::default(), nonce: AtomicU64::new(1) }
    }

    pub(crate) fn node(&self, liar: Option<LiarMode>) -> Node {
        self.node_with(|config| config.liar = liar)
    }

    pub(crate) fn node_with(&self, change: impl FnOnce(&mut NodeConfig)) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        change(&mut config);
        self.start(config, NodeKey::generate(&OsRng), folder)
    }

    pub(crate) fn start(&self, config: NodeConfig, key: NodeKey, folder: tempfile::TempDir) -> Node {
        let service = NodeService::start(config, key.clone()).unwrap();
        service.attach(self.link(key.id()));
        let volunteer = service.volunteer();
        self.wire.join(key.id(), volunteer.clone());
        Node { service, volunteer, key, folder }
    }

    pub(crate) fn link(&self, local: NodeId) -> Arc<Link> {
        Arc::new(Link { wire: self.wire.clone(), local })
    }

    pub(crate) fn offer(&self, node: &Node, task: &Task) -> TaskOffer {
        self.offer_by(&self.coordinator, node, task)
    }

    pub(crate) fn offer_by(&self, by: &NodeKey, node: &Node, task: &Task) -> TaskOffer {
        let now = SystemClock.unix_seconds();
        let order = TaskOrder {
            job: task.envelope.job,
            task_cid: Cid::raw(&task.bytes),
            provider: node.key.id(),
            nonce: self.nonce.fetch_add(1, Ordering::Relaxed),
            account: AccountId::default(),
            price: Amount::ZERO,
            deadline: now + 60,
        };
        TaskOffer {
            order: SignedOrder::sign(order, &Domain::default(), by).unwrap(),
            envelope_len: task.bytes.len() as u64,
            profile: task.envelope.profile,
            memory: task.envelope.memory,
            timeout_ms: 20_000,
            sources: task.sources.clone(),
            capability: Capability::generate(&OsRng),
            lease: Lease { id: LeaseId::named("job"), kind: LeaseKind::Job, expires: now + 600 },
        }
    }

    pub(crate) async fn run(&self, node: &Node, task: &Task) -> (TaskOffer, Answer) {
        let offer = self.offer(node, task);
        let answer = self.run_offer(node, task, &offer).await;
        (offer, answer)
    }

    pub(crate) async fn run_offer(&self, node: &Node, task: &Task, offer: &TaskOffer) -> Answer {
        self.try_offer(node, task, offer).await.unwrap()
    }

    pub(crate) async fn try_offer(&self, node: &Node, task: &Task, offer: &TaskOffer) -> Result<Answer, CallError> {
        self.link(self.coordinator.id()).run_task(&node.addr(), offer.clone(), task.bytes.clone()).await
    }

    pub(crate) async fn put(&self, node: &Node, bytes: &Bytes) -> Cid {
        let cid = Cid::raw(bytes);
        let expires = SystemClock.unix_seconds() + 600;
        let lease = Lease { id: LeaseId::named("table"), kind: LeaseKind::Table, expires };
        let request = WriteBlock { cid, len: bytes.len() as u64, lease };
        self.link(self.coordinator.id()).write_block(&node.addr(), request, bytes.clone()).await.unwrap();
        cid
    }

    pub(crate) async fn read(&self, node: &Node, cid: Cid, capability: Option<Capability>) -> Result<Bytes, CallError> {
        self.link(self.coordinator.id()).read_block(&node.addr(), ReadBlock::whole(cid, capability)).await
    }
}

/// A task as a coordinator would send it.
pub(crate) struct Task {
    pub(crate) envelope: TaskEnvelope,
    pub(crate) bytes: Bytes,
    pub(crate) sources: Vec<Source>,
}

impl Task {
    pub(crate) fn new(
        plan: &Arc<dyn ExecutionPlan>,
        shards: Vec<InputShard>,
        blocks: Vec<InputBlock>,
        sources: Vec<Source>,
    ) -> Self {
        let envelope = TaskEnvelope::new(JobId([1; 16]), 1, 0, encode_plan(plan).unwrap());
        Self::of(TaskEnvelope { shards, blocks, ..envelope }, sources)
    }

    pub(crate) fn of(envelope: TaskEnvelope, sources: Vec<Source>) -> Self {
        let bytes = codec::encode(&envelope).unwrap().into();
        Self { envelope, bytes, sources }
    }
}

/// A Parquet shard of `rows` rows: k cycles through a, b, c; v counts.
pub(crate) struct Shard {
    pub(crate) schema: SchemaRef,
    pub(crate) bytes: Bytes,
    pub(crate) input: InputShard,
}

pub(crate) fn shard(rows: i64) -> Shard {
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|i| ["a", "b", "c"][(i % 3) as usize])));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let batch = RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("v", values, true)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let volume = Volume { rows: rows as u64, bytes: bytes.len() as u64 };
    Shard { schema: batch.schema(), input: InputShard { cid: Cid::raw(&bytes), volume }, bytes: bytes.into() }
}

pub(crate) fn source(cid: Cid, len: u64, holders: &[&Node], capability: Option<Capability>) -> Source {
    let holders = holders.iter().map(|node| Holder { peer: node.addr(), capability }).collect();
    Source { cid, len, holders, recovery: None }
}

fn scan(shard: &Shard) -> Arc<dyn ExecutionPlan> {
    let source = Arc::new(ParquetSource::new(shard.schema.clone()));
    let file = PartitionedFile::new(shard.input.cid.to_string(), shard.input.volume.bytes);
    DataSourceExec::from_data_source(FileScanConfigBuilder::new(shards_url().unwrap(), source).with_file(file).build())
}

/// `select k, sum(v) group by k` over `shard`, held by `holders`.
pub(crate) fn sum_task(shard: &Shard, holders: &[&Node]) -> Task {
    let input = scan(shard);
    let schema = input.schema();
    let group = PhysicalGroupBy::new_single(vec![(col("k", &schema).unwrap(), "k".into())]);
    let sum = AggregateExprBuilder::new(sum_udaf(), vec![col("v", &schema).unwrap()]);
    let sum = Arc::new(sum.schema(schema.clone()).alias("s").build().unwrap());
    let plan = AggregateExec::try_new(AggregateMode::Single, group, vec![sum], vec![None], input, schema).unwrap();
    let plan: Arc<dyn ExecutionPlan> = Arc::new(plan);
    let found = source(shard.input.cid, shard.input.volume.bytes, holders, None);
    Task::new(&plan, vec![shard.input], Vec::new(), vec![found])
}

/// Reads one block of a job.
pub(crate) fn read_task(schema: SchemaRef, block: InputBlock, found: Source) -> Task {
    let reader = BlockReaderExec::try_new(schema, vec![vec![block]], Partitioning::UnknownPartitioning(1)).unwrap();
    let plan: Arc<dyn ExecutionPlan> = Arc::new(reader);
    Task::new(&plan, Vec::new(), vec![block], vec![found])
}
