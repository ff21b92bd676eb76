//! CSV files as input: a header line, commas, RFC 4180 quoting, an empty field for a missing value.

use std::{fs::File, path::Path, sync::Arc};

use arrow::{
    csv::{ReaderBuilder, reader::Format},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use conun_types::Result;

use super::{BATCH_ROWS, Batches, of_file};

/// Files up to this many bytes are read whole to guess their types.
const GUESS_WHOLE: u64 = 64 << 20;
/// Of longer ones, this many rows.
const GUESS_ROWS: usize = 200_000;

pub(super) fn schema(path: &Path) -> Result<Schema> {
    let file = File::open(path).map_err(|e| of_file(path, e))?;
    let len = file.metadata().map_err(|e| of_file(path, e))?.len();
    if len == 0 {
        return Err(of_file(path, "the file is empty"));
    }
    let rows = (len > GUESS_WHOLE).then_some(GUESS_ROWS);
    let format = Format::default().with_header(true);
    let (schema, _) =
        format.infer_schema(file, rows).map_err(|e| of_file(path, format!("not readable as CSV: {e}")))?;
    if let Some(nameless) = schema.fields().iter().position(|field| field.name().is_empty()) {
        return Err(of_file(path, format!("column {} has no name in the header line", nameless + 1)));
    }
    Ok(schema)
}

/// A type that holds the values of both.
pub(super) fn wider(a: &DataType, b: &DataType) -> DataType {
    let rank = |kind: &DataType| match kind {
        DataType::Date32 => Some(0),
        DataType::Timestamp(TimeUnit::Second, None) => Some(1),
        DataType::Timestamp(TimeUnit::Millisecond, None) => Some(2),
        DataType::Timestamp(TimeUnit::Microsecond, None) => Some(3),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => Some(4),
        _ => None,
    };
    match (a, b) {
        _ if a == b => a.clone(),
        (DataType::Null, other) | (other, DataType::Null) => other.clone(),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => DataType::Float64,
        _ => match (rank(a), rank(b)) {
            (Some(x), Some(y)) => {
                if x > y {
                    a.clone()
                } else {
                    b.clone()
                }
            }
            _ => DataType::Utf8,
        },
    }
}

/// A column without a single value says nothing of its type: text holds whatever comes.
pub(super) fn settled(field: Field) -> Field {
    if field.data_type() == &DataType::Null { field.with_data_type(DataType::Utf8) } else { field }
}

pub(super) fn open(path: &Path, schema: &SchemaRef) -> Result<Batches> {
    let file = File::open(path).map_err(|e| of_file(path, e))?;
    let builder = ReaderBuilder::new(Arc::clone(schema)).with_header(true).with_batch_size(BATCH_ROWS);
    let reader = builder.build(file).map_err(|e| of_file(path, e))?;
    let path = path.to_owned();
    Ok(Box::new(reader.map(move |batch| {
        batch.map_err(|e| {
            of_file(&path, e)
                .with_hint("every line needs as many fields as the header; types are guessed from the first rows")
        })
    })))
}
