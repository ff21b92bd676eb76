//! Lies about rows: a task's output with something changed, described as if it were true.
//!
//! Where there is nothing to lie about, the output stays as it is.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray},
    compute::{cast, concat, kernels::numeric::add_wrapping},
    datatypes::{DataType, Schema},
};
use bytes::Bytes;
use conun_executor::{TaskOutput, canonical};
use conun_types::{Cid, OutputBlock};

/// One value made another. Liars that pass the same `step` tell the same lie about the same output.
pub(super) fn wrong_value(output: TaskOutput, step: u16) -> TaskOutput {
    let lie = |batches: &[RecordBatch]| {
        let (index, batch) = batches.iter().enumerate().find_map(|(i, batch)| Some((i, wrong_batch(batch, step)?)))?;
        Some(replaced(batches, index, batch))
    };
    with_one_block(output, lie)
}

/// The first half of the rows of a batch left out, at least one.
pub(super) fn drop_rows(output: TaskOutput) -> TaskOutput {
    let lie = |batches: &[RecordBatch]| {
        let index = first_with_rows(batches)?;
        let rows = batches[index].num_rows();
        let dropped = rows.div_ceil(2);
        Some(replaced(batches, index, batches[index].slice(dropped, rows - dropped)))
    };
    with_one_block(output, lie)
}

/// The first half of the rows of a batch repeated, at least one.
pub(super) fn duplicate_rows(output: TaskOutput) -> TaskOutput {
    let lie = |batches: &[RecordBatch]| {
        let index = first_with_rows(batches)?;
        let again = batches[index].slice(0, batches[index].num_rows().div_ceil(2));
        let mut batches = batches.to_vec();
        batches.insert(index, again);
        Some(batches)
    };
    with_one_block(output, lie)
}

/// The first batch with rows of one partition moved to the next partition.
pub(super) fn misroute(mut output: TaskOutput) -> TaskOutput {
    let Some(source) = output.blocks.iter().position(|(block, _)| block.rows > 0) else { return output };
    let target = (source + 1) % output.blocks.len();
    if source != target
        && let Some([emptied, filled]) = moved(&output.blocks[source], &output.blocks[target])
    {
        output.blocks[source] = emptied;
        output.blocks[target] = filled;
    }
    output
}

type Block = (OutputBlock, Bytes);

fn moved((from, from_bytes): &Block, (to, to_bytes): &Block) -> Option<[Block; 2]> {
    let (schema, mut left) = canonical::decode(from_bytes).ok()?;
    let (_, mut more) = canonical::decode(to_bytes).ok()?;
    more.push(left.remove(first_with_rows(&left)?));
    Some([described(from.partition, &schema, &left)?, described(to.partition, &schema, &more)?])
}

/// Replaces the first block that `lie` can change.
fn with_one_block(mut output: TaskOutput, lie: impl Fn(&[RecordBatch]) -> Option<Vec<RecordBatch>>) -> TaskOutput {
    for (block, bytes) in &mut output.blocks {
        let tampered = canonical::decode(bytes).ok().and_then(|(schema, batches)| {
            let batches = lie(&batches)?;
            described(block.partition, &schema, &batches)
        });
        if let Some(tampered) = tampered {
            (*block, *bytes) = tampered;
            break;
        }
    }
    output
}

/// `batches` as an output block of a task.
pub(super) fn described(partition: u32, schema: &Schema, batches: &[RecordBatch]) -> Option<Block> {
    let encoded = canonical::encode(schema, batches).ok()?;
    let rows = batches.iter().map(|b| b.num_rows() as u64).sum();
    Some((OutputBlock { partition, cid: Cid::raw(&encoded), rows, bytes: encoded.len() as u64 }, encoded))
}

fn first_with_rows(batches: &[RecordBatch]) -> Option<usize> {
    batches.iter().position(|batch| batch.num_rows() > 0)
}

fn replaced(batches: &[RecordBatch], index: usize, batch: RecordBatch) -> Vec<RecordBatch> {
    let mut batches = batches.to_vec();
    batches[index] = batch;
    batches
}

fn wrong_batch(batch: &RecordBatch, step: u16) -> Option<RecordBatch> {
    // From the last column: in the first there often are keys, whose change would show in a join's row count.
    let wrong = |index: usize| Some((index, wrong_column(batch.column(index), step)?));
    let (index, column) = (0..batch.num_columns()).rev().find_map(wrong)?;
    let mut columns = batch.columns().to_vec();
    columns[index] = column;
    RecordBatch::try_new(batch.schema(), columns).ok()
}

/// The column with its first value that is not null changed.
fn wrong_column(column: &ArrayRef, step: u16) -> Option<ArrayRef> {
    let row = (0..column.len()).find(|row| column.is_valid(*row))?;
    let value = column.slice(row, 1);
    let wrong = other_value(&value, step)?;
    let (head, tail) = (column.slice(0, row), column.slice(row + 1, column.len() - row - 1));
    let changed = concat(&[head.as_ref(), wrong.as_ref(), tail.as_ref()]).ok()?;
    (wrong.as_ref() != value.as_ref()).then_some(changed)
}

