//! What has no canonical form is refused with a word that helps; a block cannot show its bytes twice.

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StructArray},
    datatypes::{DataType, Field, Fields, Schema, TimeUnit, UnionFields, UnionMode},
    ipc,
};

use super::super::*;

fn refusal(data_type: DataType) -> Error {
    encode(&Schema::new(vec![Field::new("c", data_type, true)]), &[]).unwrap_err()
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

#[test]
fn unions_are_refused_wherever_they_are() {
    let fields = UnionFields::from_fields([Field::new("a", DataType::Int32, true)]);
    for mode in [UnionMode::Sparse, UnionMode::Dense] {
        let union = DataType::Union(fields.clone(), mode);
        let pair = Fields::from(vec![Field::new("x", union.clone(), true)]);
        for data_type in [union.clone(), list(union), DataType::Struct(pair)] {
            let error = refusal(data_type);
            assert!(error.message.contains("union"), "{error}");
            assert!(error.hint.is_some_and(|hint| hint.contains("union_extract")));
        }
    }
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let deep = |levels| (0..levels).fold(DataType::Int64, |item, _| list(item));
    encode(&Schema::new(vec![Field::new("c", deep(31), true)]), &[]).and_then(|block| decode(&block)).unwrap();
    let zone = DataType::Timestamp(TimeUnit::Second, Some("x".repeat(65).into()));
    let empty = DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Int64, true)), 0);
    for (data_type, word) in [
        (deep(32), "nested"),
        (zone, "time zone"),
        (empty, "fixed size 0"),
        (DataType::FixedSizeBinary(0), "fixed size 0"),
    ] {
        let error = refusal(data_type);
        assert!(error.message.contains(word), "{error}");
    }
    let wide: Vec<Field> = (0..=1 << 14).map(|at| Field::new(format!("c{at}"), DataType::Null, true)).collect();
    assert!(encode(&Schema::new(wide), &[]).unwrap_err().message.contains("columns"));
}

#[test]
fn what_a_plan_knows_of_nulls_is_no_part_of_a_block() {
    let of = |nullable| {
        let fields = Fields::from(vec![Field::new("x", DataType::Int64, nullable)]);
        let item: ArrayRef = Arc::new(StructArray::new(fields, vec![Arc::new(Int64Array::from(vec![1, 2]))], None));
        let field = Field::new("item", item.data_type().clone(), nullable);
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([1, 0, 1]);
        let column: ArrayRef = Arc::new(arrow::array::ListArray::new(Arc::new(field), offsets, item, None));
        let field = Field::new("c", column.data_type().clone(), nullable);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).unwrap();
        encode(&batch.schema(), &[batch]).unwrap()
    };
    assert_eq!(of(true), of(false));
}

/// Where buffer `index` of a block's first batch is described, and how long that batch's body is.
fn buffer_spec(block: &[u8], index: usize) -> (usize, i64) {
    let message = |at: usize| {
        let len = u32::from_le_bytes(block[at + 4..at + 8].try_into().unwrap()) as usize;
        (ipc::root_as_message(&block[at + 8..at + 8 + len]).unwrap(), at + 8 + len)
    };
    let (batch, _) = message(message(0).1);
    let buffers = batch.header_as_record_batch().unwrap().buffers().unwrap();
    let at = buffers.bytes().as_ptr() as usize - block.as_ptr() as usize;
    (at + index * size_of::<ipc::Buffer>(), batch.bodyLength())
}

/// A small block of many columns which all show the same bytes would take memory for each.
#[test]
fn buffers_neither_overlap_nor_leave_their_place() {
    let columns =
        [("a", vec![1, 2]), ("b", vec![3, 4])].map(|(name, v)| (name, Arc::new(Int64Array::from(v)) as ArrayRef));
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let block = encode(&batch.schema(), &[batch]).unwrap();
    decode(&block).unwrap();
    // Buffers: validity and values of `a`, validity and values of `b`.
    let (at, body) = buffer_spec(&block, 3);
    for offset in [0, 65, body - 8, -64, i64::MAX - 8] {
        let mut patched = block.to_vec();
        patched[at..at + 8].copy_from_slice(&offset.to_le_bytes());
        assert!(decode(&patched).is_err(), "values of b at {offset}");
    }
}
