//! Tasks in process: answers, determinism, refusals, failures by who is at fault.

use std::sync::Arc;

use crate::common::{Shards, as_input, envelope, plan, plan_under};
use conun_executor::{
    BlockReaderExec, MemoryInputs, TaskOutput, canonical, decode_plan, encode_plan, run_task, session, session_config,
};
use conun_types::{Cid, Failure, OutputSpec, TaskEnvelope};
use datafusion::{
    arrow::{
        array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
        compute::concat_batches,
        util::pretty::pretty_format_batches,
    },
    functions::string::uuid,
    functions_aggregate::count::count_udaf,
    physical_expr::{ScalarFunctionExpr, aggregate::AggregateExprBuilder, expressions::col},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, Partitioning,
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
        coalesce_partitions::CoalescePartitionsExec,
        placeholder_row::PlaceholderRowExec,
        repartition::RepartitionExec,
        union::InterleaveExec,
    },
    prelude::SessionContext,
};

/// Three shards of 100 rows: k cycles through a..e, v counts.
fn table() -> Shards {
    Shards::new(&[0, 100, 200].map(|start| part(start, 100)))
}

fn part(start: i64, rows: i64) -> RecordBatch {
    let range = start..start + rows;
    let keys = range.clone().map(|i| ["a", "b", "c", "d", "e"][(i % 5) as usize]);
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(keys));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(range.clone()));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter_values(range.map(|i| i as f64 / 7.0)));
    RecordBatch::try_from_iter([("k", keys), ("v", values), ("f", floats)]).unwrap()
}

async fn run_sql(sql: &str) -> Result<TaskOutput, Failure> {
    run_over(sql, table()).await
}

async fn run_over(sql: &str, table: Shards) -> Result<TaskOutput, Failure> {
    let (plan, table) = plan(sql, table).await;
    run_task(&envelope(&plan, OutputSpec::Passthrough, table.inputs()), Arc::new(MemoryInputs::new(table.bytes())))
        .await
}

fn show(output: &TaskOutput) -> String {
    let decoded: Vec<_> = output.blocks.iter().map(|(_, bytes)| canonical::decode(bytes).unwrap()).collect();
    let batches: Vec<_> = decoded.iter().flat_map(|(_, batches)| batches.clone()).collect();
    pretty_format_batches(&[concat_batches(&decoded[0].0, &batches).unwrap()]).unwrap().to_string()
}

#[tokio::test]
async fn answers_equal_plain_datafusion_and_repeat_bit_by_bit() {
    let queries = [
        "select k, count(*), sum(v), min(f) from t where v % 2 = 0 group by k order by k",
        "select k, v, row_number() over (partition by k order by v desc) r from t order by k, v limit 20",
        "select a.k, b.v from t a join t b on a.v = b.v + 1 where a.v < 50 order by 1, 2",
        "select k, v from t where v < 10 union all select 'x', 1",
        "select count(distinct k), max(v) from t",
        "select substr(k, 1, 1) s, cast(v as decimal(10,2)) d, arrow_typeof(k) from t where v in (3, 150) order by v",
        "select v from t where v > (select avg(v) from t) order by v limit 3",
    ];
    for sql in queries {
        let output = run_sql(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let again = run_sql(sql).await.unwrap();
        let cids = |o: &TaskOutput| o.blocks.iter().map(|(b, _)| *b).collect::<Vec<_>>();
        assert_eq!(cids(&output), cids(&again), "{sql}");
        assert_eq!(show(&output), expected(sql).await, "{sql}");
        for (block, bytes) in &output.blocks {
            assert_eq!((Cid::raw(bytes), bytes.len() as u64), (block.cid, block.bytes));
            assert_eq!(canonical::row_count(bytes).unwrap(), block.rows);
        }
    }
}

/// The answer of plain DataFusion over the same rows in memory.
async fn expected(sql: &str) -> String {
    let context = SessionContext::new_with_config(session::session_config().with_target_partitions(1));
    let shards = table();
    let batches = shards.shards.iter().flat_map(|(_, bytes)| {
        datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes.clone())
            .unwrap()
            .build()
            .unwrap()
            .map(Result::unwrap)
    });
    let batches: Vec<RecordBatch> = batches.collect();
    let table = datafusion::datasource::MemTable::try_new(batches[0].schema(), vec![batches]).unwrap();
    context.register_table("t", Arc::new(table)).unwrap();
    let frame = context.sql(sql).await.unwrap();
    let schema = Arc::new(canonical::canonical_schema(frame.schema().as_arrow()).unwrap());
    let batches = frame.collect().await.unwrap();
    let plain: Vec<_> = batches.iter().map(|b| canonical::adapt(b, &schema).unwrap()).collect();
    pretty_format_batches(&[concat_batches(&schema, &plain).unwrap()]).unwrap().to_string()
}