/// Another value of the same type.
fn other_value(value: &ArrayRef, step: u16) -> Option<ArrayRef> {
    let data_type = value.data_type();
    match data_type {
        DataType::Null | DataType::FixedSizeBinary(_) | DataType::Binary | DataType::LargeBinary => None,
        DataType::Boolean => Some(Arc::new(BooleanArray::from(vec![!value.as_boolean().value(0)]))),
        DataType::Utf8 => {
            Some(Arc::new(StringArray::from(vec![format!("{}~{step}", value.as_string::<i32>().value(0))])))
        }
        nested if nested.is_nested() => None,
        _ => {
            let number = cast(value, &DataType::Int64).ok()?;
            let more = add_wrapping(&number, &Int64Array::new_scalar(i64::from(step))).ok()?;
            cast(&more, data_type).ok().filter(|wrong| wrong.is_valid(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Date32Array, Decimal128Array, Float64Array, NullArray},
        datatypes::Field,
    };
    use conun_types::task::output_volume;

    use super::*;

    /// One block a column.
    fn output(columns: &[ArrayRef]) -> TaskOutput {
        let blocks = columns.iter().enumerate().map(|(i, column)| {
            let schema = Arc::new(Schema::new(vec![Field::new("c", column.data_type().clone(), true)]));
            let batch = RecordBatch::try_new(schema.clone(), vec![column.clone()]).unwrap();
            described(i as u32, &schema, &[batch]).unwrap()
        });
        TaskOutput { blocks: blocks.collect() }
    }

    fn rows(output: &TaskOutput) -> Vec<u64> {
        for (i, (block, bytes)) in output.blocks.iter().enumerate() {
            assert_eq!((block.partition as usize, block.cid), (i, Cid::raw(bytes)));
            assert_eq!((block.rows, block.bytes), (canonical::row_count(bytes).unwrap(), bytes.len() as u64));
        }
        output.blocks.iter().map(|(block, _)| block.rows).collect()
    }

    type Lie = fn(TaskOutput) -> TaskOutput;

    #[test]
    fn lies_are_consistent_and_change_the_vote() {
        let decimals = Decimal128Array::from(vec![None, Some(7)]).with_precision_and_scale(10, 2).unwrap();
        let columns: [ArrayRef; 6] = [
            Arc::new(Int64Array::from(vec![None, Some(5)])),
            Arc::new(Float64Array::from(vec![Some(0.5), None])),
            Arc::new(StringArray::from(vec!["a", "b"])),
            Arc::new(BooleanArray::from(vec![true, false])),
            Arc::new(Date32Array::from(vec![3, 4])),
            Arc::new(decimals),
        ];
        for column in columns {
            let honest = output(std::slice::from_ref(&column));
            let lies: [(Lie, u64); 3] = [(|o| wrong_value(o, 1), 2), (drop_rows, 1), (duplicate_rows, 3)];
            for (lie, expected) in lies {
                let lied = lie(honest.clone());
                assert_eq!(rows(&lied), [expected]);
                assert_ne!(lied.blocks[0].0.cid, honest.blocks[0].0.cid, "{:?}", column.data_type());
            }
        }
    }

    #[test]
    fn liars_of_one_step_agree_and_others_do_not() {
        let honest = output(&[Arc::new(Int64Array::from(vec![1]))]);
        assert_eq!(wrong_value(honest.clone(), 3).blocks, wrong_value(honest.clone(), 3).blocks);
        assert_ne!(wrong_value(honest.clone(), 3).blocks, wrong_value(honest, 4).blocks);
    }

    #[test]
    fn misrouted_rows_are_lost_to_one_partition_and_found_in_another() {
        let [none, some, more]: [ArrayRef; 3] =
            [vec![], vec![1, 2], vec![3]].map(|values| Arc::new(Int64Array::from(values)) as ArrayRef);
        for (columns, expected) in [
            ([none.clone(), some.clone(), more.clone()], [0, 0, 3]),
            ([none.clone(), none.clone(), some.clone()], [2, 0, 0]),
        ] {
            let honest = output(&columns);
            let lied = misroute(honest.clone());
            assert_eq!(rows(&lied), expected);
            assert_eq!(output_volume(&blocks(&lied)).rows, output_volume(&blocks(&honest)).rows);
        }
    }

    fn blocks(output: &TaskOutput) -> Vec<OutputBlock> {
        output.blocks.iter().map(|(block, _)| *block).collect()
    }

    #[test]
    fn where_there_is_nothing_to_lie_about_twins_are_honest() {
        let nulls: ArrayRef = Arc::new(NullArray::new(2));
        let none: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
        let some: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let empty = [none.clone(), none];
        let wrong: Lie = |o| wrong_value(o, 1);
        let cases: [(Lie, &[ArrayRef]); 6] = [
            (wrong, &[nulls]),
            (wrong, &empty[..1]),
            (drop_rows, &empty[..1]),
            (duplicate_rows, &empty[..1]),
            (misroute, &[some]),
            (misroute, &empty),
        ];
        for (lie, columns) in cases {
            let honest = output(columns);
            assert_eq!(lie(honest.clone()).blocks, honest.blocks);
        }
    }
}
