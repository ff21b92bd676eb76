//! One column of one batch in canonical form: the bytes of an array that no value shows are made zero or dropped.
//!
//! Types are plain here (see `schema`): no dictionaries, views or run lengths.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayData, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, GenericByteArray, GenericListArray,
        MapArray, NullArray, OffsetSizeTrait, StructArray, UInt64Array, make_array,
    },
    buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer},
    compute::take,
    datatypes::{ArrowNativeType, ByteArrayType, DataType, GenericBinaryType, GenericStringType},
    error::ArrowError,
};

/// `array` in canonical form. Rows that `hidden` marks null (a null struct around them) become null.
pub(super) fn canonical(array: &ArrayRef, hidden: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let nulls = compact(NullBuffer::union(array.nulls(), hidden));
    Ok(match array.data_type() {
        DataType::Null => Arc::new(NullArray::new(array.len())),
        DataType::Boolean => boolean(array.as_boolean(), nulls),
        DataType::Utf8 => Arc::new(byte_array::<GenericStringType<i32>>(array.as_bytes(), nulls)?),
        DataType::LargeUtf8 => Arc::new(byte_array::<GenericStringType<i64>>(array.as_bytes(), nulls)?),
        DataType::Binary => Arc::new(byte_array::<GenericBinaryType<i32>>(array.as_bytes(), nulls)?),
        DataType::LargeBinary => Arc::new(byte_array::<GenericBinaryType<i64>>(array.as_bytes(), nulls)?),
        DataType::List(_) => list(array.as_list::<i32>(), nulls)?,
        DataType::LargeList(_) => list(array.as_list::<i64>(), nulls)?,
        DataType::Map(..) => map(array.as_map(), nulls)?,
        DataType::FixedSizeList(..) => fixed_size_list(array.as_fixed_size_list(), nulls)?,
        DataType::Struct(_) => structs(array.as_struct(), nulls)?,
        _ => fixed_width(array, nulls)?,
    })
}

/// The validity with its unused bits zero, or none where nothing is null.
fn compact(nulls: Option<NullBuffer>) -> Option<NullBuffer> {
    let nulls = nulls.filter(|n| n.null_count() > 0)?;
    Some(NullBuffer::new(compact_bits(nulls.inner())))
}

fn compact_bits(bits: &BooleanBuffer) -> BooleanBuffer {
    let mut bytes = MutableBuffer::from(bits.sliced().as_slice().to_vec());
    bytes.truncate(bits.len().div_ceil(8));
    if let Some(last) = bytes.as_slice_mut().last_mut().filter(|_| !bits.len().is_multiple_of(8)) {
        *last &= (1u8 << (bits.len() % 8)) - 1;
    }
    BooleanBuffer::new(bytes.into(), 0, bits.len())
}

fn boolean(array: &BooleanArray, nulls: Option<NullBuffer>) -> ArrayRef {
    let values = match &nulls {
        None => compact_bits(array.values()),
        Some(nulls) => compact_bits(&(array.values() & nulls.inner())),
    };
    Arc::new(BooleanArray::new(values, nulls))
}

/// Integers, floats, decimals, dates, times, intervals, fixed-size binaries.
fn fixed_width(array: &ArrayRef, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let data = array.to_data();
    let width = match data.data_type() {
        DataType::FixedSizeBinary(size) => usize::try_from(*size).unwrap_or(0),
        other => other.primitive_width().ok_or_else(|| ArrowError::NotYetImplemented(format!("canonical {other}")))?,
    };
    let values = data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width);
    let values = zero_hidden(values, width, nulls.as_ref());
    let values = match data.data_type() {
        DataType::Float16 => one_nan(values, |b: [u8; 2]| half_is_nan(b).then(|| 0x7e00u16.to_le_bytes())),
        DataType::Float32 => {
            one_nan(values, |b: [u8; 4]| f32::from_le_bytes(b).is_nan().then(|| 0x7fc0_0000u32.to_le_bytes()))
        }
        DataType::Float64 => {
            one_nan(values, |b: [u8; 8]| f64::from_le_bytes(b).is_nan().then(|| 0x7ff8_0000_0000_0000u64.to_le_bytes()))
        }
        _ => values,
    };
    build(data.data_type(), data.len(), values, nulls)
}

fn build(data_type: &DataType, len: usize, values: Buffer, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let data = ArrayData::builder(data_type.clone()).len(len).add_buffer(values).nulls(nulls);
    Ok(make_array(data.align_buffers(true).build()?))
}

fn half_is_nan(bytes: [u8; 2]) -> bool {
    u16::from_le_bytes(bytes) & 0x7fff > 0x7c00
}

/// Zero bytes where a value is null.
fn zero_hidden(values: Buffer, width: usize, nulls: Option<&NullBuffer>) -> Buffer {
    let Some(nulls) = nulls.filter(|_| width > 0) else { return values };
    let mut bytes = MutableBuffer::from(values.as_slice().to_vec());
    for (row, value) in bytes.as_slice_mut().chunks_exact_mut(width).enumerate() {
        if nulls.is_null(row) {
            value.fill(0);
        }
    }
    bytes.into()
}

