//! Every refused construct names itself, its place and what to write instead; what is not refused is planned.

#![allow(clippy::unwrap_used)]

mod common;

use common::{plan, session};
use conun_types::ErrorKind;
use datafusion::{
    common::JoinType,
    functions_aggregate::expr_fn::count,
    prelude::{SessionContext, col, lit},
};

/// Statement, then what its error begins with, then a part of the hint.
const REFUSED: &[(&str, &str, &str)] = &[
    ("select random() from t", "random() (line 1, column 8) gives another value", "md5(cast(id"),
    ("select k,\n       v + random()\nfrom t", "random() (line 2, column 12) ", "md5(cast(id"),
    ("select k from t where v < RANDOM() and random() < 1", "random() (line 1, column 27) ", "md5(cast(id"),
    (
        "select k from t where k in (select k from small order by random())",
        "random() (line 1, column 58) ",
        "md5(cast(id",
    ),
    ("with c as (select uuid() as id from t) select * from c", "uuid() (line 1, column 19) gives", "md5(concat"),
    ("select sum(v) over (order by random()) from t", "random() (line 1, column 30) ", "md5(cast(id"),
    ("select input_file_name() from t", "input_file_name() (line 1, column 8) names files", "as a column"),
    (
        "select file_row_index() from t",
        "file_row_index() (line 1, column 8) names files",
        "row_number() over (order by",
    ),
    (
        "select string_agg(distinct name, ',') over (partition by k) from t",
        "string_agg(DISTINCT ..) OVER (line 1, column 8) lists values in no fixed order",
        "GROUP BY",
    ),
    (
        "select string_agg(distinct name, ','), array_agg(distinct tags) over () from t group by tags",
        "array_agg(DISTINCT ..) OVER (line 1, column 40) ",
        "GROUP BY",
    ),
    (
        "with recursive r as (select k from t union all select r.k + 1 from r join t on t.k = r.k) select * from r",
        "WITH RECURSIVE (line 1, column 1) over tables",
        "join the table with itself",
    ),
    (
        "select repeat('x', 2000000000) from t",
        "repeat() (line 1, column 8) makes a constant of more than",
        "generate_series",
    ),
    ("select 1 where length(lpad('x', 1000 * 1000000)) > 1", "lpad() (line 1, column 23) makes", "make less of it"),
    ("select k, replace(repeat('x', 9999), 'x', repeat('y', 9999)) from t", "replace() (line 1, column 11) ", "less"),
    ("explain select range(10000000)", "range() makes a constant", "generate_series"),
    ("select case when true then repeat('y', 20000000) end from t", "repeat() (line 1, column 28) makes", "less"),
    (
        "select repeat(repeat('x', 9000000) || repeat('x', 9000000), 100) from t",
        "repeat() (line 1, column 8) makes",
        "less",
    ),
    (
        "select array_to_string(array_repeat('a', 1000000), repeat('x', 1000000))",
        "array_to_string() (line 1, column 8) ",
        "less",
    ),
    ("select array_repeat('', 2000000000)", "array_repeat() (line 1, column 8) makes", "less"),
    ("select array_repeat(1, 9999999), name from t", "array_repeat() (line 1, column 8) makes a constant", "less"),
    (
        "select k from t where 1 in (select row_number() over (order by s.v) from small s where s.k = t.k)",
        "a subquery that refers to the row outside below a window",
        "join the tables",
    ),
    (
        "select k, (select count(*) from small a left join (select k from small s where s.k = t.k) b on a.k = b.k) n from t",
        "a subquery that refers to the row outside below an outer join or a set operation",
        "join the tables",
    ),
    (
        "select k from t where exists (select 1 from small s where s.k = t.k having count(*) = 0)",
        "a subquery that refers to the row outside below an aggregate",
        "join the tables",
    ),
    (
        "select k, (select max(n) from (select count(*) n from small s where s.k = t.k) x) m from t",
        "a subquery that refers to the row outside below an aggregate",
        "join the tables",
    ),
    (
        "select t.k, l.a from t, lateral (select t.k a, t.k from (select k from small s where s.v = t.k) t) l",
        "a subquery that refers to the row outside by a column of one name with its own",
        "join the tables",
    ),
    (
        "select k, (select count(*) from small s where s.k = t.k having count(*) > t.v) from t",
        "a subquery that refers to the row outside below HAVING",
        "join the tables",
    ),
    (
        "select k from t where v > any (select s.v from small s where s.k = t.k limit 1)",
        "a subquery that refers to the row outside beside a limit (line 1, column 32) would",
        "join the tables",
    ),
    (
        "select k from t where exists (select 1 from small s where s.k = t.k offset 3)",
        "a subquery that refers to the row outside beside a limit",
        "join the tables",
    ),
    (
        "select k from t where exists (select k from small except select s.k from small s where s.k = t.k)",
        "a subquery that refers to the row outside below an outer join or a set operation",
        "join the tables",
    ),
    (
        "select t.k, l.n from t, lateral (select count(*) n from small s where s.k = t.k having count(*) > 1) l",
        "a subquery that refers to the row outside below HAVING",
        "join the tables",
    ),
    (
        "select t.k, l.k from t, lateral (select distinct s.k from small s where s.v < t.v) l",
        "a subquery that refers to the row outside below an aggregate by more than equality",
        "join the tables",
    ),
    (
        "select t.k, l.n from t, lateral (select distinct count(*) n from small s where s.k = t.k) l",
        "a subquery that refers to the row outside below an aggregate",
        "join the tables",
    ),
    (
        "select t.k, l.n from t, lateral (select c.n from (select k from small s where s.k = t.k) a, (select count(*) n from small) c) l",
        "a subquery that refers to the row outside beside an aggregate",
        "join the tables",
    ),
    (
        "select t.k, l.v from t, lateral (select s.v from small s where s.k = t.k order by s.v limit 3) l",
        "a subquery that refers to the row outside below a limit (line 1, column 34) would",
        "row_number() over (partition by",
    ),
    (
        "select k, (select count(*) from small s where s.v < t.v) from t",
        "a subquery that refers to the row outside below an aggregate by more than equality",
        "join the tables",
    ),
    (
        "select k, exists (select 1 from small s where s.v < t.v) from t",
        "a subquery that refers to the row outside below an aggregate by more than equality",
        "join the tables",
    ),
    (
        "select k, (select v from small s where s.k = t.k order by abs(s.v - t.v) limit 1) from t",
        "a subquery that refers to the row outside in more than conditions of WHERE",
        "join the tables",
    ),
    (
        "select k from t where exists (select 1 from small s where s.k = t.k and exists (select 1 from small u where u.k = s.k and u.v > t.v))",
        "a subquery that refers to the row outside beyond the next query",
        "join the tables of the two inner",
    ),
    (
        "select k from t where k in (select l.k from small s join lateral (select u.k from small u where u.v = s.v) l on true where l.k = t.k)",
        "a subquery that refers to the row outside and has LATERAL in it",
        "in the place of LATERAL",
    ),
    (
        "select small.k from small join t on small.k = t.k join lateral (select small.v from small where small.k = t.v) l on l.v <= small.v",
        "a subquery that refers to the row outside by a column of one name with its own",
        "join the tables",
    ),
    (
        "select t.k, l.n from t, lateral (select count(*) n, 7 c from small s where s.k = t.k) l",
        "a subquery that refers to the row outside and gives a constant beside an aggregate",
        "join the tables",
    ),
    (
        "select k from t right join small using (k)",
        "'k' of an outer join by USING or NATURAL (line 1, column 8) would be NULL",
        "coalesce(t.k, s.k)",
    ),
    ("select * from t left join small using (k)", "'k' of an outer join by USING or NATURAL would be NULL", "with ON"),
    (
        "select v from t where exists (select 1 from small s join small u using (k) where v = 2)",
        "'v' in a subquery (line 1, column 82) is a column of several tables there",
        "with its table",
    ),
    (
        "select sum(v) over (w order by k) from t window w as (partition by name)",
        "a window that is made of another (line 1, column 21)",
        "PARTITION BY",
    ),
    (
        "select k from t window w as (partition by k), x as (w order by v)",
        "a window that is made of another (line 1, ",
        "out",
    ),
    (
        "select s.v from t right join small using (k) join (values (1, 2)) s(k, v) using (k)",
        "'k' of an outer join by USING or NATURAL would be NULL",
        "with ON",
    ),
    (
        "select l.n from t, lateral (select coalesce(7, max(s.v)) n from small s where s.k = t.k) l",
        "a subquery that refers to the row outside and gives a constant beside an aggregate",
        "join the tables",
    ),
    ("select k from t where (k, v) in (select k, v from small)", "Too many columns", "exists (select"),
    ("select lag(k) from t", "Invalid function 'lag'", "need OVER"),
    ("select -row_number() over () from t", "Unary operator '-' only supports signed", "0 - x"),
    ("select k from t fetch first 3 rows only", "FETCH clause", "LIMIT"),
    (
        "select k from t where exists (select 1 from small s where s.k = t.k union all select 1 from small u where u.v = t.v)",
        "a subquery that refers to the row outside in a part of UNION",
        "join the tables",
    ),
    (
        "select t.k from t left join small s on t.k = s.k and exists (select 1 from small u where u.k = s.k and u.v = t.v)",
        "a subquery in a condition of an outer join, an order or a window refers to what is not known there",
        "after FROM",
    ),
    ("explain analyze select * from t", "EXPLAIN ANALYZE (line 1, column 1) measures time", "conun job show"),
    ("-- a comment\n  insert into t select * from t", "INSERT (line 2, column 3) is no query", "conun put"),
    ("create table x as select * from t", "CREATE (line 1, column 1) is no query", "conun put"),
    ("explain select count(*) from t tablesample (10)", "TABLESAMPLE is not computed", "md5(cast(id"),
    ("select count(*) from t tablesample (10)", "TABLESAMPLE (line 1, column 22) is not computed", "md5(cast(id"),
    ("select * from small join t tablesample bernoulli (1) on true", "TABLESAMPLE (line 1, column 26) ", "md5(cast(id"),
    (
        "select k, (select x from (select 1 x union all select 2) u where u.x <= t.k) from t",
        "a subquery for each row (line 1, column 12) may give several values",
        "aggregate in it",
    ),
    (
        "select k, (select max(s.k) from small s group by s.k having s.k > t.k) from t",
        "a subquery for each row (line 1, column 12) may give several values",
        "aggregate in it",
    ),
    ("begin", "BEGIN (line 1, column 1) is no query", "leave it out"),
    ("delete from t", "DELETE (line 1, column 1) is no query", "replaced as a whole"),
    ("use t", "USE (line 1, column 1) is no query", "conun tables"),
    ("prepare p as select k from t", "PREPARE (line 1, column 1) is no query", "Flight SQL"),
    ("drop table t", "DROP (line 1, column 1) is no query", "conun rm"),
    ("set datafusion.execution.batch_size = 1", "SET (line 1, column 1) is no query", "DETERMINISM.md"),
    ("copy t to 'x.parquet'", "COPY (line 1, column 1) is no query", "conun sql -o"),
    ("explain insert into t select * from t", "EXPLAIN INSERT (line 1, column 1) is no query", "conun put"),
    (
        "select * from t, information_schema.tables where name = table_name",
        "information_schema.tables (line 1, column 18) is computed by the coordinator",
        "conun put",
    ),
    (
        "select * from t join generate_series(1, 9) g on k = g.value",
        "generate_series() (line 1, column 22) is computed by",
        "VALUES",
    ),
];

