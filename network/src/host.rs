//! A host: this process as a peer. It starts the swarm, serves the volunteer, keeps in touch with peers, and is the
//! [`Network`] through which the rest of Conun calls them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{
    Answer, Error, NodeId, NodeKey, PeerAddr, Result, TaskOffer,
    port::{CallError, Network, Volunteer},
    wire::{ControlReply, ControlRequest, Hello, ReadBlock, WriteBlock},
};
use libp2p::PeerId;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::{compat::FuturesAsyncReadCompatExt, sync::CancellationToken, task::TaskTracker};

use crate::{
    client::{self, Connect},
    config::{HostConfig, Limits, Timing},
    discovery::{Bootstrap, Candidate, Discovery},
    driver::{Command, DialFailed, Driver},
    frame::{BoxWire, WireError},
    gate::{Queues, lock},
    ids,
    peers::PeerTable,
    server::Server,
    streams::{Connections, Inbound, OpenError},
    wire::{Protocol, other_version},
};

/// Commands that wait for the swarm.
const COMMANDS: usize = 256;
/// Between two looks at whom to dial.
const LOOK: Duration = Duration::from_millis(100);

/// This process as a peer. Dropping the last handle ends it, as [`Host::shutdown`] does.
pub struct Host {
    core: Arc<Core>,
    queues: Queues,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the host's own tasks share.
struct Core {
    id: NodeId,
    table: Arc<PeerTable>,
    connections: Connections,
    commands: mpsc::Sender<Command>,
    /// Peers that are being greeted.
    greeted: Mutex<HashSet<NodeId>>,
    limits: Limits,
    timing: Timing,
}

impl Host {
    /// Starts a host with the bootstrap list of `config`, serving `service` (a coordinator: [`crate::ClientOnly`]).
    /// It listens when this returns; peers are met in the background (see [`Host::wait_for`]).
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Usage`]: an address is malformed, not ours, or in use.
    pub async fn start(config: HostConfig, key: &NodeKey, service: Arc<dyn Volunteer>) -> Result<Arc<Self>> {
        let discovery = Arc::new(Bootstrap::new(&config.bootstrap)?);
        Self::start_with(config, key, service, discovery).await
    }

    /// Starts a host that looks for peers by `discovery` instead of its bootstrap list.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn start_with(
        config: HostConfig,
        key: &NodeKey,
        service: Arc<dyn Volunteer>,
        discovery: Arc<dyn Discovery>,
    ) -> Result<Arc<Self>> {
        let (commands, orders) = mpsc::channel(COMMANDS);
        let (inbound, streams) = mpsc::channel(config.limits.streams);
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let (connections, table) = (Connections::default(), Arc::new(PeerTable::new()));
        let driver =
            Driver::start(&config, key, connections.clone(), inbound, arrived, orders, Arc::clone(&table)).await?;
        let (limits, timing) = (config.limits, config.timing);
        let server = Server::new(service, Arc::clone(&table) as _, &limits, timing.clone());
        let queues = Queues::new(limits.outbound_per_peer);
        let core =
            Arc::new(Core { id: key.id(), table, connections, commands, greeted: Mutex::default(), limits, timing });
        let host = Self { core: Arc::clone(&core), queues, stop: CancellationToken::new(), tasks: TaskTracker::new() };
        host.spawn(driver.run());
        host.spawn(accept(Arc::clone(&core), server, streams, host.tasks.clone(), host.stop.clone()));
        host.spawn(greet_all(
            Arc::clone(&core),
            Arc::clone(&discovery),
            arrivals,
            host.tasks.clone(),
            host.stop.clone(),
        ));
        host.spawn(seek(core, discovery));
        Ok(Arc::new(host))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(task));
    }

    /// Waits until `n` volunteers are known.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Unavailable`] where fewer are after `wait`.
    pub async fn wait_for(&self, n: usize, wait: Duration) -> Result<()> {
        let mut changes = self.core.table.changes();
        let enough = async { while self.core.table.volunteers().len() < n && changes.changed().await.is_ok() {} };
        if timeout(wait, enough).await.is_ok() {
            return Ok(());
        }
        let known = self.core.table.volunteers().len();
        Err(Error::unavailable(format!("{known} of {n} volunteers answered within {:.1} s", wait.as_secs_f64()))
            .with_hint("are the nodes running, and is the bootstrap address right?"))
    }

    /// Every connected peer, volunteers or not.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.core.table.len()
    }

    /// Closes every stream and connection, drops what runs for peers, and waits until all of it has ended.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves the streams that peers open.
async fn accept(
    core: Arc<Core>,
    server: Arc<Server>,
    mut streams: mpsc::Receiver<Inbound>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(Inbound { peer, protocol, stream }) = streams.recv().await {
        let (Some(from), Some(protocol)) = (ids::node_id(&peer), Protocol::named(protocol.as_ref())) else { continue };
        let (core, server) = (Arc::clone(&core), Arc::clone(&server));
        let serve = async move {
            if let Err(WireError::Broken(_)) = server.serve(protocol, from, Box::new(stream.compat())).await {
                core.ban(peer).await;
            }
        };
        tasks.spawn(stop.clone().run_until_cancelled_owned(serve));
    }
}

