//! The same query over shuffled rows, any partitions and any batches gives the same bits.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
    util::display::array_value_to_string,
};
use datafusion::{
    datasource::MemTable,
    prelude::{SessionConfig, SessionContext},
};

const ROWS: usize = 3000;

/// Deterministic, shuffled by `seed`: row `i` is the same for every seed, its place is not.
fn batches(seed: u64, partitions: usize, batch: usize) -> Vec<Vec<RecordBatch>> {
    let mut order: Vec<usize> = (0..ROWS).collect();
    let mut state = seed | 1;
    for i in (1..ROWS).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, (state >> 33) as usize % (i + 1));
    }
    let schema = schema();
    let table = RecordBatch::try_new(schema, columns(&order)).unwrap();
    let rows = ROWS.div_ceil(partitions);
    let cut = |from: usize, to: usize| {
        (from..to).step_by(batch).map(|at| table.slice(at, batch.min(to - at))).collect::<Vec<_>>()
    };
    (0..partitions).map(|p| cut((p * rows).min(ROWS), ((p + 1) * rows).min(ROWS))).collect()
}

fn schema() -> Arc<Schema> {
    let field = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("id", DataType::Int64),
        field("g", DataType::Int64),
        field("x", DataType::Float64),
        field("y", DataType::Float64),
        field("f", DataType::Float32),
        field("wild", DataType::Float64),
    ]))
}

fn columns(order: &[usize]) -> Vec<ArrayRef> {
    let hash = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
    let unit = move |i: usize| hash(i) as f64 / (1u64 << 53) as f64;
    let float = |value: &dyn Fn(usize) -> Option<f64>| -> ArrayRef {
        Arc::new(Float64Array::from_iter(order.iter().map(|i| value(*i))))
    };
    let x = |i: usize| (!i.is_multiple_of(17)).then(|| unit(i) * 1e6 - 3e5);
    let wild = |i: usize| match i % 100 {
        0 => Some(f64::NAN),
        1 => Some(f64::INFINITY),
        2 => Some(-0.0),
        _ => Some((unit(i) - 0.5) * 2f64.powi((i % 600) as i32 - 300)),
    };
    let f = arrow::compute::cast(&float(&|i| Some(unit(i))), &DataType::Float32).unwrap();
    vec![
        Arc::new(Int64Array::from_iter_values(order.iter().map(|i| *i as i64))),
        Arc::new(Int64Array::from_iter_values(order.iter().map(|i| (*i % 23) as i64))),
        float(&x),
        float(&|i| Some(unit(i * 7 + 1).powi(3))),
        f,
        float(&wild),
    ]
}

async fn run(sql: &str, seed: u64, partitions: usize, batch: usize, ours: bool) -> String {
    let config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(batch);
    let mut state = SessionContext::new_with_config(config).state();
    if ours {
        conun_functions::register(&mut state).unwrap();
    }
    let context = SessionContext::new_with_state(state);
    let table = MemTable::try_new(schema(), batches(seed, partitions, batch)).unwrap();
    context.register_table("t", Arc::new(table)).unwrap();
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    let mut text = String::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            for column in batch.columns() {
                text += &array_value_to_string(column, row).unwrap();
                text.push(' ');
            }
            text.push('\n');
        }
    }
    text
}

/// Floats print in the shortest form that reads back equal: equal text is equal bits (zeros have their sign).
async fn same_everywhere(sql: &str) -> String {
    let expected = run(sql, 1, 1, 8192, true).await;
    assert!(!expected.is_empty());
    for (seed, partitions, batch) in [(2, 1, 7), (3, 4, 8192), (4, 4, 7), (5, 16, 8192), (6, 16, 7), (7, 4, 1)] {
        assert_eq!(run(sql, seed, partitions, batch, true).await, expected, "{partitions} x {batch}: {sql}");
    }
    expected
}

