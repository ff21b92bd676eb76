//! Whether two engines gave the same answer to one statement.

use std::process::Output;

use conun_sql_examples::parse_csv;

use super::statement::Statement;

/// Exit code of `conun` for statements that it does not run (docs/CLI.md).
const REFUSED: i32 = 3;

/// What came of one statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    /// The network does not run it, and says why.
    Refused(String),
    /// The judge does not run it.
    Foreign,
    /// The answers differ, or the network failed.
    Wrong(String),
}

/// Compares what two commands printed as CSV.
pub(super) fn compare(statement: &Statement, judge: &Output, network: &Output) -> Verdict {
    if !judge.status.success() {
        return Verdict::Foreign;
    }
    if !network.status.success() {
        let why = String::from_utf8_lossy(&network.stderr).trim().to_owned();
        return if network.status.code() == Some(REFUSED) { Verdict::Refused(why) } else { Verdict::Wrong(why) };
    }
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    match difference(&text(judge), &text(network), &statement.keys) {
        Some(difference) => Verdict::Wrong(difference),
        None => Verdict::Same,
    }
}

/// How the rows of `found` differ from those `expected`, if they do: as multisets, and in the sequence of the columns `keys`, which
/// determines what `ORDER BY` says of the sequence.
fn difference(expected: &str, found: &str, keys: &[usize]) -> Option<String> {
    let (Ok(expected), Ok(found)) = (parse_csv(expected), parse_csv(found)) else {
        return Some("no CSV".to_owned());
    };
    // Without the headers.
    let (expected, found) = (expected.get(1..).unwrap_or_default(), found.get(1..).unwrap_or_default());
    if expected.len() != found.len() {
        return Some(format!("{} rows instead of {}", found.len(), expected.len()));
    }
    let sorted = |rows: &[Vec<String>]| {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        rows
    };
    let key = |rows: &[Vec<String>]| -> Vec<Vec<String>> {
        rows.iter().map(|row| keys.iter().filter_map(|at| row.get(*at).cloned()).collect()).collect()
    };
    first_difference("row", &sorted(expected), &sorted(found))
        .or_else(|| first_difference("key", &key(expected), &key(found)))
}

fn first_difference(what: &str, expected: &[Vec<String>], found: &[Vec<String>]) -> Option<String> {
    let at = expected.iter().zip(found).position(|(expected, found)| expected != found)?;
    Some(format!("{what} {at} is {:?} instead of {:?}", found[at], expected[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_as_a_multiset_and_keys_as_a_sequence() {
        let rows = "a,b\n1,x\n1,y\n2,x\n";
        assert_eq!(difference(rows, "a,b\n1,y\n1,x\n2,x\n", &[0]), None);
        for other in ["a,b\n1,x\n1,y\n", "a,b\n1,x\n1,x\n2,x\n", "a,b\n2,x\n1,x\n1,y\n"] {
            assert!(difference(rows, other, &[0]).is_some(), "{other}");
        }
    }
}
