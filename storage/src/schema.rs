//! The columns of a table: which Arrow types can be stored, and how a manifest writes them down.
//!
//! A manifest comes from peers, so its columns are an own, bounded encoding: Arrow's IPC decoder panics on malformed
//! schemas. Layouts that are no types of values (dictionaries, views, run ends) are stored plain: equal rows must
//! give equal shards, however the file that they came from laid them out.

use std::{collections::HashSet, sync::Arc};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, Schema, SchemaRef, TimeUnit};
use conun_types::{Error, Result};
use serde::{Deserialize, Serialize};

/// Most columns of a table, nested ones included.
pub const MAX_COLUMNS: usize = 10_000;
/// Most bytes of a column's name.
const MAX_NAME: usize = 1024;

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// Whether values may be missing.
    pub nullable: bool,
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unit {
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
}

/// A type that tables can have: Arrow's, but for those that are only another layout of the same values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are Arrow's")]
pub enum ColumnType {
    Null,
    Boolean,
    /// Bits and sign.
    Int(u8, bool),
    /// Bits.
    Float(u8),
    /// Bits, precision, scale.
    Decimal(u16, u8, i8),
    Utf8,
    LargeUtf8,
    Binary,
    LargeBinary,
    FixedBinary(i32),
    Date32,
    Date64,
    Time32(Unit),
    Time64(Unit),
    /// Unit and time zone.
    Timestamp(Unit, Option<String>),
    Duration(Unit),
    List(Box<Column>),
    LargeList(Box<Column>),
    FixedList(Box<Column>, i32),
    Struct(Vec<Column>),
    /// Entries and whether keys are sorted.
    Map(Box<Column>, bool),
}

/// The schema under which rows of `schema` are stored: plain layouts, no metadata.
///
/// # Errors
/// [`conun_types::ErrorKind::Data`] naming the column whose type cannot be stored, or whose name occurs twice.
pub fn stored(schema: &Schema) -> Result<SchemaRef> {
    let fields: Fields = schema.fields().iter().map(plain_field).collect();
    let plain = Arc::new(Schema::new(fields));
    columns(&plain)?;
    Ok(plain)
}

fn plain_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), plain(field.data_type()), field.is_nullable()))
}

fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, value) => plain(value),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::ListView(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, n) => DataType::FixedSizeList(plain_field(item), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        other => other.clone(),
    }
}

/// The columns of a plain schema, for a manifest.
///
/// # Errors
/// As [`stored`].
pub fn columns(schema: &Schema) -> Result<Vec<Column>> {
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    check(&columns)?;
    Ok(columns)
}

fn column(field: &FieldRef) -> Result<Column> {
    let kind = column_type(field.data_type()).ok_or_else(|| {
        Error::data(format!("column '{}' has type {}, which cannot be stored", field.name(), field.data_type()))
            .with_hint("cast the column to another type first")
    })??;
    Ok(Column { name: field.name().clone(), kind, nullable: field.is_nullable() })
}

/// The type; none where it has no place in a table.
fn column_type(kind: &DataType) -> Option<Result<ColumnType>> {
    use ColumnType as T;
    let nested = |item: &FieldRef| column(item).map(Box::new);
    Some(Ok(match kind {
        DataType::Null => T::Null,
        DataType::Boolean => T::Boolean,
        DataType::Int8 => T::Int(8, true),
        DataType::Int16 => T::Int(16, true),
        DataType::Int32 => T::Int(32, true),
        DataType::Int64 => T::Int(64, true),
        DataType::UInt8 => T::Int(8, false),
        DataType::UInt16 => T::Int(16, false),
        DataType::UInt32 => T::Int(32, false),
        DataType::UInt64 => T::Int(64, false),
        DataType::Float16 => T::Float(16),
        DataType::Float32 => T::Float(32),
        DataType::Float64 => T::Float(64),
        DataType::Decimal32(p, s) => T::Decimal(32, *p, *s),
        DataType::Decimal64(p, s) => T::Decimal(64, *p, *s),
        DataType::Decimal128(p, s) => T::Decimal(128, *p, *s),
        DataType::Decimal256(p, s) => T::Decimal(256, *p, *s),
        DataType::Utf8 => T::Utf8,
        DataType::LargeUtf8 => T::LargeUtf8,
        DataType::Binary => T::Binary,
        DataType::LargeBinary => T::LargeBinary,
        DataType::FixedSizeBinary(n) => T::FixedBinary(*n),
        DataType::Date32 => T::Date32,
        DataType::Date64 => T::Date64,
        DataType::Time32(u) => T::Time32(unit(*u)),
        DataType::Time64(u) => T::Time64(unit(*u)),
        DataType::Timestamp(u, zone) => T::Timestamp(unit(*u), zone.as_ref().map(|z| z.to_string())),
        DataType::Duration(u) => T::Duration(unit(*u)),
        DataType::List(item) => return Some(nested(item).map(T::List)),
        DataType::LargeList(item) => return Some(nested(item).map(T::LargeList)),
        DataType::FixedSizeList(item, n) => return Some(nested(item).map(|item| T::FixedList(item, *n))),
        DataType::Struct(fields) => return Some(fields.iter().map(column).collect::<Result<_>>().map(T::Struct)),
        DataType::Map(entries, sorted) => return Some(nested(entries).map(|e| T::Map(e, *sorted))),
        // Parquet has no month-day-nano intervals, no unions, and views and dictionaries were made plain.
        DataType::Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => {
            return None;
        }
        _ => return None,
    }))
}

