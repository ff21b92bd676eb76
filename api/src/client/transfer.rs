//! Whole tables: up as record batches, down as the Parquet shards that the nodes keep.

use std::sync::Arc;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::SchemaRef,
};
use arrow_flight::{FlightDescriptor, Ticket, encode::FlightDataEncoderBuilder, error::FlightError, sql::Any};
use bytes::{Bytes, BytesMut};
use conun_storage::tables::TableInfo;
use conun_types::{Error, Result};
use futures::{Stream, TryStreamExt};
use prost::Message;

use super::{Client, call::parse, named};
use crate::{
    message::{PUT_PATH, PutRequest, PutUpdate, SHARD_TICKET, ShardRow, ShardTicket, action},
    status::from_flight,
};

impl Client {
    /// Stores `rows` as `table`, a new version if it exists. `progress` hears of rows, shards and bytes stored so far.
    ///
    /// # Errors
    /// The first error of `rows`, or the coordinator's; the table is untouched then.
    pub async fn put(
        &self,
        table: &str,
        request: &PutRequest,
        schema: SchemaRef,
        rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
        mut progress: impl FnMut(&PutUpdate<TableInfo>) + Send,
    ) -> Result<TableInfo> {
        let path = PUT_PATH.iter().copied().chain([table]).map(str::to_owned).collect();
        let options = serde_json::to_vec(request).map_err(|e| Error::internal(e.to_string()))?;
        let messages = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .with_flight_descriptor(Some(FlightDescriptor::new_path(path)))
            .with_metadata(options.into())
            .build(rows.map_err(|e| FlightError::ExternalError(Box::new(e))));
        let mut answers = self.flight()?.do_put(messages).await.map_err(from_flight)?;
        while let Some(answer) = answers.try_next().await.map_err(from_flight)? {
            let update = parse(&answer.app_metadata)?;
            progress(&update);
            if let PutUpdate::Done(info) = update {
                return Ok(info);
            }
        }
        Err(Error::unavailable("the coordinator went away before the table was complete"))
    }

    /// The data shards of a table.
    ///
    /// # Errors
    /// As [`Client::table`].
    pub async fn shards(&self, table: &str) -> Result<Vec<ShardRow>> {
        self.many(action::SHARDS, &named(table)).await
    }

    /// One shard of `table`: a Parquet file, checked against its address.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Unavailable`] where too few nodes hold it or the bytes are not those of the address.
    pub async fn shard(&self, table: &str, shard: &ShardRow) -> Result<Bytes> {
        let ticket = ShardTicket { table: table.to_owned(), index: shard.index, cid: shard.cid };
        let value = serde_json::to_vec(&ticket).map_err(|e| Error::internal(e.to_string()))?;
        let any = Any { type_url: SHARD_TICKET.to_owned(), value: value.into() };
        let mut pieces = self.flight()?.do_get(Ticket::new(any.encode_to_vec())).await.map_err(from_flight)?;
        let mut bytes = BytesMut::new();
        while let Some(batch) = pieces.try_next().await.map_err(from_flight)? {
            append(&mut bytes, &batch, shard)?;
        }
        if !shard.cid.matches(&bytes) {
            return Err(Error::unavailable(format!("shard {} of '{table}' came with other bytes", shard.index)));
        }
        Ok(bytes.freeze())
    }
}

/// Adds the pieces of one batch, never more than the shard has bytes.
fn append(bytes: &mut BytesMut, batch: &RecordBatch, shard: &ShardRow) -> Result<()> {
    let malformed = || Error::unavailable(format!("shard {} came in a shape nobody knows", shard.index));
    let column =
        batch.columns().first().map(Arc::as_ref).and_then(|c| c.as_binary_opt::<i32>()).ok_or_else(malformed)?;
    for piece in column.iter().flatten() {
        if (bytes.len() + piece.len()) as u64 > shard.len {
            return Err(malformed());
        }
        bytes.extend_from_slice(piece);
    }
    Ok(())
}
