//! Reads sqllogictest files: as much of their grammar as tells statements and queries apart.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A piece of SQL in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// Prepares tables or settings; rows are of no interest.
    Statement(String),
    /// Asks something and succeeds.
    Query(String),
}

/// The records of `path` that are meant to succeed, those of included files in their place.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Record>> {
    let text = std::fs::read_to_string(path)?;
    let mut records = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("halt"), _) => break,
            (Some("include"), Some(file)) => {
                for included in matching(&path.parent().unwrap_or(Path::new(".")).join(file))? {
                    records.extend(read(&included)?);
                }
            }
            (Some("statement"), outcome) => {
                let sql = until_end(&mut lines);
                if outcome != Some("error") {
                    records.push(Record::Statement(sql));
                }
            }
            (Some("query"), outcome) => {
                let sql = until_end(&mut lines);
                if outcome != Some("error") {
                    records.push(Record::Query(sql));
                }
            }
            _ => {}
        }
    }
    Ok(records)
}

/// The SQL that begins at the next line: to an empty line, or to the results.
fn until_end<'a>(lines: &mut impl Iterator<Item = &'a str>) -> String {
    let sql: Vec<&str> = lines.take_while(|line| !line.trim().is_empty() && !line.starts_with("----")).collect();
    sql.join("\n")
}

/// The files that a path with at most one `*` in its name stands for.
fn matching(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((before, after)) = name.split_once('*') else { return Ok(vec![pattern.to_owned()]) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(pattern.parent().unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(before) && name.ends_with(after) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
