//! What a tiny statement costs once a session is warm: many in one process, less one in one process.

use std::path::Path;

use serde::Serialize;

use super::{contender::Contender, measure};
use crate::Result;

/// A statement that reads one small table.
const TINY: &str = "select count(*) from region;\n";
/// Statements in a session.
const MANY: usize = 51;

/// The cost of one more tiny statement.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Latency {
    pub(super) name: String,
    /// Milliseconds of wall time.
    pub(super) milliseconds: f64,
}

/// Measures `contender` once.
pub(super) fn of(contender: &Contender, scratch: &Path) -> Result<Latency> {
    session(contender, scratch, 1)?;
    let (one, many) = (session(contender, scratch, 1)?, session(contender, scratch, MANY)?);
    let milliseconds = (many - one) * 1000.0 / (MANY - 1) as f64;
    Ok(Latency { name: contender.name().to_owned(), milliseconds })
}

/// Seconds of a session of `statements`.
fn session(contender: &Contender, scratch: &Path, statements: usize) -> Result<f64> {
    let script = scratch.join("tiny.sql");
    std::fs::write(&script, contender.script(&TINY.repeat(statements)))?;
    let (sample, output) = measure::run(&mut contender.command(&script), &contender.watched())?;
    output.map_err(|error| format!("{}: {error}", contender.name()))?;
    Ok(sample.wall)
}
