//! Drives the libp2p swarm: listens, dials on request, keeps the peer table, shuts out abusers. The only place that
//! touches the swarm itself.

use std::{collections::HashMap, time::Duration};

use conun_types::{Error, NodeId, NodeKey, Result};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, TransportError, allow_block_list, connection_limits,
    core::{ConnectedPoint, transport::ListenerId, upgrade},
    identify, noise,
    swarm::{ConnectionId, DialError, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts, dial_opts::PeerCondition},
    tcp, yamux,
};
use std::sync::Arc;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    config::{HostConfig, Limits},
    ids::{self, MAX_ADDRS},
    peers::PeerTable,
    streams::{self, Connections, Inbound},
    wire::Protocol,
};

/// For the first address to be announced after listening began.
const LISTEN_WAIT: Duration = Duration::from_secs(5);
/// Most peers shut out at once; the oldest ban ends early beyond it.
const MAX_BANS: usize = 1024;

/// The behaviours of a host. Those that deny connections come first: what they deny, the later ones never see.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    banned: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    identify: identify::Behaviour,
    streams: streams::Behaviour,
}

/// What the rest of the host asks of the swarm.
pub(crate) enum Command {
    /// Connect to a peer, or to whoever is at an address; answers whom it reached.
    Dial { peer: Option<PeerId>, addrs: Vec<Multiaddr>, done: oneshot::Sender<Result<PeerId, DialFailed>> },
    /// Shut a peer out.
    Ban { peer: PeerId, until: Instant },
}

/// Why a dial failed.
#[derive(Debug, Clone)]
pub(crate) struct DialFailed {
    pub(crate) reason: String,
    /// The address is our own.
    pub(crate) ourselves: bool,
}

type Waiter = oneshot::Sender<Result<PeerId, DialFailed>>;

/// The swarm and what it owes to whom.
pub(crate) struct Driver {
    swarm: Swarm<Behaviour>,
    table: Arc<PeerTable>,
    commands: mpsc::Receiver<Command>,
    arrivals: mpsc::UnboundedSender<NodeId>,
    by_peer: HashMap<PeerId, Vec<Waiter>>,
    by_connection: HashMap<ConnectionId, Waiter>,
    /// In the order in which they end, as all last equally long.
    bans: Vec<(Instant, PeerId)>,
}

impl Driver {
    /// Builds the swarm and listens. `arrivals` hears of every peer that connects.
    pub(crate) async fn start(
        config: &HostConfig,
        key: &NodeKey,
        connections: Connections,
        inbound: mpsc::Sender<Inbound>,
        arrivals: mpsc::UnboundedSender<NodeId>,
        commands: mpsc::Receiver<Command>,
        table: Arc<PeerTable>,
    ) -> Result<Self> {
        let swarm = build(config, key, connections, inbound)?;
        let (by_peer, by_connection, bans) = Default::default();
        let mut driver = Self { swarm, table, commands, arrivals, by_peer, by_connection, bans };
        let mut listeners = HashMap::new();
        for text in &config.listen {
            let (_, addr) = ids::parse_addr(text)?;
            probe(text, &addr)?;
            let id = driver.swarm.listen_on(addr).map_err(|e| listen_error(text, &e))?;
            listeners.insert(id, text.clone());
        }
        timeout(LISTEN_WAIT, driver.listening(listeners))
            .await
            .map_err(|_| Error::internal("listening did not begin in time"))??;
        Ok(driver)
    }

