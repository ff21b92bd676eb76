//! The ports between crates: what a coordinator or node asks of the network, and what the network asks of a node.
//! `network` implements [`Network`] over libp2p and serves a [`Volunteer`]; tests join the two in memory.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    error::Error,
    identity::NodeId,
    task::{Answer, TaskOffer},
    wire::{BlockError, ControlReply, ControlRequest, Hello, PeerAddr, ReadBlock, WriteBlock},
};

/// Why a call to a peer failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The peer cannot be reached, or went away: a fault, not a lie.
    #[error("{peer} is unreachable: {reason}")]
    Unreachable {
        /// Whom.
        peer: NodeId,
        /// Why.
        reason: String,
    },
    /// The deadline passed.
    #[error("{0} did not answer in time")]
    TimedOut(NodeId),
    /// The peer has no room now.
    #[error("{peer} is busy, try again in {retry_after:?}")]
    Busy {
        /// Who.
        peer: NodeId,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The peer said no, with a reason.
    #[error("{peer} refused: {reason}")]
    Refused {
        /// Who.
        peer: NodeId,
        /// Why.
        reason: String,
    },
    /// The peer broke the protocol: oversized frame, malformed message, bytes that do not match their hash.
    #[error("{peer} broke the protocol: {reason}")]
    Misbehaved {
        /// Who.
        peer: NodeId,
        /// How.
        reason: String,
    },
    /// A block request was answered with an error.
    #[error("{peer}: {error}")]
    Block {
        /// Who.
        peer: NodeId,
        /// What.
        error: BlockError,
    },
}

impl CallError {
    /// Whom the call went to.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        match self {
            CallError::TimedOut(peer)
            | CallError::Unreachable { peer, .. }
            | CallError::Busy { peer, .. }
            | CallError::Refused { peer, .. }
            | CallError::Misbehaved { peer, .. }
            | CallError::Block { peer, .. } => *peer,
        }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        Error::unavailable(error.to_string())
    }
}

/// The network as its users see it.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Who we are.
    fn local_id(&self) -> NodeId;

    /// Where we listen.
    fn local_addr(&self) -> PeerAddr;

    /// Volunteers that are connected now, with what they last said of themselves. Never ourselves.
    fn volunteers(&self) -> Vec<(PeerAddr, Hello)>;

    /// Has `peer` run a task: offer, envelope, answer. Dropping the future cancels the task on the node.
    async fn run_task(&self, peer: &PeerAddr, offer: TaskOffer, envelope: Bytes) -> Result<Answer, CallError>;

    /// Reads a block or a range of one. The bytes were verified against the id.
    async fn read_block(&self, peer: &PeerAddr, request: ReadBlock) -> Result<Bytes, CallError>;

    /// Has `peer` keep a block.
    async fn write_block(&self, peer: &PeerAddr, request: WriteBlock, data: Bytes) -> Result<(), CallError>;

    /// Asks a short question.
    async fn control(&self, peer: &PeerAddr, request: ControlRequest) -> Result<ControlReply, CallError>;
}

/// What a node answers to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferReply {
    /// Send the envelope.
    Accept,
    /// No room now.
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
    /// Never: the reason says why.
    Refused(String),
    /// Never, and no honest peer offers such a thing (a forged order, absurd counts): the network tells its sender why,
    /// logs it and shuts it out for a while.
    Breach(String),
}

/// What a peer may ask of this process. Every argument comes from a stranger whose identity `from` is authenticated.
/// A coordinator answers [`ControlRequest::Hello`] and `Peers` only.
#[async_trait]
pub trait Volunteer: Send + Sync + 'static {
    /// What we tell of ourselves.
    fn hello(&self) -> Hello;

    /// Decides about an offer; an accepted one holds its place until [`Volunteer::run`] ends or `release` is called.
    async fn offer(&self, from: NodeId, offer: &TaskOffer) -> OfferReply;

    /// Looks at the envelope of an accepted offer before it is run.
    ///
    /// # Errors
    /// Why no honest peer sends it. The network treats that as [`OfferReply::Breach`], and releases the offer.
    fn examine(&self, from: NodeId, offer: &TaskOffer, envelope: &[u8]) -> Result<(), String>;

    /// Runs an accepted task. Dropping the future cancels it and kills what runs.
    async fn run(&self, from: NodeId, offer: TaskOffer, envelope: Bytes) -> Answer;

    /// An accepted offer is not going to be run: the coordinator went away before its envelope arrived, or sent one that
    /// [`Volunteer::examine`] refused.
    fn release(&self, from: NodeId, offer: &TaskOffer);

    /// All bytes of a block, if `from` may read it. The network cuts and proves the range.
    async fn read_block(&self, from: NodeId, request: &ReadBlock) -> Result<Bytes, BlockError>;

    /// Whether the node would keep the block, before its bytes are sent.
    async fn may_write(&self, from: NodeId, request: &WriteBlock) -> Result<(), BlockError>;

    /// Keeps a block, after checking the bytes against the id.
    async fn write_block(&self, from: NodeId, request: WriteBlock, data: Bytes) -> Result<(), BlockError>;

    /// Answers a short question. The network itself answers `Peers`.
    async fn control(&self, from: NodeId, request: ControlRequest) -> ControlReply;
}
