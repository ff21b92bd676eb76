//! Random types and random values of them, apart from how Arrow lays them out.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Field, FieldRef, Fields, Float16Type, Float32Type, Float64Type, IntervalUnit, TimeUnit},
};
use proptest::prelude::*;

/// A value as SQL sees it: no layout, and one NaN once [`normal`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// Little-endian bytes of a number, a moment, a decimal or a fixed-size binary.
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    /// The elements of a list, or of a map, which is a list of pairs.
    List(Vec<Value>),
    Struct(Vec<Value>),
}

const UNITS: [TimeUnit; 4] = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];

/// A type in the form that blocks have.
pub(super) fn data_type() -> impl Strategy<Value = DataType> {
    leaf_type().prop_recursive(3, 12, 3, |inner| {
        let item = (inner.clone(), "item|element").prop_map(|(t, name)| Arc::new(Field::new(name, t, true)));
        prop_oneof![
            item.clone().prop_map(DataType::List),
            item.clone().prop_map(DataType::LargeList),
            (item, 1..4).prop_map(|(item, size)| DataType::FixedSizeList(item, size)),
            // Two fields may well have the same name.
            prop::collection::vec((inner.clone(), "a|b|c"), 0..4).prop_map(|fields| {
                DataType::Struct(fields.into_iter().map(|(t, name)| Field::new(name, t, true)).collect())
            }),
            // A key is never null.
            (leaf_type().prop_filter("null keys", |t| *t != DataType::Null), inner).prop_map(|(key, value)| {
                let pair = [Field::new("key", key, false), Field::new("value", value, true)];
                DataType::Map(Arc::new(Field::new("entries", DataType::Struct(Fields::from_iter(pair)), false)), false)
            }),
        ]
    })
}

fn leaf_type() -> impl Strategy<Value = DataType> {
    use DataType as T;
    let plain = [
        T::Null,
        T::Boolean,
        T::Int8,
        T::Int16,
        T::Int32,
        T::Int64,
        T::UInt8,
        T::UInt16,
        T::UInt32,
        T::UInt64,
        T::Float16,
        T::Float32,
        T::Float64,
        T::Utf8,
        T::LargeUtf8,
        T::Binary,
        T::LargeBinary,
        T::Date32,
        T::Date64,
        T::Interval(IntervalUnit::YearMonth),
        T::Interval(IntervalUnit::DayTime),
        T::Interval(IntervalUnit::MonthDayNano),
        T::Time32(TimeUnit::Second),
        T::Time32(TimeUnit::Millisecond),
        T::Time64(TimeUnit::Microsecond),
        T::Time64(TimeUnit::Nanosecond),
    ];
    let zone = prop::sample::select(vec![None, Some("UTC"), Some("-07:30"), Some("Europe/Berlin")]);
    let unit = || prop::sample::select(UNITS.to_vec());
    prop_oneof![
        8 => prop::sample::select(plain.to_vec()),
        1 => (unit(), zone).prop_map(|(unit, zone)| T::Timestamp(unit, zone.map(Into::into))),
        1 => unit().prop_map(T::Duration),
        1 => (1..20).prop_map(T::FixedSizeBinary),
        1 => decimal(9, T::Decimal32),
        1 => decimal(18, T::Decimal64),
        1 => decimal(38, T::Decimal128),
        1 => decimal(76, T::Decimal256),
    ]
}

fn decimal(digits: u8, of: fn(u8, i8) -> DataType) -> impl Strategy<Value = DataType> {
    (1..=digits).prop_flat_map(|digits| (Just(digits), -3..=digits as i8)).prop_map(move |(p, s)| of(p, s))
}

/// A value of `data_type`, null now and then; keys of maps are not.
pub(super) fn value(field: &Field) -> BoxedStrategy<Value> {
    let some = some_value(field.data_type());
    if field.is_nullable() { prop_oneof![1 => Just(Value::Null), 3 => some].boxed() } else { some }
}

fn some_value(data_type: &DataType) -> BoxedStrategy<Value> {
    use DataType as T;
    let text = || "[a-zé]{0,20}".prop_map(|text| Value::Bytes(text.into_bytes()));
    match data_type {
        T::Null => Just(Value::Null).boxed(),
        T::Boolean => any::<bool>().prop_map(Value::Bool).boxed(),
        T::Utf8 | T::LargeUtf8 => text().boxed(),
        T::Binary | T::LargeBinary => prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes).boxed(),
        T::Float16 => float([0x7e00u16, 0xfe01, 0x8000, 0x7c00].map(|bits| bits.to_le_bytes().to_vec())),
        T::Float32 => float([0x7fc0_0000u32, 0xffc0_0001, 0x8000_0000, 0x7f80_0000].map(|b| b.to_le_bytes().to_vec())),
        T::Float64 => float(
            [f64::NAN.to_bits(), 0xfff8_0000_dead_beef, 1 << 63, 0x7ff0_0000_0000_0001]
                .map(|b| b.to_le_bytes().to_vec()),
        ),
        T::List(item) | T::LargeList(item) | T::Map(item, _) => {
            prop::collection::vec(value(item), 0..4).prop_map(Value::List).boxed()
        }
        T::FixedSizeList(item, size) => {
            prop::collection::vec(value(item), *size as usize).prop_map(Value::List).boxed()
        }
        T::Struct(fields) => fields.iter().map(|f| value(f)).collect::<Vec<_>>().prop_map(Value::Struct).boxed(),
        other => fixed(width(other)),
    }
}

