//! The states of partial DISTINCT aggregates, sorted.
//!
//! They are lists of the distinct values seen so far, in the order of a hash set. Its seed is a constant of DataFusion's, so
//! that replicas would agree; but the order follows the sequence in which values came and the capacity that the set has
//! grown to, and equal states should be equal bytes. What reads them (the final aggregate) puts them in a set again.

use std::{fmt, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch, UInt32Array},
        buffer::OffsetBuffer,
        compute::{SortColumn, lexsort_to_indices, take},
        datatypes::{DataType, FieldRef},
    },
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        aggregates::{AggregateExec, AggregateMode},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::TryStreamExt;

/// Columns of a partial aggregate's output that hold states of DISTINCT aggregates.
pub(super) fn distinct_states(aggregate: &AggregateExec) -> Result<Vec<usize>> {
    if !matches!(aggregate.mode(), AggregateMode::Partial | AggregateMode::PartialReduce) {
        return Ok(Vec::new());
    }
    let mut widths = Vec::new();
    for expr in aggregate.aggr_expr() {
        widths.push((expr.is_distinct(), expr.state_fields()?.len()));
    }
    let schema = aggregate.schema();
    let states: usize = widths.iter().map(|(_, width)| width).sum();
    // States follow the groups.
    let first = schema.fields().len().checked_sub(states);
    let first = first.ok_or_else(|| DataFusionError::Internal("an aggregate with fewer columns than states".into()))?;
    let distinct = widths.iter().flat_map(|(distinct, width)| std::iter::repeat_n(*distinct, *width));
    let columns = (first..).zip(distinct).filter(|(_, distinct)| *distinct).map(|(column, _)| column);
    Ok(columns.filter(|column| is_list(schema.field(*column).data_type())).collect())
}

fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_))
}

/// Its input with the lists in some columns sorted.
#[derive(Debug, Clone)]
pub struct SortedStatesExec {
    input: Arc<dyn ExecutionPlan>,
    columns: Vec<usize>,
}

impl SortedStatesExec {
    /// `input` with the lists in `columns` sorted.
    #[must_use]
    pub fn new(input: Arc<dyn ExecutionPlan>, columns: Vec<usize>) -> Self {
        Self { input, columns }
    }
}

fn sort_columns(batch: &RecordBatch, which: &[usize]) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    for index in which {
        columns[*index] = sort_lists(&columns[*index])?;
    }
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

fn sort_lists(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::List(item) => sorted(array.as_list::<i32>(), item),
        DataType::LargeList(item) => sorted(array.as_list::<i64>(), item),
        _ => Ok(array.clone()),
    }
}

/// Sorts by (row, value): rows stay where they are, values move within.
fn sorted<O: OffsetSizeTrait>(lists: &GenericListArray<O>, item: &FieldRef) -> Result<ArrayRef> {
    let lengths: Vec<usize> = (0..lists.len()).map(|row| lists.value_length(row).as_usize()).collect();
    let first = lists.value_offsets()[0].as_usize();
    let values = lists.values().slice(first, lengths.iter().sum());
    let rows = (0u32..).zip(&lengths).flat_map(|(row, length)| std::iter::repeat_n(row, *length));
    let rows: ArrayRef = Arc::new(UInt32Array::from_iter_values(rows));
    let by = [rows, values.clone()].map(|values| SortColumn { values, options: None });
    let values = take(&values, &lexsort_to_indices(&by, None)?, None)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(GenericListArray::<O>::try_new(item.clone(), offsets, values, lists.nulls().cloned())?))
}

impl DisplayAs for SortedStatesExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SortedStatesExec: columns={:?}", self.columns)
    }
}

impl ExecutionPlan for SortedStatesExec {
    fn name(&self) -> &'static str {
        "SortedStatesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    crate::one_input_plan!(|plan: &Self, input| Self::new(input, plan.columns.clone()));

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let columns = self.columns.clone();
        let batches = self.input.execute(partition, context)?;
        let sorted = batches.and_then(move |batch| {
            let sorted = sort_columns(&batch, &columns);
            async move { sorted }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), sorted)))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{array::ListArray, datatypes::Int64Type};

    use super::*;

    #[test]
    fn lists_are_sorted_within_their_rows() -> Result<()> {
        let some = |values: &[i64]| Some(values.iter().map(|v| Some(*v)).collect::<Vec<_>>());
        let lists = [some(&[9, 9]), some(&[3, 1, 2]), None, some(&[]), Some(vec![Some(5), None])];
        let array: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists).slice(1, 4));
        let expected = [some(&[1, 2, 3]), None, some(&[]), Some(vec![None, Some(5)])];
        let expected: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(expected));
        assert_eq!(&sort_lists(&array)?, &expected);
        Ok(())
    }
}
