//! Which type each column has in a canonical block, and which schemas of strangers are read at all.

use std::sync::Arc;

use arrow::{
    datatypes::{DataType, Field, FieldRef, Schema},
    ipc,
};
use conun_types::{Error, Result};

/// Deepest nesting of a column's type.
const MAX_DEPTH: usize = 32;
/// Most columns and nested fields of a block.
const MAX_FIELDS: usize = 1 << 14;
/// Largest fixed size of a list or binary value.
const MAX_FIXED: i32 = 1 << 20;
/// Longest name of a time zone.
const MAX_ZONE: usize = 64;

/// The schema of a canonical block that holds rows of `schema`: plain layouts, no metadata, all nullable.
///
/// # Errors
/// Kind `Data` where a type has no canonical form.
pub fn canonical_schema(schema: &Schema) -> Result<Schema> {
    let fields: Vec<FieldRef> = schema.fields().iter().map(plain_field).collect::<Result<_>>()?;
    let mut budget = MAX_FIELDS;
    fields.iter().try_for_each(|field| check_limits(field, MAX_DEPTH, &mut budget))?;
    Ok(Schema::new(fields))
}

/// Nothing is written that [`from_message`] would not read.
fn check_limits(field: &Field, depth: usize, budget: &mut usize) -> Result<()> {
    let refused = |what: String| Err(Error::data(format!("column {}: {what}", field.name())));
    *budget = budget.checked_sub(1).ok_or_else(|| Error::data(format!("more than {MAX_FIELDS} columns and fields")))?;
    let Some(depth) = depth.checked_sub(1) else { return refused(format!("nested deeper than {MAX_DEPTH}")) };
    match field.data_type() {
        DataType::Timestamp(_, Some(zone)) if zone.len() > MAX_ZONE => refused("a time zone of no place".into()),
        // Arrow's kernels lose the number of values that take no place.
        DataType::FixedSizeBinary(size) | DataType::FixedSizeList(_, size) if !(1..=MAX_FIXED).contains(size) => {
            refused(format!("values of fixed size {size} cannot cross a task's border"))
        }
        DataType::FixedSizeList(item, _)
        | DataType::List(item)
        | DataType::LargeList(item)
        | DataType::Map(item, _) => check_limits(item, depth, budget),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| check_limits(field, depth, budget)),
        _ => Ok(()),
    }
}

fn plain_field(field: &FieldRef) -> Result<FieldRef> {
    Ok(Arc::new(Field::new(field.name(), plain_type(field.data_type())?, true)))
}

fn plain_type(data_type: &DataType) -> Result<DataType> {
    Ok(match data_type {
        DataType::Dictionary(_, values) => plain_type(values)?,
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type())?,
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::ListView(item) => DataType::List(plain_field(item)?),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(plain_field(item)?),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_field(item)?, *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect::<Result<_>>()?),
        DataType::Map(entries, _) => DataType::Map(plain_entries(entries)?, false),
        DataType::Union(..) => {
            let hint = "take the member that you need with union_extract()";
            return Err(Error::data("union columns cannot cross a task's border").with_hint(hint));
        }
        other => other.clone(),
    })
}

/// Arrow demands that a map's entries and keys are never null.
fn plain_entries(entries: &FieldRef) -> Result<FieldRef> {
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(Error::data("a map's entries are not key and value"));
    };
    let [key, value] = fields.as_ref() else {
        return Err(Error::data("a map's entries are not key and value"));
    };
    let key = Field::new(key.name(), plain_type(key.data_type())?, false);
    let pair = DataType::Struct(vec![Arc::new(key), plain_field(value)?].into());
    Ok(Arc::new(Field::new(entries.name(), pair, false)))
}

/// The schema in a message from a stranger. Checked first: Arrow's own conversion panics on what it does not know.
pub(super) fn from_message(message: &ipc::Schema<'_>) -> Result<Schema> {
    let fields = message.fields().ok_or_else(|| Error::data("a schema without fields"))?;
    let mut budget = MAX_FIELDS;
    for field in fields {
        check_field(&field, MAX_DEPTH, &mut budget)?;
    }
    if message.endianness() != ipc::Endianness::Little {
        return Err(Error::data("a block in foreign byte order"));
    }
    Ok(ipc::convert::fb_to_schema(*message))
}

