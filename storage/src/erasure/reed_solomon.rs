//! Reed-Solomon over GF(2^8) with a Cauchy matrix: every square submatrix is invertible, so any k members decode.

use std::borrow::Cow;

use bytes::Bytes;
use conun_types::{Error, Result};
use rusty_erasure::{Coder, Matrix};

use super::{CodeSpec, ErasureCode};

/// Bytes of each shard that are encoded at a time: the parity of a tile stays in the cache while all data passes by.
const TILE: usize = 16 << 10;

/// `k+m` with k > 1.
pub(super) struct ReedSolomon {
    coder: Coder,
}

impl ReedSolomon {
    pub(super) fn new(spec: CodeSpec) -> Result<Self> {
        let matrix = Matrix::cauchy(spec.data.into(), spec.parity.into());
        let coder = matrix.and_then(rusty_erasure::coder).map_err(|e| Error::internal(format!("code {spec}: {e}")))?;
        Ok(Self { coder })
    }
}

impl ErasureCode for ReedSolomon {
    fn data(&self) -> usize {
        self.coder.k()
    }

    fn parity(&self) -> usize {
        self.coder.p()
    }

    fn encode(&self, data: &[Bytes]) -> Result<Vec<Bytes>> {
        let longest = data.iter().map(Bytes::len).max().unwrap_or_default();
        if data.is_empty() || data.len() > self.data() {
            return Err(Error::internal(format!("{} data shards for a code of {}", data.len(), self.data())));
        }
        let mut parity = vec![vec![0u8; longest]; self.parity()];
        for start in (0..longest).step_by(TILE) {
            // Zeros beyond a shard's end would change nothing: update only as far as it reaches.
            for (index, shard) in data.iter().enumerate().filter(|(_, shard)| shard.len() > start) {
                let part = &shard[start..shard.len().min(start + TILE)];
                let mut sums: Vec<&mut [u8]> = parity.iter_mut().map(|p| &mut p[start..start + part.len()]).collect();
                self.coder.update(index, part, &mut sums).map_err(|e| Error::internal(e.to_string()))?;
            }
        }
        Ok(parity.into_iter().map(Bytes::from).collect())
    }

    fn reconstruct(&self, members: &[Option<Bytes>], padded_len: usize, wanted: usize) -> Result<Bytes> {
        if members.len() != self.data() + self.parity() || wanted >= members.len() {
            return Err(Error::data(format!(
                "{} members for a code of {}",
                members.len(),
                self.data() + self.parity()
            )));
        }
        if members.iter().flatten().any(|bytes| bytes.len() > padded_len) {
            return Err(Error::data("a member is longer than its group"));
        }
        let present: Vec<bool> = members.iter().map(Option::is_some).collect();
        let count = present.iter().filter(|p| **p).count();
        if count < self.data() {
            return Err(Error::unavailable(format!("{count} shards of a group are left, {} are needed", self.data())));
        }
        let plan = self.coder.decode_plan(&present, &[wanted]).map_err(|e| Error::internal(e.to_string()))?;
        let padded = padded(members, padded_len, self.data());
        let shards: Vec<Option<&[u8]>> = padded.iter().map(Option::as_deref).collect();
        let mut out = vec![0u8; padded_len];
        let result = self.coder.recover_with(&plan, &shards, &mut [&mut out]);
        result.map_err(|e| Error::internal(e.to_string()))?;
        Ok(out.into())
    }
}

/// The first `k` members that are present (those that the plan uses), zeros added where they are short.
fn padded(members: &[Option<Bytes>], padded_len: usize, k: usize) -> Vec<Option<Cow<'_, [u8]>>> {
    let mut left = k;
    let mut out = Vec::with_capacity(members.len());
    for member in members {
        let used = member.as_ref().filter(|_| left > 0);
        left -= usize::from(used.is_some());
        out.push(used.map(|bytes| pad(bytes, padded_len)));
    }
    out
}

fn pad(bytes: &Bytes, len: usize) -> Cow<'_, [u8]> {
    if bytes.len() == len {
        return Cow::Borrowed(bytes);
    }
    let mut padded = bytes.to_vec();
    padded.resize(len, 0);
    Cow::Owned(padded)
}
