//! One data shard and its copies: a copy has the same address, so a scan may run at any of them. Also the code
//! without parity.

use bytes::Bytes;
use conun_types::{Error, Result};

use super::{CodeSpec, ErasureCode};

/// `1+m`: m copies; `k+0`: nothing.
pub(super) struct Replication(CodeSpec);

impl Replication {
    pub(super) fn new(spec: CodeSpec) -> Self {
        Self(spec)
    }
}

impl ErasureCode for Replication {
    fn data(&self) -> usize {
        self.0.data.into()
    }

    fn parity(&self) -> usize {
        self.0.parity.into()
    }

    fn encode(&self, data: &[Bytes]) -> Result<Vec<Bytes>> {
        let first = data.first().filter(|_| data.len() <= self.data());
        let first = first.ok_or_else(|| Error::internal(format!("{} data shards", data.len())))?;
        Ok(vec![first.clone(); self.parity()])
    }

    fn reconstruct(&self, members: &[Option<Bytes>], padded_len: usize, wanted: usize) -> Result<Bytes> {
        let same = if self.data() == 1 { members.iter().flatten().next() } else { None };
        let found = members.get(wanted).and_then(Option::as_ref).or(same);
        match found {
            Some(bytes) if bytes.len() == padded_len => Ok(bytes.clone()),
            Some(bytes) => Err(Error::data(format!("a copy of {} bytes, not of {padded_len}", bytes.len()))),
            None => Err(Error::unavailable("no copy of the shard is left")),
        }
    }
}
