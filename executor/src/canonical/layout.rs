//! From one layout of a type to another: dictionaries, views, runs and lists of views to plain arrays and back.
//!
//! Arrow's `cast` does it for a column's outermost layer, but refuses a map that is sorted in name only, and loses the
//! length of a struct without fields. So nesting is walked here, and `cast` sees leaves.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait, StructArray},
    compute::cast,
    datatypes::{DataType, FieldRef, Fields},
    error::ArrowError,
};

/// `array` as an array of type `to`: the same values.
pub(super) fn relaid(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    use DataType as T;
    if array.data_type() == to {
        return Ok(array.clone());
    }
    match (array.data_type(), to) {
        (T::List(_), T::List(item)) => list(array.as_list::<i32>(), item),
        (T::LargeList(_), T::LargeList(item)) => list(array.as_list::<i64>(), item),
        (T::ListView(item), T::List(_)) => relaid(&cast(array, &T::List(item.clone()))?, to),
        (T::LargeListView(item), T::LargeList(_)) => relaid(&cast(array, &T::LargeList(item.clone()))?, to),
        (T::List(_), T::ListView(item)) => cast(&relaid(array, &T::List(item.clone()))?, to),
        (T::LargeList(_), T::LargeListView(item)) => cast(&relaid(array, &T::LargeList(item.clone()))?, to),
        (T::FixedSizeList(..), T::FixedSizeList(item, size)) => {
            fixed_size_list(array.as_fixed_size_list(), item, *size)
        }
        (T::Struct(_), T::Struct(fields)) => Ok(Arc::new(structs(array.as_struct(), fields)?)),
        (T::Map(..), T::Map(entries, sorted)) => map(array.as_map(), entries, *sorted),
        _ => cast(array, to),
    }
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>, item: &FieldRef) -> Result<ArrayRef, ArrowError> {
    let values = relaid(array.values(), item.data_type())?;
    let list = GenericListArray::try_new(item.clone(), array.offsets().clone(), values, array.nulls().cloned())?;
    Ok(Arc::new(list))
}

fn fixed_size_list(array: &FixedSizeListArray, item: &FieldRef, size: i32) -> Result<ArrayRef, ArrowError> {
    let (values, nulls) = (relaid(array.values(), item.data_type())?, array.nulls().cloned());
    Ok(Arc::new(FixedSizeListArray::try_new_with_length(item.clone(), size, values, nulls, array.len())?))
}

fn structs(array: &StructArray, fields: &Fields) -> Result<StructArray, ArrowError> {
    if array.num_columns() != fields.len() {
        return Err(ArrowError::CastError(format!("{} fields, expected {}", array.num_columns(), fields.len())));
    }
    let columns = array.columns().iter().zip(fields).map(|(column, field)| relaid(column, field.data_type()));
    let columns = columns.collect::<Result<_, _>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len())
}

fn map(array: &MapArray, entries: &FieldRef, sorted: bool) -> Result<ArrayRef, ArrowError> {
    let DataType::Struct(pair) = entries.data_type() else {
        return Err(ArrowError::CastError("a map's entries are not key and value".into()));
    };
    let (pairs, nulls) = (structs(array.entries(), pair)?, array.nulls().cloned());
    Ok(Arc::new(MapArray::try_new(entries.clone(), array.offsets().clone(), pairs, nulls, sorted)?))
}
