//! The messages of the three protocols and their limits, as they are framed on a stream. What peers *mean* by them is
//! in [`conun_types::wire`] and [`conun_types::task`]; here are only the envelopes that the network adds.

use std::time::Duration;

use conun_types::{
    Answer, Outcome, TaskOffer,
    task::{MAX_BLOCKS, MAX_ENVELOPE},
    wire::{BlockError, ControlReply, ControlRequest, Hello, MAX_LIST, PROTOCOL_VERSION, ReadBlock, WriteBlock},
};
use libp2p::StreamProtocol;
use serde::{Deserialize, Serialize};

use crate::frame::{WireResult, broken};

/// Largest message that has no long list in it, in bytes: requests and replies about one block, `Hello`, refusals.
pub(crate) const SMALL: usize = 64 << 10;
/// Most profiles in a `Hello`.
const MAX_PROFILES: usize = 64;
/// Most peers that one answer may name.
pub(crate) const MAX_PEERS: usize = 512;
/// What a peer that is told to come back later should wait, where nobody knows better.
pub(crate) const RETRY: Duration = Duration::from_millis(500);

/// A protocol; its name carries the version, so that libp2p itself refuses another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Short questions and answers.
    Control,
    /// Reading and writing blocks.
    Block,
    /// Offering and running tasks.
    Task,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Control, Protocol::Block, Protocol::Task];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Control => "/conun/control/1",
            Protocol::Block => "/conun/block/1",
            Protocol::Task => "/conun/task/1",
        }
    }

    pub(crate) fn stream(self) -> StreamProtocol {
        StreamProtocol::new(self.name())
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// What a peer of another version is told, or said to be.
pub(crate) fn other_version() -> String {
    format!("it speaks another protocol version (this build speaks version {PROTOCOL_VERSION})")
}

/// Answer on a control stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ControlAnswer {
    Reply(ControlReply),
    Busy { retry_after_ms: u64 },
}

/// Request on a block stream. After `Write` and the node's go-ahead, the block's bytes follow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum BlockRequest {
    Read(ReadBlock),
    Write(WriteBlock),
}

/// Answer on a block stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum BlockReply {
    /// To a read: the verified range of a block of `total` bytes follows. To a write: send the bytes; then, they are kept.
    Ready {
        total: u64,
    },
    Failed(BlockError),
    Busy {
        retry_after_ms: u64,
    },
}

/// From a coordinator on a task stream. After an `Accept` the envelope's bytes follow as a frame of their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ToNode {
    Hello { versions: Vec<u16> },
    Offer(Box<TaskOffer>),
    KeepAlive,
}

/// From a node on a task stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum FromNode {
    Hello { versions: Vec<u16> },
    Accept,
    Busy { retry_after_ms: u64 },
    Refused(String),
    KeepAlive,
    Answer(Box<Answer>),
}

/// Milliseconds of `wait`, for a message.
pub(crate) fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// A peer's wish to be left alone, at most a minute of it.
pub(crate) fn patience(retry_after_ms: u64) -> Duration {
    Duration::from_millis(retry_after_ms.min(60_000))
}

fn at_most(what: &str, len: usize, max: usize) -> WireResult<()> {
    if len > max { broken(format!("{len} {what}, at most {max} are taken")) } else { Ok(()) }
}

/// Bounds the lists of a request.
pub(crate) fn check_request(request: &ControlRequest) -> WireResult<()> {
    match request {
        ControlRequest::Has(cids) | ControlRequest::Renew { cids, .. } => at_most("ids", cids.len(), MAX_LIST),
        ControlRequest::Pay(payment) => {
            let receipts: usize = payment.stages.iter().map(|stage| stage.receipts.len()).sum();
            let lists = [
                ("stages", payment.stages.len()),
                ("receipts", receipts),
                ("penalties", payment.penalties.len()),
                ("jobs", payment.ended.len()),
            ];
            lists.into_iter().try_for_each(|(what, len)| at_most(what, len, MAX_LIST))
        }
        _ => Ok(()),
    }
}

/// Bounds an offer, and the envelope that it announces.
pub(crate) fn check_offer(offer: &TaskOffer) -> WireResult<()> {
    at_most("sources", offer.sources.len(), MAX_BLOCKS)?;
    if offer.envelope_len > MAX_ENVELOPE as u64 {
        return broken(format!("a task of {} bytes, at most {MAX_ENVELOPE} are taken", offer.envelope_len));
    }
    Ok(())
}

/// Bounds an answer.
pub(crate) fn check_answer(answer: &Answer) -> WireResult<()> {
    at_most("complaints", answer.complaints.len(), MAX_BLOCKS)?;
    match &answer.outcome {
        Outcome::Done(vote) => at_most("output blocks", vote.outputs.len(), MAX_BLOCKS),
        Outcome::Failed(_) => Ok(()),
    }
}

fn check_hello(hello: &Hello) -> WireResult<()> {
    at_most("profiles", hello.profiles.len(), MAX_PROFILES)?;
    at_most("bytes of agent name", hello.agent.len(), 256)
}

/// Checks that a reply is one to `request`, and bounds it.
pub(crate) fn check_reply(request: &ControlRequest, reply: &ControlReply) -> WireResult<()> {
    use ControlReply as Is;
    use ControlRequest as Asked;
    match (request, reply) {
        (_, Is::Refused(_)) => Ok(()),
        (Asked::Hello, Is::Hello(hello)) => check_hello(hello),
        (Asked::Has(cids) | Asked::Renew { cids, .. }, Is::Has(flags)) if flags.len() == cids.len() => Ok(()),
        (Asked::EndLease(_) | Asked::PutPointer(_), Is::Done) => Ok(()),
        (Asked::Pointers, Is::Pointers(pointers)) => at_most("pointers", pointers.len(), MAX_LIST),
        (Asked::Peers, Is::Peers(peers)) => at_most("peers", peers.len(), MAX_PEERS),
        (Asked::Pay(payment), Is::Claims(claims)) if claims.len() == payment.stages.len() => Ok(()),
        (Asked::Receipt(_), Is::Receipt(_)) => Ok(()),
        _ => broken("the reply does not fit the question"),
    }
}

#[cfg(test)]
mod tests {
    use conun_types::Cid;

    use super::*;

    #[test]
    fn names_carry_the_version() {
        for protocol in Protocol::ALL {
            assert!(protocol.name().ends_with(&format!("/{PROTOCOL_VERSION}")));
            assert_eq!(Protocol::named(protocol.name()), Some(protocol));
        }
        assert_eq!(Protocol::named("/conun/task/2"), None);
    }

    #[test]
    fn replies_must_fit_their_question() {
        let asked = ControlRequest::Has(vec![Cid::raw(b"a"), Cid::raw(b"b")]);
        assert!(check_reply(&asked, &ControlReply::Has(vec![true, false])).is_ok());
        assert!(check_reply(&asked, &ControlReply::Has(vec![true])).is_err());
        assert!(check_reply(&asked, &ControlReply::Done).is_err());
        assert!(check_reply(&ControlRequest::Peers, &ControlReply::Peers(Vec::new())).is_ok());
        let long = ControlRequest::Has(vec![Cid::raw(b"a"); MAX_LIST + 1]);
        assert!(check_request(&long).is_err());
    }
}
