//! Which file of a statement is to blame: engines report "table not found" for a missing file, and parsers do not say
//! which file they were reading.

use std::{fs::File, path::Path};

use conun_types::Error;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// The first file named in `sql` that is missing, unreadable or broken.
pub(super) fn first_problem(sql: &str) -> Option<Error> {
    quoted(sql).into_iter().filter(|text| looks_like_file(text)).find_map(problem)
}

/// Texts between quotes, single or double.
fn quoted(sql: &str) -> Vec<&str> {
    let mut texts = Vec::new();
    let mut rest = sql;
    while let Some(start) = rest.find(['\'', '"']) {
        let quote = &rest[start..=start];
        let inner = &rest[start + 1..];
        let Some(end) = inner.find(quote) else { break };
        texts.push(&inner[..end]);
        rest = &inner[end + 1..];
    }
    texts
}

fn looks_like_file(text: &str) -> bool {
    let known = ["parquet", "csv", "json", "ndjson", "arrow", "avro"];
    let extension = Path::new(text).extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|e| known.contains(&e.as_str())) && !text.contains(['*', '?', '[']) && !is_remote(text)
}

fn is_remote(text: &str) -> bool {
    text.contains("://") && !text.starts_with("file://")
}

fn problem(name: &str) -> Option<Error> {
    let path = Path::new(name.strip_prefix("file://").unwrap_or(name));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Some(
                Error::data(format!("there is no file '{name}'")).with_hint("check the path and its spelling"),
            );
        }
        Err(error) => return Some(Error::data(format!("cannot read '{name}': {error}"))),
    };
    if path.is_dir() || path.extension().is_none_or(|e| !e.eq_ignore_ascii_case("parquet")) {
        return None;
    }
    let error = ParquetRecordBatchReaderBuilder::try_new(file).err()?;
    let reason = error.to_string();
    let reason = reason.strip_prefix("Parquet error: ").unwrap_or(&reason);
    Some(
        Error::data(format!("'{name}' is not a readable Parquet file: {reason}"))
            .with_hint("it may be truncated, or of another format"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.parquet");
        std::fs::write(&path, b"PAR1 and then nothing").unwrap();
        let sql = format!("select 'x' from '{}'", path.display());
        assert!(first_problem(&sql).is_some_and(|e| e.message.contains("cut.parquet")));
        let missing = first_problem("select * from \"no/such.csv\"").unwrap();
        assert!(missing.message.contains("no/such.csv") && missing.hint.is_some());
    }

    #[test]
    fn other_texts_are_left_alone() {
        for sql in ["select 'hello'", "select * from 's3://b/x.parquet'", "select * from '*.csv'", "select 'it''s"] {
            assert!(first_problem(sql).is_none(), "{sql}");
        }
    }
}
