//! Length-prefixed messages over a byte stream: `u32` big-endian length, then DAG-CBOR or plain bytes.
//!
//! Every read names the most it will take *before* it allocates, memory grows only as bytes arrive, and every wait
//! has an end. It knows nothing of what the messages mean.

use std::{io, time::Duration};

use conun_types::codec;
use libp2p::core::upgrade::NegotiationError;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// A two-way byte stream: a libp2p substream, or a pipe in memory.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}
/// Any stream. Dynamic, so that the protocols are compiled once.
pub(crate) type BoxWire = Box<dyn Wire>;

/// Bytes that are read under one deadline, and by which memory grows ahead of what has arrived.
const PIECE: usize = 256 << 10;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The other end closed or reset the stream.
    #[error("the stream ended early")]
    Closed,
    /// The connection failed.
    #[error("{0}")]
    Io(io::Error),
    /// The deadline passed.
    #[error("no answer in time")]
    Slow,
    /// The other end does not know this protocol.
    #[error("it does not speak this protocol")]
    OtherVersion,
    /// The other end broke the protocol.
    #[error("{0}")]
    Broken(String),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        if error.get_ref().is_some_and(|inner| inner.is::<NegotiationError>()) {
            return WireError::OtherVersion;
        }
        match error.kind() {
            Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe | Kind::WriteZero => WireError::Closed,
            _ => WireError::Io(error),
        }
    }
}

pub(crate) type WireResult<T> = Result<T, WireError>;

/// The message is not what the protocol allows here.
pub(crate) fn broken<T>(why: impl Into<String>) -> WireResult<T> {
    Err(WireError::Broken(why.into()))
}

/// `io` within `wait`.
pub(crate) async fn within<T, E>(wait: Duration, io: impl Future<Output = Result<T, E>>) -> WireResult<T>
where
    WireError: From<E>,
{
    match timeout(wait, io).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(WireError::Slow),
    }
}

/// Fills `out`, each piece of it within `wait`.
pub(crate) async fn read_into<R>(io: &mut R, out: &mut [u8], wait: Duration) -> WireResult<()>
where
    R: AsyncRead + Unpin + ?Sized,
{
    within(wait, io.read_exact(out)).await.map(|_| ())
}

/// Reads exactly `len` bytes, which the caller has bounded.
pub(crate) async fn read_bytes<R>(io: &mut R, len: usize, wait: Duration) -> WireResult<Vec<u8>>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut out = Vec::with_capacity(len.min(PIECE));
    while out.len() < len {
        let start = out.len();
        out.resize(len.min(start + PIECE), 0);
        read_into(io, &mut out[start..], wait).await?;
    }
    Ok(out)
}

/// Waits up to `first` for the length of a frame, at most `max`.
pub(crate) async fn read_len<R>(io: &mut R, max: usize, first: Duration) -> WireResult<usize>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut head = [0u8; 4];
    read_into(io, &mut head, first).await?;
    let len = u32::from_be_bytes(head) as usize;
    if len > max { broken(format!("a message of {len} bytes, at most {max} are taken here")) } else { Ok(len) }
}

/// Waits for a message of at most `max` bytes: up to `first` for it to begin, up to `next` for each piece of it.
pub(crate) async fn read<T, R>(io: &mut R, max: usize, first: Duration, next: Duration) -> WireResult<T>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin + ?Sized,
{
    let len = read_len(io, max, first).await?;
    decode(&read_bytes(io, len, next).await?)
}

/// Decodes what a peer sent.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> WireResult<T> {
    codec::decode(bytes).map_err(|e| WireError::Broken(e.message))
}

/// The frame of `message`.
pub(crate) fn encode<T: Serialize>(message: &T) -> WireResult<Vec<u8>> {
    let body = codec::encode(message).map_err(|e| WireError::Io(io::Error::other(e)))?;
    Ok(frame_of(&body))
}

/// `body` with its length before it.
pub(crate) fn frame_of(body: &[u8]) -> Vec<u8> {
    // No message of ours comes near 4 GiB; if one did, the reader would refuse its length.
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// Sends `bytes`, each piece within `wait`.
pub(crate) async fn write_all<W>(io: &mut W, bytes: &[u8], wait: Duration) -> WireResult<()>
where
    W: AsyncWrite + Unpin + ?Sized,
{
    for piece in bytes.chunks(PIECE) {
        within(wait, io.write_all(piece)).await?;
    }
    Ok(())
}

/// Sends a message and sees it off.
pub(crate) async fn write<T, W>(io: &mut W, message: &T, wait: Duration) -> WireResult<()>
where
    T: Serialize,
    W: AsyncWrite + Unpin + ?Sized,
{
    write_all(io, &encode(message)?, wait).await?;
    within(wait, io.flush()).await
}

/// Sends the last message of this direction.
pub(crate) async fn finish<T, W>(io: &mut W, message: &T, wait: Duration) -> WireResult<()>
where
    T: Serialize,
    W: AsyncWrite + Unpin + ?Sized,
{
    write(io, message, wait).await?;
    within(wait, io.shutdown()).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{BlockReply, BlockRequest, ControlAnswer, FromNode, ToNode};

    const SOON: Duration = Duration::from_millis(200);

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn messages_round_trip() {
        run(async {
            let (mut here, mut there) = tokio::io::duplex(64);
            let text = "x".repeat(3 * PIECE);
            let sent = text.clone();
            let send = async { write(&mut here, &sent, SOON).await };
            let (wrote, got) = tokio::join!(send, read::<String, _>(&mut there, 1 << 20, SOON, SOON));
            wrote.expect("written");
            assert_eq!(got.expect("read"), text);
        });
    }

    #[test]
    fn lengths_are_judged_before_memory_is_taken() {
        run(async {
            let mut hostile: &[u8] = &[0xff, 0xff, 0xff, 0xff, 1, 2, 3];
            let got = read::<String, _>(&mut hostile, 1024, SOON, SOON).await;
            assert!(matches!(got, Err(WireError::Broken(_))), "{got:?}");
            let mut truncated: &[u8] = &[0, 0, 4, 0, 1, 2, 3];
            let got = read::<String, _>(&mut truncated, 1024, SOON, SOON).await;
            assert!(matches!(got, Err(WireError::Closed)), "{got:?}");
        });
    }

    #[test]
    fn silence_has_an_end() {
        run(async {
            let (_here, mut there) = tokio::io::duplex(64);
            let got = read::<String, _>(&mut there, 1024, Duration::from_millis(10), SOON).await;
            assert!(matches!(got, Err(WireError::Slow)), "{got:?}");
        });
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = codec::decode::<ToNode>(&bytes);
            let _ = codec::decode::<FromNode>(&bytes);
            let _ = codec::decode::<BlockRequest>(&bytes);
            let _ = codec::decode::<BlockReply>(&bytes);
            let _ = codec::decode::<ControlAnswer>(&bytes);
            let _ = codec::decode::<conun_types::wire::ControlRequest>(&bytes);
            let _ = run(async { read::<ToNode, _>(&mut &bytes[..], 256, SOON, SOON).await });
        }
    }
}
