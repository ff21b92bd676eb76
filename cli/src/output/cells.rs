//! Values as text: one formatter for tables, Markdown and CSV.

use arrow::{
    array::{Array, RecordBatch},
    datatypes::DataType,
    util::display::{ArrayFormatter, FormatOptions},
};
use conun_types::Result;

use super::unprintable;

/// The columns of a batch, ready to give any cell as text. Floats come out in the shortest form that reads back equal.
pub(super) struct Cells<'a> {
    columns: Vec<(&'a dyn Array, ArrayFormatter<'a>)>,
}

impl<'a> Cells<'a> {
    pub(super) fn new(batch: &'a RecordBatch) -> Result<Self> {
        let options = FormatOptions::new().with_display_error(false);
        let formatter = |column: &'a std::sync::Arc<dyn Array>| {
            ArrayFormatter::try_new(column.as_ref(), &options).map(|f| (column.as_ref(), f))
        };
        let columns = batch.columns().iter().map(formatter).collect::<Result<_, _>>();
        Ok(Self { columns: columns.map_err(|e| unprintable(&e))? })
    }

    /// Appends the cell's text; tells whether there was a value (false: NULL, nothing appended).
    pub(super) fn append(&self, row: usize, column: usize, out: &mut String) -> Result<bool> {
        let (array, formatter) = &self.columns[column];
        if array.is_null(row) || matches!(array.data_type(), DataType::Null) {
            return Ok(false);
        }
        formatter.value(row).write(out).map_err(|e| unprintable(&e))?;
        Ok(true)
    }
}
