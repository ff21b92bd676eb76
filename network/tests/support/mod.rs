//! A volunteer whose every answer a test can choose, and the values that tests send.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses a part of it")]

pub(crate) mod log;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_network::{ClientOnly, Host, HostConfig, Timing};
use conun_types::{
    AccountId, Address, Amount, Answer, Capability, Cid, Error, JobId, Lease, LeaseId, LeaseKind, MemoryClass, NodeId,
    NodeKey, OsRng, Outcome, OutputBlock, SignedOrder, SignedReceipt, TaskOffer, TaskOrder, TaskReceipt, Vote,
    WorkUnits,
    eip712::Domain,
    port::{CallError, Network, OfferReply, Volunteer},
    wire::{BlockError, ControlReply, ControlRequest, Hello, ReadBlock, WriteBlock},
};

/// A volunteer for tests.
pub struct Fake {
    pub key: NodeKey,
    pub blocks: Mutex<HashMap<Cid, Bytes>>,
    pub reply: Mutex<OfferReply>,
    /// What is wrong with every envelope.
    pub unfit: Mutex<Option<String>>,
    /// How long a task runs.
    pub takes: Mutex<Duration>,
    pub running: Arc<AtomicUsize>,
    pub started: AtomicUsize,
    pub released: AtomicUsize,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            key: NodeKey::generate(&OsRng),
            blocks: Mutex::default(),
            reply: Mutex::new(OfferReply::Accept),
            unfit: Mutex::default(),
            takes: Mutex::new(Duration::ZERO),
            running: Arc::default(),
            started: AtomicUsize::new(0),
            released: AtomicUsize::new(0),
        })
    }

    pub fn keep(&self, data: impl Into<Bytes>) -> Cid {
        let data = data.into();
        let cid = Cid::raw(&data);
        self.keep_as(cid, data);
        cid
    }

    /// Keeps bytes under an id that may not be theirs.
    pub fn keep_as(&self, cid: Cid, data: impl Into<Bytes>) {
        self.blocks.lock().expect("unpoisoned").insert(cid, data.into());
    }

    pub fn answers(&self, reply: OfferReply) {
        *self.reply.lock().expect("unpoisoned") = reply;
    }

    pub fn takes(&self, time: Duration) {
        *self.takes.lock().expect("unpoisoned") = time;
    }

    pub fn running(&self) -> usize {
        self.running.load(SeqCst)
    }
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[async_trait]
impl Volunteer for Fake {
    fn hello(&self) -> Hello {
        Hello { volunteer: true, cores: 2, profiles: vec![[7; 32].into()], ..ClientOnly::default().hello() }
    }

    async fn offer(&self, _: NodeId, _: &TaskOffer) -> OfferReply {
        self.reply.lock().expect("unpoisoned").clone()
    }

    fn examine(&self, _: NodeId, _: &TaskOffer, _: &[u8]) -> Result<(), String> {
        self.unfit.lock().expect("unpoisoned").clone().map_or(Ok(()), Err)
    }

    async fn run(&self, _: NodeId, offer: TaskOffer, envelope: Bytes) -> Answer {
        self.started.fetch_add(1, SeqCst);
        self.running.fetch_add(1, SeqCst);
        let _running = Running(Arc::clone(&self.running));
        let takes = *self.takes.lock().expect("unpoisoned");
        tokio::time::sleep(takes).await;
        answer(&self.key, &offer, &envelope)
    }

    fn release(&self, _: NodeId, _: &TaskOffer) {
        self.released.fetch_add(1, SeqCst);
    }

    async fn read_block(&self, _: NodeId, request: &ReadBlock) -> Result<Bytes, BlockError> {
        self.blocks.lock().expect("unpoisoned").get(&request.cid).cloned().ok_or(BlockError::NotFound)
    }

    async fn may_write(&self, _: NodeId, request: &WriteBlock) -> Result<(), BlockError> {
        if request.len > 64 << 20 { Err(BlockError::QuotaExceeded) } else { Ok(()) }
    }

    async fn write_block(&self, _: NodeId, request: WriteBlock, data: Bytes) -> Result<(), BlockError> {
        assert!(request.cid.matches(&data), "the network checked it");
        self.keep_as(request.cid, data);
        Ok(())
    }

