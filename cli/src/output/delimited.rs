//! CSV after RFC 4180: a header line, CRLF-free, quoted only where needed, NULL as an empty field.

use std::io::Write;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use conun_types::{Error, Result};

use super::{RowWriter, Target, cells::Cells};

/// Bytes to gather before they are handed on.
const CHUNK: usize = 1 << 16;

/// Writes CSV.
pub(super) struct Csv {
    target: Target,
    text: String,
    cell: String,
}

impl Csv {
    /// Writes the header line at once, so that an empty result still names its columns.
    pub(super) fn new(schema: &SchemaRef, target: Target) -> Result<Self> {
        let mut csv = Self { target, text: String::with_capacity(2 * CHUNK), cell: String::new() };
        for (i, field) in schema.fields().iter().enumerate() {
            if i > 0 {
                csv.text.push(',');
            }
            push_field(&mut csv.text, field.name());
        }
        csv.text.push('\n');
        Ok(csv)
    }

    fn row(&mut self, cells: &Cells<'_>, row: usize, columns: usize) -> Result<()> {
        for column in 0..columns {
            if column > 0 {
                self.text.push(',');
            }
            self.cell.clear();
            let valued = cells.append(row, column, &mut self.cell)?;
            // A line with nothing on it is no record to most readers: a lone NULL is written as an empty quoted field.
            if valued || columns == 1 {
                push_field(&mut self.text, &self.cell);
            }
        }
        self.text.push('\n');
        Ok(())
    }

    fn hand_on(&mut self) -> Result<()> {
        self.target.write_all(self.text.as_bytes()).map_err(Error::from)?;
        self.text.clear();
        Ok(())
    }
}

impl RowWriter for Csv {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let cells = Cells::new(batch)?;
        for row in 0..batch.num_rows() {
            self.row(&cells, row, batch.num_columns())?;
            if self.text.len() > CHUNK {
                self.hand_on()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.hand_on()?;
        self.target.complete()
    }
}

/// Appends a field that is not NULL. The empty text is quoted, so that it differs from NULL.
fn push_field(out: &mut String, field: &str) {
    if !field.is_empty() && !field.contains([',', '"', '\n', '\r']) {
        return out.push_str(field);
    }
    out.push('"');
    for (i, part) in field.split('"').enumerate() {
        if i > 0 {
            out.push_str("\"\"");
        }
        out.push_str(part);
    }
    out.push('"');
}