    /// Waits until each listener has announced an address.
    async fn listening(&mut self, mut pending: HashMap<ListenerId, String>) -> Result<()> {
        while !pending.is_empty() {
            let event = self.swarm.select_next_some().await;
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } => {
                    pending.remove(listener_id);
                }
                SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. } => {
                    if let Some(text) = pending.get(listener_id) {
                        return Err(Error::usage(format!("cannot listen on {text}: {error}")));
                    }
                }
                _ => {}
            }
            self.on_event(event);
        }
        Ok(())
    }

    /// Runs until every sender of commands is gone.
    pub(crate) async fn run(mut self) {
        loop {
            let next_end = self.bans.first().map(|(end, _)| *end);
            let ban_ends = async {
                match next_end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = ban_ends => self.unban(),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial { peer: Some(peer), addrs, done } => self.dial_peer(peer, addrs, done),
            Command::Dial { peer: None, addrs, done } => self.dial_address(addrs, done),
            Command::Ban { peer, until } => self.ban(peer, until),
        }
    }

    /// Dials from a port of its own, as [`Self::dial_address`] does: from the listening port (libp2p's default, for the
    /// sake of NATs), two peers that dial each other at once meet in one TCP connection, and a quick redial finds its
    /// pair of addresses still taken.
    fn dial_peer(&mut self, peer: PeerId, addrs: Vec<Multiaddr>, done: Waiter) {
        if self.swarm.is_connected(&peer) {
            let _ = done.send(Ok(peer));
            return;
        }
        let condition = PeerCondition::DisconnectedAndNotDialing;
        let options = DialOpts::peer_id(peer).addresses(addrs).condition(condition).allocate_new_port().build();
        match self.swarm.dial(options) {
            // Somebody else's dial of the same peer is under way: share its outcome.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {
                let waiters = self.by_peer.entry(peer).or_default();
                waiters.retain(|waiter| !waiter.is_closed());
                waiters.push(done);
            }
            Err(error) => {
                let _ = done.send(Err(dial_failed(&error)));
            }
        }
    }

    fn dial_address(&mut self, addrs: Vec<Multiaddr>, done: Waiter) {
        let Some(addr) = addrs.into_iter().next() else { return };
        let options = DialOpts::unknown_peer_id().address(addr).allocate_new_port().build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.by_connection.insert(connection, done);
            }
            Err(error) => {
                let _ = done.send(Err(dial_failed(&error)));
            }
        }
    }

    fn ban(&mut self, peer: PeerId, until: Instant) {
        if !self.swarm.behaviour_mut().banned.block_peer(peer) {
            return;
        }
        self.bans.push((until, peer));
        if self.bans.len() > MAX_BANS {
            let (_, oldest) = self.bans.remove(0);
            self.swarm.behaviour_mut().banned.unblock_peer(oldest);
        }
    }

    fn unban(&mut self) {
        let now = Instant::now();
        let ended = self.bans.iter().take_while(|(end, _)| *end <= now).count();
        for (_, peer) in self.bans.drain(..ended) {
            self.swarm.behaviour_mut().banned.unblock_peer(peer);
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint, num_established.get() == 1);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                if let Some(id) = ids::node_id(&peer_id) {
                    self.table.disconnected(&id);
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id, connection_id, error } => {
                self.on_dial_failed(peer_id, connection_id, &dial_failed(&error));
            }
            SwarmEvent::NewListenAddr { address, .. } => self.table.listen(address.to_string(), true),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.table.listen(address.to_string(), false),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                self.on_identified(&peer_id, &info);
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint, first: bool) {
        for waiter in self.by_peer.remove(&peer).into_iter().flatten().chain(self.by_connection.remove(&connection)) {
            let _ = waiter.send(Ok(peer));
        }
        let Some(id) = ids::node_id(&peer) else {
            // Every name in Conun is a secp256k1 key; others cannot take part.
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        };
        self.table.connected(id, dialled(endpoint));
        if first {
            let _ = self.arrivals.send(id);
        }
    }

    fn on_dial_failed(&mut self, peer: Option<PeerId>, connection: ConnectionId, failed: &DialFailed) {
        let connected = peer.is_some_and(|peer| self.swarm.is_connected(&peer));
        let waiters = peer.filter(|_| !connected).and_then(|peer| self.by_peer.remove(&peer));
        for waiter in waiters.into_iter().flatten().chain(self.by_connection.remove(&connection)) {
            let _ = waiter.send(Err(failed.clone()));
        }
    }

    fn on_identified(&mut self, peer: &PeerId, info: &identify::Info) {
        let Some(id) = ids::node_id(peer) else { return };
        let listens = info.listen_addrs.iter().filter_map(|addr| ids::usable(&addr.to_string()));
        let listens = listens.take(MAX_ADDRS).map(|addr| addr.to_string()).collect();
        let speaks = info.protocols.iter().filter_map(|name| Protocol::named(name.as_ref())).collect();
        self.table.identified(&id, listens, speaks);
    }
}

