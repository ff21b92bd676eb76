//! What one process answers is what a network answers: every kind of operator over tables of one shard and of many. Golden
//! answers are few and simple; here one process of DataFusion is the judge of odd ones (joins that remember a side, NOT IN,
//! sets, windows, grouping sets).

use crate::common::{Devnet, assert_fails, flights, run, stdout};
use conun_sql_examples::TABLES;

const STATEMENTS: &str = include_str!("oracle.sql");
const PAIRS: &str = include_str!("oracle_pairs.sql");
const SUBQUERIES: &str = include_str!("oracle_subqueries.sql");

/// Rows with floats to nine digits (sums of floats depend on the order of their rows, and the two read other orders),
/// sorted where the statement does not sort them.
fn comparable(csv: &str, sql: &str) -> Vec<String> {
    let cell = |cell: &str| match cell.parse::<f64>() {
        Ok(number) if cell.contains('.') => format!("{number:.9e}"),
        _ => cell.to_owned(),
    };
    let mut rows: Vec<String> =
        csv.lines().map(|line| line.split(',').map(cell).collect::<Vec<_>>().join(",")).collect();
    if !sql.contains("order by") {
        rows.sort();
    }
    rows
}

fn lines(statements: &'static str) -> impl Iterator<Item = &'static str> {
    statements.lines().filter(|line| !line.starts_with("--"))
}

/// Statements, each with the one that says the same.
fn pairs(statements: &'static str) -> Vec<(&'static str, &'static str)> {
    let lines: Vec<_> = lines(statements).collect();
    assert!(lines.len() % 2 == 0, "a statement stands alone");
    lines.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// The flights as tables of one process.
fn files() -> String {
    let file = |(name, _): &(&str, &[u8])| {
        format!("create external table {name} stored as parquet location '{}';", flights(name).display())
    };
    TABLES.iter().map(file).collect()
}

/// What one process answers.
fn local(sql: &str) -> String {
    stdout(&run(&["sql", "--local", "--format", "csv", "-c", &files(), "-c", sql]))
}

#[test]
fn a_network_answers_as_one_process_does() {
    let net = Devnet::up(&["--nodes", "3"]);
    net.put_flights(&[]);
    for sql in lines(STATEMENTS) {
        assert_eq!(comparable(&net.csv(sql), sql), comparable(&local(sql), sql), "{sql}");
    }
    for (sql, same) in pairs(PAIRS) {
        let right = comparable(&net.csv(same), same);
        assert!(right.len() > 1, "{sql}");
        assert_eq!(comparable(&net.csv(sql), sql), right, "{sql}");
        assert_eq!(comparable(&local(sql), sql), right, "in one process: {sql}");
    }
    // DataFusion as it comes takes the month for constant here, or rows for sorted, and leaves that out of the order.
    for from in [
        "(select month m, carrier c from flights where month = 3 group by rollup(carrier, month))",
        "(select f.month m, a.carrier c from airlines a left join (select * from flights where month = 3 and carrier > 'M') f \
            on a.carrier = f.carrier)",
        "(select b.x m, a.carrier c from airlines a left join (select carrier, 3 x from airlines where carrier > 'M') b \
            on a.carrier = b.carrier)",
        "(select m, c from (select 3 m, carrier c from airlines) s group by grouping sets ((m, c), (c), ()))",
        "(select b.m, a.carrier c from airlines a left join (select max(month) m from flights) b on a.carrier > 'M')",
        "(select b.m, a.carrier c from (select carrier, name from airlines order by carrier limit 20) a right join \
            (select nullif(month, 12) m from flights order by m limit 336776) b on length(a.name) = b.m + 10)",
    ] {
        let sorted = net.csv(&format!("select distinct m, c from {from} x order by m, c"));
        let keys = sorted.lines().skip(1).map(|row| {
            let (month, carrier) = row.split_once(',').unwrap();
            let missing = |key: &str| key.is_empty();
            (missing(month), month.parse().unwrap_or(0), missing(carrier), carrier)
        });
        let keys: Vec<(bool, i64, bool, &str)> = keys.collect();
        let increasing = keys.is_sorted_by(|a, b| a < b);
        assert!(keys.len() >= 15 && increasing && keys.iter().any(|(missing, ..)| *missing), "{from}: {sorted}");
    }
}

#[test]
fn subqueries_are_joined_rightly() {
    let net = Devnet::up(&["--nodes", "3"]);
    net.put_flights(&[]);
    for (sql, same) in pairs(SUBQUERIES) {
        let right = comparable(&local(same), same);
        assert_eq!(comparable(&local(sql), sql), right, "in one process: {sql}");
        assert_eq!(comparable(&net.csv(sql), sql), right, "{sql}");
    }
    for sql in [
        "select name from airlines where carrier = (select carrier from flights)",
        "select (select faa from airports where lat > 20), count(*) from flights",
        "select carrier, (select 1 union all select 2) from airlines",
        "select (select a.x from (select max(month) x from flights) a full join (select -1 y) b on a.x = b.y) from airlines",
        "select (select x from (select max(month) x from flights) s group by grouping sets ((x), ())) from airlines",
    ] {
        assert_fails(&run(&["sql", "--local", "-c", &files(), "-c", sql]), 3, &["more than one row"]);
        assert_fails(&net.conun(&["sql", "-c", sql]), 3, &["more than one row"]);
    }
}

/// Planning walks statements by recursion; the coordinator must outlive those that nest deeply.
#[test]
fn deep_statements_end_no_coordinator() {
    let net = Devnet::up(&["--nodes", "3"]);
    net.put_flights(&[]);
    let mixed = |terms: usize| format!("select sum(month{}) from flights", " + day - 1".repeat(terms));
    let conditions = |n: i32| (0..n).map(|i| format!("flight <> -{i}")).collect::<Vec<_>>().join(" and ");
    let joins = |n: i32| (0..n).map(|i| format!(" cross join (select {i} as y{i}) t{i}")).collect::<String>();
    let counted = |rest: String| format!("select count(*) from flights {rest}");
    let first = |rest: String| format!("select count(*) from (select name from airlines limit 1) a {rest}");
    for (sql, told) in [
        (mixed(400), "nests too deeply to be sent"),
        (mixed(5000), "nests more than 1000 levels deep"),
        (counted(format!("where {}", conditions(5000))), "nests more than 1000 levels deep"),
        (first(joins(60)), "the plan of a stage nests too deeply"),
        (first(joins(1001)), "is a part too many"),
    ] {
        assert_fails(&net.conun(&["sql", "-c", &sql]), 3, &[told]);
    }
    assert_eq!(net.csv(&counted(format!("where {}", conditions(900)))).lines().last(), Some("336776"));
    assert_eq!(net.csv(&mixed(15)), local(&mixed(15)));
}
