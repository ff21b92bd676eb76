//! The same values in every layout that Arrow has for them, with garbage wherever no value shows.

use std::sync::Arc;

use arrow::{
    array::{ArrayData, ArrayRef, BinaryViewArray, StringViewArray, make_array},
    buffer::{Buffer, NullBuffer},
    datatypes::{DataType, Field, FieldRef, Fields},
};

use super::values::{Value, width};

/// Draws layouts from a seed (SplitMix64).
pub(super) struct Layouts(pub(super) u64);

impl Layouts {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    /// `field` with another layout of its type, and notes that are no part of a row.
    pub(super) fn field(&mut self, field: &Field) -> FieldRef {
        let physical = Field::new(field.name(), self.data_type(field.data_type()), field.is_nullable());
        let notes = if self.coin() { vec![("k".to_owned(), "v".to_owned())] } else { vec![] };
        Arc::new(physical.with_metadata(notes.into_iter().collect()))
    }

    fn data_type(&mut self, plain: &DataType) -> DataType {
        use DataType as T;
        match plain {
            T::List(item) if self.coin() => T::ListView(self.field(item)),
            T::LargeList(item) if self.coin() => T::LargeListView(self.field(item)),
            T::List(item) => T::List(self.field(item)),
            T::LargeList(item) => T::LargeList(self.field(item)),
            T::FixedSizeList(item, size) => T::FixedSizeList(self.field(item), *size),
            T::Struct(fields) => T::Struct(fields.iter().map(|f| self.field(f)).collect()),
            T::Map(entries, _) => {
                let T::Struct(pair) = entries.data_type() else { panic!("a map of no pairs") };
                let pair: Fields = pair.iter().map(|f| self.field(f)).collect();
                T::Map(Arc::new(Field::new(entries.name(), T::Struct(pair), false)), self.coin())
            }
            leaf => self.leaf(leaf),
        }
    }

    fn leaf(&mut self, plain: &DataType) -> DataType {
        use DataType as T;
        let seen = match plain {
            T::Utf8 if self.coin() => T::Utf8View,
            T::Binary if self.coin() => T::BinaryView,
            other => other.clone(),
        };
        match self.below(6) {
            0 | 1 => {
                let keys = [T::Int16, T::Int32, T::UInt16, T::UInt64];
                T::Dictionary(Box::new(keys[self.below(keys.len())].clone()), Box::new(seen))
            }
            2 => {
                let ends = [T::Int16, T::Int32, T::Int64][self.below(3)].clone();
                let ends = Field::new("run_ends", ends, false);
                T::RunEndEncoded(Arc::new(ends), Arc::new(Field::new("values", seen, true)))
            }
            _ => seen,
        }
    }

    /// `values` as an array of `physical` that is cut out of a longer one.
    pub(super) fn array(&mut self, physical: &Field, values: &[Value]) -> ArrayRef {
        let (before, after) = (self.below(12), self.below(12));
        let mut padded: Vec<Value> = (0..before).map(|_| self.garbage(physical)).collect();
        padded.extend_from_slice(values);
        padded.extend((0..after).map(|_| self.garbage(physical)));
        make_array(self.build(physical.data_type(), &padded)).slice(before, values.len())
    }

