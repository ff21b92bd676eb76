//! Golden answers, and what a result that differs from one is told.

use std::fmt;

use crate::{csv, number};

/// How an answer writes the numbers that have a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Binary floats, rounded to nine significant digits.
    NineDigits,
    /// Decimals. Sums are exact; an average carries more digits than a decimal type keeps, so that the longer is
    /// rounded to the shorter (one unit in the last place is forgiven).
    Decimal,
}

impl Numbers {
    /// Whether `actual` is right where `expected` is wanted. NULL is the empty text.
    fn same(self, expected: &str, actual: &str) -> bool {
        expected == actual
            || number::same_value(expected, actual)
            || match self {
                Numbers::NineDigits => number::same_to_nine_digits(expected, actual),
                Numbers::Decimal => number::same_to_scale(expected, actual),
            }
    }

    fn same_row(self, expected: &[String], actual: &[String]) -> bool {
        expected.len() == actual.len() && expected.iter().zip(actual).all(|(e, a)| self.same(e, a))
    }
}

/// An answer: names of columns and rows of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Column names, from the header.
    pub columns: Vec<String>,
    /// Rows; NULL is the empty text.
    pub rows: Vec<Vec<String>>,
    /// How numbers are written.
    pub numbers: Numbers,
}

/// How a result differs from the answer. Rows count from 1, the header apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The text is no CSV.
    Malformed(csv::Malformed),
    /// Another number of columns.
    Columns {
        /// In the answer.
        expected: usize,
        /// In the result.
        actual: usize,
    },
    /// Another number of rows.
    Rows {
        /// In the answer.
        expected: usize,
        /// In the result.
        actual: usize,
    },
    /// A cell differs.
    Cell {
        /// Row, from 1.
        row: usize,
        /// The column's name in the answer.
        column: String,
        /// In the answer.
        expected: String,
        /// In the result.
        actual: String,
    },
    /// The result lacks a row of the answer (only where rows have no order).
    Missing {
        /// Row of the answer, from 1.
        row: usize,
        /// Its cells.
        cells: Vec<String>,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Malformed(error) => write!(f, "not CSV: {error}"),
            Mismatch::Columns { expected, actual } => write!(f, "{actual} columns, expected {expected}"),
            Mismatch::Rows { expected, actual } => write!(f, "{actual} rows, expected {expected}"),
            Mismatch::Cell { row, column, expected, actual } => {
                write!(f, "row {row}, column {column}: '{actual}', expected '{expected}'")
            }
            Mismatch::Missing { row, cells } => write!(f, "row {row} of the answer is missing: {}", cells.join(", ")),
        }
    }
}

impl std::error::Error for Mismatch {}

impl Answer {
    /// Parses CSV with a header line.
    ///
    /// # Errors
    /// [`Mismatch::Malformed`] where `text` is no CSV or has no header.
    pub fn parse(text: &str, numbers: Numbers) -> Result<Self, Mismatch> {
        let mut records = csv::parse(text).map_err(Mismatch::Malformed)?.into_iter();
        let missing = csv::Malformed { record: 1, reason: "no header" };
        let columns = records.next().ok_or(Mismatch::Malformed(missing))?;
        Ok(Self { columns, rows: records.collect(), numbers })
    }

