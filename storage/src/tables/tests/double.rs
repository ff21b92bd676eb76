//! A network in memory: some [`Store`]s behind the [`Network`] trait, with switches for faults and lies.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{
    Answer, Cid, Lease, LeaseKind, MemoryClass, NodeId, TaskOffer,
    wire::{BlockError, PROTOCOL_VERSION, Pointer, ReadBlock, WriteBlock},
};

use super::*;
use crate::{
    store::{Limits, Store},
    testing::{ManualClock, SeededRng, key},
};

/// A volunteer.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) store: Store,
    pub(super) online: AtomicBool,
    /// Sends wrong bytes.
    pub(super) corrupt: AtomicBool,
    pub(super) refuse_writes: AtomicBool,
    /// Claims to have room.
    pub(super) boast: AtomicBool,
    /// Times that it is busy before it takes a block.
    pub(super) busy: AtomicU64,
    pointers: Mutex<Option<Vec<Pointer>>>,
}

impl Node {
    pub(super) fn say_pointers(&self, pointers: Vec<Pointer>) {
        *self.pointers.lock().unwrap() = Some(pointers);
    }

    pub(super) fn lose_everything(&self) {
        self.store.gc(u64::MAX).unwrap();
    }

    fn hello(&self) -> Hello {
        let (store_used, store_quota) = self.store.usage();
        let store_quota = if self.boast.load(Relaxed) { u64::MAX } else { store_quota };
        Hello {
            version: PROTOCOL_VERSION,
            agent: "double".into(),
            volunteer: true,
            profiles: vec![],
            cores: 1,
            running: 0,
            memory: MemoryClass::Small,
            store_quota,
            store_used,
            pay: None,
        }
    }

    fn answer(&self, from: NodeId, request: ControlRequest) -> ControlReply {
        let refused = |e: BlockError| ControlReply::Refused(Error::data(e.to_string()));
        match request {
            ControlRequest::Has(cids) => ControlReply::Has(cids.iter().map(|cid| self.store.contains(cid)).collect()),
            ControlRequest::Renew { cids, lease } => {
                self.store.renew(from, &cids, lease).map_or_else(refused, ControlReply::Has)
            }
            ControlRequest::EndLease(lease) => {
                self.store.end_lease(from, lease).map_or_else(refused, |()| ControlReply::Done)
            }
            ControlRequest::PutPointer(pointer) => {
                self.store.put_pointer(pointer).map_or_else(ControlReply::Refused, |()| ControlReply::Done)
            }
            ControlRequest::Pointers => {
                let said = self.pointers.lock().unwrap().clone();
                ControlReply::Pointers(said.unwrap_or_else(|| self.store.pointers()))
            }
            ControlRequest::Hello => ControlReply::Hello(self.hello()),
            ControlRequest::Peers => ControlReply::Peers(vec![]),
            ControlRequest::Pay(_) => ControlReply::Claims(vec![]),
            ControlRequest::Receipt(_) => ControlReply::Receipt(None),
        }
    }
}

/// Some nodes, a clock, and a coordinator's folder and key.
pub(super) struct World {
    pub(super) nodes: Arc<Vec<Node>>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) key: NodeKey,
    dir: tempfile::TempDir,
}

impl World {
    pub(super) fn new(nodes: u64) -> Self {
        Self::with_quota(nodes, |_| 1 << 30)
    }

    pub(super) fn with_quota(nodes: u64, quota: impl Fn(u64) -> u64) -> Self {
        let clock = Arc::new(ManualClock::at(1_800_000_000));
        let node = |n| {
            let id = key(n).id();
            Node {
                id,
                store: Store::in_memory(id, Limits::of(quota(n)), clock.clone()),
                online: AtomicBool::new(true),
                corrupt: AtomicBool::new(false),
                refuse_writes: AtomicBool::new(false),
                boast: AtomicBool::new(false),
                busy: AtomicU64::new(0),
                pointers: Mutex::new(None),
            }
        };
        let nodes = Arc::new((0..nodes).map(node).collect());
        Self { nodes, clock, key: key(1000), dir: tempfile::tempdir().unwrap() }
    }

