//! Every format over the same awkward rows.

use std::sync::{Arc, Mutex};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
    datatypes::SchemaRef,
};

use super::*;

fn batch() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
        ("a,b", Arc::new(StringArray::from(vec![Some("plain"), Some("say \"hi\"\nthere"), Some("")]))),
        ("x", Arc::new(Float64Array::from(vec![Some(0.1), Some(1e300), None]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

fn render(format: Format, schema: &SchemaRef, batches: &[RecordBatch], max_rows: usize) -> Vec<u8> {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let mut out = writer(format, schema, Target::Memory(bytes.clone()), max_rows).unwrap();
    batches.iter().for_each(|b| out.write(b).unwrap());
    out.finish().unwrap();
    let bytes = bytes.lock().unwrap();
    bytes.clone()
}

fn text(format: Format) -> String {
    String::from_utf8(render(format, &batch().schema(), &[batch()], 0)).unwrap()
}

#[test]
fn csv_quotes_what_needs_it_and_leaves_nulls_empty() {
    assert_eq!(text(Format::Csv), "id,\"a,b\",x\n1,plain,0.1\n,\"say \"\"hi\"\"\nthere\",1e300\n3,\"\",\n");
}

#[test]
fn csv_keeps_a_lone_null_a_record() {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let bytes = render(Format::Csv, &batch.schema(), &[batch], 0);
    assert_eq!(String::from_utf8(bytes).unwrap(), "n\n7\n\"\"\n");
}

#[test]
fn json_writes_nulls() {
    let rows = "{\"id\":1,\"a,b\":\"plain\",\"x\":0.1}\n{\"id\":null,\"a,b\":\"say \\\"hi\\\"\\nthere\",\"x\":1.0e300}\n{\"id\":3,\"a,b\":\"\",\"x\":null}\n";
    assert_eq!(text(Format::Ndjson), rows);
    let array: serde_json::Value = serde_json::from_str(&text(Format::Json)).unwrap();
    assert_eq!(array.as_array().map(Vec::len), Some(3));
}

#[test]
fn an_empty_result_is_still_well_formed() {
    let empty = |format| String::from_utf8(render(format, &batch().schema(), &[], 0)).unwrap();
    assert_eq!(empty(Format::Csv), "id,\"a,b\",x\n");
    assert_eq!(empty(Format::Json).trim(), "[]");
    assert_eq!(empty(Format::Ndjson), "");
    assert!(empty(Format::Table).lines().count() == 4);
}

#[test]
fn tables_align_and_cells_may_have_lines() {
    let expected = "\
+-----+-------------------+-------+
|  id | a,b               |     x |
+-----+-------------------+-------+
|   1 | plain             |   0.1 |
|     | say \"hi\"          | 1e300 |
|     | there             |       |
|   3 |                   |       |
+-----+-------------------+-------+
";
    let squeeze = |s: &str| s.replace(['-', ' '], "");
    assert_eq!(squeeze(&text(Format::Table)), squeeze(expected));
    let widths: Vec<usize> = text(Format::Table).lines().map(|l| l.chars().count()).collect();
    assert!(widths.windows(2).all(|w| w[0] == w[1]), "{widths:?}");
    assert_eq!(text(Format::Markdown).lines().nth(1).map(|l| l.ends_with(":|")), Some(true));
}

#[test]
fn tables_say_how_many_rows_they_leave_out() {
    let shown = String::from_utf8(render(Format::Table, &batch().schema(), &[batch(), batch()], 2)).unwrap();
    assert!(shown.ends_with("… and 4 more rows (--max-rows 0 shows all)\n"), "{shown}");
    // The second row has two lines.
    assert_eq!(shown.lines().count(), 3 + 3 + 1 + 1);
}

#[test]
fn parquet_and_arrow_read_back() {
    let bytes = bytes::Bytes::from(render(Format::Parquet, &batch().schema(), &[batch()], 0));
    let mut reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    assert_eq!(reader.next().unwrap().unwrap(), batch());
    let bytes = render(Format::Arrow, &batch().schema(), &[batch()], 0);
    let mut reader = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap();
    assert_eq!(reader.next().unwrap().unwrap(), batch());
}

#[test]
fn files_appear_only_when_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.csv");
    let mut out = writer(Format::Csv, &batch().schema(), Target::file(&path).unwrap(), 0).unwrap();
    out.write(&batch()).unwrap();
    assert!(!path.exists());
    drop(out);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing left of an unfinished file");
    let out = writer(Format::Csv, &batch().schema(), Target::file(&path).unwrap(), 0).unwrap();
    out.finish().unwrap();
    assert!(path.exists());
    assert_eq!(Target::file(dir.path()).err().map(|e| e.kind), Some(conun_types::ErrorKind::Usage));
    let missing = dir.path().join("no/such/out.csv");
    assert_eq!(Target::file(&missing).err().map(|e| e.kind), Some(conun_types::ErrorKind::Data));
}
