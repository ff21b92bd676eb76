//! `conun sql` without a network: answers, formats, scripts, and bad input.

use std::{io::Write, process::Stdio};

use crate::common::{assert_fails, conun, flights, run, stderr, stdout};
use conun_sql_examples::{NYCFLIGHTS13, TABLES, TEXT, text_file};

/// Statements that give the example tables their names.
fn prelude() -> String {
    let table = |name: &str| {
        format!("create external table {name} stored as parquet location '{}';\n", flights(name).display())
    };
    let lines = format!(
        "create external table lines stored as csv location '{}' options ('format.has_header' 'true');\n",
        text_file().display()
    );
    TABLES.iter().map(|(name, _)| table(name)).collect::<String>() + &lines
}

#[test]
fn every_example_is_answered() {
    for case in NYCFLIGHTS13.iter().chain(TEXT) {
        let output = run(&["sql", "--format", "csv", "-c", &prelude(), "-c", case.sql]);
        assert_eq!(case.check_csv(&stdout(&output)), Ok(()), "{}", case.name);
    }
}

#[test]
fn files_are_tables() {
    let sql = format!("select count(*) as n from '{}'", flights("airlines").display());
    assert_eq!(stdout(&run(&["sql", "--format", "csv", "-c", &sql])), "n\n16\n");
    assert_eq!(stdout(&run(&["sql", "--json", "-c", &sql])).trim(), "[{\"n\":16}]");
}

#[test]
fn scripts_come_from_files_and_stdin() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("two.sql");
    std::fs::write(&file, "select 1 as a; -- one;\nselect 'x;y' as b;").unwrap();
    let output = run(&["sql", "--format", "csv", "-f", file.to_str().unwrap()]);
    assert_eq!(stdout(&output), "a\n1\nb\nx;y\n");
    let mut child =
        conun().args(["sql", "--format", "ndjson"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"select 1 as a").unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()), "{\"a\":1}\n");
}

#[test]
fn output_files_appear_complete_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.parquet");
    let out = path.to_str().unwrap();
    stdout(&run(&["sql", "-o", out, "-c", "select 42 as answer"]));
    assert_fails(&run(&["sql", "-o", "nowhere/x.csv", "-c", "select 1"]), 2, &["no folder nowhere"]);
    assert_fails(
        &run(&["sql", "-o", "x.xlsx", "-c", "select 1"]),
        2,
        &["no format is known by the extension of x.xlsx"],
    );
    assert_fails(&run(&["sql", "--local", "--budget", "1", "-c", "select 1"]), 2, &["budgets need a network"]);
    let back = format!("select answer from '{out}'");
    assert_eq!(stdout(&run(&["sql", "--format", "csv", "-c", &back])), "answer\n42\n");
    let failing = dir.path().join("no.csv");
    let output = run(&["sql", "-o", failing.to_str().unwrap(), "-c", "select 1/0"]);
    assert_fails(&output, 3, &["zero"]);
    assert!(!failing.exists());
}

#[test]
fn explain_works() {
    assert!(stdout(&run(&["sql", "-c", "explain select 1"])).contains("plan"));
}

#[test]
fn bad_input_gets_one_clear_line_and_the_right_code() {
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("cut.parquet");
    let whole = std::fs::read(flights("airlines")).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let from_cut = format!("select * from '{}'", cut.display());
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["sql", "-c", "selec 1"], 3, &["selec"]),
        (&["sql", "-c", "select * from nowhere"], 3, &["nowhere"]),
        (&["sql", "-c", "select nothing from (select 1 as one)"], 3, &["nothing"]),
        (&["sql", "-c", "select * from 'missing.parquet'"], 3, &["missing.parquet"]),
        (&["sql", "-c", &from_cut], 3, &["cut.parquet"]),
        (&["sql", "-f", "missing.sql"], 3, &["missing.sql"]),
        (&["sql", "--verify", "quorum", "-c", "select 1"], 2, &["network"]),
        (&["sql", "-c", "explain verify select 1"], 3, &["EXPLAIN VERIFY"]),
        (&["tables"], 2, &["coordinator"]),
        (&["tables", "--connect", "http://127.0.0.1:1"], 4, &["127.0.0.1:1"]),
        (&["tables", "--connect", "gopher://x"], 2, &["gopher"]),
        (&["put", "t", "missing.parquet", "--connect", "http://127.0.0.1:1"], 3, &["missing.parquet"]),
        (&["put", "t", cut.to_str().unwrap(), "--connect", "http://127.0.0.1:1"], 3, &["cut.parquet"]),
        (&["devnet", "status", "--dir", "/nonexistent"], 2, &["/nonexistent"]),
        (&["node", "--dir", "/proc/nope"], 3, &["/proc/nope"]),
    ];
    for (args, code, words) in cases {
        let output = run(args);
        assert_fails(&output, *code, words);
        assert!(output.stdout.is_empty(), "{args:?} printed rows: {}", stderr(&output));
    }
}

#[test]
fn a_devnet_that_cannot_be_leaves_no_folder() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("net");
    let failed = run(&["devnet", "up", "--dir", dir.to_str().unwrap(), "--liar", "99=stall"]);
    assert_fails(&failed, 2, &["no node 99"]);
    assert!(!dir.exists());
}

#[test]
fn a_reader_that_had_enough_is_no_error() {
    let mut child = conun()
        .args(["sql", "--format", "csv", "-c", "select * from range(1000000)"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
}

#[test]
fn an_unknown_column_is_answered_with_the_known_ones() {
    let sql = format!("select nothing_like_it from '{}'", flights("airlines").display());
    let failed = run(&["sql", "-c", &sql]);
    assert_fails(&failed, 3, &["nothing_like_it"]);
    assert!(stderr(&failed).contains("the columns are carrier, name"), "{}", stderr(&failed));
}

#[test]
fn readers_that_leave_early_are_no_accident() {
    for sql in ["select * from generate_series(1, 1000000)", "select nope"] {
        let mut child = conun().args(["sql", "-c", sql]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        let code = child.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 3)), "{sql}: {code:?}");
    }
}