fn float(odd: [Vec<u8>; 4]) -> BoxedStrategy<Value> {
    let width = odd[0].len();
    prop_oneof![prop::sample::select(odd.to_vec()).prop_map(Value::Fixed), fixed(width)].boxed()
}

/// Small numbers, so that equal values occur, and any bytes.
fn fixed(width: usize) -> BoxedStrategy<Value> {
    let small =
        (0u8..3).prop_map(move |first| Value::Fixed((0..width).map(|at| if at == 0 { first } else { 0 }).collect()));
    prop_oneof![small, prop::collection::vec(any::<u8>(), width).prop_map(Value::Fixed)].boxed()
}

pub(super) fn width(data_type: &DataType) -> usize {
    match data_type {
        DataType::FixedSizeBinary(size) => *size as usize,
        other => other.primitive_width().expect("a fixed width"),
    }
}

/// A column's type and the same number of values in each: the rows of a table.
pub(super) fn table(max_rows: usize) -> impl Strategy<Value = (Vec<FieldRef>, Vec<Vec<Value>>)> {
    let field = (data_type(), "a|b").prop_map(|(t, name)| Arc::new(Field::new(name, t, true)));
    (prop::collection::vec(field, 1..4), 0..max_rows).prop_flat_map(|(fields, rows)| {
        let columns: Vec<_> = fields.iter().map(|f| prop::collection::vec(value(f), rows)).collect();
        (Just(fields), columns)
    })
}

/// `value` with the one NaN.
pub(super) fn normal(value: &Value, data_type: &DataType) -> Value {
    use DataType as T;
    let all = |items: &[Value], item: &Field| items.iter().map(|v| normal(v, item.data_type())).collect();
    match (value, data_type) {
        (Value::Fixed(bytes), T::Float16) => one_nan(bytes, |b: [u8; 2]| half_is_nan(b), 0x7e00u16.to_le_bytes()),
        (Value::Fixed(bytes), T::Float32) => {
            one_nan(bytes, |b| f32::from_le_bytes(b).is_nan(), f32::from_bits(0x7fc0_0000).to_le_bytes())
        }
        (Value::Fixed(bytes), T::Float64) => {
            one_nan(bytes, |b| f64::from_le_bytes(b).is_nan(), 0x7ff8_0000_0000_0000u64.to_le_bytes())
        }
        (Value::List(items), T::List(f) | T::LargeList(f) | T::FixedSizeList(f, _) | T::Map(f, _)) => {
            Value::List(all(items, f))
        }
        (Value::Struct(members), T::Struct(fields)) => {
            Value::Struct(members.iter().zip(fields).map(|(v, f)| normal(v, f.data_type())).collect())
        }
        _ => value.clone(),
    }
}

fn half_is_nan(bytes: [u8; 2]) -> bool {
    let bits = u16::from_le_bytes(bytes);
    bits & 0x7c00 == 0x7c00 && bits & 0x03ff != 0
}

fn one_nan<const N: usize>(bytes: &[u8], is_nan: impl Fn([u8; N]) -> bool, nan: [u8; N]) -> Value {
    let is_nan = is_nan(bytes.try_into().expect("a float's bytes"));
    Value::Fixed(if is_nan { nan.to_vec() } else { bytes.to_vec() })
}

/// The values of an array of a plain type, read through Arrow's own accessors where it has them.
pub(super) fn read(array: &dyn Array) -> Vec<Value> {
    (0..array.len()).map(|row| if array.is_null(row) { Value::Null } else { read_some(array, row) }).collect()
}

fn read_some(array: &dyn Array, row: usize) -> Value {
    use DataType as T;
    match array.data_type() {
        T::Null => Value::Null,
        T::Boolean => Value::Bool(array.as_boolean().value(row)),
        T::Utf8 => Value::Bytes(array.as_string::<i32>().value(row).into()),
        T::LargeUtf8 => Value::Bytes(array.as_string::<i64>().value(row).into()),
        T::Binary => Value::Bytes(array.as_binary::<i32>().value(row).into()),
        T::LargeBinary => Value::Bytes(array.as_binary::<i64>().value(row).into()),
        T::FixedSizeBinary(_) => Value::Fixed(array.as_fixed_size_binary().value(row).into()),
        T::Float16 => Value::Fixed(array.as_primitive::<Float16Type>().value(row).to_le_bytes().into()),
        T::Float32 => Value::Fixed(array.as_primitive::<Float32Type>().value(row).to_le_bytes().into()),
        T::Float64 => Value::Fixed(array.as_primitive::<Float64Type>().value(row).to_le_bytes().into()),
        T::List(_) => Value::List(read(&array.as_list::<i32>().value(row))),
        T::LargeList(_) => Value::List(read(&array.as_list::<i64>().value(row))),
        T::FixedSizeList(..) => Value::List(read(&array.as_fixed_size_list().value(row))),
        T::Map(..) => Value::List(read(&array.as_map().value(row))),
        T::Struct(_) => {
            let members = array.as_struct().columns().iter();
            Value::Struct(members.map(|column| read(&column.slice(row, 1)).remove(0)).collect())
        }
        other => {
            let (data, width) = (array.to_data(), width(other));
            let at = (data.offset() + row) * width;
            Value::Fixed(data.buffers()[0].as_slice()[at..at + width].to_vec())
        }
    }
}
