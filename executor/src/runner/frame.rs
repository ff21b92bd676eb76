//! Frames between parent and child: `u32` length of a DAG-CBOR header, `u64` length of a body, header, body.
//!
//! Neither side trusts the other's lengths.

use bytes::Bytes;
use conun_types::{Cid, Error, Failure, OutputBlock, Result, codec, wire::MAX_BLOCK};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Bytes before the header.
pub(super) const PREFIX: usize = 12;
/// Longest header: they name at most one block.
const MAX_HEADER: usize = 1 << 16;

/// What the parent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToRunner {
    /// Run the task whose envelope is the body.
    Run,
    /// Run the task whose envelope is the body, and tell what every operator gives.
    Trace,
    /// Decide the dispute that is the body.
    Decide,
    /// The body is this input.
    Input(Cid),
    /// This input is not to be had; the task cannot go on.
    Missing(Failure),
    /// Whether the input that the child has may be used for this task, too.
    Reuse(bool),
}

/// What the child says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromRunner {
    /// Give me this input.
    Need(Cid),
    /// I have this input of an earlier task: may I use it?
    Have(Cid),
    /// The body is this output.
    Block(OutputBlock),
    /// The body is this batch of a trace.
    Batch(Cid),
    /// The body is the names of the operators and the trace of the task.
    Traced,
    /// The body is a referee's ruling: there will be no output.
    Ruled,
    /// That was the last block.
    Done,
    /// There will be no output.
    Failed(Failure),
}

/// Prefix and header of a frame with a body of `body` bytes.
pub(super) fn head<T: Serialize>(header: &T, body: usize) -> Result<Vec<u8>> {
    let header = codec::encode(header)?;
    let len = u32::try_from(header.len()).ok().filter(|len| *len as usize <= MAX_HEADER);
    let len = len.ok_or_else(|| Error::internal("a frame's header is too long"))?;
    let mut bytes = Vec::with_capacity(PREFIX + header.len());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&(body as u64).to_le_bytes());
    bytes.extend_from_slice(&header);
    Ok(bytes)
}

/// Lengths of header and body.
///
/// # Errors
/// Kind `Data` where one is beyond its limit: nothing was allocated for it yet.
pub(super) fn lengths(prefix: &[u8; PREFIX]) -> Result<(usize, usize)> {
    let [a, b, c, d, rest @ ..] = *prefix;
    let header = u32::from_le_bytes([a, b, c, d]) as usize;
    let body = u64::from_le_bytes(rest);
    if header > MAX_HEADER || body > MAX_BLOCK {
        return Err(Error::data(format!("a frame of {header} + {body} bytes")));
    }
    Ok((header, usize::try_from(body).unwrap_or(usize::MAX)))
}

/// A decoded frame.
pub(super) struct Frame<T> {
    pub(super) header: T,
    pub(super) body: Bytes,
}

impl<T: DeserializeOwned> Frame<T> {
    pub(super) fn decode(header: &[u8], body: Vec<u8>) -> Result<Self> {
        Ok(Self { header: codec::decode(header)?, body: body.into() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn absurd_lengths_are_refused_before_anything_is_allocated() -> Result<()> {
        let bytes = head(&FromRunner::Done, 5)?;
        let prefix: [u8; PREFIX] = bytes[..PREFIX].try_into().map_err(|_| Error::internal("prefix"))?;
        assert_eq!(lengths(&prefix)?, (bytes.len() - PREFIX, 5));
        assert!(lengths(&[0xff; PREFIX]).is_err());
        Ok(())
    }

    proptest! {
        #[test]
        fn headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frame::<FromRunner>::decode(&bytes, Vec::new());
            let _ = Frame::<ToRunner>::decode(&bytes, Vec::new());
        }
    }
}