/// Replaces each value for which `canonical_nan` gives other bytes. Copies only if there is one.
fn one_nan<const N: usize>(values: Buffer, canonical_nan: impl Fn([u8; N]) -> Option<[u8; N]>) -> Buffer {
    let differs = |value: &[u8; N]| canonical_nan(*value).is_some_and(|nan| nan != *value);
    if !values.as_slice().as_chunks::<N>().0.iter().any(differs) {
        return values;
    }
    let mut bytes = MutableBuffer::from(values.as_slice().to_vec());
    for value in bytes.as_slice_mut().as_chunks_mut::<N>().0 {
        *value = canonical_nan(*value).unwrap_or(*value);
    }
    bytes.into()
}

/// Strings and binaries: offsets from 0, no bytes under nulls.
fn byte_array<T: ByteArrayType>(
    array: &GenericByteArray<T>,
    nulls: Option<NullBuffer>,
) -> Result<GenericByteArray<T>, ArrowError> {
    let offsets = array.value_offsets();
    if array.nulls().is_none() && nulls.is_none() && offsets[0].as_usize() == 0 {
        return Ok(array.clone());
    }
    let mut lengths = Vec::with_capacity(array.len());
    let mut values = Vec::with_capacity(offsets[array.len()].as_usize() - offsets[0].as_usize());
    for (row, pair) in offsets.windows(2).enumerate() {
        let valid = nulls.as_ref().is_none_or(|n| n.is_valid(row));
        let value = &array.value_data()[pair[0].as_usize()..pair[1].as_usize()];
        lengths.push(if valid { value.len() } else { 0 });
        if valid {
            values.extend_from_slice(value);
        }
    }
    GenericByteArray::<T>::try_new(OffsetBuffer::from_lengths(lengths), values.into(), nulls)
}

/// Offsets from 0 with nothing under nulls, and the elements that stay, canonical.
fn elements<O: OffsetSizeTrait>(
    offsets: &OffsetBuffer<O>,
    values: &ArrayRef,
    nulls: Option<&NullBuffer>,
) -> Result<(OffsetBuffer<O>, ArrayRef), ArrowError> {
    let ranges = || offsets.windows(2).map(|pair| pair[0].as_usize()..pair[1].as_usize()).enumerate();
    let valid = |row: usize| nulls.is_none_or(|n| n.is_valid(row));
    let lengths = OffsetBuffer::from_lengths(ranges().map(|(row, range)| if valid(row) { range.len() } else { 0 }));
    let first = offsets.first().map_or(0, |o| o.as_usize());
    let last = offsets.last().map_or(0, |o| o.as_usize());
    let kept = if ranges().all(|(row, range)| valid(row) || range.is_empty()) {
        values.slice(first, last - first)
    } else {
        let rows = ranges().filter(|(row, _)| valid(*row)).flat_map(|(_, range)| range).map(|i| i as u64);
        take(values, &UInt64Array::from_iter_values(rows), None)?
    };
    Ok((lengths, canonical(&kept, None)?))
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let (offsets, values) = elements(array.offsets(), array.values(), nulls.as_ref())?;
    let (DataType::List(item) | DataType::LargeList(item)) = array.data_type() else {
        return Err(ArrowError::SchemaError("a list that is none".into()));
    };
    Ok(Arc::new(GenericListArray::<O>::try_new(item.clone(), offsets, values, nulls)?))
}

fn map(array: &MapArray, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let entries: ArrayRef = Arc::new(array.entries().clone());
    let (offsets, entries) = elements(array.offsets(), &entries, nulls.as_ref())?;
    let DataType::Map(field, sorted) = array.data_type() else {
        return Err(ArrowError::SchemaError("a map that is none".into()));
    };
    Ok(Arc::new(MapArray::try_new(field.clone(), offsets, entries.as_struct().clone(), nulls, *sorted)?))
}

fn fixed_size_list(array: &FixedSizeListArray, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let DataType::FixedSizeList(item, size) = array.data_type() else {
        return Err(ArrowError::SchemaError("a list that is none".into()));
    };
    let hidden = nulls.as_ref().map(|n| n.expand(usize::try_from(*size).unwrap_or(0)));
    let len = array.len();
    let values = array.values().slice(0, len * usize::try_from(*size).unwrap_or(0));
    let values = canonical(&values, hidden.as_ref())?;
    Ok(Arc::new(FixedSizeListArray::try_new_with_length(item.clone(), *size, values, nulls, len)?))
}

fn structs(array: &StructArray, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let columns: Result<Vec<_>, _> = array.columns().iter().map(|c| canonical(c, nulls.as_ref())).collect();
    Ok(Arc::new(StructArray::try_new_with_length(array.fields().clone(), columns?, nulls, array.len())?))
}