#[tokio::test]
async fn sums_of_floats_do_not_depend_on_shards_or_their_order() {
    let sql = "select k, sum(f), avg(f), stddev(f), corr(f, v), sum(distinct f), avg(v), sum(sin(f)), power(max(f), 0.3) \
        from t group by k order by k";
    let cids = |output: TaskOutput| output.blocks.iter().map(|(block, _)| *block).collect::<Vec<_>>();
    let expected = cids(run_sql(sql).await.unwrap());
    for shards in [vec![(200, 100), (0, 100), (100, 100)], vec![(0, 300)], vec![(7, 293), (3, 4), (0, 3)]] {
        let parts: Vec<_> = shards.iter().map(|(start, rows)| part(*start, *rows)).collect();
        assert_eq!(cids(run_over(sql, Shards::new(&parts)).await.unwrap()), expected, "{shards:?}");
    }
}

#[tokio::test]
async fn shuffles_are_written_in_order_and_read_in_order() {
    let (scan, table) = plan("select k, v from t", table()).await;
    let keys = vec![col("k", &scan.schema()).unwrap()];
    let shuffle: Arc<dyn ExecutionPlan> =
        Arc::new(RepartitionExec::try_new(scan.clone(), Partitioning::Hash(keys.clone(), 4)).unwrap());
    let inputs = Arc::new(MemoryInputs::new(table.bytes()));
    let output = run_task(&envelope(&shuffle, OutputSpec::Hash(4), table.inputs()), inputs).await.unwrap();
    assert_eq!(output.blocks.len(), 4);
    assert_eq!(output.blocks.iter().map(|(b, _)| b.rows).sum::<u64>(), 300);

    // The next stage: partition i reads block i; here all of them in one task, coalesced in order.
    let partitions = output.blocks.iter().map(|(b, _)| vec![as_input(b)]).collect();
    let reader = BlockReaderExec::try_new(scan.schema(), partitions, Partitioning::Hash(keys, 4)).unwrap();
    let coalesce: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(Arc::new(reader)));
    let mut task = envelope(&coalesce, OutputSpec::Passthrough, Vec::new());
    task.blocks = output.blocks.iter().map(|(b, _)| as_input(b)).collect();
    let inputs = Arc::new(MemoryInputs::new(output.blocks.iter().map(|(_, bytes)| bytes.clone())));
    let read = run_task(&task, inputs.clone()).await.unwrap();
    let all: Vec<_> = output.blocks.iter().flat_map(|(_, bytes)| canonical::decode(bytes).unwrap().1).collect();
    assert_eq!(read.blocks[0].1, canonical::encode(&scan.schema(), &all).unwrap());

    // A block that the envelope does not list cannot be read, one that nobody has is missing.
    let unlisted = TaskEnvelope { blocks: Vec::new(), ..task.clone() };
    assert!(matches!(run_task(&unlisted, inputs).await, Err(Failure::Refused(_))));
    let missing = run_task(&task, Arc::new(MemoryInputs::default())).await.unwrap_err();
    assert_eq!(missing, Failure::InputMissing(task.blocks[0].cid));
}