    fn build(&mut self, physical: &DataType, values: &[Value]) -> ArrayData {
        use DataType as T;
        match physical {
            T::Null => return ArrayData::new_null(&T::Null, values.len()),
            T::Dictionary(key, item) => return self.dictionary(physical, key, item, values),
            T::RunEndEncoded(ends, item) => return self.runs(physical, ends.data_type(), item, values),
            _ => {}
        }
        let nulls: NullBuffer = values.iter().map(|v| *v != Value::Null).collect();
        let shown: Vec<Value> = values.iter().map(|v| self.shown(physical, v)).collect();
        // Validity may be there though nothing is null.
        let nulls = Some(nulls).filter(|n| n.null_count() > 0 || self.coin());
        if matches!(physical, T::Utf8View | T::BinaryView) {
            return self.views(physical, &shown, nulls);
        }
        let data = ArrayData::builder(physical.clone()).len(values.len()).nulls(nulls);
        let data = match physical {
            T::Boolean => data.add_buffer(bits(&shown)),
            T::Utf8 | T::Binary => self.strings::<4>(&shown).into_iter().fold(data, |d, b| d.add_buffer(b)),
            T::LargeUtf8 | T::LargeBinary => self.strings::<8>(&shown).into_iter().fold(data, |d, b| d.add_buffer(b)),
            T::List(item) | T::Map(item, _) => {
                let (offsets, items) = self.list::<4>(item, &shown);
                data.add_buffer(offsets).add_child_data(items)
            }
            T::LargeList(item) => {
                let (offsets, items) = self.list::<8>(item, &shown);
                data.add_buffer(offsets).add_child_data(items)
            }
            T::ListView(item) => {
                let (offsets, sizes, items) = self.list_view::<4>(item, &shown);
                data.add_buffer(offsets).add_buffer(sizes).add_child_data(items)
            }
            T::LargeListView(item) => {
                let (offsets, sizes, items) = self.list_view::<8>(item, &shown);
                data.add_buffer(offsets).add_buffer(sizes).add_child_data(items)
            }
            T::FixedSizeList(item, _) => {
                let items: Vec<Value> = shown.iter().flat_map(parts).cloned().collect();
                data.add_child_data(self.build(item.data_type(), &items))
            }
            T::Struct(fields) => fields.iter().enumerate().fold(data, |data, (at, field)| {
                let column: Vec<Value> = shown.iter().map(|v| parts(v)[at].clone()).collect();
                data.add_child_data(self.build(field.data_type(), &column))
            }),
            _ => data.add_buffer(Buffer::from(shown.iter().flat_map(bytes).copied().collect::<Vec<u8>>())),
        };
        data.align_buffers(true).build().expect("a valid array")
    }

    /// What lies in the slot of `value`: anything where it is null.
    fn shown(&mut self, physical: &DataType, value: &Value) -> Value {
        if *value == Value::Null { self.garbage_of(physical) } else { value.clone() }
    }

    fn garbage(&mut self, field: &Field) -> Value {
        if field.is_nullable() && self.below(4) == 0 { Value::Null } else { self.garbage_of(field.data_type()) }
    }

    fn garbage_of(&mut self, physical: &DataType) -> Value {
        use DataType as T;
        match physical {
            T::Null => Value::Null,
            T::Boolean => Value::Bool(self.coin()),
            T::Utf8 | T::LargeUtf8 | T::Utf8View => Value::Bytes("garbage under a null"[..self.below(20)].into()),
            T::Binary | T::LargeBinary | T::BinaryView => {
                let len = self.below(20);
                Value::Bytes(self.bytes(len))
            }
            T::Dictionary(_, item) => self.garbage_of(item),
            T::RunEndEncoded(_, item) => self.garbage_of(item.data_type()),
            T::List(f) | T::LargeList(f) | T::ListView(f) | T::LargeListView(f) | T::Map(f, _) => {
                let len = self.below(3);
                Value::List((0..len).map(|_| self.garbage(f)).collect())
            }
            T::FixedSizeList(f, size) => Value::List((0..*size).map(|_| self.garbage(f)).collect()),
            T::Struct(fields) => Value::Struct(fields.iter().map(|f| self.garbage(f)).collect()),
            other => Value::Fixed(self.bytes(width(other))),
        }
    }

    /// Entries in order of first use or repeated at will, some of them unused; nulls in keys or in entries.
    fn dictionary(&mut self, physical: &DataType, key: &DataType, item: &DataType, values: &[Value]) -> ArrayData {
        let mut entries = vec![self.garbage_of(item)];
        let mut keys = Vec::new();
        for value in values {
            let known = entries.iter().position(|entry| entry == value);
            match known {
                Some(at) if self.coin() => keys.push(Some(at)),
                _ if *value == Value::Null && self.coin() => keys.push(None),
                _ => {
                    keys.push(Some(entries.len()));
                    entries.push(value.clone());
                }
            }
        }
        let nulls: NullBuffer = keys.iter().map(Option::is_some).collect();
        let size = key.primitive_width().expect("an integer");
        let keys = keys.iter().flat_map(|k| k.unwrap_or(self.below(entries.len())).to_le_bytes()[..size].to_vec());
        let keys = Buffer::from(keys.collect::<Vec<u8>>());
        let data = ArrayData::builder(physical.clone()).len(values.len()).add_buffer(keys).nulls(Some(nulls));
        data.add_child_data(self.build(item, &entries)).align_buffers(true).build().expect("a valid dictionary")
    }