#[tokio::test]
async fn a_refusal_names_construct_place_and_alternative() {
    for (sql, begin, hint) in REFUSED {
        let error = plan(&session(), sql).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Data, "{sql}");
        assert!(error.message.starts_with(begin), "{sql}:\n{}\n{begin}", error.message);
        let given = error.hint.unwrap_or_default();
        assert!(given.contains(hint), "{sql}: {given}");
        assert!(!error.message.contains('\n'), "{sql}: {}", error.message);
    }
}

#[tokio::test]
async fn what_the_coordinator_computes_itself_has_an_end() {
    let context = SessionContext::new_with_state(session());
    let frame = context.sql("select value from generate_series(1, 100000000) order by value desc").await.unwrap();
    let error = conun_planner::plan_error(&frame.collect().await.unwrap_err());
    assert!(error.message.starts_with("out of memory"), "{error}");
}

/// What people write all the time, and what is easily mistaken for a refused construct.
const PLANNED: &[&str] = &[
    "select k, small.v from t left join small using (k) where small.v is null",
    "select * from small left join t using (k)",
    "with m as (select k from small) select t.k from t where exists (select 1 from small s join m on s.k = m.k where m.k = t.k)",
    "select coalesce(t.k, small.k) k from t full join small using (k) order by k",
    "select t.k, small.v from t full join small using (k)",
    "select t.v from t where exists (select 1 from small s join small u using (k) where s.v = t.v)",
    "select repeat(name, 2000000000), lpad(name, 20), repeat('x', 1000000), range(1000), range(k, 9000000000) from t",
    "select unnest(generate_series(timestamp '2024-01-01', timestamp '2024-12-31', interval '1 month')) as m, k from t",
    "select range(date '1900-01-01', date '2100-01-01', interval '1 day') from t",
    "select replace(name, 'x', 'yy'), replace('abc', 'x', 'yy'), array_repeat(name, 99999999), rpad('x', -7) from t",
    "select * from t limit 10",
    "select * from t limit 10 offset 5",
    "select k, v from t order by v limit 3",
    "select array_agg(v), string_agg(name, ','), first_value(v), last_value(v), any_value(k) from t",
    "select k, array_agg(v), first_value(name) from t group by k",
    "select k, array_agg(distinct name), string_agg(distinct name, '|') from t group by k",
    "select array_agg(distinct name order by name desc) from t",
    "select array_agg(distinct name) over (partition by k order by v) from t",
    "select row_number() over (order by v), rank() over (order by v), ntile(3) over () from t",
    "select first_value(name) over (partition by k) from t",
    "select k, lag(v) over (order by k), lag(v) ignore nulls over (order by k), rank() ignore nulls over (order by k) from t",
    "select lag(v) over (order by k) a, lag(v) over (order by k desc) b from t",
    "select array_agg(name) filter (where v > 7) over (partition by k), sum(v) filter (where k > 1) over () from t",
    "select * from t limit 9223372036854775807 offset 10",
    "select count(*) from (select * from t limit 4294967297)",
    "select count(*) from t group by grouping sets (())",
    "select k, (select max(s.k) from small s where s.k = t.k group by s.k) from t",
    "select distinct on (k) k, v from t",
    "select distinct on (k) k, v from t order by k, v desc",
    "select distinct name from t",
    "select k from t union select k from small",
    "select approx_distinct(name), approx_median(v), approx_percentile_cont(0.9) within group (order by v) from t",
    "select median(v), stddev(v), corr(v, k), sum(distinct v) from t",
    "select now(), current_date, current_time, current_timestamp, today() from t",
    "select k from t group by k having max(at) < now() - interval '1 day' order by now()",
    "select name as random, k as uuid from t",
    "select 'random()' from t",
    "select sin(v), power(v, 2), round(v) from t order by sin(v)",
    "select * from t full join small on t.v < small.v",
    "select k from t where k not in (select k from small)",
    "select k from t where k not in (select s.k from small s where s.name = t.name)",
    "select k from t where not k in (select s.k from small s where s.name = t.name and t.v > 1)",
    "select k from t where exists (select 1 from small a, small b where a.k = t.k and b.k <> t.k)",
    "select k from t where exists (select * from small a, small b where b.k = t.k)",
    "select k from t where exists (select s.v as k from small s where s.k = t.k)",
    "select k, max(n) n from (select k, name, v, sum(n) n from (select t.k, t.name, s.v, count(*) n from t join small s on t.k = s.k group by 1, 2, 3) group by 1, 2, 3) group by k, name",
    "select k, (select max(b.v) from t b where b.k = t.k group by b.k), 3 > any (select k from small) from t",
    "select k, (select count(*) from small having count(*) > t.v) from t",
    "select t.k from t left join small s on t.k = s.k and t.k in (select k from small) and exists (select 1 from small u where u.k = t.k)",
    "select t.k from t join small s on t.k = s.k and exists (select 1 from small u where u.v < t.v)",
    "select k from t where exists (select 1 from small s join small u on s.k = u.k and u.v = t.v)",
    "select k, (select max(v) from small s where s.k = t.k limit 1) from t",
    "select k, 0.5 * (select s.k from small s where s.k = t.k order by v limit 1), 0.5 * (select max(k) from small s where s.k = t.k limit 1) from t",
    "select name from t order by (select count(*) from small s where s.k = t.k), name",
    "select k, (select cast(k as double) from small s where s.k = t.k order by v limit 1) + 0.5 from t",
    "select k from t where v in (select s.k from small s where s.k = t.k)",
    "select k from t where not exists (select 1 from small s where s.k = t.k limit 0)",
    "select k, (select b + 1 from (select n + 1 b from (select count(*) n from small s where s.k = t.k having n = 0) x) y) from t",
    "select k in (select k from t), k = any (select k from small), v > all (select max(v) from small s where s.k = t.k) from t",
    "select k from t where exists (select 1 from small s where s.k = t.k order by s.v limit 1)",
    "select k from t where exists (select 1 from (select * from small order by v limit 9) s where s.k = t.k)",
    "select k, (select v from small s where s.k = t.k order by s.v desc limit 1) a, (select v from small s where s.k = t.k limit 1) b from t",
    "select k, (select max(v) from small s where s.k = t.k having count(*) > 3) from t",
    "select k from t where exists (select 1 from (select k, v from small s where s.k = t.k) u where u.v > 3)",
    "select t.k, l.n from t, lateral (select n from (select count(*) n from small) c where c.n = t.k) l",
    "select k, (select v from small s where s.v = t.v order by k limit 1) from t",
    "select t.k, l.k from t, lateral (select distinct s.k from small s where s.v = t.v) l",
    "select k, (select count(*) from small s where cast(s.v as bigint) = t.k and s.k + 1 = t.k) from t",
    "select unnest(tags) from t",
    "select * from (values (1), (2)) as x(k) join t using (k)",
    // Without tables of the network nothing is compared.
    "select random(), uuid()",
    "with recursive r as (select 1 as k union all select k + 1 from r where k < 9) select * from r",
    "select * from generate_series(1, 9)",
    "explain analyze select 1",
    "explain select * from t limit 1",
    "select table_name from information_schema.tables",
];

