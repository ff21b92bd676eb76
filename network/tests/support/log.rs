//! What this process warns of, for tests to look into.

use std::{
    io,
    sync::{Mutex, Once, PoisonError},
};

static WARNINGS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Captured;

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to keep warnings: once for all tests of a process, which may share it.
pub(crate) fn capture() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let level = tracing_subscriber::filter::LevelFilter::WARN;
        tracing_subscriber::fmt().with_ansi(false).with_max_level(level).with_writer(|| Captured).init();
    });
}

/// Whether one warning since [`capture`] has all of `parts`.
pub(crate) fn warned(parts: &[&str]) -> bool {
    let warnings = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&warnings).lines().any(|line| parts.iter().all(|part| line.contains(part)))
}
