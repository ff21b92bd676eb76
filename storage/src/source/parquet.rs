//! Parquet files as input.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    compute::cast,
    datatypes::{Schema, SchemaRef},
};
use conun_types::{Error, Result};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{BATCH_ROWS, Batches, of_file};

const MAGIC: &[u8; 4] = b"PAR1";
/// Magic, footer length, magic: nothing shorter is a Parquet file.
const SHORTEST: u64 = 12;

pub(super) fn schema(path: &Path) -> Result<Schema> {
    Ok(builder(path)?.schema().as_ref().clone())
}

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let mut file = File::open(path).map_err(|e| of_file(path, e))?;
    check_ends(path, &mut file)?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| of_file(path, format!("damaged Parquet file: {e}")))
}

/// Tells a truncated file from one that never was Parquet.
fn check_ends(path: &Path, file: &mut File) -> Result<()> {
    let io = |e| of_file(path, e);
    let len = file.metadata().map_err(io)?.len();
    if len == 0 {
        return Err(of_file(path, "the file is empty"));
    }
    let (mut head, mut tail) = ([0u8; 4], [0u8; 4]);
    if len >= SHORTEST {
        file.read_exact(&mut head).map_err(io)?;
        file.seek(SeekFrom::End(-4)).map_err(io)?;
        file.read_exact(&mut tail).map_err(io)?;
    }
    match (&head == MAGIC, &tail == MAGIC) {
        (true, true) => Ok(()),
        (true, false) => {
            Err(of_file(path, "truncated Parquet file: its footer is missing")
                .with_hint("copy or download the file again"))
        }
        (false, _) => Err(of_file(path, "not a Parquet file")),
    }
}

pub(super) fn open(path: &Path, schema: &SchemaRef) -> Result<Batches> {
    let reader = builder(path)?.with_batch_size(BATCH_ROWS).build().map_err(|e| of_file(path, e))?;
    let (path, schema) = (path.to_owned(), Arc::clone(schema));
    Ok(Box::new(reader.map(move |batch| {
        let batch = batch.map_err(|e| of_file(&path, format!("damaged Parquet file: {e}")))?;
        plain(&batch, &schema).map_err(|e| e.context(path.display()))
    })))
}

/// The batch in the table's plain layouts.
fn plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| Error::data(e.to_string()))?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|e| Error::data(e.to_string()))
}
