//! Small results on stdout: JSON for scripts, plain columns for people.

use std::io::Write;

use conun_types::{Error, Result};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

/// Prints a line; a reader that went away ends the command quietly.
pub(crate) fn line(text: &str) -> Result<()> {
    match write_line(text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(Error::from),
    }
}

/// Prints what a command found, and gives its `outcome` back: it is the exit code also where nobody reads on
/// (`conun job verify JOB | head -1`).
pub(crate) fn found(text: &str, outcome: Result<()>) -> Result<()> {
    match write_line(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => outcome.and(Err(error.into())),
        _ => outcome,
    }
}

fn write_line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Tells `text` on stderr. Where nobody listens any more (`2>&1 | head`), there is nobody left to tell that either.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints `value` as JSON over several lines.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(&json_text(value)?)
}

/// `value` as JSON over several lines.
pub(crate) fn json_text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|e| Error::internal(e.to_string()))
}

/// Prints `value` as JSON on one line.
pub(crate) fn json_line(value: &impl Serialize) -> Result<()> {
    line(&json_text_line(value)?)
}

/// `value` as JSON on one line.
pub(crate) fn json_text_line(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal(e.to_string()))
}

/// Lays out `rows` in columns two spaces apart; columns whose header starts with `>` stand to the right.
pub(crate) fn columns(headers: &[&str], rows: &[Vec<String>]) -> String {
    let names: Vec<&str> = headers.iter().map(|h| h.trim_start_matches('>')).collect();
    let cell_width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(|c| c.width()).max().unwrap_or(0);
    let widths: Vec<usize> = names.iter().enumerate().map(|(i, name)| name.width().max(cell_width(i))).collect();
    let mut out = String::new();
    let header: Vec<String> = names.iter().map(|n| n.to_string()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut text = String::new();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let space = " ".repeat(width.saturating_sub(cell.width()));
            let gap = if i == 0 { "" } else { "  " };
            match headers[i].starts_with('>') {
                true => text.extend([gap, &space, cell]),
                false => text.extend([gap, cell, &space]),
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// Prints [`columns`].
pub(crate) fn table(headers: &[&str], rows: &[Vec<String>]) -> Result<()> {
    line(columns(headers, rows).trim_end_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "10".to_owned()], vec!["größe".to_owned(), "7".to_owned()]];
        assert_eq!(columns(&["name", ">rows"], &rows), "name   rows\na        10\ngröße     7\n");
    }
}
