//! Stages and lowering over tables of made-up shards: what volunteers would be asked to run. No task runs here.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use conun_planner::{Shard, ShardTable};
use conun_types::{Cid, InputShard, JobId, MemoryClass, OutputBlock, Volume};
use datafusion::{
    catalog::{MemorySchemaProvider, SchemaProvider},
    physical_plan::displayable,
};

use super::*;
use crate::task::Prepared;

/// `t(k, v)` in `shards` shards of a million rows, and `small(k, name)` in one of ten.
fn tables(shards: usize) -> Arc<dyn SchemaProvider> {
    let provider = MemorySchemaProvider::new();
    let table = |name: &str, column: Field, shards: usize, rows: u64| {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), column]));
        let shard =
            |i| Shard { cid: Cid::raw(format!("{name}{i}").as_bytes()), volume: Volume { rows, bytes: 8 << 20 } };
        let table = ShardTable::new(schema, (0..shards).map(shard).collect());
        provider.register_table(name.to_owned(), Arc::new(table)).unwrap();
    };
    table("t", Field::new("v", DataType::Float64, true), shards, 1_000_000);
    table("u", Field::new("v", DataType::Float64, true), shards, 1_000_000);
    table("small", Field::new("name", DataType::Utf8, true), 1, 10);
    Arc::new(provider)
}

async fn graph(sql: &str, shards: usize) -> StageGraph {
    let config = conun_planner::session_config().unwrap();
    let state = conun_planner::session_state(config, tables(shards)).unwrap();
    let plan = conun_planner::logical_plan(&state, sql).await.unwrap();
    let state = conun_planner::sized(&state, &plan, None).unwrap();
    let plan = state.create_physical_plan(&plan).await.unwrap();
    StageGraph::new(JobId([1; 16]), plan, state.config().clone()).unwrap()
}

fn outputs(task: &StageTask) -> Vec<OutputBlock> {
    let block = |i: usize| {
        let name = format!("{}/{}/{i}", task.key.stage, task.key.task);
        OutputBlock { partition: i as u32, cid: Cid::raw(name.as_bytes()), rows: 1 + i as u64 % 2, bytes: 100 }
    };
    (0..task.outputs()).map(block).collect()
}

/// Completes every task, `backwards` in each wave; gives the tasks with their encoded plans.
fn drive(graph: &mut StageGraph, backwards: bool) -> Vec<(TaskKey, Vec<u8>, String)> {
    let mut seen = Vec::new();
    loop {
        let mut wave = graph.ready_tasks().unwrap();
        if wave.is_empty() {
            break;
        }
        for task in &wave {
            let bytes = conun_executor::encode_plan(&task.plan).unwrap();
            seen.push((task.key, bytes, displayable(task.plan.as_ref()).indent(false).to_string()));
        }
        if backwards {
            wave.reverse();
        }
        for task in &wave {
            graph.complete(task, &outputs(task)).unwrap();
        }
    }
    assert!(graph.is_done());
    seen.sort();
    seen
}

#[tokio::test]
async fn the_order_in_which_tasks_end_changes_no_plan() {
    let sql = "select small.name, sum(t.v) from t join u on t.k = u.k join small on small.k = t.k group by small.name order by 2";
    let (mut one, mut two) = (graph(sql, 5).await, graph(sql, 5).await);
    let (forwards, backwards) = (drive(&mut one, false), drive(&mut two, true));
    assert!(forwards.len() > 10, "{} tasks", forwards.len());
    for (a, b) in forwards.iter().zip(&backwards) {
        assert_eq!(a, b);
    }
    assert_eq!(one.answer().unwrap(), two.answer().unwrap());
}

#[tokio::test]
async fn tasks_are_foretold() {
    for sql in [
        "select count(*) from t",
        "select k, sum(v) from t group by k order by 2 limit 3",
        "select small.name, sum(t.v) from t join u on t.k = u.k join small on small.k = t.k group by small.name order by 2",
        "select k from t union all select k from small",
    ] {
        let mut graph = graph(sql, 5).await;
        let foretold = graph.tasks();
        let mut ran = BTreeMap::new();
        drive(&mut graph, false).iter().for_each(|(key, ..)| *ran.entry(key.stage).or_insert(0) += 1);
        assert_eq!(foretold, ran, "{sql}");
    }
}

/// A job of 10,000 shards, a run of them a task: no message comes near the limit, the largest being those that gather all
/// blocks of a partition.
#[tokio::test]
async fn ten_thousand_shards_are_planned_and_fit() {
    for sql in ["select count(*), sum(v) from t", "select k, sum(v) from t group by k order by 2 limit 3"] {
        let mut graph = graph(sql, 10_000).await;
        let (mut tasks, mut largest) = (0, 0);
        loop {
            let wave = graph.ready_tasks().unwrap();
            if wave.is_empty() {
                break;
            }
            for task in wave {
                let outputs = outputs(&task);
                let cids = crate::job::scanned_shards(&task.plan).unwrap();
                let shard = |cid| InputShard { cid, volume: Volume { rows: 1_000_000, bytes: 8 << 20 } };
                let shards = cids.into_iter().map(shard).collect();
                let prepared = Prepared::new(JobId([1; 16]), task, shards, MemoryClass::Large);
                let prepared = prepared.unwrap();
                (tasks, largest) = (tasks + 1, largest.max(prepared.bytes.len()));
                graph.complete(&prepared.stage, &outputs).unwrap();
            }
        }
        assert!(graph.is_done() && tasks > 200, "{sql}: {tasks}");
        assert!(largest < conun_types::task::MAX_ENVELOPE / 4, "{sql}: {largest} bytes");
    }
}

