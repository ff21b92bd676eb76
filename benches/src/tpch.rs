//! TPC-H tables as Parquet files, one a table.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RecordBatchIterator, RegionArrow,
    SupplierArrow,
};

/// Whatever a file or a writer says.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Names of the eight tables.
pub const TABLES: [&str; 8] = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

/// Rows in a row group, as in the example tables.
const ROW_GROUP: usize = 30_720 * 4;

/// The generator of `table` at `scale`; none for any other name.
fn generator(table: &str, scale: f64) -> Option<Box<dyn RecordBatchIterator>> {
    Some(match table {
        "customer" => Box::new(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1))),
        "lineitem" => Box::new(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1))),
        "nation" => Box::new(NationArrow::new(NationGenerator::new(scale, 1, 1))),
        "orders" => Box::new(OrderArrow::new(OrderGenerator::new(scale, 1, 1))),
        "part" => Box::new(PartArrow::new(PartGenerator::new(scale, 1, 1))),
        "partsupp" => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1))),
        "region" => Box::new(RegionArrow::new(RegionGenerator::new(scale, 1, 1))),
        "supplier" => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1))),
        _ => return None,
    })
}

/// Writes the eight tables at `scale` as `DIR/TABLE.parquet`. A file appears under its name only when it is whole.
///
/// # Errors
/// Where a file cannot be written.
pub fn write_tables(dir: &Path, scale: f64) -> Result<(), Error> {
    std::fs::create_dir_all(dir)?;
    for table in TABLES {
        let rows = generator(table, scale).ok_or_else(|| format!("no table {table}"))?;
        let partial = dir.join(format!("{table}.parquet.partial"));
        write_table(&partial, rows)?;
        std::fs::rename(&partial, dir.join(format!("{table}.parquet")))?;
    }
    Ok(())
}

fn write_table(path: &Path, rows: Box<dyn RecordBatchIterator>) -> Result<(), Error> {
    let schema = plain_schema(rows.schema());
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(File::create(path)?, Arc::clone(&schema), options)?;
    for batch in rows {
        writer.write(&plain(&schema, &batch)?)?;
    }
    writer.close()?;
    Ok(())
}

/// The schema with plain strings: the generator makes string views, which are a layout in memory.
fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8View => Field::new(field.name(), DataType::Utf8, field.is_nullable()),
        _ => field.as_ref().clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn plain(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)?)
}
