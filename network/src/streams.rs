//! Raw substreams over libp2p connections: the one libp2p behaviour of our own.
//!
//! Why not `libp2p-stream`: version 0.5.0-alpha hands inbound streams over through a channel of one place and drops
//! what does not fit, so that a burst of block requests loses some; it opens outbound streams one after the other
//! per connection; and it never forgets closed connections. This behaviour queues inbound streams (bounded), opens
//! outbound ones side by side and keeps no state beyond live connections.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, InboundUpgrade, OutboundUpgrade, UpgradeInfo, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        StreamUpgradeError, SubstreamProtocol, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::{mpsc, oneshot};

use crate::gate::lock;

/// Requests for outbound streams that wait for one connection.
const WAITING: usize = 64;

/// A stream that a peer opened to us.
pub(crate) struct Inbound {
    pub(crate) peer: PeerId,
    pub(crate) protocol: StreamProtocol,
    pub(crate) stream: Stream,
}

/// Why no stream could be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// There is no connection to the peer (any more).
    NotConnected,
    /// The peer does not know the protocol.
    Unsupported,
    /// It failed otherwise.
    Failed(String),
}

type Opened = oneshot::Sender<Result<Stream, OpenError>>;

pub(crate) struct OpenRequest {
    protocol: StreamProtocol,
    done: Opened,
}

/// The live connections of one peer, the oldest first.
type Lines = Vec<(ConnectionId, mpsc::Sender<OpenRequest>)>;

/// The live connections of each peer, through which streams are opened.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<HashMap<PeerId, Lines>>>);

impl Connections {
    /// Opens a stream to a connected peer.
    pub(crate) async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> Result<Stream, OpenError> {
        let (done, opened) = oneshot::channel();
        let line = self.line(&peer).ok_or(OpenError::NotConnected)?;
        line.send(OpenRequest { protocol, done }).await.map_err(|_| OpenError::NotConnected)?;
        opened.await.unwrap_or(Err(OpenError::NotConnected))
    }

    /// Whether there is a live connection to `peer`.
    pub(crate) fn has(&self, peer: &PeerId) -> bool {
        self.line(peer).is_some()
    }

    fn line(&self, peer: &PeerId) -> Option<mpsc::Sender<OpenRequest>> {
        lock(&self.0).get(peer)?.iter().map(|(_, line)| line).find(|line| !line.is_closed()).cloned()
    }

    fn add(&self, peer: PeerId, connection: ConnectionId) -> mpsc::Receiver<OpenRequest> {
        let (line, requests) = mpsc::channel(WAITING);
        lock(&self.0).entry(peer).or_default().push((connection, line));
        requests
    }

    fn remove(&self, peer: &PeerId, connection: ConnectionId) {
        let mut peers = lock(&self.0);
        if let Some(lines) = peers.get_mut(peer) {
            lines.retain(|(id, _)| *id != connection);
            if lines.is_empty() {
                peers.remove(peer);
            }
        }
    }
}

/// The libp2p behaviour. It must come last among behaviours that may deny a connection, as it counts those it sees.
pub(crate) struct Behaviour {
    connections: Connections,
    inbound: mpsc::Sender<Inbound>,
    protocols: Arc<[StreamProtocol]>,
}

impl Behaviour {
    pub(crate) fn new(
        connections: Connections,
        inbound: mpsc::Sender<Inbound>,
        protocols: impl IntoIterator<Item = StreamProtocol>,
    ) -> Self {
        Self { connections, inbound, protocols: protocols.into_iter().collect() }
    }

    fn handler(&self, peer: PeerId, connection: ConnectionId) -> Handler {
        Handler {
            peer,
            requests: self.connections.add(peer, connection),
            inbound: self.inbound.clone(),
            protocols: Arc::clone(&self.protocols),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer, connection))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer, connection))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.connections.remove(&closed.peer_id, closed.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// One connection's part of [`Behaviour`].
pub(crate) struct Handler {
    peer: PeerId,
    requests: mpsc::Receiver<OpenRequest>,
    inbound: mpsc::Sender<Inbound>,
    protocols: Arc<[StreamProtocol]>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Raw;
    type OutboundProtocol = Raw;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opened;

    fn listen_protocol(&self) -> SubstreamProtocol<Raw> {
        SubstreamProtocol::new(Raw(Arc::clone(&self.protocols)), ())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Raw, Opened, Infallible>> {
        match self.requests.poll_recv(cx) {
            Poll::Ready(Some(OpenRequest { protocol, done })) => {
                let protocol = SubstreamProtocol::new(Raw([protocol].into()), done);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            // None: the connection was closed and nobody can ask any more.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Raw, Raw, (), Opened>) {
        // A caller that has stopped waiting drops the stream it is given: nothing to be done.
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol), ..
            }) => {
                // A full queue drops, and so resets, the stream.
                let _ = self.inbound.try_send(Inbound { peer: self.peer, protocol, stream });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (stream, _), info }) => {
                let _ = info.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let _ = info.send(Err(open_error(error)));
            }
            _ => {}
        }
    }
}

fn open_error(error: StreamUpgradeError<Infallible>) -> OpenError {
    match error {
        StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
        StreamUpgradeError::Timeout => OpenError::Failed("no stream could be opened in time".to_owned()),
        StreamUpgradeError::Io(error) => OpenError::Failed(error.to_string()),
        StreamUpgradeError::Apply(never) => match never {},
    }
}

/// An upgrade that hands over the stream as it is.
pub(crate) struct Raw(Arc<[StreamProtocol]>);

impl UpgradeInfo for Raw {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Vec<StreamProtocol> {
        self.0.to_vec()
    }
}

impl InboundUpgrade<Stream> for Raw {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Raw {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