#[tokio::test]
async fn the_reader_survives_encoding_with_its_partitioning_and_order() {
    let (scan, _) = plan("select k, v from t", table()).await;
    let keys = vec![col("k", &scan.schema()).unwrap()];
    let partitions = vec![vec![], vec![]];
    let ordering = datafusion::physical_expr::PhysicalSortExpr::new_default(keys[0].clone());
    for partitioning in [Partitioning::Hash(keys.clone(), 2), Partitioning::UnknownPartitioning(2)] {
        let reader = BlockReaderExec::try_new(scan.schema(), partitions.clone(), partitioning.clone()).unwrap();
        let reader: Arc<dyn ExecutionPlan> = Arc::new(reader.with_ordering([ordering.clone()].into()));
        let bytes = encode_plan(&reader).unwrap();
        let back = decode_plan(&bytes, &session::bare_context()).unwrap();
        assert_eq!(back.output_partitioning().to_string(), partitioning.to_string());
        assert_eq!(back.output_ordering().map(ToString::to_string), reader.output_ordering().map(ToString::to_string));
        assert_eq!(back.schema(), reader.schema());
        assert_eq!(encode_plan(&back).unwrap(), bytes);
    }
    assert!(BlockReaderExec::try_new(scan.schema(), vec![], Partitioning::UnknownPartitioning(1)).is_err());
    assert!(decode_plan(b"nonsense", &session::bare_context()).is_err());
}

#[tokio::test]
async fn equal_plans_have_equal_bytes() {
    let encoded = async || encode_plan(&plan("select v from t order by v limit 3", table()).await.0).unwrap();
    assert_eq!(encoded().await, encoded().await, "DataFusion numbers the filters of all plans of a process");
}

#[tokio::test]
async fn filters_that_tasks_learn_are_refused() {
    let mut config = session_config().with_target_partitions(1);
    config.options_mut().set("datafusion.optimizer.enable_dynamic_filter_pushdown", "true").unwrap();
    let (plan, table) = plan_under(config, "select v from t where v > 7 order by v limit 3", table()).await;
    let task = envelope(&plan, OutputSpec::Passthrough, table.inputs());
    let failed = run_task(&task, Arc::new(MemoryInputs::new(table.bytes()))).await.unwrap_err();
    let Failure::Refused(why) = failed else { panic!("{failed}") };
    assert!(why.contains("a filter that is learnt while the task runs"), "{why}");
}

#[tokio::test]
async fn what_stands_for_keys_that_are_left_out_is_looked_at() {
    let (scan, table) = plan("select k, v from t", table()).await;
    let uuid = ScalarFunctionExpr::try_new(uuid(), vec![], &scan.schema(), Arc::default()).unwrap();
    let keys = vec![(col("k", &scan.schema()).unwrap(), "k".to_owned())];
    let group = PhysicalGroupBy::new(keys, vec![(Arc::new(uuid) as _, "k".to_owned())], vec![vec![true]], true);
    let schema = scan.schema();
    let aggregate = AggregateExec::try_new(AggregateMode::Partial, group, vec![], vec![], scan, schema).unwrap();
    let task = envelope(&(Arc::new(aggregate) as _), OutputSpec::Passthrough, table.inputs());
    let failed = run_task(&task, Arc::new(MemoryInputs::new(table.bytes()))).await.unwrap_err();
    assert_eq!(failed, Failure::Refused("function uuid gives another value each time".into()));
}

#[tokio::test]
async fn failures_name_who_is_at_fault() {
    let query = |text: &str| Failure::Query(text.into());
    assert_eq!(run_sql("select v / (v - v) from t").await.unwrap_err(), query("Divide by zero error"));
    let cast = run_sql("select cast(k as int) from t").await.unwrap_err();
    assert!(matches!(&cast, Failure::Query(m) if m.contains("'a'")), "{cast}");

    let (scan, table) = plan("select v from t", table()).await;
    let task = envelope(&scan, OutputSpec::Passthrough, table.inputs());
    let missing = run_task(&task, Arc::new(MemoryInputs::default())).await.unwrap_err();
    assert_eq!(missing, Failure::InputMissing(table.inputs()[0].cid));
}

