//! The first value in which two blocks differ, for people to look at.

use conun_types::Result;
use datafusion::arrow::{array::RecordBatch, util::display::array_value_to_string};
use serde::Serialize;

use crate::canonical;

/// Longest text of a value that is shown, in characters.
const MOST_SHOWN: usize = 100;

/// Where one block says something else than another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The batch, of 8,192 rows each.
    pub batch: u32,
    /// The row in the batch.
    pub row: u32,
    /// Name of the column; none where one block has no such row.
    pub column: Option<String>,
    /// The value in the first block.
    pub said: Option<String>,
    /// The value in the second.
    pub is: Option<String>,
}

/// The first difference between the canonical blocks `said` and `is`; none where only their schemas differ.
///
/// # Errors
/// Kind `Data` where one of them is no canonical block.
pub fn first_difference(said: &[u8], is: &[u8]) -> Result<Option<Difference>> {
    let (mut said, mut is) = (canonical::Batches::open(said)?, canonical::Batches::open(is)?);
    for batch in 0.. {
        match (said.next().transpose()?, is.next().transpose()?) {
            (None, None) => break,
            (a, b) => {
                if let Some(difference) = in_batch(batch, a.as_ref(), b.as_ref()) {
                    return Ok(Some(difference));
                }
            }
        }
    }
    Ok(None)
}

fn in_batch(batch: u32, said: Option<&RecordBatch>, is: Option<&RecordBatch>) -> Option<Difference> {
    let rows = |batch: Option<&RecordBatch>| batch.map_or(0, RecordBatch::num_rows);
    let common = rows(said).min(rows(is));
    if let (Some(said), Some(is)) = (said, is) {
        let columns = 0..said.num_columns().min(is.num_columns());
        let differing =
            |row: usize| columns.clone().find(|c| said.column(*c).slice(row, 1) != is.column(*c).slice(row, 1));
        let found = (0..common).find_map(|row| Some((row, differing(row)?)));
        if let Some((row, column)) = found {
            let value = |batch: &RecordBatch| shown(batch, column, row);
            let name = said.schema_ref().field(column).name();
            return Some(Difference {
                batch,
                row: row as u32,
                column: Some(readable(name)),
                said: value(said),
                is: value(is),
            });
        }
    }
    let row = common as u32;
    (rows(said) != rows(is)).then_some(Difference { batch, row, column: None, said: None, is: None })
}

fn shown(batch: &RecordBatch, column: usize, row: usize) -> Option<String> {
    let column = batch.column(column);
    if column.is_null(row) {
        return Some("NULL".to_owned());
    }
    array_value_to_string(column, row).ok().map(|text| readable(&text))
}

/// A stranger's text on one line.
fn readable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MOST_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn block(values: &[i64], names: &[Option<&str>]) -> Vec<u8> {
        let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        let names: ArrayRef = Arc::new(StringArray::from(names.to_vec()));
        let batch = RecordBatch::try_from_iter([("v", values), ("name", names)]).unwrap();
        canonical::encode(batch.schema_ref(), std::slice::from_ref(&batch)).unwrap().to_vec()
    }

    #[test]
    fn the_first_value_that_differs_is_named() {
        let many: Vec<i64> = (0..9000).collect();
        let names = vec![Some("a\nb"); 9000];
        let mut bent = names.clone();
        bent[8195] = None;
        let found = first_difference(&block(&many, &bent), &block(&many, &names)).unwrap().unwrap();
        assert_eq!((found.batch, found.row, found.column.as_deref()), (1, 3, Some("name")));
        assert_eq!((found.said.as_deref(), found.is.as_deref()), (Some("NULL"), Some("ab")));
        let found = first_difference(&block(&many[..7], &names[..7]), &block(&many, &names)).unwrap().unwrap();
        assert_eq!((found.batch, found.row, found.column), (0, 7, None));
        assert_eq!(first_difference(&block(&many, &names), &block(&many, &names)).unwrap(), None);
        assert!(first_difference(b"nonsense", &block(&many, &names)).is_err());
    }
}