    pub(super) async fn tables(&self) -> Tables {
        self.open(self.key.clone()).await
    }

    /// The tables of another coordinator, in the same folder.
    pub(super) async fn tables_of(&self, n: u64) -> Tables {
        self.open(key(n)).await
    }

    async fn open(&self, key: NodeKey) -> Tables {
        let network = Arc::new(Double { local: key.id(), nodes: self.nodes.clone() });
        Tables::open(&self.folder(), key, network, self.clock.clone(), Arc::new(SeededRng::new(42))).await.unwrap()
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.dir.path().join("tables")
    }

    pub(super) fn lose_folder(&self) {
        std::fs::remove_dir_all(self.folder()).unwrap();
    }

    pub(super) fn collect(&self) {
        let now = self.clock.unix_seconds();
        for node in self.nodes.iter() {
            node.store.gc(now).unwrap();
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.nodes.iter().map(|node| node.store.usage().0).sum()
    }

    /// Has every node keep a block.
    pub(super) fn plant(&self, cid: Cid, bytes: &[u8]) {
        let expires = self.clock.unix_seconds() + 1000;
        let lease = Lease { id: LeaseId::named("planted"), kind: LeaseKind::Table, expires };
        for node in self.nodes.iter() {
            let request = WriteBlock { cid, len: bytes.len() as u64, lease };
            node.store.keep(key(5).id(), &request, Bytes::copy_from_slice(bytes)).unwrap();
        }
    }
}

/// The network as the coordinator `local` sees it.
pub(super) struct Double {
    local: NodeId,
    nodes: Arc<Vec<Node>>,
}

fn addr(id: NodeId) -> PeerAddr {
    PeerAddr { id, addrs: vec![] }
}

impl Double {
    fn node(&self, peer: &PeerAddr) -> Result<&Node, CallError> {
        let found = self.nodes.iter().find(|node| node.id == peer.id && node.online.load(Relaxed));
        found.ok_or(CallError::Unreachable { peer: peer.id, reason: "switched off".into() })
    }
}

#[async_trait]
impl Network for Double {
    fn local_id(&self) -> NodeId {
        self.local
    }

    fn local_addr(&self) -> PeerAddr {
        addr(self.local)
    }

    fn volunteers(&self) -> Vec<(PeerAddr, Hello)> {
        let online = self.nodes.iter().filter(|node| node.online.load(Relaxed));
        online.map(|node| (addr(node.id), node.hello())).collect()
    }

    async fn run_task(&self, peer: &PeerAddr, _: TaskOffer, _: Bytes) -> Result<Answer, CallError> {
        Err(CallError::Refused { peer: peer.id, reason: "keeps blocks only".into() })
    }

    async fn read_block(&self, peer: &PeerAddr, request: ReadBlock) -> Result<Bytes, CallError> {
        let node = self.node(peer)?;
        let bytes = node.store.read(&request.cid).map_err(|error| CallError::Block { peer: peer.id, error })?;
        if node.corrupt.load(Relaxed) {
            return Ok(bytes.iter().map(|byte| byte ^ 1).collect());
        }
        Ok(bytes)
    }

    async fn write_block(&self, peer: &PeerAddr, request: WriteBlock, data: Bytes) -> Result<(), CallError> {
        let node = self.node(peer)?;
        tokio::task::yield_now().await;
        if node.refuse_writes.load(Relaxed) {
            return Err(CallError::TimedOut(peer.id));
        }
        if node.busy.load(Relaxed) > 0 {
            node.busy.fetch_sub(1, Relaxed);
            return Err(CallError::Busy { peer: peer.id, retry_after: Duration::from_millis(1) });
        }
        let refused = |error| CallError::Block { peer: peer.id, error };
        node.store.admit(self.local, &request).map_err(refused)?;
        node.store.keep(self.local, &request, data).map_err(refused)
    }

    async fn control(&self, peer: &PeerAddr, request: ControlRequest) -> Result<ControlReply, CallError> {
        Ok(self.node(peer)?.answer(self.local, request))
    }
}
