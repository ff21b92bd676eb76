//! The canonical encoding: equal rows in equal order give equal bytes, hence equal content ids.
//!
//! Rows are re-chunked to [`profile::BATCH_ROWS`]; dictionaries, views and run lengths are decoded; every NaN becomes
//! the same quiet NaN; bytes under nulls, unused bits and padding are zero; offsets start at 0; validity
//! is dropped where nothing is null; schema metadata is stripped and every field is nullable, so that what a planner
//! could prove about a column does not colour its bytes. The result is an uncompressed Arrow IPC stream with fixed
//! options. No rows have an encoding too: the schema alone.
//!
//! `-0.0` stays apart from `0.0`: SQL can tell them apart (`1 / x`, a cast to text), so a task that changed one into the
//! other would change an answer. No SQL can see which NaN it has, and its payload follows the processor.
//!
//! Unions are refused, and values of fixed size 0, whose number Arrow's kernels lose; so is a schema beyond the
//! limits of [`decode()`]: what is written can be read.
//!
//! It knows: Arrow. It must not know: plans, tasks, files or peers. [`decode()`] reads bytes from strangers and never
//! panics or allocates beyond what it was given.

mod array;
mod decode;
mod layout;
mod schema;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    compute::BatchCoalescer,
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    ipc::{
        MetadataVersion,
        writer::{IpcWriteOptions, StreamWriter},
    },
};
use bytes::Bytes;
use conun_types::{Error, Result, profile, wire::MAX_BLOCK};

pub use self::decode::{Batches, decode, row_count};
pub use self::schema::canonical_schema;

/// Alignment of buffers and metadata. Blocks are read in place: every Arrow type is aligned at 64.
const ALIGNMENT: usize = 64;

/// Encodes `batches` (of `schema`, up to nullability and layout).
///
/// # Errors
/// Kind `Data` where a column's type has no canonical form (unions), or the block exceeds [`MAX_BLOCK`].
pub fn encode(schema: &Schema, batches: &[RecordBatch]) -> Result<Bytes> {
    let mut encoder = Encoder::new(schema)?;
    for batch in batches {
        encoder.push(batch)?;
    }
    Ok(encoder.finish()?.bytes)
}

/// A finished block.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Its canonical bytes.
    pub bytes: Bytes,
    /// Its rows.
    pub rows: u64,
}

/// Encodes a block batch by batch, holding no more than one canonical batch beside the bytes.
pub struct Encoder {
    schema: SchemaRef,
    pending: Pending,
    writer: StreamWriter<Vec<u8>>,
    rows: u64,
}

/// Rows that do not fill a canonical batch yet. Without columns there is nothing to coalesce but a count.
enum Pending {
    Columns(Box<BatchCoalescer>),
    Count(usize),
}

impl Encoder {
    /// An encoder of rows of `schema`.
    ///
    /// # Errors
    /// Kind `Data` where a column's type has no canonical form.
    pub fn new(schema: &Schema) -> Result<Self> {
        let schema = Arc::new(canonical_schema(schema)?);
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5).map_err(internal)?;
        let writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).map_err(internal)?;
        let pending = if schema.fields().is_empty() {
            Pending::Count(0)
        } else {
            Pending::Columns(Box::new(BatchCoalescer::new(schema.clone(), profile::BATCH_ROWS)))
        };
        Ok(Self { schema, pending, writer, rows: 0 })
    }

    /// Bytes written so far, without the rows that do not fill a batch yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writer.get_ref().len()
    }

    /// Whether no row was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Appends the rows of `batch`.
    ///
    /// # Errors
    /// As [`encode`]; also kind `Internal` where `batch` is of another schema.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        match &mut self.pending {
            Pending::Count(rows) => *rows += batch.num_rows(),
            Pending::Columns(coalescer) => coalescer.push_batch(plain(&self.schema, batch)?).map_err(internal)?,
        }
        self.write_full_batches()
    }

    /// Ends the block.
    ///
    /// # Errors
    /// As [`encode`].
    pub fn finish(mut self) -> Result<Encoded> {
        match &mut self.pending {
            Pending::Columns(coalescer) => coalescer.finish_buffered_batch().map_err(internal)?,
            Pending::Count(rows) => {
                let last = counted(&self.schema, *rows)?;
                *rows = 0;
                self.write(&last)?;
            }
        }
        self.write_full_batches()?;
        self.writer.finish().map_err(internal)?;
        let bytes = self.writer.into_inner().map_err(internal)?;
        check_size(bytes.len())?;
        Ok(Encoded { bytes: bytes.into(), rows: self.rows })
    }

    fn write_full_batches(&mut self) -> Result<()> {
        while let Some(batch) = self.next_full_batch()? {
            let columns: Result<Vec<_>, _> = batch.columns().iter().map(|c| array::canonical(c, None)).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let columns = columns.map_err(internal)?;
            let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(internal)?;
            self.write(&batch)?;
        }
        Ok(())
    }

    fn next_full_batch(&mut self) -> Result<Option<RecordBatch>> {
        match &mut self.pending {
            Pending::Columns(coalescer) => Ok(coalescer.next_completed_batch()),
            Pending::Count(rows) if *rows >= profile::BATCH_ROWS => {
                *rows -= profile::BATCH_ROWS;
                counted(&self.schema, profile::BATCH_ROWS).map(Some)
            }
            Pending::Count(_) => Ok(None),
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() > 0 {
            self.writer.write(batch).map_err(internal)?;
        }
        check_size(self.len())
    }
}

/// `batch` cast to `schema`: types, names and nullability. Rows and their order stay.
///
/// Blocks are decoded to canonical types; a plan that expects views or dictionaries gets them back here.
///
/// # Errors
/// Kind `Data` where a column cannot become what the schema says.
pub fn adapt(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    if batch.num_columns() != schema.fields().len() {
        return Err(Error::data(format!("{} columns, expected {}", batch.num_columns(), schema.fields().len())));
    }
    let columns = cast_columns(batch, schema)?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|e| Error::data(e.to_string()))
}

fn cast_columns(batch: &RecordBatch, schema: &Schema) -> Result<Vec<ArrayRef>> {
    let pairs = batch.columns().iter().zip(schema.fields());
    pairs
        .map(|(column, field)| {
            layout::relaid(column, field.data_type()).map_err(|e| Error::data(format!("{}: {e}", field.name())))
        })
        .collect()
}

/// `batch` with plain layouts, every field nullable.
fn plain(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let wrong = |e: Error| Error::internal(format!("a batch does not fit its plan's schema: {}", e.message));
    adapt(batch, schema).map_err(wrong)
}

fn counted(schema: &SchemaRef, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), Vec::new(), &options).map_err(internal)
}

fn check_size(bytes: usize) -> Result<()> {
    if bytes as u64 > MAX_BLOCK {
        return Err(Error::data(format!("a result partition exceeds {} MiB", MAX_BLOCK >> 20)));
    }
    Ok(())
}

fn internal(error: ArrowError) -> Error {
    Error::internal(format!("canonical encoding: {error}"))
}