#[tokio::test]
async fn what_can_be_reproduced_is_planned() {
    for sql in PLANNED {
        plan(&session(), sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// What is refused of SQL that is planned by other doors, and of dataframes; what its error begins with.
const REFUSED_ELSEWHERE: &[(&str, &str)] = &[
    ("select random() from t", "random() gives"),
    ("select * from t tablesample (10)", "TABLESAMPLE is not computed"),
    ("select * from small join t tablesample (10) on true", "TABLESAMPLE is not computed"),
    ("select range(10000000)", "range() makes a constant"),
    (
        "select k from t where exists (select 1 from small s where s.k = t.k offset 3)",
        "a subquery that refers to the row outside beside a limit",
    ),
    ("select k, (select v from small s where s.k = t.k) from t", "a subquery for each row may give several values"),
];

#[tokio::test]
async fn what_comes_by_other_doors_is_refused_without_a_place() {
    let state = conun_planner::refusing(session());
    for (sql, begin) in REFUSED_ELSEWHERE {
        let planned = state.create_logical_plan(sql).await.and_then(|plan| state.optimize(&plan));
        let error = conun_planner::plan_error(&planned.unwrap_err());
        assert_eq!(error.kind, ErrorKind::Data, "{sql}");
        assert!(error.message.starts_with(begin), "{sql}: {}", error.message);
        assert!(error.hint.is_some(), "{sql}");
    }
    // Such statements are no network's.
    let local = state.create_logical_plan("select random()").await.unwrap();
    state.optimize(&local).unwrap();
}

#[tokio::test]
async fn a_dataframe_that_is_grouped_by_what_nobody_asked_for_is_refused() {
    let context = SessionContext::new_with_state(session());
    let table = async |name: &str| context.table(name).await.unwrap();
    let n = |name: &str| vec![count(lit(1)).alias(name)];
    let totals = table("small").await.aggregate(vec![col("k")], n("total")).unwrap();
    let joined = table("t").await.select_columns(&["k", "name"]).unwrap();
    let joined = joined.with_column_renamed("k", "key").unwrap().join(totals, JoinType::Inner, &["key"], &["k"], None);
    let names = joined.unwrap().aggregate(vec![col("k"), col("name")], n("names")).unwrap();
    let each = names.clone().aggregate(vec![col("k")], n("n")).unwrap();
    let error = conun_planner::plan_error(&each.into_optimized_plan().unwrap_err());
    assert!(error.message.starts_with("an aggregate of a dataframe over"), "{error}");
    names.into_optimized_plan().unwrap();
}