    async fn control(&self, _: NodeId, request: ControlRequest) -> ControlReply {
        match request {
            ControlRequest::Has(cids) => {
                let blocks = self.blocks.lock().expect("unpoisoned");
                ControlReply::Has(cids.iter().map(|cid| blocks.contains_key(cid)).collect())
            }
            ControlRequest::Pointers => ControlReply::Pointers(Vec::new()),
            _ => ControlReply::Refused(Error::usage("not in this test")),
        }
    }
}

/// An answer that tells how long the envelope was.
pub fn answer(key: &NodeKey, offer: &TaskOffer, envelope: &[u8]) -> Answer {
    let receipt = TaskReceipt {
        order_hash: offer.order.order.struct_hash().expect("a hash"),
        provider: Address::default(),
        profile: offer.profile,
        inputs_root: [1; 32],
        outputs_root: [2; 32],
        rows: 1,
        bytes: envelope.len() as u64,
        units: WorkUnits(3),
    };
    let block = OutputBlock { partition: 0, cid: Cid::raw(envelope), rows: 1, bytes: envelope.len() as u64 };
    let vote = Vote { receipt: SignedReceipt::sign(receipt, &Domain::default(), key), outputs: vec![block] };
    Answer { outcome: Outcome::Done(vote), complaints: Vec::new() }
}

/// An offer of `envelope`.
pub fn offer(envelope: &[u8], timeout: Duration) -> TaskOffer {
    let key = NodeKey::generate(&OsRng);
    let order = TaskOrder {
        job: JobId([1; 16]),
        task_cid: Cid::raw(envelope),
        provider: key.id(),
        nonce: 1,
        account: AccountId::default(),
        price: Amount::ZERO,
        deadline: u64::MAX,
    };
    TaskOffer {
        order: SignedOrder::sign(order, &Domain::default(), &key).expect("signed"),
        envelope_len: envelope.len() as u64,
        profile: [7; 32],
        memory: MemoryClass::Small,
        timeout_ms: timeout.as_millis() as u64,
        sources: Vec::new(),
        capability: Capability([3; 16]),
        lease: lease(),
    }
}

pub fn lease() -> Lease {
    Lease { id: LeaseId::named("test"), kind: LeaseKind::Job, expires: u64::MAX }
}

pub fn write_of(data: &[u8]) -> WriteBlock {
    WriteBlock { cid: Cid::raw(data), len: data.len() as u64, lease: lease() }
}

pub fn block(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

/// Settings for tests: everything is quicker.
pub fn config(bootstrap: &[&Arc<Host>]) -> HostConfig {
    let address = |host: &Arc<Host>| {
        let addr = host.local_addr();
        format!("{}/p2p/{}", addr.addrs[0], addr.id)
    };
    HostConfig {
        bootstrap: bootstrap.iter().map(|host| address(host)).collect(),
        timing: timing(),
        ..HostConfig::default()
    }
}

pub fn timing() -> Timing {
    Timing {
        task_margin: Duration::from_millis(200),
        hello_every: Duration::from_millis(100),
        peers_every: Duration::from_millis(200),
        keepalive: Duration::from_millis(100),
        redial: Duration::from_millis(50),
        redial_max: Duration::from_millis(400),
        ban: Duration::from_millis(700),
        ..Timing::default()
    }
}

/// As [`config`], for who shuts peers out until the test is over.
pub fn unforgiving() -> HostConfig {
    HostConfig { timing: Timing { ban: Duration::from_secs(600), ..timing() }, ..config(&[]) }
}

pub async fn node(fake: &Arc<Fake>, bootstrap: &[&Arc<Host>]) -> Arc<Host> {
    Host::start(config(bootstrap), &fake.key, Arc::clone(fake) as _).await.expect("a node")
}

pub async fn coordinator(bootstrap: &[&Arc<Host>]) -> Arc<Host> {
    let key = NodeKey::generate(&OsRng);
    Host::start(config(bootstrap), &key, Arc::new(ClientOnly::default())).await.expect("a coordinator")
}

/// Waits for something to become true, for at most five seconds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(5), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn misbehaved<T: std::fmt::Debug>(result: Result<T, CallError>) {
    assert!(matches!(result, Err(CallError::Misbehaved { .. })), "{result:?}");
}

pub fn unreachable<T: std::fmt::Debug>(result: Result<T, CallError>) {
    assert!(matches!(result, Err(CallError::Unreachable { .. })), "{result:?}");
}
