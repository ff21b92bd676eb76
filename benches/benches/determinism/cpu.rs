//! CPU time of this process.

use std::time::Duration;

use conun_benches::tpch::Error;

/// Time that all threads were on a processor, user and system, from Linux's scheduler in nanoseconds.
pub(crate) fn used() -> Result<Duration, Error> {
    // The scheduler brings its count up to date when a thread yields.
    std::thread::yield_now();
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += text.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}