fn unit(unit: TimeUnit) -> Unit {
    match unit {
        TimeUnit::Second => Unit::Second,
        TimeUnit::Millisecond => Unit::Millisecond,
        TimeUnit::Microsecond => Unit::Microsecond,
        TimeUnit::Nanosecond => Unit::Nanosecond,
    }
}

fn time_unit(unit: Unit) -> TimeUnit {
    match unit {
        Unit::Second => TimeUnit::Second,
        Unit::Millisecond => TimeUnit::Millisecond,
        Unit::Microsecond => TimeUnit::Microsecond,
        Unit::Nanosecond => TimeUnit::Nanosecond,
    }
}

/// The Arrow schema of a manifest's columns.
///
/// # Errors
/// [`conun_types::ErrorKind::Data`] where they are no columns of a table.
pub fn arrow_schema(columns: &[Column]) -> Result<SchemaRef> {
    check(columns)?;
    Ok(Arc::new(Schema::new(fields(columns)?)))
}

fn fields(columns: &[Column]) -> Result<Fields> {
    columns.iter().map(field).collect::<Result<Vec<_>>>().map(Fields::from)
}

fn field(column: &Column) -> Result<FieldRef> {
    Ok(Arc::new(Field::new(&column.name, data_type(&column.kind)?, column.nullable)))
}

fn data_type(kind: &ColumnType) -> Result<DataType> {
    use ColumnType as T;
    let wrong = || Error::data(format!("no such type: {kind:?}"));
    Ok(match kind {
        T::Null => DataType::Null,
        T::Boolean => DataType::Boolean,
        T::Int(bits, signed) => int(*bits, *signed).ok_or_else(wrong)?,
        T::Float(16) => DataType::Float16,
        T::Float(32) => DataType::Float32,
        T::Float(64) => DataType::Float64,
        T::Float(_) => return Err(wrong()),
        T::Decimal(bits, precision, scale) => decimal(*bits, *precision, *scale).ok_or_else(wrong)?,
        T::Utf8 => DataType::Utf8,
        T::LargeUtf8 => DataType::LargeUtf8,
        T::Binary => DataType::Binary,
        T::LargeBinary => DataType::LargeBinary,
        T::FixedBinary(n) if *n >= 0 => DataType::FixedSizeBinary(*n),
        T::FixedBinary(_) => return Err(wrong()),
        T::Date32 => DataType::Date32,
        T::Date64 => DataType::Date64,
        T::Time32(u @ (Unit::Second | Unit::Millisecond)) => DataType::Time32(time_unit(*u)),
        T::Time64(u @ (Unit::Microsecond | Unit::Nanosecond)) => DataType::Time64(time_unit(*u)),
        T::Time32(_) | T::Time64(_) => return Err(wrong()),
        T::Timestamp(u, zone) => DataType::Timestamp(time_unit(*u), zone.as_deref().map(Arc::from)),
        T::Duration(u) => DataType::Duration(time_unit(*u)),
        T::List(item) => DataType::List(field(item)?),
        T::LargeList(item) => DataType::LargeList(field(item)?),
        T::FixedList(item, n) if *n >= 0 => DataType::FixedSizeList(field(item)?, *n),
        T::FixedList(..) => return Err(wrong()),
        T::Struct(columns) => DataType::Struct(fields(columns)?),
        T::Map(entries, sorted) => match &entries.kind {
            T::Struct(pair) if pair.len() == 2 => DataType::Map(field(entries)?, *sorted),
            _ => return Err(wrong()),
        },
    })
}

fn int(bits: u8, signed: bool) -> Option<DataType> {
    Some(match (bits, signed) {
        (8, true) => DataType::Int8,
        (16, true) => DataType::Int16,
        (32, true) => DataType::Int32,
        (64, true) => DataType::Int64,
        (8, false) => DataType::UInt8,
        (16, false) => DataType::UInt16,
        (32, false) => DataType::UInt32,
        (64, false) => DataType::UInt64,
        _ => return None,
    })
}

fn decimal(bits: u16, precision: u8, scale: i8) -> Option<DataType> {
    let (kind, most): (fn(u8, i8) -> DataType, u8) = match bits {
        32 => (DataType::Decimal32, 9),
        64 => (DataType::Decimal64, 18),
        128 => (DataType::Decimal128, 38),
        256 => (DataType::Decimal256, 76),
        _ => return None,
    };
    let fits = (1..=most).contains(&precision) && scale.unsigned_abs() <= most && i16::from(scale) <= precision.into();
    fits.then(|| kind(precision, scale))
}

