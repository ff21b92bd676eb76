//! Rows into data shards, each a standalone Parquet file, and back.
//!
//! Where a shard ends depends on its rows and on the shard size alone: not on the batches in which the rows came, on
//! the code or on the nodes. So the same table put twice has the same shards, and partitions of a scan never move.

use std::sync::Arc;

use arrow::{
    array::{Array, RecordBatch, RecordBatchOptions},
    compute::{cast, concat_batches},
    datatypes::{Schema, SchemaRef},
};
use bytes::Bytes;
use conun_types::{Cid, Error, Result, wire::MAX_BLOCK};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder},
    schema::types::ColumnPath,
};

/// Usual size of a shard, in bytes.
pub const DEFAULT_SHARD_SIZE: u64 = 8 << 20;
/// Smallest size that may be asked for.
pub const MIN_SHARD_SIZE: u64 = 64 << 10;
/// Largest size that may be asked for: a shard overshoots by a few rows, and must stay below [`MAX_BLOCK`].
pub const MAX_SHARD_SIZE: u64 = 64 << 20;

/// Rows after which it is looked whether a shard is full.
const STEP_ROWS: usize = 1024;
/// Rows of a row group.
const ROW_GROUP_ROWS: usize = 64 << 10;
/// Rows of a page: small, so that the writer's estimate of what is not yet compressed stays close.
const PAGE_ROWS: usize = 8192;

/// A data shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// A Parquet file.
    pub bytes: Bytes,
    /// Its address.
    pub cid: Cid,
    /// Its rows.
    pub rows: u64,
}

/// Cuts rows into shards. Holds at most one shard and one step of rows.
pub struct ShardWriter {
    schema: SchemaRef,
    shard_size: u64,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    file: Option<ArrowWriter<Vec<u8>>>,
    rows: u64,
    shards: u64,
}

/// Checks a shard size that a person asked for.
///
/// # Errors
/// [`conun_types::ErrorKind::Usage`] outside [`MIN_SHARD_SIZE`] to [`MAX_SHARD_SIZE`].
pub fn check_shard_size(bytes: u64) -> Result<u64> {
    if (MIN_SHARD_SIZE..=MAX_SHARD_SIZE).contains(&bytes) {
        return Ok(bytes);
    }
    Err(Error::usage(format!("a shard has {} KiB to {} MiB", MIN_SHARD_SIZE >> 10, MAX_SHARD_SIZE >> 20))
        .with_hint("for example --shard-size 8MiB"))
}

impl ShardWriter {
    /// A writer of shards of about `shard_size` bytes. `schema` is a stored one ([`crate::schema::stored`]).
    ///
    /// # Errors
    /// As [`check_shard_size`].
    pub fn new(schema: SchemaRef, shard_size: u64) -> Result<Self> {
        let shard_size = check_shard_size(shard_size)?;
        Ok(Self { schema, shard_size, pending: Vec::new(), pending_rows: 0, file: None, rows: 0, shards: 0 })
    }