#[tokio::test]
async fn volunteers_get_nothing_of_ballistas() {
    for sql in [
        "select count(*) from t",
        "select k, avg(v) from t group by k",
        "select * from t where v > 1 order by v limit 5",
        "select k from t union all select k from small",
        "select distinct k from t",
        "select k, row_number() over (partition by k order by v) from t",
        "select * from t where k not in (select k from small)",
        "select count(*) from t where exists (select 1 from u where u.k = t.k)",
    ] {
        let tasks = drive(&mut graph(sql, 3).await, false);
        for (key, _, plan) in tasks {
            assert!(!plan.contains("Shuffle"), "{sql}: {key:?}\n{plan}");
            assert!(!plan.contains("RoundRobin") && !plan.contains("Interleave"), "{sql}: {key:?}\n{plan}");
        }
    }
}

#[tokio::test]
async fn a_grouped_sum_is_two_stages_with_a_hash_shuffle_between() {
    let tasks = drive(&mut graph("select k, sum(v) from t group by k", 2).await, false);
    let stage = |n| tasks.iter().filter(|(key, ..)| key.stage == n).collect::<Vec<_>>();
    assert_eq!((stage(1).len(), stage(2).len()), (2, conun_types::profile::LEAST_SHUFFLE_PARTITIONS));
    let (first, second) = (&stage(1)[0].2, &stage(2)[0].2);
    assert!(first.starts_with("RepartitionExec: partitioning=Hash([k@0], 4)"), "{first}");
    assert!(first.contains("AggregateExec: mode=Partial"), "{first}");
    assert!(second.contains("mode=FinalPartitioned") && second.contains("BlockReaderExec"), "{second}");
}

#[tokio::test]
async fn an_order_that_an_exchange_loses_is_restored_where_it_is_needed() {
    let grouped = "(select k, v, count(*) n from t group by k, v)";
    let windows = "sum(n) over (partition by k), count(*) over (order by k, v rows 5 preceding)";
    let tasks = drive(&mut graph(&format!("select k, {windows} from {grouped}"), 3).await, false);
    let last = tasks.last().map(|(_, _, plan)| plan.clone()).unwrap();
    let line =
        |operator: &str| last.lines().position(|line| line.contains(operator)).unwrap_or_else(|| panic!("{last}"));
    assert!(line("WindowAggExec") < line("SortExec") && line("SortExec") < line("BlockReaderExec"), "{last}");
    // Sums by a key need no order.
    let sums = format!("select k, sum(c) from (select k, count(*) over (order by k, v) c from {grouped}) group by k");
    let tasks = drive(&mut graph(&sums, 3).await, false);
    let last = &tasks.last().unwrap().2;
    assert!(last.contains("AggregateExec") && !last.contains("SortExec"), "{last}");
}

#[tokio::test]
async fn a_join_that_remembers_its_left_side_is_one_task_where_both_sides_have_one_partition() {
    for join in ["left join", "full join", "left semi join", "left anti join"] {
        let sql = format!("select s.k from small s {join} small b on s.k = b.k order by s.k");
        let tasks = drive(&mut graph(&sql, 1).await, false);
        let [(_, _, plan)] = tasks.as_slice() else { panic!("{join}: {tasks:?}") };
        assert!(plan.contains("mode=CollectLeft") && !plan.contains("Kept"), "{join}: {plan}");
    }
}

#[tokio::test]
async fn columns_that_a_filter_fixed_or_a_join_made_equal_are_sorted_by_in_a_stage_that_does_not_know() {
    for sql in [
        "select k, rank() over (partition by k order by v) from t where k = 2",
        "select k, max(v) over (partition by k) from t where k = 2",
        "select t.v, sum(t.v) over (partition by t.k order by t.v), count(*) over (partition by u.k order by t.v) \
            from t join u on t.k = u.k",
    ] {
        let tasks = drive(&mut graph(sql, 3).await, false);
        let last = &tasks.last().unwrap().2;
        assert!(last.contains("WindowAggExec") && last.contains("SortExec: expr=[k@"), "{sql}: {last}");
        assert!(!last[1..].contains("RepartitionExec"), "{sql}: {last}");
    }
}

#[tokio::test]
async fn a_shuffle_has_more_partitions_where_there_is_more_data() {
    // The larger of two tables counts: 80 MiB in shards of 8.
    let sql = "select t.k, sum(t.v) from t join small on t.k = small.k group by t.k";
    let tasks = drive(&mut graph(sql, 10).await, false);
    let last = tasks.iter().map(|(key, ..)| key.stage).max();
    assert_eq!(tasks.iter().filter(|(key, ..)| Some(key.stage) == last).count(), 5);
}

/// Stages of `sql`, and how often each mode of a join is among their tasks' plans.
async fn joins(sql: &str) -> (usize, usize, usize) {
    let mut graph = graph(sql, 2).await;
    let plans = drive(&mut graph, false);
    let stages = plans.iter().map(|(key, ..)| key.stage).collect::<std::collections::BTreeSet<_>>().len();
    let with = |mode: &str| plans.iter().filter(|(_, _, plan)| plan.contains(mode)).count();
    (stages, with("mode=Partitioned"), with("mode=CollectLeft"))
}

#[tokio::test]
async fn a_join_by_partitions_is_no_broadcast_beside_and_a_small_side_still_is() {
    // Two scans, and the join in four tasks; the counts are added up by one more.
    assert_eq!(joins("select count(*) from t join u on t.k = u.k").await, (4, 4, 0));
    assert_eq!(joins("select count(*) from t join small on t.k = small.k").await, (3, 0, 2));
}
