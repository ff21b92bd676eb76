//! A network within one process, for the tests of other crates: pipes instead of sockets, but the same two ends of
//! every protocol, so that each message is encoded, bounded and decoded and each block verified as on the wire.
//! Peers can be taken offline and slowed down.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{
    Answer, NodeId, NodeKey, PeerAddr, TaskOffer,
    port::{CallError, Network, Volunteer},
    wire::{ControlReply, ControlRequest, Hello, PROTOCOL_VERSION, ReadBlock, WriteBlock},
};
use tokio::{sync::watch, time::sleep};

use crate::{
    client::{self, Connect},
    config::{Limits, Timing},
    frame::BoxWire,
    gate::lock,
    server::{PeerList, Server},
    wire::Protocol,
};

/// Bytes on their way in each direction of a stream, as much as a Yamux window at first.
const PIPE: usize = 256 << 10;

struct Seat {
    addr: String,
    volunteer: Arc<dyn Volunteer>,
    server: Arc<Server>,
    offline: watch::Sender<bool>,
    delay: Duration,
}

#[derive(Default)]
struct Seats(Mutex<BTreeMap<NodeId, Seat>>);

impl Seats {
    fn with<T>(&self, id: NodeId, get: impl FnOnce(&mut Seat) -> T) -> Option<T> {
        lock(&self.0).get_mut(&id).map(get)
    }

    /// Everybody online except `me`.
    fn others(&self, me: NodeId) -> Vec<(PeerAddr, Arc<dyn Volunteer>)> {
        let seats = lock(&self.0);
        let others = seats.iter().filter(|(id, seat)| **id != me && !*seat.offline.borrow());
        others.map(|(id, seat)| (seat.peer(*id), Arc::clone(&seat.volunteer))).collect()
    }
}

impl Seat {
    fn peer(&self, id: NodeId) -> PeerAddr {
        PeerAddr { id, addrs: vec![self.addr.clone()] }
    }
}

/// Whom a member knows: everybody online but itself.
struct View {
    me: NodeId,
    seats: Weak<Seats>,
}

impl PeerList for View {
    fn known_to(&self, asker: NodeId) -> Vec<PeerAddr> {
        let others = self.seats.upgrade().map(|seats| seats.others(self.me)).unwrap_or_default();
        others.into_iter().map(|(peer, _)| peer).filter(|peer| peer.id != asker).collect()
    }
}

/// An in-process network. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryNet {
    seats: Arc<Seats>,
    timing: Timing,
}

impl MemoryNet {
    /// An empty network.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty network with other waits, for tests of deadlines.
    #[must_use]
    pub fn with_timing(timing: Timing) -> Self {
        Self { timing, ..Self::default() }
    }

    /// Joins as `key`'s node at `addr` (any text), serving `volunteer`; who joins again replaces its former self.
    /// The handle is that node's view of the network.
    pub fn join(&self, key: &NodeKey, addr: &str, volunteer: Arc<dyn Volunteer>) -> Arc<dyn Network> {
        let peers = Arc::new(View { me: key.id(), seats: Arc::downgrade(&self.seats) });
        let server = Server::new(Arc::clone(&volunteer), peers, &Limits::default(), self.timing.clone());
        let (offline, delay) = (watch::Sender::new(false), Duration::ZERO);
        let seat = Seat { addr: addr.to_owned(), volunteer, server, offline, delay };
        lock(&self.seats.0).insert(key.id(), seat);
        Arc::new(Member { id: key.id(), net: self.clone() })
    }

    /// Takes a peer off the network, cutting what is under way, or brings it back.
    pub fn set_offline(&self, id: NodeId, offline: bool) {
        self.seats.with(id, |seat| seat.offline.send_replace(offline));
    }

    /// Makes every call to `id` begin this much later.
    pub fn set_delay(&self, id: NodeId, delay: Duration) {
        self.seats.with(id, |seat| seat.delay = delay);
    }
}

/// One node's view of a [`MemoryNet`].
struct Member {
    id: NodeId,
    net: MemoryNet,
}

impl Member {
    fn offline(&self, id: NodeId) -> Option<watch::Receiver<bool>> {
        self.net.seats.with(id, |seat| seat.offline.subscribe())
    }

    /// Runs a call until it ends or one of its two ends goes offline.
    async fn call<T>(&self, peer: NodeId, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let gone = || CallError::Unreachable { peer, reason: "it is offline".to_owned() };
        let (Some(mut mine), Some(mut its)) = (self.offline(self.id), self.offline(peer)) else { return Err(gone()) };
        tokio::select! {
            biased;
            _ = mine.wait_for(|off| *off) => Err(gone()),
            _ = its.wait_for(|off| *off) => Err(gone()),
            result = call => result,
        }
    }
}

#[async_trait]
impl Connect for Member {
    async fn open(&self, peer: &PeerAddr, protocol: Protocol) -> Result<BoxWire, CallError> {
        let seat = self.net.seats.with(peer.id, |s| (Arc::clone(&s.server), s.delay, s.offline.subscribe()));
        let Some((server, delay, mut offline)) = seat.filter(|_| peer.id != self.id) else {
            return Err(CallError::Unreachable { peer: peer.id, reason: "no such peer".to_owned() });
        };
        sleep(delay).await;
        let (near, far) = tokio::io::duplex(PIPE);
        let from = self.id;
        // It ends when either end of the pipe does, as a stream of a real connection.
        tokio::spawn(async move {
            tokio::select! {
                _ = offline.wait_for(|off| *off) => {}
                _ = server.serve(protocol, from, Box::new(far)) => {}
            }
        });
        Ok(Box::new(near))
    }
}

#[async_trait]
impl Network for Member {
    fn local_id(&self) -> NodeId {
        self.id
    }

    fn local_addr(&self) -> PeerAddr {
        let addr = self.net.seats.with(self.id, |seat| seat.peer(self.id));
        addr.unwrap_or(PeerAddr { id: self.id, addrs: Vec::new() })
    }

    fn volunteers(&self) -> Vec<(PeerAddr, Hello)> {
        if self.offline(self.id).is_none_or(|off| *off.borrow()) {
            return Vec::new();
        }
        let others = self.net.seats.others(self.id).into_iter().map(|(peer, volunteer)| (peer, volunteer.hello()));
        others.filter(|(_, hello)| hello.volunteer && hello.version == PROTOCOL_VERSION).collect()
    }

    async fn run_task(&self, peer: &PeerAddr, offer: TaskOffer, envelope: Bytes) -> Result<Answer, CallError> {
        self.call(peer.id, client::run_task(self, peer, offer, envelope, &self.net.timing)).await
    }

    async fn read_block(&self, peer: &PeerAddr, request: ReadBlock) -> Result<Bytes, CallError> {
        self.call(peer.id, client::read_block(self, peer, request, &self.net.timing)).await
    }

    async fn write_block(&self, peer: &PeerAddr, request: WriteBlock, data: Bytes) -> Result<(), CallError> {
        self.call(peer.id, client::write_block(self, peer, request, data, &self.net.timing)).await
    }

    async fn control(&self, peer: &PeerAddr, request: ControlRequest) -> Result<ControlReply, CallError> {
        let timing = &self.net.timing;
        self.call(peer.id, client::control(self, peer, request, timing.reply, timing)).await
    }
}