fn build(
    config: &HostConfig,
    key: &NodeKey,
    connections: Connections,
    inbound: mpsc::Sender<Inbound>,
) -> Result<Swarm<Behaviour>> {
    let failed = |e: &dyn std::fmt::Display| Error::internal(format!("cannot start the network: {e}"));
    let behaviour = |key: &libp2p::identity::Keypair| Behaviour {
        limits: connection_limits::Behaviour::new(limits(&config.limits)),
        banned: allow_block_list::Behaviour::default(),
        identify: identify::Behaviour::new(
            identify::Config::new("conun/1".to_owned(), key.public())
                .with_agent_version(config.agent.clone())
                // Every peer's addresses are in our own table, as long as it is connected.
                .with_cache_size(0),
        ),
        streams: streams::Behaviour::new(connections, inbound, Protocol::ALL.map(Protocol::stream)),
    };
    let swarm = SwarmBuilder::with_existing_identity(ids::keypair(key)?)
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|e| failed(&e))?
        .with_behaviour(behaviour)
        .map_err(|e| failed(&e))?
        .with_swarm_config(|swarm| {
            swarm
                .with_idle_connection_timeout(config.timing.idle_connection)
                // A request travels with the name of its protocol: one round trip for a small block.
                .with_substream_upgrade_protocol_override(upgrade::Version::V1Lazy)
                .with_max_negotiating_inbound_streams(config.limits.streams_per_peer + config.limits.tasks_per_peer)
        })
        .with_connection_timeout(config.timing.dial)
        .build();
    Ok(swarm)
}

fn limits(limits: &Limits) -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits.pending))
        .with_max_pending_outgoing(Some(limits.pending))
        .with_max_established(Some(limits.connections))
        .with_max_established_per_peer(Some(limits.connections_per_peer))
}

/// Where we reached the peer, without its name.
fn dialled(endpoint: &ConnectedPoint) -> Option<String> {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => ids::usable(&address.to_string()).map(|addr| addr.to_string()),
        ConnectedPoint::Listener { .. } => None,
    }
}

fn dial_failed(error: &DialError) -> DialFailed {
    let ourselves = matches!(error, DialError::LocalPeerId { .. });
    let reason = match error {
        DialError::LocalPeerId { address } => format!("{address} is this node itself"),
        DialError::NoAddresses => "no address is known".to_owned(),
        DialError::WrongPeerId { obtained, address } => format!("another peer, {obtained}, answers at {address}"),
        DialError::Transport(tried) => {
            let all: Vec<_> = tried.iter().map(|(addr, error)| format!("{addr}: {}", innermost(error))).collect();
            all.join("; ")
        }
        DialError::Denied { cause } => innermost(cause),
        other => other.to_string(),
    };
    DialFailed { reason, ourselves }
}

/// The innermost cause, which names the fault without libp2p's wrapping.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Sees that nobody else listens at `addr`: libp2p lets its sockets share a port, so that a second process of the
/// same user would start without complaint and take half of the first one's connections.
fn probe(text: &str, addr: &Multiaddr) -> Result<()> {
    match ids::socket(addr) {
        Some(socket) if socket.port() != 0 => {
            std::net::TcpListener::bind(socket).map(drop).map_err(|e| cannot_listen(text, &e))
        }
        _ => Ok(()),
    }
}

fn listen_error(text: &str, error: &TransportError<std::io::Error>) -> Error {
    match error {
        TransportError::Other(error) => cannot_listen(text, error),
        other => Error::usage(format!("cannot listen on {text}: {}", innermost(other))),
    }
}

fn cannot_listen(text: &str, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        return Error::usage(format!("cannot listen on {text}: the port is in use"))
            .with_hint("choose another port, or port 0 for any free one");
    }
    Error::usage(format!("cannot listen on {text}: {}", innermost(error)))
}