    /// Adds rows; returns the shards that became full.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] where the rows do not have the table's schema or cannot be stored.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<Vec<Shard>> {
        let batch = conform(batch, &self.schema)?;
        let (mut shards, mut offset) = (Vec::new(), 0);
        while offset < batch.num_rows() {
            let take = (STEP_ROWS - self.pending_rows).min(batch.num_rows() - offset);
            self.pending.push(batch.slice(offset, take));
            self.pending_rows += take;
            offset += take;
            if self.pending_rows == STEP_ROWS {
                self.step(&mut shards)?;
            }
        }
        Ok(shards)
    }

    /// The last shards. A table without rows has one shard without rows.
    ///
    /// # Errors
    /// As [`ShardWriter::push`].
    pub fn finish(mut self) -> Result<Vec<Shard>> {
        let mut shards = Vec::new();
        self.step(&mut shards)?;
        if self.file.is_none() && self.shards == 0 {
            self.file = Some(self.open()?);
        }
        self.close(&mut shards)?;
        Ok(shards)
    }

    /// Writes the pending rows, in pieces so small that a shard cannot far exceed its size.
    fn step(&mut self, shards: &mut Vec<Shard>) -> Result<()> {
        if self.pending_rows == 0 {
            return Ok(());
        }
        let rows = concat_batches(&self.schema, &self.pending).map_err(unstorable)?;
        self.pending.clear();
        self.pending_rows = 0;
        let piece = piece_rows(&rows, self.shard_size / 8)?;
        for offset in (0..rows.num_rows()).step_by(piece) {
            self.write(&rows.slice(offset, piece.min(rows.num_rows() - offset)), shards)?;
        }
        Ok(())
    }

    fn write(&mut self, rows: &RecordBatch, shards: &mut Vec<Shard>) -> Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        file.write(rows).map_err(unstorable)?;
        self.rows += rows.num_rows() as u64;
        let size = (file.bytes_written() + file.in_progress_size()) as u64;
        self.file = Some(file);
        if size >= self.shard_size { self.close(shards) } else { Ok(()) }
    }

    fn open(&self) -> Result<ArrowWriter<Vec<u8>>> {
        let properties = without_float_statistics(properties()?, &self.schema).build();
        ArrowWriter::try_new(Vec::new(), self.schema.clone(), Some(properties)).map_err(unstorable)
    }

    fn close(&mut self, shards: &mut Vec<Shard>) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let bytes = Bytes::from(file.into_inner().map_err(unstorable)?);
        if bytes.len() as u64 > MAX_BLOCK {
            return Err(Error::data(format!("a row is too large to be stored: its shard has {} bytes", bytes.len())));
        }
        shards.push(Shard { cid: Cid::raw(&bytes), bytes, rows: std::mem::take(&mut self.rows) });
        self.shards += 1;
        Ok(())
    }
}

fn unstorable(error: impl std::fmt::Display) -> Error {
    Error::data(format!("cannot store these rows: {error}"))
}

/// `properties` without statistics of the columns of `schema` that are floats. Parquet leaves NaN out of them, and readers would pass over its
/// rows, though it is more than any number: `x > 10` would give what depends on which rows are stored together.
#[must_use]
pub fn without_float_statistics(properties: WriterPropertiesBuilder, schema: &Schema) -> WriterPropertiesBuilder {
    let floats = schema.fields().iter().filter(|field| field.data_type().is_floating());
    floats.fold(properties, |properties, field| {
        let column = ColumnPath::new(vec![field.name().clone()]);
        properties.set_column_statistics_enabled(column, EnabledStatistics::None)
    })
}

fn properties() -> Result<WriterPropertiesBuilder> {
    let level = ZstdLevel::try_new(3).map_err(|e| Error::internal(e.to_string()))?;
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_created_by("conun".to_owned()))
}

/// The batch under the stored schema: layouts made plain, metadata dropped.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.num_columns() != schema.fields().len() {
        return Err(Error::data(format!("{} columns, the table has {}", batch.num_columns(), schema.fields().len())));
    }
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(column.clone()) } else { cast(column, field.data_type()) }
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>().map_err(unstorable)?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(unstorable)
}

/// Rows of `batch` that take at most `bytes`: all of them, or a power of two.
fn piece_rows(batch: &RecordBatch, bytes: u64) -> Result<usize> {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    let size = sizes.sum::<std::result::Result<usize, _>>().map_err(unstorable)? as u64;
    let mut rows = batch.num_rows().next_power_of_two();
    let mut piece = size;
    while piece > bytes && rows > 1 {
        rows /= 2;
        piece /= 2;
    }
    Ok(rows)
}

