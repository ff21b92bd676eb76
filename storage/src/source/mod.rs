//! Files that people put: Parquet and CSV, one or many, as one schema and a stream of batches.

mod csv;
mod parquet;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use conun_types::{Error, Result};
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use crate::schema;

/// Rows of the batches that come out.
const BATCH_ROWS: usize = 8192;
/// Batches read ahead of who takes them.
const READ_AHEAD: usize = 4;

/// Batches of one file.
type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Parquet,
    Csv,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" | "pq" => Some(Format::Parquet),
            "csv" => Some(Format::Csv),
            _ => None,
        }
    }
}

/// One or more files that agree on a schema.
#[derive(Debug, Clone)]
pub struct Input {
    files: Vec<(PathBuf, Format)>,
    schema: SchemaRef,
    bytes: u64,
}

impl Input {
    /// Opens files and folders (their Parquet and CSV files, by name, not those of folders within). The schema is the
    /// stored one ([`schema::stored`]); a column may be missing values where any file says so.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`], naming the file, where one is missing, unreadable, truncated, empty, not
    /// what its name says, or has other columns than the first.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            files.extend(expand(path.as_ref())?);
        }
        let mut schemas = Vec::new();
        let mut bytes = 0;
        for (path, format) in &files {
            bytes += size(path)?;
            schemas.push(file_schema(path, *format)?);
        }
        let schema = agree(&files, &schemas)?;
        Ok(Self { files, schema, bytes })
    }

    /// The table's columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Bytes of all files: what a progress bar counts against, roughly.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All rows, file after file.
    pub fn batches(&self) -> impl Iterator<Item = Result<RecordBatch>> + Send + use<> {
        let schema = self.schema.clone();
        self.files.clone().into_iter().flat_map(move |(path, format)| match open(&path, format, &schema) {
            Ok(batches) => batches,
            Err(error) => Box::new(std::iter::once(Err(error))) as Batches,
        })
    }

    /// All rows, read on a thread of their own, a few batches ahead. Needs a tokio runtime.
    #[must_use]
    pub fn stream(&self) -> BoxStream<'static, Result<RecordBatch>> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let batches = self.batches();
        tokio::task::spawn_blocking(move || {
            for batch in batches {
                let failed = batch.is_err();
                // A closed channel means that nobody wants the rest.
                if sender.blocking_send(batch).is_err() || failed {
                    break;
                }
            }
        });
        let next = |mut receiver: mpsc::Receiver<_>| async move { Some((receiver.recv().await?, receiver)) };
        Box::pin(futures::stream::unfold(receiver, next))
    }
}

/// Prefixes an error with the file's name.
fn of_file(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::data(format!("{}: {error}", path.display()))
}

fn size(path: &Path) -> Result<u64> {
    std::fs::metadata(path).map(|meta| meta.len()).map_err(|e| of_file(path, e))
}

fn expand(path: &Path) -> Result<Vec<(PathBuf, Format)>> {
    let meta = std::fs::metadata(path).map_err(|e| of_file(path, e))?;
    if !meta.is_dir() {
        let format = Format::of(path).ok_or_else(|| {
            of_file(path, "neither a Parquet nor a CSV file by its name").with_hint("name it *.parquet or *.csv")
        })?;
        return Ok(vec![(path.to_owned(), format)]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| of_file(path, e))? {
        let file = entry.map_err(|e| of_file(path, e))?.path();
        if let Some(format) = Format::of(&file).filter(|_| file.is_file()) {
            files.push((file, format));
        }
    }
    if files.is_empty() {
        return Err(of_file(path, "no Parquet or CSV file in this folder"));
    }
    files.sort();
    Ok(files)
}

impl PartialOrd for Format {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Format {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

fn file_schema(path: &Path, format: Format) -> Result<Schema> {
    match format {
        Format::Parquet => parquet::schema(path),
        Format::Csv => csv::schema(path),
    }
}

fn open(path: &Path, format: Format, schema: &SchemaRef) -> Result<Batches> {
    match format {
        Format::Parquet => parquet::open(path, schema),
        Format::Csv => csv::open(path, schema),
    }
}

/// The schema of all files: equal columns in equal order; types of CSV files, which are guesses, may widen.
fn agree(files: &[(PathBuf, Format)], schemas: &[Schema]) -> Result<SchemaRef> {
    let Some((first, rest)) = schemas.split_first() else {
        return Err(Error::usage("no file to read").with_hint("name at least one Parquet or CSV file"));
    };
    let all_csv = files.iter().all(|(_, format)| *format == Format::Csv);
    let mut fields: Vec<_> = stored_of(&files[0].0, first)?.fields().iter().map(|f| f.as_ref().clone()).collect();
    for ((path, _), other) in files[1..].iter().zip(rest) {
        let other = stored_of(path, other)?;
        let differs = |what: String| of_file(path, format!("{what}, unlike {}", files[0].0.display()));
        if other.fields().len() != fields.len() {
            return Err(differs(format!("{} columns", other.fields().len())));
        }
        for (field, theirs) in fields.iter_mut().zip(other.fields()) {
            if field.name() != theirs.name() {
                return Err(differs(format!("column '{}' where '{}' was expected", theirs.name(), field.name())));
            }
            let kind = match all_csv {
                true => csv::wider(field.data_type(), theirs.data_type()),
                false if field.data_type() == theirs.data_type() => field.data_type().clone(),
                false => return Err(differs(format!("column '{}' of type {}", field.name(), theirs.data_type()))),
            };
            *field = field.clone().with_data_type(kind).with_nullable(field.is_nullable() || theirs.is_nullable());
        }
    }
    if all_csv {
        fields = fields.into_iter().map(csv::settled).collect();
    }
    schema::stored(&Schema::new(fields))
}

fn stored_of(path: &Path, schema: &Schema) -> Result<SchemaRef> {
    schema::stored(schema).map_err(|e| e.context(path.display()))
}
