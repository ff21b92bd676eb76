//! Good files, and every way a file can be wrong.

use std::{fs, sync::Arc};

use ::parquet::arrow::ArrowWriter;
use arrow::{
    array::{DictionaryArray, Int32Array, StringArray},
    compute::concat_batches,
    datatypes::{DataType, Field, Int32Type, TimeUnit},
};
use conun_types::ErrorKind;

use super::*;

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn parquet_bytes(column: &str, values: Vec<i32>) -> Vec<u8> {
    let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Int32, false)]));
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int32Array::from(values))]).unwrap();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    out
}

fn read(input: &Input) -> Result<RecordBatch> {
    let batches = input.batches().collect::<Result<Vec<_>>>()?;
    concat_batches(&input.schema(), &batches).map_err(|e| Error::data(e.to_string()))
}

/// Opens and reads; the error must be a data error that names the file.
fn wrong(dir: &tempfile::TempDir, names: &[&str], culprit: &str, says: &str) {
    let paths: Vec<_> = names.iter().map(|name| dir.path().join(name)).collect();
    let error = Input::open(&paths).and_then(|input| read(&input)).expect_err(says);
    assert_eq!(error.kind, ErrorKind::Data, "{error}");
    assert!(error.message.contains(culprit) && error.message.contains(says), "'{error}' says {culprit} and {says}");
    assert!(!error.message.contains('\n'));
}

#[test]
fn parquet_files_and_folders() {
    let (a, b) = (parquet_bytes("x", vec![1, 2]), parquet_bytes("x", vec![3]));
    let dir = folder(&[("a.parquet", &a), ("b.PARQUET", &b), ("notes.txt", b"hello")]);
    let input = Input::open(&[dir.path()]).unwrap();
    assert_eq!(input.bytes(), (a.len() + b.len()) as u64);
    assert_eq!(read(&input).unwrap().column(0).as_ref(), &Int32Array::from(vec![1, 2, 3]) as &dyn arrow::array::Array);
    let twice = Input::open(&[dir.path().join("b.PARQUET"), dir.path().join("a.parquet")]).unwrap();
    assert_eq!(read(&twice).unwrap().num_rows(), 3);
}

#[test]
fn dictionaries_come_out_plain() {
    let values: DictionaryArray<Int32Type> = vec!["a", "b", "a"].into_iter().collect();
    let schema = Arc::new(Schema::new(vec![Field::new("d", values.data_type_clone(), true)]));
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(values)]).unwrap();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let dir = folder(&[("d.parquet", &out)]);
    let read = read(&Input::open(&[dir.path()]).unwrap()).unwrap();
    assert_eq!(read.column(0).as_ref(), &StringArray::from(vec!["a", "b", "a"]) as &dyn arrow::array::Array);
}

trait TypeOf {
    fn data_type_clone(&self) -> DataType;
}

impl<T: arrow::array::Array> TypeOf for T {
    fn data_type_clone(&self) -> DataType {
        self.data_type().clone()
    }
}

#[test]
fn csv_types_are_guessed_and_widen_over_files() {
    let dir = folder(&[
        ("a.csv", b"\xef\xbb\xbfi,f,d,t,s,n\n1,2,2020-01-01,2020-01-01 10:00:00,\"x,\ny\",\n,3,,,,\n"),
        ("b.csv", b"i,f,d,t,s,n\r\n2,0.5,2021-01-01,2020-01-01 10:00:00.5,z,\r\n"),
    ]);
    let input = Input::open(&[dir.path()]).unwrap();
    let schema = input.schema();
    let types: Vec<_> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
    let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
    assert_eq!(types, [DataType::Int64, DataType::Float64, DataType::Date32, millis, DataType::Utf8, DataType::Utf8]);
    assert_eq!(schema.field(0).name(), "i", "the byte order mark is not part of it");
    let rows = read(&input).unwrap();
    assert_eq!((rows.num_rows(), rows.column(0).null_count(), rows.column(5).null_count()), (3, 1, 3));
}

#[test]
fn a_header_alone_is_a_table_without_rows() {
    let dir = folder(&[("a.csv", b"x,y\n")]);
    let input = Input::open(&[dir.path()]).unwrap();
    assert_eq!((input.schema().fields().len(), read(&input).unwrap().num_rows()), (2, 0));
}

#[test]
fn wrong_files_are_named() {
    let good = parquet_bytes("x", (0..10_000).collect());
    let mut damaged = good.clone();
    damaged[20..200].fill(0xff);
    let dir = folder(&[
        ("good.parquet", &good),
        ("cut.parquet", &good[..good.len() / 2]),
        ("short.parquet", b"PAR1"),
        ("text.parquet", b"this is not what its name says"),
        ("damaged.parquet", &damaged),
        ("empty.parquet", b""),
        ("empty.csv", b""),
        ("other.parquet", &parquet_bytes("y", vec![1])),
        ("table.xlsx", b"PK"),
        ("one.csv", b"a,b\n1,2\n"),
        ("two.csv", b"a,c\n1,2\n"),
        ("three.csv", b"a,b,c\n1,2,3\n"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n"),
        ("twice.csv", b"a,a\n1,2\n"),
        ("nameless.csv", b"a,\n1,2\n"),
        ("binary.csv", b"a,b\n\xff\xfe,2\n"),
    ]);
    fs::create_dir(dir.path().join("nothing")).unwrap();
    for (name, says) in [
        ("missing.parquet", "No such file"),
        ("cut.parquet", "truncated"),
        ("short.parquet", "not a Parquet file"),
        ("text.parquet", "not a Parquet file"),
        ("damaged.parquet", "damaged"),
        ("empty.parquet", "empty"),
        ("empty.csv", "empty"),
        ("table.xlsx", "neither"),
        ("nothing", "no Parquet or CSV"),
        ("ragged.csv", "line 3"),
        ("twice.csv", "'a' occurs twice"),
        ("nameless.csv", "column 2 has no name"),
        ("binary.csv", "UTF-8"),
    ] {
        wrong(&dir, &[name], name, says);
    }
    wrong(&dir, &["good.parquet", "other.parquet"], "other.parquet", "column 'y'");
    wrong(&dir, &["one.csv", "two.csv"], "two.csv", "column 'c'");
    wrong(&dir, &["one.csv", "three.csv"], "three.csv", "3 columns");
    assert!(Input::open::<&Path>(&[]).is_err());
}

#[tokio::test]
async fn streams_end_with_the_first_error() {
    use futures::StreamExt;
    let dir = folder(&[("a.csv", b"a\n1\n"), ("b.csv", b"a\n2\n")]);
    let input = Input::open(&[dir.path()]).unwrap();
    fs::write(dir.path().join("b.csv"), b"a\nnot a number\n").unwrap();
    let batches: Vec<_> = input.stream().collect().await;
    assert_eq!(batches.len(), 2);
    assert!(batches[0].is_ok() && batches[1].as_ref().unwrap_err().message.contains("b.csv"));
}
