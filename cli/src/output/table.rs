//! Tables for people: a frame of `+---+`, or Markdown. The widths come from the first rows; a later cell that is
//! wider pushes its own line only.

use std::io::Write;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use conun_types::{Error, Result};
use unicode_width::UnicodeWidthStr;

use super::{RowWriter, Target, cells::Cells};

/// Rows that are looked at for the widths before the first line is written.
const SAMPLE: usize = 1000;

/// How the lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `+---+` above, below and under the header.
    Framed,
    /// `|---|` under the header.
    Markdown,
}

/// A column: its name, the width so far, and whether numbers stand to the right.
struct Column {
    name: String,
    width: usize,
    right: bool,
}

/// Writes a table.
pub(super) struct Table {
    target: Target,
    style: Style,
    columns: Vec<Column>,
    /// Rows waiting for the widths; `None` once the header is out.
    sample: Option<Vec<Vec<String>>>,
    max_rows: usize,
    rows: usize,
}

impl Table {
    /// A table that shows at most `max_rows` rows (0: all).
    pub(super) fn new(schema: &SchemaRef, target: Target, style: Style, max_rows: usize) -> Self {
        let column = |field: &std::sync::Arc<arrow::datatypes::Field>| {
            let name = escape(field.name(), style);
            Column { width: name.width().max(3), name, right: stands_right(field.data_type()) }
        };
        let columns = schema.fields().iter().map(column).collect();
        Self { target, style, columns, sample: Some(Vec::new()), max_rows, rows: 0 }
    }

    fn rule(&mut self) -> Result<()> {
        let (edge, cross) = if self.style == Style::Framed { ('+', '+') } else { ('|', '|') };
        let mut line = String::from(edge);
        for (i, column) in self.columns.iter().enumerate() {
            if i > 0 {
                line.push(cross);
            }
            line.extend(std::iter::repeat_n('-', column.width + 1));
            line.push(if self.style == Style::Markdown && column.right { ':' } else { '-' });
        }
        line.push(edge);
        writeln!(self.target, "{line}").map_err(Error::from)
    }

    /// A row: as many lines as its tallest cell has.
    fn line(&mut self, cells: &[String]) -> Result<()> {
        let height = cells.iter().map(|cell| cell.split('\n').count()).max().unwrap_or(1);
        (0..height).try_for_each(|n| self.line_of(cells.iter().map(|cell| cell.split('\n').nth(n).unwrap_or_default())))
    }

    fn line_of<'a>(&mut self, cells: impl Iterator<Item = &'a str>) -> Result<()> {
        let mut line = String::from("|");
        for (cell, column) in cells.zip(&self.columns) {
            let space = column.width.saturating_sub(cell.width());
            let (before, after) = if column.right { (space, 0) } else { (0, space) };
            line.extend(std::iter::repeat_n(' ', before + 1));
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', after + 1));
            line.push('|');
        }
        writeln!(self.target, "{line}").map_err(Error::from)
    }

    /// Fixes the widths, writes the header and the rows that waited.
    fn open(&mut self) -> Result<()> {
        let Some(rows) = self.sample.take() else { return Ok(()) };
        for row in &rows {
            for (column, cell) in self.columns.iter_mut().zip(row) {
                column.width = cell.split('\n').map(UnicodeWidthStr::width).fold(column.width, usize::max);
            }
        }
        if self.style == Style::Framed {
            self.rule()?;
        }
        let names: Vec<String> = self.columns.iter().map(|c| c.name.clone()).collect();
        self.line(&names)?;
        self.rule()?;
        rows.iter().try_for_each(|row| self.line(row))
    }

    fn row(&self, cells: &Cells<'_>, row: usize) -> Result<Vec<String>> {
        let cell = |column| {
            let mut text = String::new();
            let valued = cells.append(row, column, &mut text)?;
            Ok(if valued { escape(&text, self.style) } else { String::new() })
        };
        (0..self.columns.len()).map(cell).collect()
    }

    fn shows(&self) -> bool {
        self.max_rows == 0 || self.rows < self.max_rows
    }
}

impl RowWriter for Table {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let cells = Cells::new(batch)?;
        for row in 0..batch.num_rows() {
            if self.shows() {
                let line = self.row(&cells, row)?;
                match &mut self.sample {
                    Some(sample) => sample.push(line),
                    None => self.line(&line)?,
                }
                if self.sample.as_ref().is_some_and(|s| s.len() >= SAMPLE) {
                    self.open()?;
                }
            }
            self.rows += 1;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.open()?;
        if self.style == Style::Framed {
            self.rule()?;
        }
        if !self.shows() && self.rows > self.max_rows {
            let more = self.rows - self.max_rows;
            writeln!(self.target, "… and {more} more rows (--max-rows 0 shows all)")?;
        }
        self.target.complete()
    }
}

fn stands_right(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

/// Keeps a cell inside its column. Only its own line ends are left; the last says nothing.
fn escape(text: &str, style: Style) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.strip_suffix('\n').unwrap_or(text).chars() {
        match c {
            '\n' if style == Style::Framed => out.push(c),
            '\n' if style == Style::Markdown => out.push_str("<br>"),
            '|' if style == Style::Markdown => out.push_str("\\|"),
            // Control characters from a result must not drive the terminal.
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
