//! The asking end of each protocol, over a stream that somebody opened to a peer.
//!
//! Each function ends in bounded time, and says of a failure whether it is a fault (unreachable, late), a no (busy,
//! refused) or a breach ([`CallError::Misbehaved`]).

use std::{convert::Infallible, future::pending, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{
    Answer, NodeId, PeerAddr, TaskOffer,
    port::CallError,
    task::MAX_ENVELOPE,
    wire::{BlockError, ControlReply, ControlRequest, MAX_BLOCK, MAX_MESSAGE, PROTOCOL_VERSION, ReadBlock, WriteBlock},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::{
    bao::{self, Span},
    config::Timing,
    frame::{self, BoxWire, WireError, WireResult, read, within, write, write_all},
    wire::{
        BlockReply, BlockRequest, ControlAnswer, FromNode, Protocol, SMALL, ToNode, check_answer, check_reply,
        other_version, patience,
    },
};

/// Opens streams to peers: libp2p's, or pipes in memory.
#[async_trait]
pub(crate) trait Connect: Send + Sync {
    /// A stream to `peer` that speaks `protocol`, within the time for dialling.
    async fn open(&self, peer: &PeerAddr, protocol: Protocol) -> Result<BoxWire, CallError>;
}

/// A peer's no, or a broken stream, in the words of the caller.
enum Stop {
    Wire(WireError),
    Busy(u64),
    Refused(String),
    Block(BlockError),
}

impl<E: Into<WireError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Wire(error.into())
    }
}

impl Stop {
    fn by(self, peer: NodeId) -> CallError {
        match self {
            Stop::Wire(error) => call_error(peer, error),
            Stop::Busy(ms) => CallError::Busy { peer, retry_after: patience(ms) },
            Stop::Refused(reason) => CallError::Refused { peer, reason: line(reason) },
            Stop::Block(error) => CallError::Block { peer, error },
        }
    }
}

/// Keeps a peer's words to a line of sensible length, as they end up in front of people.
fn line(text: String) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What a failed stream means for the call.
pub(crate) fn call_error(peer: NodeId, error: WireError) -> CallError {
    match error {
        WireError::Slow => CallError::TimedOut(peer),
        WireError::OtherVersion => CallError::Refused { peer, reason: other_version() },
        WireError::Broken(reason) => CallError::Misbehaved { peer, reason },
        WireError::Closed | WireError::Io(_) => CallError::Unreachable { peer, reason: error.to_string() },
    }
}

/// Asks a short question. A refusal by the peer is an error here, so that callers match on the reply they expect.
pub(crate) async fn control(
    net: &dyn Connect,
    peer: &PeerAddr,
    request: ControlRequest,
    wait: Duration,
    timing: &Timing,
) -> Result<ControlReply, CallError> {
    let mut io = net.open(peer, Protocol::Control).await?;
    ask(&mut io, &request, wait, timing).await.map_err(|stop| stop.by(peer.id))
}

async fn ask(
    io: &mut BoxWire,
    request: &ControlRequest,
    wait: Duration,
    timing: &Timing,
) -> Result<ControlReply, Stop> {
    frame::finish(io, request, timing.progress).await?;
    match read(io, MAX_MESSAGE, wait, timing.progress).await? {
        ControlAnswer::Busy { retry_after_ms } => Err(Stop::Busy(retry_after_ms)),
        ControlAnswer::Reply(ControlReply::Refused(error)) => Err(Stop::Refused(error.message)),
        ControlAnswer::Reply(reply) => {
            check_reply(request, &reply)?;
            Ok(reply)
        }
    }
}

/// Reads and verifies a block or a range of one.
pub(crate) async fn read_block(
    net: &dyn Connect,
    peer: &PeerAddr,
    request: ReadBlock,
    timing: &Timing,
) -> Result<Bytes, CallError> {
    let mut io = net.open(peer, Protocol::Block).await?;
    fetch(&mut io, request, timing).await.map_err(|stop| stop.by(peer.id))
}

async fn fetch(io: &mut BoxWire, request: ReadBlock, timing: &Timing) -> Result<Bytes, Stop> {
    let (cid, offset, len) = (request.cid, request.offset, request.len);
    frame::finish(io, &BlockRequest::Read(request), timing.progress).await?;
    let total = ready(io, timing.reply, timing).await?;
    Ok(bao::receive(io, &cid, &Span::of(offset, len, total), timing.progress).await?)
}

/// Waits for a node's word on a block: the block's length, or why not.
async fn ready(io: &mut BoxWire, wait: Duration, timing: &Timing) -> Result<u64, Stop> {
    match read(io, SMALL, wait, timing.progress).await? {
        BlockReply::Ready { total } => Ok(total),
        BlockReply::Failed(error) => Err(Stop::Block(error)),
        BlockReply::Busy { retry_after_ms } => Err(Stop::Busy(retry_after_ms)),
    }
}

/// Has a peer keep a block.
pub(crate) async fn write_block(
    net: &dyn Connect,
    peer: &PeerAddr,
    request: WriteBlock,
    data: Bytes,
    timing: &Timing,
) -> Result<(), CallError> {
    let len = data.len() as u64;
    if request.len != len || len > MAX_BLOCK {
        let why = format!("a block of {len} bytes announced as {}, at most {MAX_BLOCK} are sent", request.len);
        return Err(CallError::Block { peer: peer.id, error: BlockError::Invalid(why) });
    }
    let mut io = net.open(peer, Protocol::Block).await?;
    store(&mut io, request, data, timing).await.map_err(|stop| stop.by(peer.id))
}