/// Keeps in touch with every peer that arrives, for as long as it is connected.
async fn greet_all(
    core: Arc<Core>,
    discovery: Arc<dyn Discovery>,
    mut arrivals: mpsc::UnboundedReceiver<NodeId>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(id) = arrivals.recv().await {
        // A peer that reconnects quickly still has its greeter, which goes on with the new connection.
        if !lock(&core.greeted).insert(id) {
            continue;
        }
        let greet = greet(Arc::clone(&core), Arc::clone(&discovery), id);
        tasks.spawn(stop.clone().run_until_cancelled_owned(greet));
    }
}

async fn greet(core: Arc<Core>, discovery: Arc<dyn Discovery>, id: NodeId) {
    let mut asked_peers: Option<Instant> = None;
    while core.keeps_greeting(&id) {
        let hello = core.ask(id, ControlRequest::Hello, core.timing.hello_timeout).await;
        let hello = match hello {
            Ok(ControlReply::Hello(hello)) => Some(hello),
            Err(CallError::Misbehaved { reason, .. }) => {
                core.answered_wrongly(id, &reason).await;
                None
            }
            _ => None,
        };
        let answered = hello.is_some();
        core.table.greeted(&id, hello);
        if answered && asked_peers.is_none_or(|at| at.elapsed() >= core.timing.peers_every) {
            asked_peers = Some(Instant::now());
            core.ask_peers(id, &*discovery).await;
        }
        sleep(core.timing.hello_every).await;
    }
}

/// Dials candidates that are not connected, each with a growing wait between its failures.
async fn seek(core: Arc<Core>, discovery: Arc<dyn Discovery>) {
    let mut tries: HashMap<Candidate, Try> = HashMap::new();
    let (done, mut outcomes) = mpsc::unbounded_channel();
    loop {
        while let Ok((candidate, outcome)) = outcomes.try_recv() {
            if let Some(attempt) = tries.get_mut(&candidate) {
                attempt.ended(outcome, &core.timing);
                if attempt.failures > 0 {
                    discovery.failed(&candidate, attempt.failures);
                }
            }
        }
        let candidates: HashSet<_> = discovery.candidates().into_iter().collect();
        tries.retain(|candidate, attempt| attempt.running || candidates.contains(candidate));
        for candidate in candidates {
            let attempt = tries.entry(candidate.clone()).or_default();
            if attempt.due(&candidate, &core) {
                attempt.running = true;
                let (core, done) = (Arc::clone(&core), done.clone());
                // Not tracked: it ends by itself within the time for dialling.
                tokio::spawn(async move {
                    let outcome = core.dial_candidate(&candidate).await;
                    let _ = done.send((candidate, outcome));
                });
            }
        }
        sleep(LOOK).await;
    }
}

/// What became of the dials of one candidate.
#[derive(Default)]
struct Try {
    running: bool,
    failures: u32,
    /// Who answered at an address without a name.
    reached: Option<NodeId>,
    /// The address is our own.
    ourselves: bool,
    next: Option<Instant>,
}

impl Try {
    fn due(&self, candidate: &Candidate, core: &Core) -> bool {
        let id = candidate.id.or(self.reached);
        let connected = id.is_some_and(|id| id == core.id || core.table.has(&id));
        let waiting = self.next.is_some_and(|at| at > Instant::now());
        let full = core.table.len() >= core.limits.connections as usize;
        !(self.running || self.ourselves || connected || waiting || full)
    }

    fn ended(&mut self, outcome: Result<NodeId, DialFailed>, timing: &Timing) {
        self.running = false;
        match outcome {
            Ok(id) => {
                self.reached = Some(id);
                self.failures = 0;
                self.next = Some(Instant::now() + timing.redial);
            }
            Err(failed) => {
                self.ourselves = failed.ourselves;
                let wait = timing.redial.saturating_mul(1 << self.failures.min(16)).min(timing.redial_max);
                self.failures = self.failures.saturating_add(1);
                self.next = Some(Instant::now() + wait);
            }
        }
    }
}

impl Core {
    /// Whether `id` is still connected; else its greeter is struck off. Under one lock with the arrival of a new
    /// connection, so that a peer never has two greeters, nor none.
    fn keeps_greeting(&self, id: &NodeId) -> bool {
        let mut greeted = lock(&self.greeted);
        let connected = self.table.has(id);
        if !connected {
            greeted.remove(id);
        }
        connected
    }

    /// A question of the host's own, which does not queue behind the volunteer's traffic.
    async fn ask(&self, id: NodeId, request: ControlRequest, wait: Duration) -> Result<ControlReply, CallError> {
        let peer = self.table.addr(&id).unwrap_or(PeerAddr { id, addrs: Vec::new() });
        let call = client::control(self, &peer, request, wait, &self.timing);
        timeout(wait, call).await.unwrap_or(Err(CallError::TimedOut(id)))
    }

