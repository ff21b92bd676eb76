//! Equal rows, however laid out, give equal bytes; what was encoded comes back; hostile bytes are errors.

mod layout;
mod limits;
mod random;
mod values;

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Decimal128Array, FixedSizeListArray, Float64Array, Int32Builder, Int64Array,
        ListArray, ListBuilder, MapBuilder, NullArray, RecordBatch, StringArray, StringBuilder, StructArray,
        TimestampMicrosecondArray, UInt64Array, make_array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    compute::{cast, concat_batches, take_record_batch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use proptest::prelude::*;

use super::*;

/// A row of every kind of value. Floats are bits, so that odd NaNs occur.
#[derive(Debug, Clone)]
struct Row {
    int: Option<i64>,
    float: Option<u64>,
    text: Option<String>,
    flag: Option<bool>,
    list: Option<Vec<Option<String>>>,
    pair: Option<(Option<i64>, Option<String>)>,
    map: Option<Vec<(String, Option<i32>)>>,
    /// Shown under nulls: must not matter.
    garbage: i64,
}

fn row() -> impl Strategy<Value = Row> {
    let text = || "[a-zé]{0,6}";
    let float =
        prop_oneof![any::<u64>(), Just(f64::NAN.to_bits()), Just(0xfff8_0000_dead_beef), Just((-0.0f64).to_bits())];
    let pair = proptest::option::of((any::<Option<i64>>(), proptest::option::of(text())));
    let map = proptest::option::of(proptest::collection::vec((text(), any::<Option<i32>>()), 0..3));
    let list = proptest::option::of(proptest::collection::vec(proptest::option::of(text()), 0..4));
    let values =
        (any::<Option<i64>>(), proptest::option::of(float), proptest::option::of(text()), any::<Option<bool>>());
    (values, list, pair, map, any::<i64>()).prop_map(|((int, float, text, flag), list, pair, map, garbage)| Row {
        int,
        float,
        text,
        flag,
        list,
        pair,
        map,
        garbage,
    })
}

fn schema() -> SchemaRef {
    let entries = DataType::Struct(
        vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int32, true)].into(),
    );
    let pair = vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Utf8, true)];
    let zone = Some("+02:00".into());
    Arc::new(Schema::new(vec![
        Field::new("int", DataType::Int64, true),
        Field::new("float", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("list", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
        Field::new("pair", DataType::Struct(pair.into()), true),
        Field::new("map", DataType::Map(Arc::new(Field::new("entries", entries, false)), false), true),
        Field::new("decimal", DataType::Decimal128(20, 3), true),
        Field::new("time", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, zone), true),
        Field::new("none", DataType::Null, true),
        Field::new("three", DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Int64, true)), 3), true),
    ]))
}

fn validity(rows: &[Row], is_some: impl Fn(&Row) -> bool) -> Option<NullBuffer> {
    Some(NullBuffer::from_iter(rows.iter().map(is_some)))
}

/// The rows as a batch; null slots hold garbage, not zeros.
fn batch(rows: &[Row]) -> RecordBatch {
    let garbage = |row: &Row| row.garbage;
    let ints = rows.iter().map(|r| r.int.unwrap_or(garbage(r)));
    let floats = rows.iter().map(|r| f64::from_bits(r.float.unwrap_or(garbage(r) as u64)));
    let texts: Vec<String> = rows.iter().map(|r| r.text.clone().unwrap_or(format!("under {}", r.garbage))).collect();
    let flags = rows.iter().map(|r| r.flag.unwrap_or(r.garbage % 2 == 0)).collect::<Vec<_>>();
    let int_nulls = validity(rows, |r| r.int.is_some());
    let decimals = rows.iter().map(|r| i128::from(r.int.unwrap_or(r.garbage))).collect::<Vec<_>>();
    let decimals = Decimal128Array::new(decimals.into(), int_nulls.clone()).with_precision_and_scale(20, 3);
    let times = rows.iter().map(|r| r.int.unwrap_or(r.garbage)).collect::<Vec<_>>();
    let times = TimestampMicrosecondArray::new(times.into(), int_nulls.clone()).with_timezone("+02:00");
    let text_offsets = OffsetBuffer::from_lengths(texts.iter().map(String::len));
    let text_nulls = validity(rows, |r| r.text.is_some());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::new(ints.collect::<Vec<_>>().into(), int_nulls.clone())),
        Arc::new(Float64Array::new(floats.collect::<Vec<_>>().into(), validity(rows, |r| r.float.is_some()))),
        Arc::new(StringArray::new(text_offsets, texts.concat().into_bytes().into(), text_nulls)),
        Arc::new(BooleanArray::new(flags.into(), validity(rows, |r| r.flag.is_some()))),
        lists(rows),
        pairs(rows),
        maps(rows),
        Arc::new(decimals.unwrap()),
        Arc::new(times),
        Arc::new(NullArray::new(rows.len())),
        triples(rows),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Null lists still span elements.