async fn store(io: &mut BoxWire, request: WriteBlock, data: Bytes, timing: &Timing) -> Result<(), Stop> {
    write(io, &BlockRequest::Write(request), timing.progress).await?;
    ready(io, timing.reply, timing).await?;
    let sent = send_all(io, &data, timing).await;
    // A node that gives up in the middle (no room left) says why before it closes: its word counts for more than
    // our failure to write on.
    match (ready(io, timing.store, timing).await, sent) {
        (Err(Stop::Wire(WireError::Closed)), Err(error)) => Err(error.into()),
        (answer, _) => answer.map(|_| ()),
    }
}

async fn send_all(io: &mut BoxWire, data: &[u8], timing: &Timing) -> WireResult<()> {
    write_all(io, data, timing.progress).await?;
    within(timing.progress, io.shutdown()).await
}

/// Has a peer run a task. Dropping the future resets the stream, at which the node stops.
pub(crate) async fn run_task(
    net: &dyn Connect,
    peer: &PeerAddr,
    offer: TaskOffer,
    envelope: Bytes,
    timing: &Timing,
) -> Result<Answer, CallError> {
    if envelope.len() > MAX_ENVELOPE || envelope.len() as u64 != offer.envelope_len {
        let reason = format!("a task of {} bytes, at most {MAX_ENVELOPE} and as announced", envelope.len());
        return Err(CallError::Refused { peer: peer.id, reason });
    }
    let all = Duration::from_millis(offer.timeout_ms).saturating_add(timing.task_margin);
    let call = async {
        let io = net.open(peer, Protocol::Task).await?;
        place(io, offer, envelope, timing).await.map_err(|stop| stop.by(peer.id))
    };
    timeout(all, call).await.unwrap_or(Err(CallError::TimedOut(peer.id)))
}

async fn place(mut io: BoxWire, offer: TaskOffer, envelope: Bytes, timing: &Timing) -> Result<Answer, Stop> {
    // Greeting and offer go out together: an honest node answers both, one of another version refuses the first.
    write(&mut io, &ToNode::Hello { versions: vec![PROTOCOL_VERSION] }, timing.progress).await?;
    write(&mut io, &ToNode::Offer(Box::new(offer)), timing.progress).await?;
    greeted(&mut io, timing).await?;
    accepted(&mut io, timing).await?;
    let head = u32::try_from(envelope.len()).unwrap_or(u32::MAX).to_be_bytes();
    write_all(&mut io, &head, timing.progress).await?;
    write_all(&mut io, &envelope, timing.progress).await?;
    within(timing.progress, io.flush()).await?;
    await_answer(io, timing).await
}

async fn greeted(io: &mut BoxWire, timing: &Timing) -> Result<(), Stop> {
    match read(io, SMALL, timing.reply, timing.progress).await? {
        FromNode::Hello { versions } if versions.contains(&PROTOCOL_VERSION) => Ok(()),
        FromNode::Hello { .. } => Err(Stop::Refused(other_version())),
        other => Err(no(other)),
    }
}

async fn accepted(io: &mut BoxWire, timing: &Timing) -> Result<(), Stop> {
    match read(io, SMALL, timing.reply, timing.progress).await? {
        FromNode::Accept => Ok(()),
        other => Err(no(other)),
    }
}

fn no(message: FromNode) -> Stop {
    match message {
        FromNode::Busy { retry_after_ms } => Stop::Busy(retry_after_ms),
        FromNode::Refused(reason) => Stop::Refused(reason),
        _ => Stop::Wire(WireError::Broken("an answer that was not asked for".to_owned())),
    }
}

/// Waits for the answer, while each side tells the other that it is still there.
async fn await_answer(io: BoxWire, timing: &Timing) -> Result<Answer, Stop> {
    let (mut reader, mut writer) = tokio::io::split(io);
    tokio::select! {
        answer = next_answer(&mut reader, timing) => answer,
        never = keep_alive(&mut writer, timing) => match never {},
    }
}

async fn next_answer<R: AsyncRead + Unpin>(reader: &mut R, timing: &Timing) -> Result<Answer, Stop> {
    loop {
        match read(reader, MAX_MESSAGE, timing.silence, timing.progress).await {
            Ok(FromNode::KeepAlive) => {}
            Ok(FromNode::Answer(answer)) => {
                check_answer(&answer)?;
                return Ok(*answer);
            }
            Ok(other) => return Err(no(other)),
            // Not a word, not even a sign of life: the node is gone, which is not the same as late.
            Err(WireError::Slow) => return Err(Stop::Wire(WireError::Io(std::io::Error::other("it fell silent")))),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends signs of life for ever. A stream that cannot be written to may still hold an answer to be read, so that
/// failing here ends the signs, not the wait.
async fn keep_alive<W: AsyncWrite + Unpin>(writer: &mut W, timing: &Timing) -> Infallible {
    loop {
        sleep(timing.keepalive).await;
        if write(writer, &ToNode::KeepAlive, timing.progress).await.is_err() {
            pending::<()>().await;
        }
    }
}
