//! An honest volunteer whose answers and blocks come after a random while: what arrives first is then drawn by lot, and
//! tests see that answers do not follow it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{
    Answer, NodeId, Result, Rng, TaskOffer,
    port::{OfferReply, Volunteer},
    wire::{BlockError, ControlReply, ControlRequest, Hello, ReadBlock, WriteBlock},
};

/// Decorates a volunteer.
pub(crate) struct Delayed {
    prompt: Arc<dyn Volunteer>,
    most: Duration,
    rng: Arc<dyn Rng>,
}

impl Delayed {
    /// `prompt`, but up to `most` later.
    pub(crate) fn new(prompt: Arc<dyn Volunteer>, most: Duration, rng: Arc<dyn Rng>) -> Self {
        Self { prompt, most, rng }
    }

    async fn wait(&self) {
        let most = usize::try_from(self.most.as_micros()).unwrap_or(usize::MAX);
        let micros = self.rng.below(most.saturating_add(1));
        tokio::time::sleep(Duration::from_micros(micros as u64)).await;
    }
}

#[async_trait]
impl Volunteer for Delayed {
    fn hello(&self) -> Hello {
        self.prompt.hello()
    }

    async fn offer(&self, from: NodeId, offer: &TaskOffer) -> OfferReply {
        self.prompt.offer(from, offer).await
    }

    fn examine(&self, from: NodeId, offer: &TaskOffer, envelope: &[u8]) -> Result<(), String> {
        self.prompt.examine(from, offer, envelope)
    }

    async fn run(&self, from: NodeId, offer: TaskOffer, envelope: Bytes) -> Answer {
        // Not before: a task given up while it waits would hold its place.
        let answer = self.prompt.run(from, offer, envelope).await;
        self.wait().await;
        answer
    }

    fn release(&self, from: NodeId, offer: &TaskOffer) {
        self.prompt.release(from, offer);
    }

    async fn read_block(&self, from: NodeId, request: &ReadBlock) -> Result<Bytes, BlockError> {
        self.wait().await;
        self.prompt.read_block(from, request).await
    }

    async fn may_write(&self, from: NodeId, request: &WriteBlock) -> Result<(), BlockError> {
        self.prompt.may_write(from, request).await
    }

    async fn write_block(&self, from: NodeId, request: WriteBlock, data: Bytes) -> Result<(), BlockError> {
        self.prompt.write_block(from, request, data).await
    }

    async fn control(&self, from: NodeId, request: ControlRequest) -> ControlReply {
        self.prompt.control(from, request).await
    }
}
