//! Result rows on their way out: formats, and the file or stream that takes them.
//!
//! Every format writes batch by batch; none holds the whole answer (a table holds its first rows to learn the widths).
//! Knows Arrow and files; must not know where the rows come from.

mod cells;
mod columnar;
mod delimited;
mod json;
mod table;
mod target;

use std::str::FromStr;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use conun_types::{Error, Result};

pub(crate) use self::target::Target;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Aligned columns in a frame, for people.
    Table,
    /// RFC 4180 with a header line; NULL is an empty field.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// A Markdown table.
    Markdown,
    /// An Apache Parquet file.
    Parquet,
    /// An Apache Arrow IPC stream.
    Arrow,
}

impl Format {
    /// The format that a file's extension asks for, CSV where there is none.
    pub(crate) fn of_path(path: &std::path::Path) -> Result<Self> {
        let Some(extension) = path.extension() else { return Ok(Self::Csv) };
        match extension.to_ascii_lowercase().to_str() {
            Some("csv") => Ok(Self::Csv),
            Some("json") => Ok(Self::Json),
            Some("ndjson" | "jsonl") => Ok(Self::Ndjson),
            Some("md") => Ok(Self::Markdown),
            Some("parquet") => Ok(Self::Parquet),
            Some("arrow" | "arrows") => Ok(Self::Arrow),
            _ => Err(Error::usage(format!("no format is known by the extension of {}", path.display()))
                .with_hint("say which with --format: csv, json, ndjson, markdown, parquet, arrow or table")),
        }
    }

    /// Whether the bytes would garble a terminal.
    pub(crate) fn is_binary(self) -> bool {
        matches!(self, Self::Parquet | Self::Arrow)
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        <Self as clap::ValueEnum>::from_str(text, true).map_err(|_| {
            Error::usage(format!("unknown format '{text}'"))
                .with_hint("formats: table, csv, json, ndjson, markdown, parquet, arrow")
        })
    }
}

/// Takes the rows of one result.
pub(crate) trait RowWriter: Send {
    /// Writes one batch.
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Writes what is left and makes the output complete; without it a file does not appear.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A writer of `format` into `target`. `max_rows` limits what a table shows (0: all).
pub(crate) fn writer(
    format: Format,
    schema: &SchemaRef,
    target: Target,
    max_rows: usize,
) -> Result<Box<dyn RowWriter>> {
    Ok(match format {
        Format::Table => Box::new(table::Table::new(schema, target, table::Style::Framed, max_rows)),
        Format::Markdown => Box::new(table::Table::new(schema, target, table::Style::Markdown, 0)),
        Format::Csv => Box::new(delimited::Csv::new(schema, target)?),
        Format::Json => Box::new(json::Json::array(target)),
        Format::Ndjson => Box::new(json::Json::lines(target)),
        Format::Parquet => Box::new(columnar::Parquet::new(schema, target)?),
        Format::Arrow => Box::new(columnar::Arrow::new(schema, target)?),
    })
}

/// An Arrow failure while values are turned into text.
pub(crate) fn unprintable(error: &arrow::error::ArrowError) -> Error {
    Error::data(format!("a value cannot be written: {error}"))
}

/// The rows of `batch` as texts, NULL as the empty text.
pub(crate) fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let cells = cells::Cells::new(batch)?;
    let cell = |row, column| {
        let mut text = String::new();
        cells.append(row, column, &mut text).map(|_| text)
    };
    (0..batch.num_rows()).map(|row| (0..batch.num_columns()).map(|column| cell(row, column)).collect()).collect()
}

#[cfg(test)]
mod tests;
