//! Reading shards: from a holder, else decoded from what is left of the group. Every byte is checked.

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{Error, ErrorKind, Holder, Result, Source};

use super::{Inner, Table, Tables};
use crate::holders::{self, Reader};

impl Tables {
    /// Where each shard of `table` is found now, in the order of [`Table::shards`].
    #[must_use]
    pub fn sources(&self, table: &Table) -> Vec<Source> {
        let peers = self.inner.peers();
        (0..table.shards().len()).filter_map(|index| table.source(index, &peers).ok()).collect()
    }

    /// Where shard `index` of `table` is found now: its holders that are connected, and its group to decode it from.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] where the table has no such shard.
    pub fn source(&self, table: &Table, index: usize) -> Result<Source> {
        table.source(index, &self.inner.peers())
    }

    /// The bytes of shard `index` of `table`: a Parquet file.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Unavailable`], naming the table, where too many of its nodes are gone.
    pub async fn read_shard(&self, table: &Table, index: usize) -> Result<Bytes> {
        let source = self.source(table, index)?;
        let read = holders::read(self.inner.as_ref(), &source).await;
        read.map_err(|e| {
            let e = e.context(format!("table '{}', shard {index}", table.name()));
            let lost = e.kind == ErrorKind::Unavailable && e.hint.is_none();
            if lost { e.with_hint("start the nodes that hold the table (conun show TABLE names them)") } else { e }
        })
    }
}

#[async_trait]
impl Reader for Inner {
    async fn ask(&self, source: &Source, holder: &Holder) -> Result<Bytes> {
        let bytes = self.read_block(holder, source.cid).await?;
        if bytes.len() as u64 == source.len {
            return Ok(bytes);
        }
        // The address fits, so that the manifest is wrong, not the holder.
        Err(Error::data(format!("it has {} bytes, the table says {}", bytes.len(), source.len)))
    }

    fn line(&self) -> u64 {
        holders::COORDINATOR_LINE
    }
}
