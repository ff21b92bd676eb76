//! The canonical encoding of a block of line items: writing it, checking and reading it back, hashing it.

use std::hint::black_box;

use arrow::array::RecordBatch;
use conun_benches::tpch;
use conun_executor::canonical::{decode, encode};
use conun_types::Cid;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// About 60,000 line items: decimals, dates, strings.
fn line_items() -> Result<Vec<RecordBatch>, tpch::Error> {
    let dir = tempfile::tempdir()?;
    tpch::write_tables(dir.path(), 0.01)?;
    let file = std::fs::File::open(dir.path().join("lineitem.parquet"))?;
    Ok(ParquetRecordBatchReaderBuilder::try_new(file)?.build()?.collect::<Result<_, _>>()?)
}

fn canonical(criterion: &mut Criterion) {
    let batches = line_items().expect("generated");
    let schema = batches[0].schema();
    let block = encode(&schema, &batches).expect("encoded");
    let mut group = criterion.benchmark_group("canonical");
    group.throughput(Throughput::Bytes(block.len() as u64));
    group.bench_function("encode", |b| b.iter(|| encode(&schema, black_box(&batches))));
    group.bench_function("decode", |b| b.iter(|| decode(black_box(&block))));
    group.bench_function("address", |b| b.iter(|| Cid::raw(black_box(&block))));
    group.finish();
}

criterion_group!(benches, canonical);
criterion_main!(benches);
