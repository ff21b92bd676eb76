//! What exactness costs: the same queries with DataFusion's own functions and with ours, in turns, and the ratio.
//!
//! `cargo bench -p conun-functions` prints one line a query: milliseconds of both (the fastest of several runs: the
//! machine's noise only adds) and their ratio.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
};
use datafusion::{
    datasource::MemTable,
    physical_plan::{collect, displayable},
    prelude::{SessionConfig, SessionContext},
};

const ROWS: usize = 4_000_000;
const BATCH: usize = 8192;
const RUNS: usize = 9;

const QUERIES: &[(&str, &str)] = &[
    ("no group", "select sum(x) from t"),
    ("1 group", "select k1, sum(x) from t group by k1"),
    ("1e3 groups", "select k1000, sum(x) from t group by k1000"),
    ("1e6 groups", "select k1000000, sum(x) from t group by k1000000"),
    ("1e6 groups, avg", "select k1000000, avg(x) from t group by k1000000"),
    ("1e3 groups, wide range", "select k1000, sum(w) from t group by k1000"),
    ("1e3 groups, stddev", "select k1000, stddev(x) from t group by k1000"),
    ("no group, corr", "select corr(x, x2) from t"),
];

fn batches(partitions: usize) -> Vec<Vec<RecordBatch>> {
    let mut state = 42u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut batch = || {
        let float = |bits: u64| (bits >> 11) as f64 / (1u64 << 53) as f64;
        let keys: Vec<u64> = (0..BATCH).map(|_| random()).collect();
        let key =
            |of: u64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(keys.iter().map(|k| (k % of) as i64))) };
        let mut usual =
            || -> ArrayRef { Arc::new(Float64Array::from_iter_values((0..BATCH).map(|_| 1000.0 * float(random())))) };
        let (x, x2) = (usual(), usual());
        let w = (0..BATCH).map(|_| float(random()) * 2f64.powi((random() % 200) as i32 - 100));
        let w: ArrayRef = Arc::new(Float64Array::from_iter_values(w));
        RecordBatch::try_new(schema(), vec![key(1), key(1000), key(1_000_000), x, x2, w]).expect("a batch")
    };
    let batches: Vec<RecordBatch> = (0..ROWS / BATCH).map(|_| batch()).collect();
    batches.chunks(batches.len().div_ceil(partitions)).map(<[RecordBatch]>::to_vec).collect()
}

fn schema() -> Arc<Schema> {
    let ints = ["k1", "k1000", "k1000000"].map(|name| Field::new(name, DataType::Int64, false));
    let floats = ["x", "x2", "w"].map(|name| Field::new(name, DataType::Float64, false));
    Arc::new(Schema::new(ints.into_iter().chain(floats).collect::<Vec<_>>()))
}

fn context(batches: &[Vec<RecordBatch>], ours: bool) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(batches.len()).with_batch_size(BATCH);
    let mut state = SessionContext::new_with_config(config).state();
    if ours {
        conun_functions::register(&mut state).expect("a registry");
    }
    let context = SessionContext::new_with_state(state);
    let table = MemTable::try_new(schema(), batches.to_vec()).expect("a table");
    context.register_table("t", Arc::new(table)).expect("a name");
    context
}

async fn time(context: &SessionContext, sql: &str) -> Duration {
    let plan = context.sql(sql).await.expect("SQL").create_physical_plan().await.expect("a plan");
    let started = Instant::now();
    let rows: usize =
        collect(plan.clone(), context.task_ctx()).await.expect("an answer").iter().map(|b| b.num_rows()).sum();
    let elapsed = started.elapsed();
    assert!(rows > 0, "{}", displayable(plan.as_ref()).indent(false));
    elapsed
}

async fn compare(partitions: usize) {
    let batches = batches(partitions);
    let (theirs, ours) = (context(&batches, false), context(&batches, true));
    for (name, sql) in QUERIES {
        let mut best = [Duration::MAX; 2];
        for _ in 0..RUNS {
            best[0] = best[0].min(time(&theirs, sql).await);
            best[1] = best[1].min(time(&ours, sql).await);
        }
        let [plain, exact] = best.map(|elapsed| elapsed.as_secs_f64() * 1e3);
        println!("{partitions} partitions  {name:24} {plain:9.2} ms  {exact:9.2} ms  ratio {:.2}", exact / plain);
    }
}

fn main() {
    // `cargo test` starts benches, too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    println!("{ROWS} rows: DataFusion's, ours");
    for partitions in [1, 4] {
        runtime.block_on(compare(partitions));
    }
}