    /// Compares result rows with the answer, in order or as a multiset.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, rows: &[Vec<String>], ordered: bool) -> Result<(), Mismatch> {
        if let Some(row) = rows.iter().find(|row| row.len() != self.columns.len()) {
            return Err(Mismatch::Columns { expected: self.columns.len(), actual: row.len() });
        }
        let outcome = if ordered { self.compare_sequence(rows) } else { self.compare_multiset(rows) };
        if rows.len() == self.rows.len() {
            outcome
        } else {
            Err(Mismatch::Rows { expected: self.rows.len(), actual: rows.len() })
        }
    }

    fn compare_sequence(&self, rows: &[Vec<String>]) -> Result<(), Mismatch> {
        for (index, (expected, actual)) in self.rows.iter().zip(rows).enumerate() {
            self.compare_row(index, expected, actual)?;
        }
        Ok(())
    }

    fn compare_row(&self, index: usize, expected: &[String], actual: &[String]) -> Result<(), Mismatch> {
        let cells = self.columns.iter().zip(expected.iter().zip(actual));
        match cells.into_iter().find(|(_, (expected, actual))| !self.numbers.same(expected, actual)) {
            None => Ok(()),
            Some((column, (expected, actual))) => Err(Mismatch::Cell {
                row: index + 1,
                column: column.clone(),
                expected: expected.clone(),
                actual: actual.clone(),
            }),
        }
    }

    /// Takes for each row of the answer one equal row of the result. Rounding is no equivalence, so rows cannot simply
    /// be sorted; answers without an order are short enough for a quadratic search.
    fn compare_multiset(&self, rows: &[Vec<String>]) -> Result<(), Mismatch> {
        let mut left: Vec<&[String]> = rows.iter().map(Vec::as_slice).collect();
        for (index, expected) in self.rows.iter().enumerate() {
            match left.iter().position(|actual| self.numbers.same_row(expected, actual)) {
                Some(found) => _ = left.remove(found),
                None if self.rows.len() == 1 && rows.len() == 1 => return self.compare_row(0, expected, &rows[0]),
                None => return Err(Mismatch::Missing { row: index + 1, cells: expected.clone() }),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Vec<String>> {
        text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
    }

    fn judge(result: &str, ordered: bool) -> Result<(), String> {
        let answer = Answer::parse("k,v\na,1.5\nb,\na,2\n", Numbers::NineDigits).map_err(|e| e.to_string())?;
        answer.compare(&rows(result), ordered).map_err(|e| e.to_string())
    }

    #[test]
    fn order_matters_only_where_asked() {
        assert_eq!(judge("a,1.5\nb,\na,2.0", true), Ok(()));
        assert_eq!(judge("a,2\nb,\na,1.5", false), Ok(()));
        assert_eq!(judge("a,2\nb,\na,1.5", true), Err("row 1, column v: '2', expected '1.5'".to_owned()));
    }

    #[test]
    fn differences_are_named() {
        for (result, ordered, told) in [
            ("a,1.5\nb,0\na,2", true, "row 2, column v: '0', expected ''"),
            ("a,1.5\nb,", true, "2 rows, expected 3"),
            ("a,1.5\nb,\na,2\na,2", false, "4 rows, expected 3"),
            ("a,1.5\na,1.5\na,2", false, "row 2 of the answer is missing: b, "),
            ("a,1.5,x\nb,\na,2", true, "3 columns, expected 2"),
        ] {
            assert_eq!(judge(result, ordered), Err(told.to_owned()), "{result}");
        }
        let one = Answer::parse("n\n5\n", Numbers::Decimal).map(|answer| answer.compare(&rows("6"), false));
        assert!(matches!(one, Ok(Err(Mismatch::Cell { row: 1, .. }))), "{one:?}");
    }

    #[test]
    fn decimals_and_floats_are_judged_by_their_own_rule() {
        assert!(Numbers::Decimal.same("0.05008133906", "0.050081"));
        assert!(!Numbers::NineDigits.same("0.05008133906", "0.050081"));
        assert!(Numbers::NineDigits.same("5256751331.44", "5256751331.4400001"));
        assert!(!Numbers::Decimal.same("526165934.000839", "526165934.000838"));
        assert!(!Numbers::NineDigits.same("", "0"), "NULL is not zero");
    }

    #[test]
    fn a_broken_answer_is_told() {
        assert!(matches!(Answer::parse("", Numbers::Decimal), Err(Mismatch::Malformed(_))));
        assert!(matches!(Answer::parse("a|b\n1\n", Numbers::Decimal), Err(Mismatch::Malformed(_))));
    }
}