const ALL: &str = "sum(x), avg(x), mean(y), var(x), var_pop(y), stddev(x), stddev_pop(y), sum(f), avg(f), sum(id), avg(id), \
    covar_samp(x, y), covar_pop(x, y), corr(x, y), regr_slope(y, x), regr_intercept(y, x), regr_count(y, x), \
    regr_r2(y, x), regr_avgx(y, x), regr_avgy(y, x), regr_sxx(y, x), regr_syy(y, x), regr_sxy(y, x), \
    sum(x) filter (where id % 3 = 0), avg(x) filter (where id < 0), sum(distinct y), avg(distinct x), count(distinct x), \
    var_pop(distinct f), sum(cast(abs(y) as decimal(20, 4)))";

#[tokio::test]
async fn aggregates() {
    let one = same_everywhere(&format!("select {ALL} from t")).await;
    let grouped = same_everywhere(&format!("select g, {ALL} from t group by g order by g")).await;
    assert_eq!(grouped.lines().count(), 23);
    let rolled = same_everywhere(&format!("select g, {ALL} from t group by rollup (g) order by g nulls last")).await;
    assert_eq!(rolled.trim_end().lines().last().unwrap().trim(), one.trim(), "grouped or not, a sum is a sum");
}

#[tokio::test]
async fn wild_values() {
    same_everywhere("select sum(wild), avg(wild), var(wild), corr(wild, x) from t").await;
    same_everywhere("select g, sum(wild), avg(wild), stddev(wild) from t where not isnan(wild) group by g order by g")
        .await;
    same_everywhere("select sum(wild), avg(wild), var(wild) from t where abs(wild) < 1e200").await;
}

#[tokio::test]
async fn windows() {
    for frame in [
        "order by id",
        "order by id rows between 20 preceding and 3 following",
        "partition by g order by id rows between 1 preceding and current row",
        "partition by g",
    ] {
        let over = |call: &str| format!("{call} over ({frame})");
        let calls =
            ["sum(x)", "avg(y)", "stddev(x)", "corr(x, y)", "regr_slope(y, x)", "sum(wild)"].map(over).join(", ");
        same_everywhere(&format!("select id, {calls} from t order by id")).await;
    }
    let sliding =
        "select id, sum(distinct y) over (order by id rows between 9 preceding and current row) from t order by id";
    same_everywhere(sliding).await;
}

#[tokio::test]
async fn a_window_over_a_frame_is_the_sum_of_its_rows() {
    let window = "select sum(x) over (order by id rows between 4 preceding and current row) from t order by id limit 1 offset 999";
    let plain = "select sum(x) from t where id between 995 and 999";
    assert_eq!(run(window, 1, 1, 8192, true).await, run(plain, 1, 1, 8192, true).await);
}

#[tokio::test]
async fn empty_groups_are_null() {
    assert_eq!(run("select sum(x), avg(x), var(x), corr(x, y) from t where id < 0", 1, 4, 7, true).await.trim(), "");
    let regr = run("select regr_count(y, x) from t where id < 0", 1, 4, 7, true).await;
    assert_eq!(regr.trim(), "0");
}

#[tokio::test]
async fn answers_agree_with_datafusions() {
    for sql in [
        "select sum(x), avg(x), var(x), stddev(x), corr(x, y), covar_pop(x, y), regr_slope(y, x) from t",
        "select sum(distinct y), avg(distinct f), regr_r2(y, x), regr_intercept(y, x), avg(id) from t",
        "select sin(x), cos(x), tan(y), exp(y), ln(y + 1), log(3, y + 1), log10(y + 1), power(y, 1.7), cbrt(x), atan2(x, y) from t where id < 50 order by id",
    ] {
        let (ours, theirs) = (run(sql, 1, 4, 100, true).await, run(sql, 1, 4, 100, false).await);
        for (ours, theirs) in ours.split_whitespace().zip(theirs.split_whitespace()) {
            let (ours, theirs): (f64, f64) = (ours.parse().unwrap(), theirs.parse().unwrap());
            assert!((ours - theirs).abs() <= 1e-9 * theirs.abs().max(1e-9), "{ours} {theirs}: {sql}");
        }
    }
}
