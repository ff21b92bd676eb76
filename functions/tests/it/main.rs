//! Behaviour through public doors: exactness against rational numbers, and SQL over shuffled, split and cut rows.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod exact;
mod functions;
mod scalars;
mod sql;
mod statistics;