fn check_field(field: &ipc::Field<'_>, depth: usize, budget: &mut usize) -> Result<()> {
    *budget = budget.checked_sub(1).ok_or_else(|| Error::data("too many fields"))?;
    let depth = depth.checked_sub(1).ok_or_else(|| Error::data("a type nested too deep"))?;
    let plain = field.dictionary().is_none() && field.custom_metadata().is_none_or(|m| m.is_empty());
    if !plain || check_type(field).is_none() {
        return Err(Error::data("a column of a type that has no canonical form"));
    }
    for child in field.children().iter().flatten() {
        check_field(&child, depth, budget)?;
    }
    Ok(())
}

/// `Some` where Arrow can convert the type without panicking, and it is canonical.
fn check_type(field: &ipc::Field<'_>) -> Option<()> {
    use ipc::Type;
    let children = field.children().map_or(0, |c| c.len());
    let ok = match field.type_type() {
        Type::Null | Type::Bool | Type::Utf8 | Type::LargeUtf8 | Type::Binary | Type::LargeBinary => children == 0,
        Type::List | Type::LargeList => children == 1,
        Type::Struct_ => true,
        Type::Map => children == 1 && is_map(field),
        Type::FixedSizeList => children == 1 && (1..=MAX_FIXED).contains(&field.type_as_fixed_size_list()?.listSize()),
        Type::FixedSizeBinary => {
            children == 0 && (1..=MAX_FIXED).contains(&field.type_as_fixed_size_binary()?.byteWidth())
        }
        Type::Int => children == 0 && matches!(field.type_as_int()?.bitWidth(), 8 | 16 | 32 | 64),
        Type::FloatingPoint => children == 0 && (0..=2).contains(&field.type_as_floating_point()?.precision().0),
        Type::Decimal => children == 0 && is_decimal(field)?,
        Type::Date | Type::Time | Type::Timestamp | Type::Interval | Type::Duration => {
            children == 0 && is_temporal(field)?
        }
        _ => false,
    };
    ok.then_some(())
}

fn is_map(field: &ipc::Field<'_>) -> bool {
    // Whether keys are said to be sorted is no part of a row.
    if field.type_as_map().is_none_or(|map| map.keysSorted()) {
        return false;
    }
    let entries = field.children().and_then(|c| c.iter().next());
    entries.is_some_and(|e| e.type_type() == ipc::Type::Struct_ && e.children().is_some_and(|c| c.len() == 2))
}

fn is_decimal(field: &ipc::Field<'_>) -> Option<bool> {
    let decimal = field.type_as_decimal()?;
    let digits = match decimal.bitWidth() {
        32 => 9,
        64 => 18,
        128 => 38,
        256 => 76,
        _ => return Some(false),
    };
    Some((1..=digits).contains(&decimal.precision()) && (-digits..=decimal.precision()).contains(&decimal.scale()))
}

fn is_temporal(field: &ipc::Field<'_>) -> Option<bool> {
    use ipc::{TimeUnit, Type};
    let units = 0..=3;
    Some(match field.type_type() {
        Type::Date => (0..=1).contains(&field.type_as_date()?.unit().0),
        Type::Time => {
            let time = field.type_as_time()?;
            let fine = matches!(time.unit(), TimeUnit::MICROSECOND | TimeUnit::NANOSECOND);
            units.contains(&time.unit().0) && time.bitWidth() == if fine { 64 } else { 32 }
        }
        Type::Timestamp => {
            let timestamp = field.type_as_timestamp()?;
            units.contains(&timestamp.unit().0) && timestamp.timezone().is_none_or(|zone| zone.len() <= MAX_ZONE)
        }
        Type::Interval => (0..=2).contains(&field.type_as_interval()?.unit().0),
        _ => units.contains(&field.type_as_duration()?.unit().0),
    })
}
