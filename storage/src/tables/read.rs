//! Reading shards: from a holder, else decoded from what is left of the group. Every byte is checked.

use bytes::Bytes;
use conun_types::{Error, Result, Source};
use futures::future::BoxFuture;

use super::{Inner, Table, Tables};
use crate::degraded;

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
        let result = match self.inner.fetch(&source).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => self.inner.decode(&source, error).await,
        };
        result.map_err(|e| e.context(format!("table '{}', shard {index}", table.name())))
    }
}

impl Inner {
    /// The block from the first holder that has it.
    pub(super) async fn fetch(&self, source: &Source) -> Result<Bytes> {
        let mut last = None;
        for holder in &source.holders {
            match self.read_block(holder, source.cid).await {
                Ok(bytes) if bytes.len() as u64 == source.len => return Ok(bytes),
                // The address fits, so that the manifest is wrong, not the holder.
                Ok(bytes) => last = Some(format!("it has {} bytes, the table says {}", bytes.len(), source.len)),
                Err(error) => last = Some(error.to_string()),
            }
            tracing::debug!(cid = %source.cid, reason = last.as_deref(), "a holder did not give a block");
        }
        let why = last.unwrap_or_else(|| "no node that holds it is connected".to_owned());
        Err(Error::unavailable(format!("block {} is not to be had: {why}", source.cid))
            .with_hint("start the nodes that hold the table (conun show TABLE names them)"))
    }

    async fn decode(&self, source: &Source, failed: Error) -> Result<Bytes> {
        let Some(recovery) = &source.recovery else { return Err(failed) };
        let fetch = move |member: Source| -> BoxFuture<'_, Result<Bytes>> {
            Box::pin(async move { self.fetch(&member).await })
        };
        degraded::recover_shard(recovery, &fetch).await
    }
}
