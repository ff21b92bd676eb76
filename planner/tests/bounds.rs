//! Statements have bounds: nothing that a client writes ends the process that plans it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{plan, session};
use conun_types::ErrorKind;

fn many(parts: usize, part: impl Fn(usize) -> String, between: &str) -> String {
    (0..parts).map(part).collect::<Vec<_>>().join(between)
}

fn conditions(n: usize) -> String {
    format!("select k from t where {}", many(n, |i| format!("k <> {i}"), " and "))
}

fn summands(n: usize, operators: &str) -> String {
    format!("select v{} from t", operators.repeat(n))
}

fn set(operation: &str, n: usize) -> String {
    many(n, |i| format!("select {i}"), operation)
}

fn chain(n: usize) -> String {
    let queries = many(n, |i| format!("q{} as (select k + 1 k from q{i})", i + 1), ", ");
    format!("with q0 as (select k from t), {queries} select k from q{n}")
}

fn doubled(n: usize) -> String {
    let queries = many(n, |i| format!("Q{} as (select x.k from q{i} x, q{i} y)", i + 1), ", ");
    format!("with q0 as (select k from t), {queries} select count(*) from q{n}")
}

fn cube(n: usize) -> String {
    format!("select count(*) from t group by cube ({})", many(n, |i| format!("k + {i}"), ", "))
}

fn squared(n: usize) -> String {
    let queries = many(n, |i| format!("q{} as (select k + k k from q{i})", i + 1), ", ");
    format!("with q0 as (select k from t), {queries} select k from q{n} where k > 1")
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_name() {
    let levels = "an expression (line 1, column 23) nests more than 1000 levels deep";
    let query = "a query (line 1, column 1) is a part too many";
    for (sql, begin, hint) in [
        (conditions(1001), levels, "IN (1, 2, ..)"),
        (conditions(50_000), levels, "IN (1, 2, ..)"),
        (format!("explain {}", conditions(1001)), "an expression (line 1, column 31) nests", "IN"),
        (format!("{} limit", conditions(40_000)), "sql parser error", ""),
        (summands(1001, "+v"), "an expression (line 1, column 8) nests", "split"),
        (summands(300_000, "+v"), "an expression (line 1, column 8) nests", "split"),
        (summands(30, "+v-1"), "an expression nests too deeply to be sent", "CASE"),
        (format!("copy ({}) to 'x.csv'", conditions(30_000)), "an expression (line 1, column 29) nests", "IN"),
        (set(" union all ", 1001), query, "several statements"),
        (set(" except ", 20_000), query, "several statements"),
        (format!("select 0 union {}", set(" intersect ", 20_000)), query, "several statements"),
        (format!("select 1 a {}", "|> as x ".repeat(20_000)), query, "several statements"),
        (format!("select 1 from t{}", ", t".repeat(1000)), "t (line 1, column 3012) is a part too many", "conun put"),
        (format!("select 1 from (t{}) x", " cross join t".repeat(1000)), "t (line 1, column ", "conun put"),
        (
            format!("select {} from t", many(1001, |i| format!("sum(k) over (order by k + {i})"), ", ")),
            "sum (line 1, ",
            "",
        ),
        (doubled(40), "q7 (line 1, column ", "conun sql -o"),
        (format!("with a as ({0}) select * from a, a", set(" union ", 600)), "a (line 1, column ", ""),
        (squared(300), "the plan of a stage nests too deeply", "conun sql -o"),
        (cube(13), "CUBE (line 1, column 1) has more than 12 columns", "GROUPING SETS"),
        (format!("select '{}'", "x".repeat(1 << 20)), "a statement of 1048585 bytes, the limit is 1048576", "IN"),
        (format!("select null::{}", "map(".repeat(200_000)), "'(' (line 1, column 417) stands within", ""),
        (format!("select null::{}", "array<".repeat(100_000)), "'<' (line 1, ", ""),
        (format!("select null::int{}", "[]".repeat(400_000)), "'[' (line 1, ", ""),
        ("explain ".repeat(100_000), "EXPLAIN (line 1, column 9) explains no other", ""),
        (format!("select 1 from t {}", "pivot (x) ".repeat(9)), "PIVOT (line 1, column 23) is not planned", ""),
    ] {
        let error = plan(&session(), &sql).await.unwrap_err();
        let shown = &sql[..sql.len().min(60)];
        assert!(error.message.starts_with(begin), "{shown}: {error}");
        assert!(error.hint.unwrap_or_default().contains(hint), "{shown}");
        assert_eq!(error.kind, ErrorKind::Data, "{shown}");
    }
}

/// On half of the stack that the threads of the command have.
#[test]
fn what_is_as_large_as_may_be_is_planned() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let planned = move || runtime.block_on(large_ones_are_planned());
    std::thread::Builder::new().stack_size(8 << 20).spawn(planned).unwrap().join().unwrap();
}

async fn large_ones_are_planned() {
    for sql in [
        conditions(999),
        summands(999, "+v"),
        summands(18, "+v-1"),
        set(" union all ", 1000),
        set(" except ", 1000),
        format!("select 0 union {}", set(" intersect ", 999)),
        chain(480),
        doubled(7),
        squared(30),
        cube(12),
        format!("select 1 a {}", "|> as x ".repeat(999)),
        format!("select k in ({}) from t", many(20_000, |i| i.to_string(), ", ")),
        format!("select case {} end from t", many(2000, |i| format!("when k = {i} then {i}"), " ")),
        format!("select {}", ["(select max(k) from t)"; 30].join(" + ")),
    ] {
        let planned = plan(&session(), &sql).await.map(drop);
        assert!(planned.is_ok(), "{}: {planned:?}", &sql[..sql.len().min(60)]);
    }
}
