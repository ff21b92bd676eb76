//! Names of tables.

use std::fmt;

use conun_types::{Error, Result};

/// Most bytes of a name.
const MAX_NAME: usize = 128;

/// A table's name: what SQL takes without quotes, in lower case, so that it is also a file's name everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(String);

impl TableName {
    /// The name that `text` means: letters are lowered as SQL does.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Usage`] where it is no name.
    pub fn parse(text: &str) -> Result<Self> {
        let name = text.to_ascii_lowercase();
        let head = name.bytes().next().is_some_and(|c| c.is_ascii_lowercase() || c == b'_');
        let body = name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
        if head && body && name.len() <= MAX_NAME {
            return Ok(Self(name));
        }
        let shown: String = text.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect();
        Err(Error::usage(format!("'{shown}' cannot be the name of a table")).with_hint(format!(
            "use up to {MAX_NAME} letters, digits and _, not a digit first, for example flights_2013"
        )))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error for a name that no table has, with the ones that it may have meant.
pub(super) fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let known: Vec<&str> = known.collect();
    let close: Vec<&str> = known.iter().copied().filter(|other| is_close(name, other)).take(3).collect();
    let is_path = name.contains(['/', '\\', '.']);
    let hint = match (close.is_empty(), known.is_empty()) {
        _ if is_path => format!(
            "a network has tables, no files: store it with conun put TABLE '{name}', or ask it here with --local"
        ),
        (_, true) => "there are no tables yet: conun put TABLE FILE".to_owned(),
        (false, _) => format!("did you mean {}?", close.join(", ")),
        (true, _) => format!("tables here: {}", known.into_iter().take(10).collect::<Vec<_>>().join(", ")),
    };
    Error::data(format!("no table '{name}'")).with_hint(hint)
}

fn is_close(a: &str, b: &str) -> bool {
    let typo = distance(a, b) <= 1 + a.len().min(b.len()) / 4;
    typo || (a.len() >= 3 && b.contains(a)) || (b.len() >= 3 && a.contains(b))
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sql_identifiers() {
        assert_eq!(TableName::parse("Flights_2013").unwrap().as_str(), "flights_2013");
        assert!(TableName::parse(&"a".repeat(128)).is_ok());
        for wrong in ["", "1a", "a-b", "a b", "../a", "é", "a.b", "a\nb", &"a".repeat(129)] {
            let error = TableName::parse(wrong).expect_err(wrong);
            assert!(error.hint.is_some() && !error.message.contains('\n'));
        }
    }

    #[test]
    fn unknown_names_are_answered_with_close_ones() {
        let hint = |name, known: &[&str]| unknown(name, known.iter().copied()).hint.unwrap();
        assert_eq!(hint("fligths", &["airlines", "flights"]), "did you mean flights?");
        assert_eq!(hint("plane", &["airlines", "planes"]), "did you mean planes?");
        assert_eq!(hint("zebra", &["airlines", "planes"]), "tables here: airlines, planes");
        assert!(hint("x", &[]).contains("no tables yet"));
        for path in ["data/flights.parquet", "flights.csv", r"c:\flights"] {
            assert!(hint(path, &["flights"]).contains("--local"), "{path}");
        }
    }
}
