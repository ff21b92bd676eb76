//! Example tables, queries and golden answers, and the judge that compares a result with an answer.
//!
//! What it knows: the cases, and when a result given as text is right. What it must not know: any query engine. The
//! demo, the end-to-end tests and the benches all judge by the same comparator.

mod answer;
mod cases;
mod csv;
mod number;
mod order;

pub use crate::answer::{Answer, Mismatch, Numbers};
pub use crate::cases::{Case, NYCFLIGHTS13, TABLES, TEXT, TEXT_TABLE, TpchScale, nycflights13_dir, text_file, tpch};
pub use crate::csv::{Malformed, parse as parse_csv};