fn check(columns: &[Column]) -> Result<()> {
    if columns.is_empty() {
        return Err(Error::data("a table has at least one column"));
    }
    let mut names = HashSet::new();
    if let Some(twice) = columns.iter().find(|column| !names.insert(&column.name)) {
        return Err(Error::data(format!("column '{}' occurs twice", twice.name)).with_hint("rename one of them"));
    }
    let mut left = MAX_COLUMNS;
    columns.iter().try_for_each(|column| count(column, &mut left))
}

/// Bounds names and the number of nested columns. The decoder bounded the depth.
fn count(column: &Column, left: &mut usize) -> Result<()> {
    *left = left.checked_sub(1).ok_or_else(|| Error::data(format!("more than {MAX_COLUMNS} columns")))?;
    let zone = if let ColumnType::Timestamp(_, Some(zone)) = &column.kind { zone.len() } else { 0 };
    if column.name.len() > MAX_NAME || zone > MAX_NAME {
        return Err(Error::data(format!("a column's name has {MAX_NAME} bytes at most")));
    }
    match &column.kind {
        ColumnType::List(item) | ColumnType::LargeList(item) | ColumnType::FixedList(item, _) => count(item, left),
        ColumnType::Map(item, _) => count(item, left),
        ColumnType::Struct(columns) => columns.iter().try_for_each(|column| count(column, left)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested() -> Schema {
        let item = |kind| Arc::new(Field::new("item", kind, true));
        let pair = Fields::from(vec![Field::new("k", DataType::Utf8, false), Field::new("v", DataType::Int8, true)]);
        let entries = Arc::new(Field::new("entries", DataType::Struct(pair.clone()), false));
        let kinds = vec![
            DataType::Null,
            DataType::Boolean,
            DataType::Int16,
            DataType::UInt64,
            DataType::Float16,
            DataType::Float64,
            DataType::Decimal128(15, 2),
            DataType::Decimal256(76, -3),
            DataType::Utf8,
            DataType::LargeBinary,
            DataType::FixedSizeBinary(16),
            DataType::Date32,
            DataType::Date64,
            DataType::Time32(TimeUnit::Second),
            DataType::Time64(TimeUnit::Nanosecond),
            DataType::Timestamp(TimeUnit::Microsecond, Some("+01:00".into())),
            DataType::Duration(TimeUnit::Millisecond),
            DataType::List(item(DataType::Utf8)),
            DataType::LargeList(item(DataType::List(item(DataType::Date32)))),
            DataType::FixedSizeList(item(DataType::Float32), 3),
            DataType::Struct(pair),
            DataType::Map(entries, false),
        ];
        let fields = kinds.into_iter().enumerate().map(|(i, kind)| Field::new(format!("c{i}"), kind, i % 2 == 0));
        Schema::new(fields.collect::<Vec<_>>())
    }

    #[test]
    fn columns_round_trip() {
        let schema = nested();
        let bytes = conun_types::codec::encode(&columns(&schema).unwrap()).unwrap();
        let decoded: Vec<Column> = conun_types::codec::decode(&bytes).unwrap();
        assert_eq!(*arrow_schema(&decoded).unwrap(), schema);
    }

    #[test]
    fn layouts_become_plain() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8View));
        let list = DataType::ListView(Arc::new(Field::new("item", dictionary.clone(), true)));
        let fields = vec![Field::new("a", dictionary, true), Field::new("b", list, true)];
        let metadata = [("pandas".to_owned(), "{}".to_owned())].into();
        let plain = stored(&Schema::new_with_metadata(fields, metadata)).unwrap();
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        assert_eq!(plain.field(0).data_type(), &DataType::Utf8);
        assert_eq!(plain.field(1).data_type(), &DataType::List(item));
        assert!(plain.metadata().is_empty());
    }

    #[test]
    fn what_no_table_has_is_refused() {
        let one = |name: &str, kind| Field::new(name, kind, true);
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let error = stored(&Schema::new(vec![one("span", interval)])).unwrap_err();
        assert!(error.message.contains("'span'") && error.hint.is_some(), "{error}");
        assert!(stored(&Schema::empty()).is_err());
        let twice = Schema::new(vec![one("a", DataType::Int8), one("a", DataType::Int8)]);
        assert!(stored(&twice).unwrap_err().message.contains("'a' occurs twice"));
        let column = |kind| vec![Column { name: "c".into(), kind, nullable: true }];
        for kind in [
            ColumnType::Int(7, true),
            ColumnType::Float(80),
            ColumnType::Decimal(128, 39, 0),
            ColumnType::Decimal(64, 0, 0),
            ColumnType::FixedBinary(-1),
            ColumnType::Time32(Unit::Nanosecond),
            ColumnType::Decimal(128, 5, 6),
            ColumnType::Map(Box::new(column(ColumnType::Utf8)[0].clone()), true),
            ColumnType::Struct(vec![column(ColumnType::Utf8)[0].clone(); MAX_COLUMNS]),
        ] {
            assert!(arrow_schema(&column(kind.clone())).is_err(), "{kind:?}");
        }
    }
}
