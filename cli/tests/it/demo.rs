//! `conun demo`: all holds, in the shape that scripts rely on, and nothing is left behind.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use crate::common::{conun, is_empty, json};

#[test]
fn the_demo_holds_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let output = conun().args(["demo", "--json"]).env("TMPDIR", temp.path()).output().unwrap();
    let report = json(&output);
    assert_eq!((&report["ok"], &report["nodes"]), (&true.into(), &6.into()), "{report}");
    assert_eq!(report["killed"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["liars_caught"].as_array().map(Vec::len), Some(1));
    let queries = report["queries"].as_array().unwrap();
    assert!(queries.len() >= 6);
    for query in queries {
        for field in ["name", "sql", "rows", "seconds", "digest", "verified", "stages"] {
            assert!(!query[field].is_null(), "{field}: {query}");
        }
        for field in ["stage", "tasks", "replicas", "rows", "bytes", "units"] {
            assert!(query["stages"][0][field].is_u64(), "{field}: {query}");
        }
    }
    assert_eq!(report["storage"]["tables"], 5);
    assert!(report["receipts"].as_u64() > Some(0));
    assert!(report["seconds"].as_f64() < Some(60.0));
    assert!(is_empty(temp.path()), "the temporary folder is gone");
    assert!(!processes_of(temp.path().to_str().unwrap()), "no process is left");
}

#[test]
fn ctrl_c_takes_everything_down() {
    let temp = tempfile::tempdir().unwrap();
    let mut child = conun().arg("demo").env("TMPDIR", temp.path()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("stored") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "it ended before it stored anything");
    }
    assert!(!is_empty(temp.path()), "it is at work");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4), "{rest}");
    assert!(is_empty(temp.path()), "the temporary folder is gone");
    assert!(!processes_of(temp.path().to_str().unwrap()), "no process is left");
}

/// Whether any process has `text` in its command line.
fn processes_of(text: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|e| std::fs::read(e.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(text))
}
