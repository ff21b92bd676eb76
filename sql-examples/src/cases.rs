//! The cases: which queries run over which tables, and what they must answer.

use std::path::{Path, PathBuf};

use crate::answer::{Answer, Mismatch, Numbers};
use crate::order::is_ordered;

/// A query with its golden answer.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Name of its file, without the suffix.
    pub name: &'static str,
    /// The query, as in the file (comments and a closing semicolon included).
    pub sql: &'static str,
    /// The golden answer, a CSV text.
    pub answer: &'static str,
    /// How the answer writes numbers.
    pub numbers: Numbers,
}

impl Case {
    /// The parsed golden answer.
    ///
    /// # Errors
    /// [`Mismatch::Malformed`] where the golden file is broken.
    pub fn expected(&self) -> Result<Answer, Mismatch> {
        Answer::parse(self.answer, self.numbers)
    }

    /// Checks result rows, each cell as text and NULL as the empty text. Rows are compared in order where the query
    /// has an ORDER BY at its top level, else as a multiset.
    ///
    /// # Errors
    /// What differs first, with row and column.
    pub fn check(&self, rows: &[Vec<String>]) -> Result<(), Mismatch> {
        self.expected()?.compare(rows, is_ordered(self.sql))
    }

    /// Checks a result in CSV with a header line (what `conun sql --format csv` prints). Column names are not
    /// compared: engines name unnamed expressions each in its own way.
    ///
    /// # Errors
    /// As [`Case::check`], and [`Mismatch::Malformed`] where `text` is no CSV.
    pub fn check_csv(&self, text: &str) -> Result<(), Mismatch> {
        let result = Answer::parse(text, self.numbers)?;
        self.check(&result.rows)
    }
}

macro_rules! cases {
    ($numbers:expr, $queries:literal, $answers:literal, [$($name:literal),+ $(,)?]) => {
        &[$(Case {
            name: $name,
            sql: include_str!(concat!("../", $queries, "/", $name, ".sql")),
            answer: include_str!(concat!("../", $answers, "/", $name, ".csv")),
            numbers: $numbers,
        }),+]
    };
}

/// Queries over the five tables of flights from New York in 2013.
pub const NYCFLIGHTS13: &[Case] = cases!(
    Numbers::NineDigits,
    "nycflights13/queries",
    "nycflights13/queries",
    [
        "01_count",
        "02_carrier_delay",
        "03_top_routes",
        "04_monthly_cancelled",
        "05_weather_float",
        "06_plane_age",
        "07_window_rank",
        "08_weather_join",
        "09_distinct",
        "10_anti_join",
        "11_cte_union",
        "12_running_total",
    ]
);

/// MapReduce-shaped jobs over the table `lines`: word count, inverted index, words that every document has.
pub const TEXT: &[Case] = cases!(
    Numbers::NineDigits,
    "text/queries",
    "text/queries",
    ["01_word_count", "02_inverted_index", "03_words_in_every_document"]
);

macro_rules! tables {
    ($($name:literal),+) => {
        &[$(($name, include_bytes!(concat!("../nycflights13/data/", $name, ".parquet")))),+]
    };
}

/// The five tables of [`NYCFLIGHTS13`] by name, as Parquet files (5.8 MB in all).
pub const TABLES: &[(&str, &[u8])] = tables!("airlines", "airports", "flights", "planes", "weather");

/// The table of [`TEXT`] as a CSV file.
pub const TEXT_TABLE: (&str, &[u8]) = ("lines", include_bytes!("../text/lines.csv"));

/// Folder of the Parquet files of [`NYCFLIGHTS13`], in the source tree: for tests and benches.
#[must_use]
pub fn nycflights13_dir() -> PathBuf {
    folder().join("nycflights13/data")
}

/// The CSV file of [`TEXT`], in the source tree: for tests and benches.
#[must_use]
pub fn text_file() -> PathBuf {
    folder().join("text/lines.csv")
}

/// This crate's folder: as cargo tells it now of whoever it runs (every crate lies beside this one), since clones that
/// share a build folder share this code too.
fn folder() -> PathBuf {
    let running = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let beside = running.as_deref().and_then(Path::parent).map(|root| root.join("sql-examples"));
    beside.filter(|folder| folder.is_dir()).unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")))
}

/// A scale factor of TPC-H for which golden answers are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TpchScale {
    /// 0.01: 60,175 line items.
    Hundredth,
    /// 0.1: 600,572 line items.
    Tenth,
    /// 1: 6,001,215 line items.
    One,
}

impl TpchScale {
    /// The scale for a factor, if its answers are here.
    #[must_use]
    pub fn of(factor: f64) -> Option<Self> {
        let near = |scale: f64| (factor - scale).abs() < 1e-9;
        [(0.01, Self::Hundredth), (0.1, Self::Tenth), (1.0, Self::One)]
            .into_iter()
            .find_map(|(scale, this)| near(scale).then_some(this))
    }
}

macro_rules! tpch_cases {
    ($answers:literal) => {
        cases!(
            Numbers::Decimal,
            "tpch/queries",
            $answers,
            [
                "q01", "q02", "q03", "q04", "q05", "q06", "q07", "q08", "q09", "q10", "q11", "q12", "q13", "q14",
                "q15", "q16", "q17", "q18", "q19", "q20", "q21", "q22",
            ]
        )
    };
}

/// The 22 queries of TPC-H with their answers at `scale`.
#[must_use]
pub fn tpch(scale: TpchScale) -> &'static [Case] {
    match scale {
        TpchScale::Hundredth => tpch_cases!("tpch/answers/sf0.01"),
        TpchScale::Tenth => tpch_cases!("tpch/answers/sf0.1"),
        TpchScale::One => tpch_cases!("tpch/answers/sf1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Case> {
        let scales = [TpchScale::Hundredth, TpchScale::Tenth, TpchScale::One];
        NYCFLIGHTS13.iter().chain(TEXT).chain(scales.into_iter().flat_map(tpch))
    }

    #[test]
    fn every_answer_agrees_with_itself_and_with_nothing_else() -> Result<(), Mismatch> {
        for case in all() {
            let mut rows = case.expected()?.rows;
            assert_eq!(case.check(&rows), Ok(()), "{}", case.name);
            assert_eq!(case.check_csv(case.answer), Ok(()), "{}", case.name);
            rows.pop();
            assert!(case.check(&rows).is_err(), "{}: a row short", case.name);
        }
        Ok(())
    }

    #[test]
    fn each_case_has_its_shape() -> Result<(), Mismatch> {
        let answer = NYCFLIGHTS13[0].expected()?;
        assert_eq!((answer.columns, answer.rows), (vec!["n".to_owned()], vec![vec!["336776".to_owned()]]));
        // NULL alone on a line is a row, not the end of the file.
        assert_eq!(tpch(TpchScale::Hundredth)[16].expected()?.rows, [[""]]);
        assert!(is_ordered(TEXT[0].sql) && !is_ordered(NYCFLIGHTS13[0].sql));
        Ok(())
    }

    #[test]
    fn scales_and_folders_are_found() {
        assert_eq!(TpchScale::of(0.1), Some(TpchScale::Tenth));
        assert_eq!(TpchScale::of(3.0), None);
        for (name, bytes) in TABLES {
            assert_eq!(&bytes[..4], b"PAR1", "{name}");
            assert!(nycflights13_dir().join(format!("{name}.parquet")).exists());
        }
        assert!(text_file().exists() && TEXT_TABLE.1.starts_with(b"doc,line,text\n"));
    }
}