fn lists(rows: &[Row]) -> ArrayRef {
    let hidden = || vec![Some("hidden".to_owned()), None];
    let elements: Vec<Vec<Option<String>>> = rows.iter().map(|r| r.list.clone().unwrap_or_else(hidden)).collect();
    let offsets = OffsetBuffer::from_lengths(elements.iter().map(Vec::len));
    let values = StringArray::from(elements.concat());
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    Arc::new(ListArray::new(item, offsets, Arc::new(values), validity(rows, |r| r.list.is_some())))
}

/// Null structs still have members.
fn pairs(rows: &[Row]) -> ArrayRef {
    let hidden = |r: &Row| (Some(r.garbage), Some("hidden".to_owned()));
    let pairs: Vec<_> = rows.iter().map(|r| r.pair.clone().unwrap_or_else(|| hidden(r))).collect();
    let x: ArrayRef = Arc::new(Int64Array::from_iter(pairs.iter().map(|p| p.0)));
    let y: ArrayRef = Arc::new(StringArray::from_iter(pairs.iter().map(|p| p.1.clone())));
    let DataType::Struct(fields) = schema().field(5).data_type().clone() else { panic!() };
    Arc::new(StructArray::new(fields, vec![x, y], validity(rows, |r| r.pair.is_some())))
}

fn maps(rows: &[Row]) -> ArrayRef {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for row in rows {
        for (key, value) in row.map.iter().flatten() {
            builder.keys().append_value(key);
            builder.values().append_option(*value);
        }
        builder.append(row.map.is_some()).unwrap();
    }
    cast(&builder.finish(), schema().field(6).data_type()).unwrap()
}

/// Null fixed-size lists still have elements.
fn triples(rows: &[Row]) -> ArrayRef {
    let values = Int64Array::from_iter_values(rows.iter().flat_map(|r| [r.int.unwrap_or(r.garbage); 3]));
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    Arc::new(FixedSizeListArray::new(item, 3, Arc::new(values), validity(rows, |r| r.int.is_some())))
}

/// The same rows with strings as views or dictionaries.
fn relayout(batch: &RecordBatch, text: &DataType) -> RecordBatch {
    let plain = batch.schema();
    let fields = plain.fields().iter().map(|f| match f.data_type() {
        DataType::Utf8 => Field::new(f.name(), text.clone(), true).with_metadata([("k".into(), "v".into())].into()),
        other => Field::new(f.name(), other.clone(), true),
    });
    let schema = Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), [("m".into(), "n".into())].into()));
    adapt(batch, &schema).unwrap()
}

fn layouts() -> [DataType; 3] {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    [DataType::Utf8, DataType::Utf8View, dictionary]
}

#[test]
fn that_keys_are_sorted_is_no_part_of_a_map() {
    let rows = batch(&[]);
    let index = rows.schema().index_of("map").unwrap();
    let DataType::Map(entries, false) = rows.column(index).data_type().clone() else { panic!("a map") };
    let field = Field::new("map", DataType::Map(entries, true), true);
    let data = rows.column(index).to_data().into_builder().data_type(field.data_type().clone()).build().unwrap();
    let sorted = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![make_array(data)]).unwrap();
    let plain = rows.project(&[index]).unwrap();
    assert_eq!(encode(&sorted.schema(), &[sorted]).unwrap(), encode(&plain.schema(), &[plain]).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn layout_does_not_matter(rows in proptest::collection::vec(row(), 0..40), cut in 0usize..40, layout in 0usize..3, other in any::<i64>()) {
        let whole = batch(&rows);
        let expected = encode(&schema(), std::slice::from_ref(&whole)).unwrap();
        // Other garbage under nulls, cut in two, sliced out of something larger, in another layout.
        let disguised: Vec<Row> = rows.iter().cloned().map(|r| Row { garbage: other, ..r }).collect();
        let cut = cut.min(rows.len());
        let padded = concat_batches(&schema(), &[batch(&disguised[cut..]), batch(&disguised)]).unwrap();
        let parts = [padded.slice(rows.len() - cut, cut), batch(&disguised).slice(cut, rows.len() - cut)];
        let parts = parts.map(|part| relayout(&part, &layouts()[layout]));
        let got = encode(&parts[0].schema(), &parts).unwrap();
        prop_assert_eq!(&got, &expected);
        prop_assert_eq!(row_count(&got).unwrap(), rows.len() as u64);
    }

    #[test]
    fn what_was_encoded_comes_back(rows in proptest::collection::vec(row(), 0..40)) {
        let bytes = encode(&schema(), &[batch(&rows)]).unwrap();
        let (decoded_schema, batches) = decode(&bytes).unwrap();
        prop_assert_eq!(encode(&decoded_schema, &batches).unwrap(), bytes);
        let back = concat_batches(&decoded_schema, &batches).unwrap();
        prop_assert_eq!(back.num_rows(), rows.len());
        for (index, row) in rows.iter().enumerate() {
            let ints = back.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            prop_assert_eq!(ints.is_valid(index).then(|| ints.value(index)), row.int);
            let texts = back.column(2).as_any().downcast_ref::<StringArray>().unwrap();
            prop_assert_eq!(texts.is_valid(index).then(|| texts.value(index).to_owned()), row.text.clone());
        }
    }

    #[test]
    fn random_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn mutated_blocks_never_panic(rows in proptest::collection::vec(row(), 1..8), hits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = encode(&schema(), &[batch(&rows)]).unwrap().to_vec();
        for (index, value) in hits {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok((schema, batches)) = decode(&bytes) {
            // Whatever passed is a valid batch: it can be read and encoded.
            let again = encode(&schema, &batches);
            prop_assert!(again.is_ok(), "{:?}", again.err());
        }
        let _ = row_count(&bytes);
    }
}

#[test]
fn batches_are_cut_at_the_profile_s_rows() {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::UInt64, false)]));
    let rows = 3 * profile::BATCH_ROWS as u64 + 5;
    let array = UInt64Array::from_iter_values(0..rows);
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(array)]).unwrap();
    let whole = encode(&schema, std::slice::from_ref(&batch)).unwrap();
    let pieces: Vec<_> =
        (0..rows as usize).step_by(777).map(|at| batch.slice(at, 777.min(rows as usize - at))).collect();
    assert_eq!(encode(&schema, &pieces).unwrap(), whole);
    let (_, batches) = decode(&whole).unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [8192, 8192, 8192, 5]);
    let counted = |b: &RecordBatch| b.get_array_memory_size();
    assert!(counted(&batches[3]) < counted(&batches[0]) / 8, "a batch keeps its own bytes, not the block's");
    let shuffled = take_record_batch(&batch, &UInt64Array::from_iter_values((0..rows).rev())).unwrap();
    assert_ne!(encode(&schema, &[shuffled]).unwrap(), whole, "order matters");
}

