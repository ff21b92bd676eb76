//! `DoGet` of a data shard as it is stored: a Parquet file, cut into pieces.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryArray, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use arrow_flight::{FlightData, encode::FlightDataEncoderBuilder, error::FlightError};
use bytes::Bytes;
use conun_engine::Engine;
use conun_types::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream};
use tonic::Status;

use super::flight_sql::Answers;
use crate::message::ShardTicket;

/// Bytes of the file in one record batch.
const PIECE: usize = 1 << 20;

/// The bytes of the shard that `ticket` (JSON) names, as rows of one binary column.
pub(super) async fn shard(engine: &Engine, ticket: &[u8]) -> Result<Answers<FlightData>> {
    let ticket: ShardTicket =
        serde_json::from_slice(ticket).map_err(|e| Error::usage(format!("malformed ticket: {e}")))?;
    let table = engine.tables().table(&ticket.table)?;
    let index = usize::try_from(ticket.index).unwrap_or(usize::MAX);
    if table.shards().get(index).is_none_or(|shard| shard.cid != ticket.cid) {
        return Err(Error::data(format!("table '{}' was replaced meanwhile", ticket.table)).with_hint("try again"));
    }
    let bytes = engine.tables().read_shard(&table, index).await?;
    let schema = schema();
    let pieces = pieces(&bytes).map({
        let schema = Arc::clone(&schema);
        move |piece| batch(&schema, &piece)
    });
    let encoded = FlightDataEncoderBuilder::new().with_schema(schema).build(stream::iter(pieces));
    Ok(encoded.map_err(Status::from).boxed())
}

fn pieces(bytes: &Bytes) -> impl Iterator<Item = Bytes> + Send + use<> {
    let bytes = bytes.clone();
    (0..bytes.len().div_ceil(PIECE)).map(move |i| bytes.slice(i * PIECE..bytes.len().min((i + 1) * PIECE)))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("bytes", DataType::Binary, false)]))
}

fn batch(schema: &SchemaRef, piece: &[u8]) -> Result<RecordBatch, FlightError> {
    let column: ArrayRef = Arc::new(BinaryArray::from_vec(vec![piece]));
    Ok(RecordBatch::try_new(Arc::clone(schema), vec![column])?)
}
