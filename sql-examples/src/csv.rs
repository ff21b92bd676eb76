//! Reads CSV (RFC 4180) with `,` or `|` between fields, keeping what the usual readers drop: an empty line in a file
//! of one column is a row whose only cell is NULL.

use std::fmt;

/// Why a text is no CSV.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Record, from 1; the header is the first.
    pub record: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}: {}", self.record, self.reason)
    }
}

/// The records of `text`, the header among them. Fields are separated by `|` where the first line has one, else by
/// `,`; they may be quoted, and every record has as many as the first.
///
/// # Errors
/// Where a quote is not closed or a record has another number of fields than the first.
pub fn parse(text: &str) -> Result<Vec<Vec<String>>, Malformed> {
    let separator = if text.lines().next().is_some_and(|line| line.contains('|')) { '|' } else { ',' };
    let mut records: Vec<Vec<String>> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let malformed = |reason| Malformed { record: records.len() + 1, reason };
        let (record, after) = record(rest, separator).map_err(malformed)?;
        if records.first().is_some_and(|header| header.len() != record.len()) {
            return Err(malformed("another number of fields than in the header"));
        }
        records.push(record);
        rest = after;
    }
    Ok(records)
}

/// One record, and what follows its line end.
fn record(text: &str, separator: char) -> Result<(Vec<String>, &str), &'static str> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = field(rest, separator)?;
        fields.push(field);
        match after.strip_prefix(separator) {
            Some(next) => rest = next,
            None => {
                let after = after.strip_prefix('\r').unwrap_or(after);
                return Ok((fields, after.strip_prefix('\n').unwrap_or(after)));
            }
        }
    }
}

/// One field, and what follows it: a separator, a line end or nothing.
fn field(text: &str, separator: char) -> Result<(String, &str), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([separator, '\n', '\r']).unwrap_or(text.len());
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"').ok_or("a quote is not closed")?;
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(next) => {
                value.push('"');
                rest = next;
            }
            None if after.is_empty() || after.starts_with([separator, '\n', '\r']) => return Ok((value, after)),
            None => return Err("text after a closing quote"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_cut_as_rfc_4180_says() {
        let cases: &[(&str, &[&[&str]])] = &[
            ("a,b\n1,2\n", &[&["a", "b"], &["1", "2"]]),
            ("a|b\n1|x, y\n", &[&["a", "b"], &["1", "x, y"]]),
            ("a,b\r\n\"x, \"\"y\"\"\",\r\n", &[&["a", "b"], &["x, \"y\"", ""]]),
            ("a\n\n\"\"\n", &[&["a"], &[""], &[""]]),
            ("a\n\"two\nlines\"", &[&["a"], &["two\nlines"]]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(
                parse(text).as_deref(),
                Ok(&expected.iter().map(|r| r.iter().map(ToString::to_string).collect()).collect::<Vec<Vec<_>>>()[..]),
                "{text:?}"
            );
        }
    }

    #[test]
    fn broken_records_are_named() {
        for (text, record) in [("a,b\n1\n", 2), ("a\n\"x", 2), ("a\n1\n\"x\"y\n", 3)] {
            assert_eq!(parse(text).map_err(|e| e.record), Err(record), "{text:?}");
        }
    }
}
