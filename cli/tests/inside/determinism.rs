//! Constructs that are pinned or rewritten, on a network of real runner processes: replicas agree, two runs give the same
//! bits, and volunteers do all the work.

use std::sync::Arc;

use crate::world::{Nobody, World};
use arrow::{array::RecordBatch, util::pretty::pretty_format_batches};
use conun_engine::{JobOptions, JobRecord, JobState};
use conun_network::MemoryNet;
use futures::TryStreamExt;

/// As many as the tables' code needs.
const NODES: usize = 6;

/// What one run gave.
struct Ran {
    answer: RecordBatch,
    record: JobRecord,
}

impl Ran {
    fn text(&self) -> String {
        pretty_format_batches(std::slice::from_ref(&self.answer)).unwrap().to_string()
    }
}

async fn run(world: &World, sql: &str) -> Ran {
    let id = world.engine.submit(sql, &JobOptions::default()).await.unwrap_or_else(|e| panic!("{sql}: {e}")).id;
    let batches: Vec<RecordBatch> =
        world.engine.results(id).unwrap().try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let answer = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    Ran { answer, record: world.record(id).await }
}

/// In no total order, each of them.
const UNORDERED: &[&str] = &[
    "select * from flights limit 10",
    "select carrier, flight from flights where distance > 2000 limit 7 offset 100",
    "select carrier, dep_delay from flights order by dep_delay desc limit 20",
    "select array_agg(flight), string_agg(carrier, ',') from (select * from flights limit 1000)",
    "select carrier, first_value(tailnum), last_value(tailnum), any_value(dest) from flights group by carrier",
    "select carrier, array_agg(flight), string_agg(dest, '') from flights group by carrier",
    "select carrier, array_agg(distinct dest), string_agg(distinct dest, ',') from flights group by carrier",
    "select array_agg(distinct air_time), array_agg(distinct distance order by distance desc) from flights",
    "select carrier, flight, row_number() over (partition by carrier order by day) as n from flights where month = 1",
    "select flight, rank() over (order by month), ntile(7) over (order by carrier) from flights where distance > 2500",
    "select carrier, first_value(flight) over (partition by carrier order by day) from flights where month = 1",
    "select distinct carrier, array_agg(distinct origin) over (partition by carrier order by month) from flights",
    "select distinct on (carrier) carrier, flight, tailnum from flights",
    "select distinct on (carrier) carrier, flight from flights order by carrier, dep_delay",
    "select origin from flights union all select name from airlines",
    "select approx_distinct(tailnum), approx_median(dep_delay), approx_percentile_cont(0.9) within group (order by distance) from flights",
    "select carrier, sum(distinct air_time), avg(dep_delay), stddev(arr_delay), median(arr_delay) from flights group by carrier",
    "select sum(sin(distance)), sum(power(air_time, 0.3)), avg(ln(distance)) from flights",
    "select * from airlines a join flights f on a.carrier = f.carrier and f.distance > 2400 limit 50",
    "select f.flight from flights f where f.carrier not in (select carrier from airlines where name like 'A%') limit 9",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_statement_has_the_columns_of_its_answer() {
    let world = World::new(&MemoryNet::default(), NODES, &Arc::new(Nobody)).await;
    for sql in [
        "select arrow_cast(carrier, 'Dictionary(Int32, Utf8)') d, arrow_cast(origin, 'Utf8View') v, count(*) from flights group by 1, 2",
        "select 1 one, now() - now() span",
        "explain verify select * from flights",
    ] {
        let prepared = world.engine.answer_schema(sql).await.unwrap();
        assert_eq!(prepared, run(&world, sql).await.answer.schema(), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_total_order_gives_the_same_bits_everywhere() {
    let world = World::new(&MemoryNet::default(), NODES, &Arc::new(Nobody)).await;
    for sql in UNORDERED {
        let (one, two) = (run(&world, sql).await, run(&world, sql).await);
        assert_eq!(one.answer, two.answer, "{sql}");
        for Ran { record, .. } in [one, two] {
            assert_eq!((record.state, record.verified.as_str()), (JobState::Done, "quorum"), "{sql}");
            assert!(record.liars.is_empty(), "{sql}: {:?} voted otherwise", record.liars);
            assert!(
                record.stages.iter().all(|s| s.units.0 > 0 && s.replicas >= 2 * s.tasks),
                "{sql}: not all by volunteers"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn now_is_the_moment_of_planning() {
    let world = World::new(&MemoryNet::default(), NODES, &Arc::new(Nobody)).await;
    let sql = "select count(distinct n) as moments, min(n) > timestamp '2024-01-01' as late, \
               count(*) filter (where n <> m) as differ \
               from (select now() as n, current_timestamp as m, flight from flights where current_date > date '2024-01-01')";
    let ran = run(&world, sql).await;
    assert!(ran.text().contains("| 1       | true | 0      |"), "{}", ran.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distinct_lists_are_sorted() {
    let world = World::new(&MemoryNet::default(), NODES, &Arc::new(Nobody)).await;
    let lists = "select array_agg(distinct origin) as a, string_agg(distinct origin, '/') as s from flights";
    assert!(run(&world, lists).await.text().contains("| [EWR, JFK, LGA] | EWR/JFK/LGA |"));
    let windows = "select distinct array_agg(distinct origin) over () as a from flights";
    assert!(run(&world, windows).await.text().contains("| [EWR, JFK, LGA] |"));
}