/// The rows of a shard.
///
/// # Errors
/// [`conun_types::ErrorKind::Data`] where `bytes` are no readable Parquet file.
pub fn read(bytes: Bytes) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let wrong = |e: &dyn std::fmt::Display| Error::data(format!("not a readable Parquet shard: {e}"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| wrong(&e))?;
    let schema = Arc::clone(builder.schema());
    let reader = builder.build().map_err(|e| wrong(&e))?;
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| wrong(&e))?;
    Ok((schema, batches))
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Float64Array, Int64Array, StringArray},
        datatypes::{DataType, Field},
    };
    use proptest::prelude::*;

    use super::*;

    fn rows(count: usize, width: usize) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("x", DataType::Float64, true),
            Field::new("text", DataType::Utf8, true),
        ]);
        let mix = |n: usize| (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
        let text = |n: usize| (!n.is_multiple_of(7)).then(|| format!("{:x}", mix(n)).repeat(width));
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new((0..count as i64).collect::<Int64Array>()),
            Arc::new((0..count).map(|n| (!n.is_multiple_of(5)).then(|| mix(n) as f64)).collect::<Float64Array>()),
            Arc::new((0..count).map(text).collect::<StringArray>()),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    #[test]
    fn readers_pass_over_no_nan() {
        let shards = shards(&rows(10, 1), &[], MIN_SHARD_SIZE);
        let file = ParquetRecordBatchReaderBuilder::try_new(shards[0].bytes.clone()).unwrap();
        let columns = file.metadata().row_group(0).columns();
        let told: Vec<bool> = columns.iter().map(|column| column.statistics().is_some()).collect();
        assert_eq!(told, [true, false, true]);
    }

    fn shards(batch: &RecordBatch, cuts: &[usize], size: u64) -> Vec<Shard> {
        let mut writer = ShardWriter::new(batch.schema(), size).unwrap();
        let (mut out, mut offset) = (Vec::new(), 0);
        for cut in cuts.iter().chain([&batch.num_rows()]) {
            let len = (*cut).min(batch.num_rows() - offset);
            out.extend(writer.push(&batch.slice(offset, len)).unwrap());
            offset += len;
        }
        out.extend(writer.finish().unwrap());
        out
    }

    #[test]
    fn shards_are_files_of_about_the_size_that_hold_the_rows() {
        let batch = rows(60_000, 1);
        let size = 256 << 10;
        let shards = shards(&batch, &[], size);
        assert!(shards.len() > 3, "{}", shards.len());
        for shard in &shards[..shards.len() - 1] {
            let len = shard.bytes.len() as u64;
            assert!(len > size / 3 && len < size * 5 / 4, "a shard of {len} bytes");
            assert!(shard.cid.matches(&shard.bytes));
        }
        let read: Vec<_> = shards.iter().flat_map(|s| read(s.bytes.clone()).unwrap().1).collect();
        assert_eq!(concat_batches(&batch.schema(), &read).unwrap(), batch);
        assert_eq!(shards.iter().map(|s| s.rows).sum::<u64>(), 60_000);
    }

    #[test]
    fn wide_rows_do_not_burst_a_shard() {
        for shard in shards(&rows(500, 2000), &[], MIN_SHARD_SIZE) {
            assert!(shard.bytes.len() < 4 * MIN_SHARD_SIZE as usize, "{}", shard.bytes.len());
        }
    }

    #[test]
    fn no_rows_make_one_empty_shard() {
        let shards = shards(&rows(0, 1), &[], MIN_SHARD_SIZE);
        assert_eq!((shards.len(), shards[0].rows), (1, 0));
        let (schema, batches) = read(shards[0].bytes.clone()).unwrap();
        assert_eq!((schema, batches.len()), (rows(0, 1).schema(), 0));
    }

    #[test]
    fn layouts_do_not_show_in_shards() {
        let plain = rows(3000, 1);
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let mut columns = plain.columns().to_vec();
        columns[2] = cast(&columns[2], &dictionary).unwrap();
        let mut fields: Vec<_> = plain.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
        fields[2] = Field::new("text", dictionary, true);
        let other = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let mut writer = ShardWriter::new(crate::schema::stored(&other.schema()).unwrap(), MIN_SHARD_SIZE).unwrap();
        let mut got = writer.push(&other).unwrap();
        got.extend(writer.finish().unwrap());
        assert_eq!(got, shards(&plain, &[], MIN_SHARD_SIZE));
    }

    #[test]
    fn sizes_are_bounded_and_foreign_batches_refused() {
        for size in [0, MIN_SHARD_SIZE - 1, MAX_SHARD_SIZE + 1, u64::MAX] {
            assert!(check_shard_size(size).is_err());
        }
        let batch = rows(1, 1);
        let mut writer = ShardWriter::new(batch.schema(), MIN_SHARD_SIZE).unwrap();
        assert!(writer.push(&batch.project(&[0]).unwrap()).is_err());
        assert!(read(Bytes::from_static(b"nonsense")).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn boundaries_do_not_depend_on_batches(cuts in prop::collection::vec(0usize..3000, 0..12)) {
            let batch = rows(12_000, 1);
            prop_assert_eq!(shards(&batch, &cuts, MIN_SHARD_SIZE), shards(&batch, &[], MIN_SHARD_SIZE));
        }
    }
}
