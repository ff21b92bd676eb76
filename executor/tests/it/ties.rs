//! Rows that tie: their order follows the rows alone, not how they lie in memory nor what else the task does.

use std::sync::Arc;

use crate::common::{Shards, envelope, plan};
use conun_executor::{MemoryInputs, canonical, run_task, session_config};
use conun_types::OutputSpec;
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, Int64Array, RecordBatch},
        compute::concat_batches,
        datatypes::Int64Type,
    },
    datasource::memory::MemorySourceConfig,
    physical_expr::{LexOrdering, PhysicalSortExpr, expressions::col},
    physical_plan::{ExecutionPlan, collect, sorts::sort::SortExec},
    prelude::{SessionConfig, SessionContext},
};

/// Rows of the table: a third of what DataFusion sorts in place by default, if no buffer is larger than its rows.
const ROWS: usize = 8_000;

/// `ROWS` rows of three keys, numbered, in batches of `batch` rows whose buffers have room for `room` times as many.
fn batches(batch: usize, room: usize) -> Vec<RecordBatch> {
    let column = |start: usize, value: fn(i64) -> i64| -> ArrayRef {
        let rows = batch.min(ROWS - start);
        let values = (start..start + rows * room).map(|i| value(i as i64));
        Arc::new(Int64Array::from_iter_values(values).slice(0, rows))
    };
    let rows = |start| {
        let columns = [("k", column(start, |i| i * 7 % 3)), ("g", column(start, |_| 1)), ("v", column(start, |i| i))];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    (0..ROWS).step_by(batch).map(rows).collect()
}

/// The numbers of the rows, sorted by `keys`.
async fn sorted(config: SessionConfig, batches: Vec<RecordBatch>, keys: &[&str]) -> Vec<i64> {
    let schema = batches[0].schema();
    let by = keys.iter().map(|key| PhysicalSortExpr::new_default(col(key, &schema).unwrap()));
    let source = MemorySourceConfig::try_new_exec(&[batches], schema.clone(), None).unwrap();
    let sort = Arc::new(SortExec::new(LexOrdering::new(by).unwrap(), source));
    let context = SessionContext::new_with_config(config).task_ctx();
    let rows = concat_batches(&schema, &collect(sort, context).await.unwrap()).unwrap();
    rows["v"].as_primitive::<Int64Type>().values().to_vec()
}

#[tokio::test]
async fn the_order_of_ties_follows_neither_batches_nor_the_capacity_of_buffers() {
    let threshold = "datafusion.execution.sort_in_place_threshold_bytes";
    let default = SessionConfig::new().options().execution.sort_in_place_threshold_bytes.to_string();
    for keys in [&["k"][..], &["k", "g"]] {
        let expected = sorted(session_config(), batches(ROWS, 1), keys).await;
        for (batch, room) in [(ROWS, 8), (1000, 1), (1000, 8), (77, 1), (77, 8)] {
            assert_eq!(
                sorted(session_config(), batches(batch, room), keys).await,
                expected,
                "{keys:?}, {batch} x {room}"
            );
        }
        // These tables lie on both sides of what is pinned.
        let unpinned = || session_config().set_str(threshold, &default);
        let tight = sorted(unpinned(), batches(1000, 1), keys).await;
        assert_ne!(sorted(unpinned(), batches(1000, 8), keys).await, tight, "{keys:?} without the pin");
    }
}

/// Two shards: all of the second's keys are greater, or the same.
fn shards(second: i64) -> Shards {
    let part = |key: i64, start: i64| {
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![key; 10]));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + 10));
        RecordBatch::try_from_iter([("k", keys), ("v", values)]).unwrap()
    };
    Shards::new(&[part(1, 0), part(second, 10)])
}

#[tokio::test]
async fn the_first_rows_of_a_partition_do_not_follow_other_partitions() {
    for second in [1, 2] {
        let (sorted, table) = plan("select k, v from t order by k limit 3", shards(second)).await;
        let each = per_partition(&sorted);
        let task = envelope(&each, OutputSpec::Passthrough, table.inputs());
        let output = run_task(&task, Arc::new(MemoryInputs::new(table.bytes()))).await.unwrap();
        let rows = |bytes| canonical::row_count(bytes).unwrap();
        assert_eq!(output.blocks.iter().map(|(_, bytes)| rows(bytes)).collect::<Vec<_>>(), [3, 3], "{second}");
    }
}

/// The limited sort of each partition, without the merge above.
fn per_partition(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match plan.downcast_ref::<SortExec>() {
        Some(sort) if sort.preserve_partitioning() && sort.fetch().is_some() => plan.clone(),
        _ => per_partition(plan.children()[0]),
    }
}
