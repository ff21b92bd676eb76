//! What one process answers is what a network answers: every kind of operator over tables of one shard and of many. Golden
//! answers are few and simple; here stock DataFusion is the judge of odd ones (joins that remember a side, NOT IN, sets,
//! windows, grouping sets).

use crate::common::{Devnet, assert_fails, flights, run, stdout};
use conun_sql_examples::TABLES;

const STATEMENTS: &str = include_str!("oracle.sql");

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

#[test]
fn a_network_answers_as_one_process_does() {
    let net = Devnet::up(&["--nodes", "3"]);
    net.put_flights(&[]);
    let file = |(name, _): &(&str, &[u8])| {
        format!("create external table {name} stored as parquet location '{}';", flights(name).display())
    };
    let files: String = TABLES.iter().map(file).collect();
    for sql in STATEMENTS.lines().filter(|line| !line.starts_with("--")) {
        let local = stdout(&run(&["sql", "--local", "--format", "csv", "-c", &files, "-c", sql]));
        assert_eq!(comparable(&net.csv(sql), sql), comparable(&local, sql), "{sql}");
    }
    // Stock DataFusion takes the month for constant here, and sorts by the rest.
    for from in [
        "(select month m, carrier c from flights where month = 3 group by rollup(carrier, month))",
        "(select f.month m, a.carrier c from airlines a left join (select * from flights where month = 3 and carrier > 'M') f \
            on a.carrier = f.carrier)",
    ] {
        let sorted = net.csv(&format!("select distinct m, c from {from} x order by m, c"));
        let keys = sorted.lines().skip(1).map(|row| {
            let (month, carrier) = row.split_once(',').unwrap();
            (month.is_empty(), carrier.is_empty(), carrier)
        });
        let keys: Vec<_> = keys.collect();
        assert!(keys.len() > 15 && keys.is_sorted() && keys.iter().any(|(missing, ..)| *missing), "{from}: {sorted}");
    }
    for sql in [
        "select name from airlines where carrier = (select carrier from flights)",
        "select (select faa from airports where lat > 20), count(*) from flights",
        "select carrier, (select 1 union all select 2) from airlines",
        "select (select a.x from (select max(month) x from flights) a full join (select -1 y) b on a.x = b.y) from airlines",
        "select (select x from (select max(month) x from flights) s group by grouping sets ((x), ())) from airlines",
    ] {
        assert_fails(&run(&["sql", "--local", "-c", &files, "-c", sql]), 3, &["more than one row"]);
        assert_fails(&net.conun(&["sql", "-c", sql]), 3, &["more than one row"]);
    }
}
