//! What Linux tells of processes and of the loopback device. Parsing is apart from reading, so that it can be tested.

use std::collections::{BTreeSet, HashMap};
use std::fs;

/// Clock ticks a second in `/proc` (`USER_HZ`, 100 on every Linux that we run on).
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a page of memory in `/proc/PID/stat`.
const PAGE: u64 = 4096;

/// A process at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Process {
    parent: u32,
    /// Seconds of CPU: its own, and those of children that it has waited for.
    cpu: f64,
    /// Bytes of memory.
    resident: u64,
}

/// CPU and memory of some processes and all that descend from them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Usage {
    pub(super) cpu: f64,
    pub(super) resident: u64,
}

/// Parses `/proc/PID/stat` (proc_pid_stat(5)). The name in parentheses may hold anything.
fn parse_stat(text: &str) -> Option<Process> {
    let (_, after) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // utime, stime, cutime, cstime are fields 14 to 17 of the file; `fields` begins with field 3.
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    Some(Process {
        parent: number(1)?.try_into().ok()?,
        cpu: ticks as f64 / TICKS_PER_SECOND,
        resident: number(21)? * PAGE,
    })
}

/// Every process that can be read.
fn all() -> HashMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// `roots` and all that descend from them.
fn trees(processes: &HashMap<u32, Process>, roots: &[u32]) -> BTreeSet<u32> {
    let mut found: BTreeSet<u32> = roots.iter().copied().filter(|pid| processes.contains_key(pid)).collect();
    loop {
        let more: Vec<u32> = processes
            .iter()
            .filter(|(pid, process)| found.contains(&process.parent) && !found.contains(*pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

fn sum(processes: &HashMap<u32, Process>, roots: &[u32]) -> Usage {
    trees(processes, roots).iter().filter_map(|pid| processes.get(pid)).fold(Usage::default(), |usage, process| Usage {
        cpu: usage.cpu + process.cpu,
        resident: usage.resident + process.resident,
    })
}

/// `root` and all that descend from it, now.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    trees(&all(), &[root]).into_iter().collect()
}

/// What `roots` and their descendants use now.
pub(super) fn usage(roots: &[u32]) -> Usage {
    if roots.is_empty() { Usage::default() } else { sum(&all(), roots) }
}

/// Seconds of CPU of all children that this process has waited for.
pub(super) fn waited_children_cpu() -> f64 {
    let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields =
        own.rsplit_once(") ").map(|(_, after)| after.split_whitespace().collect::<Vec<_>>()).unwrap_or_default();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(13) + ticks(14)) / TICKS_PER_SECOND
}

/// The most memory that a process has had so far, in bytes.
pub(super) fn peak_memory(pid: u32) -> Option<u64> {
    parse_peak(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Bytes that have crossed the loopback device since the machine started.
pub(super) fn loopback_bytes() -> u64 {
    parse_loopback(&fs::read_to_string("/proc/net/dev").unwrap_or_default()).unwrap_or(0)
}

fn parse_loopback(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_parsed() {
        let text = "42 (a) b (c)) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 20 30 20 0 4 0 100 1000000 256 18446744073709551615 1";
        assert_eq!(parse_stat(text), Some(Process { parent: 7, cpu: 2.5, resident: 256 * PAGE }));
        assert_eq!(parse_stat("42 (x"), None);
    }

    #[test]
    fn descendants_count_and_strangers_do_not() {
        let process = |parent, cpu| Process { parent, cpu, resident: 10 };
        let all =
            HashMap::from([(1, process(0, 1.0)), (2, process(1, 2.0)), (3, process(2, 4.0)), (4, process(0, 8.0))]);
        assert_eq!(sum(&all, &[1]), Usage { cpu: 7.0, resident: 30 });
        assert_eq!(sum(&all, &[1, 2]), Usage { cpu: 7.0, resident: 30 }, "nothing counts twice");
        assert_eq!(sum(&all, &[9]), Usage::default(), "a process that is gone");
    }

    #[test]
    fn memory_and_loopback_are_parsed() {
        assert_eq!(parse_peak("Name:\tx\nVmHWM:\t    2048 kB\n"), Some(2048 * 1024));
        assert_eq!(parse_loopback("Inter-|\n face |\n  eth0: 5 0\n    lo: 1234 9 0\n"), Some(1234));
        assert!(peak_memory(std::process::id()).is_some_and(|bytes| bytes > 0));
    }
}