    /// Runs of equal values, now and then cut in two.
    fn runs(&mut self, physical: &DataType, ends: &DataType, item: &Field, values: &[Value]) -> ArrayData {
        let mut runs: Vec<(usize, Value)> = Vec::new();
        for (at, value) in values.iter().enumerate() {
            match runs.last_mut() {
                Some((end, last)) if last == value && self.coin() => *end = at + 1,
                _ => runs.push((at + 1, value.clone())),
            }
        }
        let (run_ends, items): (Vec<usize>, Vec<Value>) = runs.into_iter().unzip();
        let size = ends.primitive_width().expect("an integer");
        let buffer: Vec<u8> = run_ends.iter().flat_map(|end| end.to_le_bytes()[..size].to_vec()).collect();
        let run_ends = ArrayData::builder(ends.clone()).len(run_ends.len()).add_buffer(buffer.into());
        let run_ends = run_ends.align_buffers(true).build().expect("ends of runs");
        let data = ArrayData::builder(physical.clone()).len(values.len()).add_child_data(run_ends);
        data.add_child_data(self.build(item.data_type(), &items)).build().expect("valid runs")
    }

    /// Long values in one of several buffers, in any order.
    fn views(&mut self, physical: &DataType, values: &[Value], nulls: Option<NullBuffer>) -> ArrayData {
        let mut builder = arrow::array::BinaryViewBuilder::new().with_fixed_block_size(16 + self.below(64) as u32);
        values.iter().for_each(|value| builder.append_value(bytes(value)));
        let (views, buffers, _) = builder.finish().into_parts();
        let view = BinaryViewArray::new(views.clone(), buffers.clone(), nulls.clone());
        if *physical == DataType::BinaryView {
            return view.into();
        }
        StringViewArray::try_new(views, buffers, nulls).expect("UTF-8").into()
    }

    fn strings<const WIDTH: usize>(&mut self, values: &[Value]) -> [Buffer; 2] {
        let mut data = if self.coin() { b"before".to_vec() } else { Vec::new() };
        let mut offsets = vec![data.len()];
        for value in values {
            data.extend_from_slice(bytes(value));
            offsets.push(data.len());
        }
        data.extend_from_slice(b"behind");
        [integers::<WIDTH>(&offsets), data.into()]
    }

    fn list<const WIDTH: usize>(&mut self, item: &Field, values: &[Value]) -> (Buffer, ArrayData) {
        let mut items: Vec<Value> = (0..self.below(3)).map(|_| self.garbage(item)).collect();
        let mut offsets = vec![items.len()];
        for value in values {
            items.extend_from_slice(parts(value));
            offsets.push(items.len());
        }
        items.push(self.garbage(item));
        (integers::<WIDTH>(&offsets), self.build(item.data_type(), &items))
    }

    /// Lists in any order, sharing elements where they are equal.
    fn list_view<const WIDTH: usize>(&mut self, item: &Field, values: &[Value]) -> (Buffer, Buffer, ArrayData) {
        let mut items = vec![self.garbage(item)];
        let mut offsets = vec![0; values.len()];
        let mut rows: Vec<usize> = (0..values.len()).collect();
        if self.coin() {
            rows.reverse();
        }
        for row in rows {
            let same = (0..values.len()).find(|other| offsets[*other] > 0 && values[*other] == values[row]);
            offsets[row] = match same {
                Some(other) if self.coin() => offsets[other],
                _ => items.len(),
            };
            if offsets[row] == items.len() {
                items.extend_from_slice(parts(&values[row]));
            }
        }
        let sizes: Vec<usize> = values.iter().map(|v| parts(v).len()).collect();
        (integers::<WIDTH>(&offsets), integers::<WIDTH>(&sizes), self.build(item.data_type(), &items))
    }
}

fn integers<const WIDTH: usize>(values: &[usize]) -> Buffer {
    values.iter().flat_map(|v| v.to_le_bytes()[..WIDTH].to_vec()).collect::<Vec<u8>>().into()
}

fn bits(values: &[Value]) -> Buffer {
    let bits: arrow::buffer::BooleanBuffer = values.iter().map(|v| *v == Value::Bool(true)).collect();
    bits.into_inner()
}

fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::Fixed(bytes) | Value::Bytes(bytes) => bytes,
        other => panic!("{other:?} has no bytes"),
    }
}

fn parts(value: &Value) -> &[Value] {
    match value {
        Value::List(items) | Value::Struct(items) => items,
        other => panic!("{other:?} has no parts"),
    }
}
