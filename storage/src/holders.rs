//! Reading a block from whoever has it: its holders, else what is left of its group. Whoever is gone without a word costs
//! its reader a second, and what the block takes on the reader's line, not the time after which it is given up.
//!
//! What it knows: in which order and for how long holders are asked. What it must not know: how one is asked, and what
//! becomes of one that lies: coordinators and volunteers have ways of their own ([`Reader`]).

use std::{pin::pin, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{Error, Holder, Result, Source};
use futures::{
    future::{self, Either},
    stream::{FuturesUnordered, StreamExt},
};
use tokio::time::timeout;

use crate::degraded::recover_shard;

/// After how long the next holder is asked as well, beside the time that the bytes take on the reader's line.
const HEDGE_AFTER: Duration = Duration::from_secs(1);
/// How long one holder is waited for, beside the time that the bytes take on a line that is [`SLOWEST`] times as slow as the reader's.
const HOLDER_TIMEOUT: Duration = Duration::from_secs(10);
const SLOWEST: u64 = 32;
/// A usual line of a coordinator, which may stand in an office or at home, in bytes a millisecond.
pub const COORDINATOR_LINE: u64 = 2 << 10;
/// A usual line of a volunteer, in bytes a millisecond.
pub const VOLUNTEER_LINE: u64 = 4 << 10;

/// How one holder is asked.
#[async_trait]
pub trait Reader: Send + Sync {
    /// The block, where it lies here and may be used.
    async fn here(&self, _source: &Source) -> Option<Bytes> {
        None
    }

    /// The block from `holder`: whole, and checked against its address. Dropped where it takes too long.
    ///
    /// # Errors
    /// Why that holder did not give it; others may.
    async fn ask(&self, source: &Source, holder: &Holder) -> Result<Bytes>;

    /// The reader's line, in bytes a millisecond: what takes longer on it may be lost. Where it is slower, blocks are read twice.
    fn line(&self) -> u64;
}

/// How long one way to get `len` bytes is waited for before another one is tried beside.
pub(crate) fn hedge_after(reader: &dyn Reader, len: u64) -> Duration {
    HEDGE_AFTER + Duration::from_millis(len / reader.line().max(1))
}

/// The block from its holders, or decoded from its group: also where they take their time.
///
/// # Errors
/// [`conun_types::ErrorKind::Unavailable`] where neither gives it; those of [`recover_shard`].
pub async fn read(reader: &dyn Reader, source: &Source) -> Result<Bytes> {
    let Some(recovery) = &source.recovery else { return ask_holders(reader, source).await };
    let mut asked = pin!(ask_holders(reader, source));
    let patience = hedge_after(reader, source.len) * source.holders.len().min(2) as u32;
    if let Ok(answer) = timeout(patience, &mut asked).await {
        return match answer {
            Ok(bytes) => Ok(bytes),
            Err(_) => recover_shard(recovery, reader).await,
        };
    }
    match future::select(asked, pin!(recover_shard(recovery, reader))).await {
        Either::Left((Ok(bytes), _)) | Either::Right((Ok(bytes), _)) => Ok(bytes),
        Either::Left((Err(_), decoded)) => decoded.await,
        Either::Right((Err(why), asked)) => asked.await.map_err(|_| why),
    }
}

/// The first answer: of one holder after the other, and of the next one too where one takes its time.
///
/// # Errors
/// [`conun_types::ErrorKind::Unavailable`], with the reason of the last, where none gives it.
pub async fn ask_holders(reader: &dyn Reader, source: &Source) -> Result<Bytes> {
    let (mut others, mut reads, mut last) = (source.holders.iter(), FuturesUnordered::new(), None);
    loop {
        reads.extend(others.next().map(|holder| ask(reader, source, holder)));
        let read = if others.len() > 0 {
            // Ever later, so that those who dribble keep no other from being asked, and a line that is slow itself is not crowded.
            let patience = hedge_after(reader, source.len) * 4_u32.saturating_pow(reads.len() as u32 - 1);
            let Ok(read) = timeout(patience, reads.next()).await else { continue };
            read
        } else {
            reads.next().await
        };
        match read {
            Some(Ok(bytes)) => return Ok(bytes),
            Some(Err(error)) => {
                tracing::debug!(cid = %source.cid, %error, "a holder did not give a block");
                last = Some(error);
            }
            None => return Err(nobody(source, last)),
        }
    }
}

async fn ask(reader: &dyn Reader, source: &Source, holder: &Holder) -> Result<Bytes> {
    let patience = HOLDER_TIMEOUT + Duration::from_millis(source.len / (reader.line() / SLOWEST).max(1));
    let answer = timeout(patience, reader.ask(source, holder)).await;
    answer.unwrap_or_else(|_| Err(Error::unavailable(format!("{} takes longer than {patience:?}", holder.peer.id))))
}

fn nobody(source: &Source, last: Option<Error>) -> Error {
    let why = last.map_or_else(|| "no node that holds it is connected".to_owned(), |error| error.to_string());
    Error::unavailable(format!("block {} is not to be had: {why}", source.cid))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use conun_types::{Cid, NodeKey, PeerAddr, Recovery};

    use super::*;
    use crate::erasure::{self, CodeSpec};

    /// What a holder does.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Holds {
        It,
        Nothing,
        /// As nothing, but it takes longer to say so than a reader waits before it tries another way.
        NothingLate,
        /// It is gone without a word.
        Silent,
    }
    use Holds::{It, Nothing, NothingLate, Silent};

    struct Holders {
        blocks: Vec<Bytes>,
        asked: Mutex<Vec<Holds>>,
    }

    #[async_trait]
    impl Reader for Holders {
        async fn ask(&self, source: &Source, holder: &Holder) -> Result<Bytes> {
            let holds =
                [It, Nothing, NothingLate, Silent].into_iter().find(|holds| node(*holds) == holder.peer).unwrap();
            self.asked.lock().unwrap().push(holds);
            match holds {
                It => return Ok(self.blocks.iter().find(|b| source.cid.matches(b)).unwrap().clone()),
                Silent => future::pending().await,
                NothingLate => tokio::time::sleep(2 * HEDGE_AFTER).await,
                Nothing => {}
            }
            Err(Error::unavailable("nothing here"))
        }

        fn line(&self) -> u64 {
            VOLUNTEER_LINE
        }
    }

    fn node(holds: Holds) -> PeerAddr {
        PeerAddr { id: NodeKey::from_bytes(&[holds as u8 + 1; 32]).unwrap().id(), addrs: Vec::new() }
    }

    fn source(bytes: &Bytes, holders: &[Holds]) -> Source {
        let holders = holders.iter().map(|holds| Holder { peer: node(*holds), capability: None }).collect();
        Source { cid: Cid::raw(bytes), len: bytes.len() as u64, holders, recovery: None }
    }

    /// A group of two shards and two of parity, and who holds each.
    fn group(holders: [&[Holds]; 4]) -> (Holders, Source) {
        let data: Vec<Bytes> = (1..=2u8).map(|n| Bytes::from(vec![n; 1000])).collect();
        let parity = erasure::code(CodeSpec { data: 2, parity: 2 }).unwrap().encode(&data).unwrap();
        let blocks: Vec<Bytes> = data.into_iter().chain(parity).collect();
        let members: Vec<Source> = blocks.iter().zip(holders).map(|(b, h)| source(b, h)).collect();
        let wanted = members[0].clone();
        let recovery = Recovery { data: 2, parity: 2, padded_len: 1000, index: 0, members };
        (Holders { blocks, asked: Mutex::default() }, Source { recovery: Some(recovery), ..wanted })
    }

    /// What is read, and who was asked.
    async fn asked(holders: &Holders, source: &Source) -> (Result<Bytes>, Vec<Holds>) {
        let read = timeout(8 * HEDGE_AFTER, read(holders, source)).await.expect("nobody is waited for so long");
        (read, holders.asked.lock().unwrap().clone())
    }

    #[tokio::test]
    async fn the_next_holder_is_asked_beside_a_silent_one() {
        let block = Bytes::from_static(b"block");
        let holders = Holders { blocks: vec![block.clone()], asked: Mutex::default() };
        let (read, asked) = asked(&holders, &source(&block, &[Silent, Nothing, It, It])).await;
        assert_eq!((read.unwrap(), asked), (block, vec![Silent, Nothing, It]));
    }

    #[tokio::test]
    async fn two_silent_holders_keep_no_third_from_being_asked() {
        let block = Bytes::from_static(b"block");
        let holders = Holders { blocks: vec![block.clone()], asked: Mutex::default() };
        let (read, asked) = asked(&holders, &source(&block, &[Silent, Silent, It])).await;
        assert_eq!((read.unwrap(), asked), (block, vec![Silent, Silent, It]));
    }

    #[tokio::test]
    async fn a_block_is_decoded_beside_silent_holders_and_from_other_members_than_silent_ones() {
        let (holders, wanted) = group([&[Silent], &[Silent], &[It], &[It]]);
        let (read, asked) = asked(&holders, &wanted).await;
        assert_eq!(read.unwrap(), holders.blocks[0]);
        assert_eq!(asked, [Silent, Silent, It, It]);
    }

    #[tokio::test]
    async fn it_is_told_why_nobody_gives_it() {
        for wanted in [Nothing, NothingLate] {
            let (holders, wanted) = group([&[wanted], &[Nothing], &[NothingLate], &[It]]);
            let error = asked(&holders, &wanted).await.0.unwrap_err();
            assert!(error.message.contains("lost with too many of its group: 1 more needed"), "{error}");
            assert!(error.message.contains("nothing here"), "{error}");
        }
        let (holders, wanted) = group([&[], &[It], &[], &[It]]);
        let (read, asked) = asked(&holders, &Source { recovery: None, ..wanted }).await;
        assert!(read.unwrap_err().message.contains("no node that holds it is connected"));
        assert_eq!(asked, []);
    }
}
