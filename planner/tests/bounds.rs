//! Statements have bounds: nothing that a client writes ends the process that plans it.

#![allow(clippy::unwrap_used)]

mod common;

use common::session;
use conun_types::{Error, ErrorKind};

async fn plan(sql: &str) -> Result<(), Error> {
    let state = session();
    let logical = conun_planner::logical_plan(&state, sql).await?;
    conun_planner::physical_plan(&state, &logical).await.map(drop)
}

fn many(parts: usize, part: impl Fn(usize) -> String, between: &str) -> String {
    (0..parts).map(part).collect::<Vec<_>>().join(between)
}

/// The statement of so many conditions, one of so many summands with and without one operator, of so many queries in a row and one after the other,
/// of queries that read the one before twice, of so many columns of a CUBE.
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

#[tokio::test]
async fn what_is_too_large_is_refused_by_name() {
    let levels = "an expression (line 1, column 23) nests more than 1000 levels deep";
    for (sql, begin, hint) in [
        (conditions(1001), levels, "IN (1, 2, ..)"),
        (conditions(50_000), levels, "conun put"),
        (format!("explain {}", conditions(1001)), "an expression (line 1, column 31) nests", "conun put"),
        (format!("{} limit", conditions(40_000)), "sql parser error", ""),
        (summands(1001, "+v"), "an expression (line 1, column 8) nests", "conun put"),
        (summands(300_000, "+v"), "an expression (line 1, column 8) nests", "conun put"),
        (summands(30, "+v-1"), "an expression nests too deeply to be sent", "CASE"),
        (format!("copy ({}) to 'x.csv'", conditions(30_000)), "an expression (line 1, column 29) nests", "conun put"),
        (set(" union all ", 1002), "UNION (line 1, column 1) has more than 1000 parts", "one table"),
        (set(" except ", 20_000), "EXCEPT (line 1, column 1) has", "one table"),
        (chain(1001), "WITH (line 1, column 1) has", "one table"),
        (format!("select 1 from t{}", ", t".repeat(1000)), "FROM (line 1, column 1) has", "one table"),
        (doubled(40), "q12 (line 1, column 501) is one table too many", "conun sql -o"),
        (cube(13), "CUBE (line 1, column 1) has more than 12 columns", "GROUPING SETS"),
        (
            format!("select '{}'", "x".repeat(1 << 20)),
            "a statement of 1048585 bytes, the limit is 1048576",
            "conun put",
        ),
    ] {
        let error = plan(&sql).await.unwrap_err();
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
        conditions(950),
        summands(950, "+v"),
        summands(17, "+v-1"),
        set(" union all ", 1000),
        chain(200),
        doubled(7),
        cube(8),
        format!("select k in ({}) from t", many(20_000, |i| i.to_string(), ", ")),
        format!("select case {} end from t", many(2000, |i| format!("when k = {i} then {i}"), " ")),
        format!("select {}", ["(select max(k) from t)"; 100].join(" + ")),
    ] {
        let planned = plan(&sql).await;
        assert!(planned.is_ok(), "{}: {planned:?}", &sql[..sql.len().min(60)]);
    }
}
