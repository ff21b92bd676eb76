//! The service of a process that only asks: a coordinator.

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{
    Answer, Error, Failure, MemoryClass, NodeId, Outcome, TaskOffer,
    port::{OfferReply, Volunteer},
    wire::{BlockError, ControlReply, ControlRequest, Hello, PROTOCOL_VERSION, ReadBlock, WriteBlock},
};

/// Answers `Hello` (as no volunteer) and refuses the rest.
#[derive(Debug, Clone)]
pub struct ClientOnly {
    agent: String,
}

impl ClientOnly {
    /// A coordinator that calls itself `agent` (`conun/0.1.0`).
    #[must_use]
    pub fn new(agent: impl Into<String>) -> Self {
        Self { agent: agent.into() }
    }
}

impl Default for ClientOnly {
    fn default() -> Self {
        Self::new(concat!("conun/", env!("CARGO_PKG_VERSION")))
    }
}

const NOT_A_NODE: &str = "this is a coordinator, it takes neither tasks nor blocks";

#[async_trait]
impl Volunteer for ClientOnly {
    fn hello(&self) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            agent: self.agent.clone(),
            volunteer: false,
            profiles: Vec::new(),
            cores: 0,
            running: 0,
            memory: MemoryClass::Small,
            store_quota: 0,
            store_used: 0,
            pay: None,
        }
    }

    async fn offer(&self, _: NodeId, _: &TaskOffer) -> OfferReply {
        OfferReply::Refused(NOT_A_NODE.to_owned())
    }

    fn examine(&self, _: NodeId, _: &TaskOffer, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    async fn run(&self, _: NodeId, _: TaskOffer, _: Bytes) -> Answer {
        Answer { outcome: Outcome::Failed(Failure::Refused(NOT_A_NODE.to_owned())), complaints: Vec::new() }
    }

    fn release(&self, _: NodeId, _: &TaskOffer) {}

    async fn read_block(&self, _: NodeId, _: &ReadBlock) -> Result<Bytes, BlockError> {
        Err(BlockError::NotFound)
    }

    async fn may_write(&self, _: NodeId, _: &WriteBlock) -> Result<(), BlockError> {
        Err(BlockError::Denied)
    }

    async fn write_block(&self, _: NodeId, _: WriteBlock, _: Bytes) -> Result<(), BlockError> {
        Err(BlockError::Denied)
    }

    async fn control(&self, _: NodeId, request: ControlRequest) -> ControlReply {
        match request {
            ControlRequest::Hello => ControlReply::Hello(self.hello()),
            _ => ControlReply::Refused(Error::unavailable(NOT_A_NODE)),
        }
    }
}