    async fn ask_peers(&self, id: NodeId, discovery: &dyn Discovery) {
        match self.ask(id, ControlRequest::Peers, self.timing.reply).await {
            Ok(ControlReply::Peers(peers)) => {
                peers.into_iter().filter(|peer| peer.id != self.id).for_each(|peer| discovery.learnt(peer));
            }
            Err(CallError::Misbehaved { reason, .. }) => self.answered_wrongly(id, &reason).await,
            _ => {}
        }
    }

    /// `id` answered a question of the host's own as no honest peer does.
    async fn answered_wrongly(&self, id: NodeId, reason: &str) {
        tracing::warn!(peer = %id, protocol = Protocol::Control.name(), reason, "a peer did what no honest one does");
        if let Ok(peer) = ids::peer_id(&id) {
            self.ban(peer).await;
        }
    }

    async fn ban(&self, peer: PeerId) {
        if !self.timing.ban.is_zero() {
            let _ = self.commands.send(Command::Ban { peer, until: Instant::now() + self.timing.ban }).await;
        }
    }

    async fn dial(&self, peer: Option<PeerId>, addrs: Vec<libp2p::Multiaddr>) -> Result<PeerId, DialFailed> {
        let failed = |reason: &str| DialFailed { reason: reason.to_owned(), ourselves: false };
        let (done, outcome) = oneshot::channel();
        let sent = self.commands.send(Command::Dial { peer, addrs, done }).await;
        sent.map_err(|_| failed("the network was shut down"))?;
        match timeout(self.timing.dial, outcome).await {
            Ok(outcome) => outcome.unwrap_or_else(|_| Err(failed("the dial was given up"))),
            Err(_) => Err(failed("no connection in time")),
        }
    }

    async fn dial_candidate(&self, candidate: &Candidate) -> Result<NodeId, DialFailed> {
        let failed = |reason: String| DialFailed { reason, ourselves: false };
        let peer = candidate.id.map(|id| ids::peer_id(&id)).transpose().map_err(|e| failed(e.message))?;
        let addrs = candidate.addrs.iter().filter_map(|text| ids::usable(text)).collect();
        let reached = self.dial(peer, addrs).await?;
        ids::node_id(&reached).ok_or_else(|| failed("its identity is not a secp256k1 key".to_owned()))
    }

    async fn connect(&self, peer: &PeerAddr, name: PeerId) -> Result<(), CallError> {
        if self.connections.has(&name) {
            return Ok(());
        }
        let unreachable = |reason| CallError::Unreachable { peer: peer.id, reason };
        self.dial(Some(name), ids::dialable(peer)).await.map(|_| ()).map_err(|failed| unreachable(failed.reason))
    }
}

#[async_trait]
impl Connect for Core {
    async fn open(&self, peer: &PeerAddr, protocol: Protocol) -> Result<BoxWire, CallError> {
        let id = peer.id;
        let unreachable = |reason: String| CallError::Unreachable { peer: id, reason };
        if id == self.id {
            return Err(unreachable("it is this node itself".to_owned()));
        }
        let name = ids::peer_id(&id).map_err(|e| unreachable(e.message))?;
        self.connect(peer, name).await?;
        if !self.table.may_speak(&id, protocol) {
            return Err(CallError::Refused { peer: id, reason: other_version() });
        }
        match timeout(self.timing.dial, self.connections.open(name, protocol.stream())).await {
            Ok(Ok(stream)) => Ok(Box::new(stream.compat())),
            Ok(Err(OpenError::Unsupported)) => Err(CallError::Refused { peer: id, reason: other_version() }),
            Ok(Err(OpenError::NotConnected)) => Err(unreachable("the connection was closed".to_owned())),
            Ok(Err(OpenError::Failed(reason))) => Err(unreachable(reason)),
            Err(_) => Err(CallError::TimedOut(id)),
        }
    }
}

#[async_trait]
impl Network for Host {
    fn local_id(&self) -> NodeId {
        self.core.id
    }

    fn local_addr(&self) -> PeerAddr {
        PeerAddr { id: self.core.id, addrs: self.core.table.listening() }
    }

    fn volunteers(&self) -> Vec<(PeerAddr, Hello)> {
        self.core.table.volunteers()
    }

    async fn run_task(&self, peer: &PeerAddr, offer: TaskOffer, envelope: Bytes) -> Result<Answer, CallError> {
        client::run_task(&*self.core, peer, offer, envelope, &self.core.timing).await
    }

    async fn read_block(&self, peer: &PeerAddr, request: ReadBlock) -> Result<Bytes, CallError> {
        let _turn = self.queues.turn(peer.id).await;
        client::read_block(&*self.core, peer, request, &self.core.timing).await
    }

    async fn write_block(&self, peer: &PeerAddr, request: WriteBlock, data: Bytes) -> Result<(), CallError> {
        let _turn = self.queues.turn(peer.id).await;
        client::write_block(&*self.core, peer, request, data, &self.core.timing).await
    }

    async fn control(&self, peer: &PeerAddr, request: ControlRequest) -> Result<ControlReply, CallError> {
        let _turn = self.queues.turn(peer.id).await;
        client::control(&*self.core, peer, request, self.core.timing.reply, &self.core.timing).await
    }
}
