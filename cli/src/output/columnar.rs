//! Parquet and Arrow IPC: the rows as they are, for other programs.

use arrow::{array::RecordBatch, datatypes::SchemaRef, ipc::writer::StreamWriter};
use conun_storage::shard::without_float_statistics;
use conun_types::{Error, Result};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use super::{RowWriter, Target, unprintable};

/// Writes a Parquet file, zstd compressed.
pub(super) struct Parquet(ArrowWriter<Target>);

impl Parquet {
    pub(super) fn new(schema: &SchemaRef, target: Target) -> Result<Self> {
        let zstd = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
        let properties = without_float_statistics(zstd, schema).build();
        ArrowWriter::try_new(target, schema.clone(), Some(properties)).map(Self).map_err(|e| failed(&e))
    }
}

fn failed(error: &parquet::errors::ParquetError) -> Error {
    Error::data(format!("cannot write Parquet: {error}"))
}

impl RowWriter for Parquet {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.0.write(batch).map_err(|e| failed(&e))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.into_inner().map_err(|e| failed(&e))?.complete()
    }
}

/// Writes an Arrow IPC stream.
pub(super) struct Arrow(StreamWriter<Target>);

impl Arrow {
    pub(super) fn new(schema: &SchemaRef, target: Target) -> Result<Self> {
        StreamWriter::try_new(target, schema).map(Self).map_err(|e| unprintable(&e))
    }
}

impl RowWriter for Arrow {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.0.write(batch).map_err(|e| unprintable(&e))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.0.finish().map_err(|e| unprintable(&e))?;
        self.0.into_inner().map_err(|e| unprintable(&e))?.complete()
    }
}
