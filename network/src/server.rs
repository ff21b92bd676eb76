//! The answering end of each protocol: one inbound stream of a stranger, bounded and passed on to the volunteer.
//!
//! What a peer does wrong ends its stream, is logged with its name, and comes back as [`WireError::Broken`]: the host
//! shuts it out. So does what is well-formed but no honest peer asks for ([`OfferReply::Breach`]), after its sender was told
//! why. Whatever it does, it gets no more than its share of streams, memory and time.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use conun_types::{
    NodeId, PeerAddr, TaskOffer,
    port::{OfferReply, Volunteer},
    wire::{BlockError, ControlReply, ControlRequest, MAX_BLOCK, MAX_MESSAGE, PROTOCOL_VERSION, ReadBlock, WriteBlock},
};
use serde::Serialize;
use tokio::{
    io::AsyncRead,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::{
    bao::{self, Span},
    config::{Limits, Timing},
    frame::{self, BoxWire, WireError, WireResult, broken, read, read_bytes, write},
    gate::Gate,
    wire::{
        BlockReply, BlockRequest, ControlAnswer, FromNode, Protocol, RETRY, SMALL, ToNode, check_offer, check_request,
        millis, other_version,
    },
};

/// Longest that a task may run, whatever its offer says.
const LONGEST_TASK: Duration = Duration::from_secs(24 * 3600);
/// Unit in which memory for inbound blocks is counted.
const KIB: u64 = 1024;
/// How long a peer that is to be shut out may take to read why: what is still on its way is lost with the connection.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Who is known, for a peer that asks.
pub(crate) trait PeerList: Send + Sync {
    fn known_to(&self, asker: NodeId) -> Vec<PeerAddr>;
}

/// Serves a volunteer's streams.
pub(crate) struct Server {
    volunteer: Arc<dyn Volunteer>,
    peers: Arc<dyn PeerList>,
    timing: Timing,
    streams: Arc<Gate>,
    tasks: Arc<Gate>,
    inflight: Arc<Semaphore>,
}

impl Server {
    pub(crate) fn new(
        volunteer: Arc<dyn Volunteer>,
        peers: Arc<dyn PeerList>,
        limits: &Limits,
        timing: Timing,
    ) -> Arc<Self> {
        let kib = usize::try_from(limits.inflight_write.max(MAX_BLOCK) / KIB + 1).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            volunteer,
            peers,
            timing,
            streams: Gate::new(limits.streams, limits.streams_per_peer),
            tasks: Gate::new(limits.tasks, limits.tasks_per_peer),
            inflight: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
        })
    }

    /// Serves one stream to its end.
    ///
    /// # Errors
    /// [`WireError::Broken`] where `from` broke the protocol; other errors are faults of the line.
    pub(crate) async fn serve(&self, protocol: Protocol, from: NodeId, mut io: BoxWire) -> WireResult<()> {
        let gate = if protocol == Protocol::Task { &self.tasks } else { &self.streams };
        let Some(_pass) = gate.enter(from) else { return self.turn_away(protocol, &mut io).await };
        let served = match protocol {
            Protocol::Control => self.control(from, &mut io).await,
            Protocol::Block => self.block(from, &mut io).await,
            Protocol::Task => self.task(from, io).await,
        };
        if let Err(WireError::Broken(reason)) = &served {
            tracing::warn!(peer = %from, protocol = protocol.name(), reason, "a peer did what no honest one does");
        }
        served
    }

    /// Ends a stream with `message` and counts `reason` against the peer, once it has read why or had its time for it.
    async fn breach<T>(&self, io: &mut BoxWire, message: &impl Serialize, reason: String) -> WireResult<T> {
        // That it does not listen is no reason to let it off.
        if frame::finish(io, message, self.timing.progress.min(LAST_WORD)).await.is_ok() {
            let _ = timeout(LAST_WORD, tokio::io::copy(io, &mut tokio::io::sink())).await;
        }
        broken(reason)
    }

    /// Says "busy" without reading a byte.
    async fn turn_away(&self, protocol: Protocol, io: &mut BoxWire) -> WireResult<()> {
        let retry_after_ms = millis(RETRY);
        let wait = self.timing.progress;
        match protocol {
            Protocol::Control => frame::finish(io, &ControlAnswer::Busy { retry_after_ms }, wait).await,
            Protocol::Block => frame::finish(io, &BlockReply::Busy { retry_after_ms }, wait).await,
            Protocol::Task => frame::finish(io, &FromNode::Busy { retry_after_ms }, wait).await,
        }
    }

    async fn control(&self, from: NodeId, io: &mut BoxWire) -> WireResult<()> {
        let request: ControlRequest = frame::decode(&self.read_large(io, MAX_MESSAGE).await?)?;
        check_request(&request)?;
        let reply = match request {
            ControlRequest::Hello => ControlReply::Hello(self.volunteer.hello()),
            ControlRequest::Peers => ControlReply::Peers(self.peers.known_to(from)),
            other => self.volunteer.control(from, other).await,
        };
        frame::finish(io, &ControlAnswer::Reply(reply), self.timing.progress).await
    }

    async fn block(&self, from: NodeId, io: &mut BoxWire) -> WireResult<()> {
        let outcome = match read(io, SMALL, self.timing.reply, self.timing.progress).await? {
            BlockRequest::Read(request) => self.read_block(from, request, io).await?,
            BlockRequest::Write(request) => self.write_block(from, request, io).await?,
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => frame::finish(io, &BlockReply::Failed(error), self.timing.progress).await,
        }
    }

    async fn read_block(&self, from: NodeId, asked: ReadBlock, io: &mut BoxWire) -> WireResult<Result<(), BlockError>> {
        let data = match self.volunteer.read_block(from, &asked).await {
            Ok(data) => data,
            Err(error) => return Ok(Err(error)),
        };
        let total = data.len() as u64;
        let head = frame::encode(&BlockReply::Ready { total })?;
        let span = Span::of(asked.offset, asked.len, total);
        bao::send(io, head, data, &span, self.timing.progress).await?;
        Ok(Ok(()))
    }

    async fn write_block(
        &self,
        from: NodeId,
        asked: WriteBlock,
        io: &mut BoxWire,
    ) -> WireResult<Result<(), BlockError>> {
        if asked.len > MAX_BLOCK {
            return Ok(Err(BlockError::Invalid(format!("{} bytes, a block has at most {MAX_BLOCK}", asked.len))));
        }
        if let Err(error) = self.volunteer.may_write(from, &asked).await {
            return Ok(Err(error));
        }
        let Some(_room) = self.room(asked.len).await else {
            frame::finish(io, &BlockReply::Busy { retry_after_ms: millis(RETRY) }, self.timing.progress).await?;
            return Ok(Ok(()));
        };
        write(io, &BlockReply::Ready { total: asked.len }, self.timing.progress).await?;
        let data = read_bytes(io, asked.len as usize, self.timing.progress).await?;
        if !asked.cid.matches(&data) {
            let error = BlockError::Invalid(format!("the bytes are not those of {}", asked.cid));
            return self.breach(io, &BlockReply::Failed(error), format!("wrong bytes for block {}", asked.cid)).await;
        }
        let total = asked.len;
        if let Err(error) = self.volunteer.write_block(from, asked, Bytes::from(data)).await {
            return Ok(Err(error));
        }
        frame::finish(io, &BlockReply::Ready { total }, self.timing.progress).await?;
        Ok(Ok(()))
    }

    /// Reads a frame that may be long: its memory counts among what peers may make us hold while it arrives.
    async fn read_large(&self, io: &mut BoxWire, max: usize) -> WireResult<Vec<u8>> {
        let len = frame::read_len(io, max, self.timing.reply).await?;
        let _room = if len > SMALL { Some(self.room(len as u64).await.ok_or(WireError::Slow)?) } else { None };
        read_bytes(io, len, self.timing.progress).await
    }

    /// Memory for a block on its way in, or nothing where others hold it for too long.
    async fn room(&self, len: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(len / KIB + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.inflight).acquire_many_owned(kib);
        timeout(self.timing.reply / 2, room).await.ok()?.ok()
    }

    async fn task(&self, from: NodeId, mut io: BoxWire) -> WireResult<()> {
        if !self.greet(&mut io).await? {
            return Ok(());
        }
        let offer = self.receive_offer(&mut io).await?;
        let reply = match self.volunteer.offer(from, &offer).await {
            OfferReply::Accept => return self.accepted(from, offer, io).await,
            OfferReply::Busy { retry_after } => FromNode::Busy { retry_after_ms: millis(retry_after) },
            OfferReply::Refused(reason) => {
                tracing::debug!(peer = %from, reason, "an offer was refused");
                FromNode::Refused(reason)
            }
            OfferReply::Breach(reason) => return self.breach_of_task(&mut io, reason).await,
        };
        frame::finish(&mut io, &reply, self.timing.progress).await
    }

    async fn breach_of_task<T>(&self, io: &mut BoxWire, reason: String) -> WireResult<T> {
        self.breach(io, &FromNode::Refused(reason.clone()), reason).await
    }

    /// Exchanges versions; false where the peer was told that it speaks another one.
    async fn greet(&self, io: &mut BoxWire) -> WireResult<bool> {
        match read(io, SMALL, self.timing.reply, self.timing.progress).await? {
            ToNode::Hello { versions } if versions.contains(&PROTOCOL_VERSION) => {
                write(io, &FromNode::Hello { versions: vec![PROTOCOL_VERSION] }, self.timing.progress).await?;
                Ok(true)
            }
            ToNode::Hello { .. } => {
                frame::finish(io, &FromNode::Refused(other_version()), self.timing.progress).await?;
                Ok(false)
            }
            _ => broken("a task stream that does not begin with Hello"),
        }
    }

    async fn receive_offer(&self, io: &mut BoxWire) -> WireResult<TaskOffer> {
        let ToNode::Offer(offer) = frame::decode(&self.read_large(io, MAX_MESSAGE).await?)? else {
            return broken("no offer after Hello");
        };
        match check_offer(&offer) {
            Ok(()) => Ok(*offer),
            Err(error) => self.breach_of_task(io, error.to_string()).await,
        }
    }

    /// Takes the envelope of an accepted offer and runs it. The volunteer's place is given back on every way out.
    async fn accepted(&self, from: NodeId, offer: TaskOffer, mut io: BoxWire) -> WireResult<()> {
        let place = Place { volunteer: &*self.volunteer, from, offer: Some(offer) };
        write(&mut io, &FromNode::Accept, self.timing.progress).await?;
        let announced = place.offer.as_ref().map_or(0, |offer| offer.envelope_len as usize);
        let envelope = self.read_large(&mut io, announced).await?;
        if envelope.len() != announced {
            return broken(format!("a task of {} bytes announced as {announced}", envelope.len()));
        }
        if let Some(offer) = &place.offer
            && let Err(reason) = self.volunteer.examine(from, offer, &envelope)
        {
            drop(place);
            return self.breach_of_task(&mut io, reason).await;
        }
        let Some(offer) = place.take() else { return Ok(()) };
        self.run(from, offer, envelope.into(), io).await
    }

    /// Runs a task until it is done, its time is over, or the coordinator is gone; the last two drop its future.
    async fn run(&self, from: NodeId, offer: TaskOffer, envelope: Bytes, io: BoxWire) -> WireResult<()> {
        let most = Duration::from_millis(offer.timeout_ms).saturating_add(self.timing.task_margin).min(LONGEST_TASK);
        let (mut reader, mut writer) = tokio::io::split(io);
        let answer = {
            let mut run = pin!(self.volunteer.run(from, offer, envelope));
            let mut gone = pin!(self.until_gone(&mut reader));
            let mut over = pin!(sleep(most));
            loop {
                tokio::select! {
                    // The run is polled first, so that it takes over its place even if the stream is already dead.
                    biased;
                    answer = &mut run => break answer,
                    error = &mut gone => return Err(error),
                    () = &mut over => return Err(WireError::Slow),
                    () = sleep(self.timing.keepalive) => {}
                }
                // Outside of the select, so that no frame is ever cut in the middle.
                write(&mut writer, &FromNode::KeepAlive, self.timing.progress).await?;
            }
        };
        frame::finish(&mut writer, &FromNode::Answer(Box::new(answer)), self.timing.progress).await
    }

    /// Ends when the coordinator closes the stream, falls silent or breaks the protocol.
    async fn until_gone<R: AsyncRead + Unpin>(&self, reader: &mut R) -> WireError {
        loop {
            match read(reader, SMALL, self.timing.silence, self.timing.progress).await {
                Ok(ToNode::KeepAlive) => {}
                Ok(_) => return WireError::Broken("another message while a task runs".to_owned()),
                Err(error) => return error,
            }
        }
    }
}

/// A volunteer's place for an accepted offer, until the run takes it over.
struct Place<'a> {
    volunteer: &'a dyn Volunteer,
    from: NodeId,
    offer: Option<TaskOffer>,
}

impl Place<'_> {
    fn take(mut self) -> Option<TaskOffer> {
        self.offer.take()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(offer) = &self.offer {
            self.volunteer.release(self.from, offer);
        }
    }
}