#[test]
fn no_rows_and_no_columns_have_an_encoding() {
    let bytes = encode(&schema(), &[]).unwrap();
    assert_eq!(encode(&schema(), &[batch(&[])]).unwrap(), bytes);
    let (decoded, batches) = decode(&bytes).unwrap();
    assert_eq!((decoded.fields().len(), batches.len(), row_count(&bytes).unwrap()), (11, 0, 0));

    let empty = Arc::new(Schema::empty());
    let counted = |rows| counted(&empty, rows).unwrap();
    let bytes = encode(&empty, &[counted(10_000), counted(5)]).unwrap();
    assert_eq!(encode(&empty, &[counted(10_005)]).unwrap(), bytes);
    assert_eq!(row_count(&bytes).unwrap(), 10_005);
    assert_eq!(decode(&bytes).unwrap().1.iter().map(RecordBatch::num_rows).sum::<usize>(), 10_005);
}

#[test]
fn nans_are_one_and_zeros_are_two() {
    let schema = Schema::new(vec![Field::new("f", DataType::Float64, true)]);
    let of = |bits: u64| {
        let column: ArrayRef = Arc::new(Float64Array::from(vec![f64::from_bits(bits)]));
        encode(&schema, &[RecordBatch::try_from_iter([("f", column)]).unwrap()]).unwrap()
    };
    assert_eq!(of(0xfff8_0000_0000_0001), of(0x7ff8_0000_0000_0000));
    assert_ne!(of((-0.0f64).to_bits()), of(0));
}

#[test]
fn floats_of_every_width_lose_their_payload() {
    let half = half_array([0xfe01, 0x7e00]);
    let single = arrow::array::Float32Array::from(vec![f32::from_bits(0xffc0_0001), f32::NAN]);
    for column in [half, Arc::new(single) as ArrayRef] {
        let canonical = array::canonical(&column, None).unwrap();
        let data = canonical.to_data();
        let width = data.data_type().primitive_width().unwrap();
        let (first, second) = data.buffers()[0].as_slice()[..2 * width].split_at(width);
        assert_eq!(first, second);
    }
}

fn half_array(bits: [u16; 2]) -> ArrayRef {
    let raw = arrow::array::UInt16Array::from(bits.to_vec()).into_data();
    arrow::array::make_array(raw.into_builder().data_type(DataType::Float16).build().unwrap())
}

#[test]
fn foreign_streams_are_refused() {
    let plain = batch(&[]);
    let view = relayout(&plain, &DataType::Utf8View);
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &view.schema()).unwrap();
    writer.write(&view).unwrap();
    assert!(decode(&writer.into_inner().unwrap()).is_err(), "views are not canonical");

    let good = encode(&schema(), &[plain]).unwrap();
    assert!(decode(&[&good[..], &[0]].concat()).is_err(), "trailing bytes");
    assert!(decode(&good[..good.len() - 4]).is_err(), "truncated");
    let list = ListBuilder::new(StringBuilder::new()).finish();
    assert!(array::canonical(&(Arc::new(list) as ArrayRef), None).unwrap().is_empty());
}