#[tokio::test]
async fn what_is_not_on_the_list_is_refused_by_name() {
    let (scan, table) = plan("select k, v from t", table()).await;
    let inputs = || Arc::new(MemoryInputs::new(table.bytes()));
    let refusal = async |task: TaskEnvelope| match run_task(&task, inputs()).await {
        Err(Failure::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let keys = vec![col("k", &scan.schema()).unwrap()];
    let hashed = |n| -> Arc<dyn ExecutionPlan> {
        Arc::new(RepartitionExec::try_new(scan.clone(), Partitioning::Hash(keys.clone(), n)).unwrap())
    };
    let interleave: Arc<dyn ExecutionPlan> = Arc::new(InterleaveExec::try_new(vec![hashed(2), hashed(2)]).unwrap());
    let passthrough = |plan: &Arc<dyn ExecutionPlan>| envelope(plan, OutputSpec::Passthrough, table.inputs());
    let placeholder: Arc<dyn ExecutionPlan> = Arc::new(PlaceholderRowExec::new(scan.schema()));
    let cases = [
        (passthrough(&interleave), "InterleaveExec"),
        (passthrough(&hashed(2)), "RepartitionExec"),
        (envelope(&hashed(2), OutputSpec::Hash(3), table.inputs()), "3 hash partitions"),
        (envelope(&scan, OutputSpec::Hash(3), table.inputs()), "RepartitionExec"),
        (envelope(&scan, OutputSpec::Passthrough, Vec::new()), "not among the task's inputs"),
        (TaskEnvelope { profile: [0; 32], ..passthrough(&placeholder) }, "profile"),
        (TaskEnvelope { plan: vec![1, 2, 3], ..passthrough(&placeholder) }, "decoded"),
    ];
    for (task, expected) in cases {
        let reason = refusal(task).await;
        assert!(reason.contains(expected), "{reason} should name {expected}");
    }
}

#[tokio::test]
async fn volatile_functions_are_refused() {
    let (volatile, table) = plan("select uuid() from t", table()).await;
    let task = envelope(&volatile, OutputSpec::Passthrough, table.inputs());
    let refused = run_task(&task, Arc::new(MemoryInputs::new(table.bytes()))).await.unwrap_err();
    assert!(matches!(&refused, Failure::Refused(reason) if reason.contains("uuid")), "{refused}");
}

/// The partial states of `count(distinct v)` by `k`, one block a partition of `table`.
async fn distinct_states(table: Shards) -> Vec<Cid> {
    let (scan, table) = plan("select k, v from t", table).await;
    let schema = scan.schema();
    let count = AggregateExprBuilder::new(count_udaf(), vec![col("v", &schema).unwrap()]);
    let count = Arc::new(count.schema(schema.clone()).alias("c").distinct().build().unwrap());
    let group = PhysicalGroupBy::new_single(vec![(col("k", &schema).unwrap(), "k".into())]);
    let partial = AggregateExec::try_new(AggregateMode::Partial, group, vec![count], vec![None], scan, schema).unwrap();
    let partial: Arc<dyn ExecutionPlan> = Arc::new(partial);
    let task = envelope(&partial, OutputSpec::Passthrough, table.inputs());
    let output = run_task(&task, Arc::new(MemoryInputs::new(table.bytes()))).await.unwrap();
    output.blocks.iter().map(|(block, _)| block.cid).collect()
}

#[tokio::test]
async fn distinct_states_do_not_depend_on_the_sequence_of_values() {
    let forwards = distinct_states(table()).await;
    assert_eq!(forwards.len(), 3);
    // The groups begin in the same order, with other values first.
    let turned = [0, 100, 200].map(|start| {
        let halves = [part(start + 50, 50), part(start, 50)];
        concat_batches(&halves[0].schema(), &halves).unwrap()
    });
    assert_eq!(distinct_states(Shards::new(&turned)).await, forwards);
}

#[tokio::test]
async fn local_files_are_out_of_reach() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.parquet");
    std::fs::write(&path, &table().bytes()[0]).unwrap();
    let context = SessionContext::new_with_config(session::session_config());
    let frame = context.read_parquet(path.to_str().unwrap(), Default::default()).await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let task = envelope(&plan, OutputSpec::Passthrough, table().inputs());
    let refused = run_task(&task, Arc::new(MemoryInputs::default())).await.unwrap_err();
    assert!(matches!(&refused, Failure::Refused(reason) if reason.contains("file://")), "{refused}");
}

#[tokio::test]
async fn a_task_beyond_its_memory_class_fails() {
    let rows = 1 << 20;
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("{i:0>200}"))));
    let big = Shards::new(&[RecordBatch::try_from_iter([("v", values), ("k", texts)]).unwrap()]);
    let (plan, table) = plan("select k, count(*) from t group by k order by k", big).await;
    let task = envelope(&plan, OutputSpec::Passthrough, table.inputs());
    let failed = run_task(&task, Arc::new(MemoryInputs::new(table.bytes()))).await.unwrap_err();
    assert_eq!(failed, Failure::MemoryExceeded);
}
