//! `DoPut`: record batches in, a table out, with progress on the way.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use arrow_flight::{
    PutResult, decode::FlightRecordBatchStream, error::FlightError, sql::server::PeekableFlightDataStream,
};
use conun_engine::Engine;
use conun_storage::tables::{PutOptions, PutProgress, TableInfo};
use conun_types::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use tokio::sync::mpsc;
use tonic::Status;

use super::flight_sql::Answers;
use crate::{
    message::{PUT_PATH, PutRequest, PutUpdate},
    status::{from_flight, to_status},
};

/// Progress messages that may wait for a slow client; more are dropped, the last one is never.
const WAITING_UPDATES: usize = 16;

/// Starts an upload; the answers tell how it goes and end with the table.
pub(super) async fn put(engine: Arc<Engine>, mut flight: PeekableFlightDataStream) -> Result<Answers<PutResult>> {
    let (table, options) = head(&mut flight).await?;
    let mut batches = FlightRecordBatchStream::new_from_flight_data(flight.map_err(FlightError::from));
    let first = batches.next().await.transpose().map_err(from_flight)?;
    let schema = batches.schema().cloned().ok_or_else(|| Error::data("the upload has no schema"))?;
    let rows = stream::iter(first.map(Ok)).chain(batches.map_err(from_flight)).boxed();
    let (updates, waiting) = mpsc::channel(WAITING_UPDATES);
    tokio::spawn(store(engine, table, schema, rows, options, updates));
    Ok(tokio_stream::wrappers::ReceiverStream::new(waiting).map(encode).boxed())
}

/// Name and options, from the descriptor and the metadata of the first message.
async fn head(flight: &mut PeekableFlightDataStream) -> Result<(String, PutOptions)> {
    let first = match flight.peek().await {
        Some(Ok(first)) => first,
        Some(Err(status)) => return Err(Error::data(format!("the upload broke off: {}", status.message()))),
        None => return Err(Error::data("the upload is empty")),
    };
    let path = first.flight_descriptor.as_ref().map(|d| d.path.as_slice()).unwrap_or_default();
    let [a, b, table] = path else {
        return Err(Error::usage("an upload's path is [\"conun\", \"put\", TABLE]"));
    };
    if [a.as_str(), b.as_str()] != PUT_PATH {
        return Err(Error::usage(format!("unknown upload '{a}/{b}'")));
    }
    Ok((table.clone(), options(&first.app_metadata)?))
}

fn options(metadata: &[u8]) -> Result<PutOptions> {
    let request = match metadata {
        [] => PutRequest::default(),
        json => serde_json::from_slice(json).map_err(|e| Error::usage(format!("malformed upload options: {e}")))?,
    };
    let code = request.code.as_deref().map(str::parse).transpose()?;
    let shard_size = request.shard_size.unwrap_or(PutOptions::default().shard_size);
    Ok(PutOptions { code, shard_size })
}

type Update = Result<PutUpdate<TableInfo>>;

/// Runs on its own, so that an upload that was read to its end completes even if nobody waits for the answer.
async fn store(
    engine: Arc<Engine>,
    table: String,
    schema: SchemaRef,
    rows: BoxStream<'static, Result<RecordBatch>>,
    options: PutOptions,
    updates: mpsc::Sender<Update>,
) {
    let progress = |p: PutProgress| {
        let _ = updates.try_send(Ok(PutUpdate::Progress { rows: p.rows, shards: p.shards as u64, bytes: p.bytes }));
    };
    let stored = engine.tables().put(&table, schema, rows, &options, &progress).await;
    let _ = updates.send(stored.map(PutUpdate::Done)).await;
}

fn encode(update: Update) -> Result<PutResult, Status> {
    let update = update.map_err(|e| to_status(&e))?;
    let json = serde_json::to_vec(&update).map_err(|e| Status::internal(e.to_string()))?;
    Ok(PutResult { app_metadata: json.into() })
}
