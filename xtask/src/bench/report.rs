//! From samples to medians, ratios, JSON and a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::{latency::Latency, measure::Sample};

/// One run of one query on one contender.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    #[serde(flatten)]
    pub(super) sample: Sample,
    /// Why it does not count: it failed, or the answer was wrong.
    pub(super) error: Option<String>,
}

/// All runs of a contender.
#[derive(Debug, Clone, Serialize)]
struct Row {
    name: String,
    /// Sum over all queries of the medians of their runs; the median of memory is a maximum.
    total: Sample,
    /// `total` divided by the first contender's.
    ratio: Ratio,
    queries: BTreeMap<String, Vec<Measured>>,
}

/// How many times as much as the first contender.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Ratio {
    wall: f64,
    cpu: f64,
    memory: f64,
}

/// The whole run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    scale_factor: f64,
    nodes: usize,
    runs: usize,
    /// Processors of the machine.
    cores: usize,
    /// Whether answers were compared with golden ones.
    judged: bool,
    contenders: Vec<Row>,
    /// What one more tiny statement costs in a warm session.
    pub(super) latencies: Vec<Latency>,
    /// The most memory that the devnet's coordinator had, in bytes.
    pub(super) coordinator_peak: Option<u64>,
}

impl Report {
    pub(super) fn new(scale_factor: f64, nodes: usize, runs: usize, judged: bool) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let (contenders, latencies) = (Vec::new(), Vec::new());
        Self { scale_factor, nodes, runs, cores, judged, contenders, latencies, coordinator_peak: None }
    }

    /// Adds a run. Contenders keep the order in which they first come.
    pub(super) fn add(&mut self, contender: &str, query: &str, measured: Measured) {
        let at = self.contenders.iter().position(|row| row.name == contender).unwrap_or_else(|| {
            let name = contender.to_owned();
            self.contenders.push(Row {
                name,
                total: Sample::default(),
                ratio: Ratio::default(),
                queries: BTreeMap::new(),
            });
            self.contenders.len() - 1
        });
        self.contenders[at].queries.entry(query.to_owned()).or_default().push(measured);
        self.contenders[at].total = total(&self.contenders[at].queries);
        let base = self.contenders[0].total;
        for row in &mut self.contenders {
            row.ratio = ratio(&row.total, &base);
        }
    }

    /// Runs that failed or answered wrongly.
    pub(super) fn wrong_answers(&self) -> usize {
        let runs = self.contenders.iter().flat_map(|row| row.queries.values().flatten());
        runs.filter(|measured| measured.error.is_some()).count()
    }

    /// The totals, then the medians of wall time by query, as Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut out = format!(
            "TPC-H at scale factor {}, {} runs, {} cores, devnet of {} nodes; sums of the medians of {} queries\n\n",
            self.scale_factor,
            self.runs,
            self.cores,
            self.nodes,
            self.contenders.first().map_or(0, |row| row.queries.len()),
        );
        out += "| contender | wall s | ratio | CPU s | ratio | peak MiB | ratio | loopback MiB | failed |\n";
        out += "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for row in &self.contenders {
            let failed = row.queries.values().flatten().filter(|m| m.error.is_some()).count();
            let (t, r) = (&row.total, &row.ratio);
            // Writing to a string does not fail.
            _ = writeln!(
                out,
                "| {} | {:.3} | {:.2} | {:.2} | {:.2} | {:.0} | {:.2} | {:.1} | {failed} |",
                row.name,
                t.wall,
                r.wall,
                t.cpu,
                r.cpu,
                mebibytes(t.memory),
                r.memory,
                mebibytes(t.moved),
            );
        }
        out + "\n" + &self.by_query() + &self.by_statement()
    }

    fn by_statement(&self) -> String {
        let one = |latency: &Latency| format!("{} {:.1} ms", latency.name, latency.milliseconds);
        let mut out = String::new();
        if !self.latencies.is_empty() {
            let all: Vec<String> = self.latencies.iter().map(one).collect();
            _ = writeln!(out, "\nOne more tiny statement in a warm session: {}", all.join(", "));
        }
        if let Some(peak) = self.coordinator_peak {
            _ = writeln!(out, "\nPeak memory of the coordinator: {:.0} MiB", mebibytes(peak));
        }
        out
    }

    fn by_query(&self) -> String {
        let names: Vec<&str> = self.contenders.iter().map(|row| row.name.as_str()).collect();
        let mut out = format!("| query | {} |\n|---|{}\n", names.join(" | "), "---:|".repeat(names.len()));
        let Some(first) = self.contenders.first() else { return out };
        for query in first.queries.keys() {
            let cells = self.contenders.iter().map(|row| {
                let runs = row.queries.get(query).map(Vec::as_slice).unwrap_or_default();
                let mark = if runs.iter().any(|m| m.error.is_some()) { " (failed)" } else { "" };
                format!(" {:.3}{mark} |", median(runs.iter().map(|m| m.sample.wall)))
            });
            _ = writeln!(out, "| {query} |{}", cells.collect::<String>());
        }
        out
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The median; of an even number the lower of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// Sums over queries of the medians; of memory, the largest median.
fn total(queries: &BTreeMap<String, Vec<Measured>>) -> Sample {
    queries.values().fold(Sample::default(), |total, runs| {
        let middle = |of: fn(&Sample) -> f64| median(runs.iter().map(|m| of(&m.sample)));
        Sample {
            wall: total.wall + middle(|s| s.wall),
            cpu: total.cpu + middle(|s| s.cpu),
            memory: total.memory.max(middle(|s| s.memory as f64) as u64),
            moved: total.moved + middle(|s| s.moved as f64) as u64,
        }
    })
}

fn ratio(total: &Sample, base: &Sample) -> Ratio {
    let times = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    Ratio {
        wall: times(total.wall, base.wall),
        cpu: times(total.cpu, base.cpu),
        memory: times(total.memory as f64, base.memory as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(wall: f64, error: Option<&str>) -> Measured {
        let sample = Sample { wall, cpu: 2.0 * wall, memory: 3 << 20, moved: 1 << 20 };
        Measured { sample, error: error.map(str::to_owned) }
    }

    #[test]
    fn medians_are_added_and_compared() {
        let mut report = Report::new(0.1, 4, 3, true);
        for wall in [9.0, 1.0, 2.0] {
            report.add("datafusion", "q01", measured(wall, None));
            report.add("conun", "q01", measured(2.0 * wall, None));
        }
        report.add("datafusion", "q02", measured(1.0, None));
        report.add("conun", "q02", measured(1.0, Some("wrong")));
        assert_eq!((report.contenders[0].total.wall, report.contenders[1].total.wall), (3.0, 5.0));
        assert!((report.contenders[1].ratio.wall - 5.0 / 3.0).abs() < 1e-9);
        assert_eq!(report.wrong_answers(), 1);
        let table = report.markdown();
        assert!(table.contains("| conun | 5.000 | 1.67 | 10.00 | 1.67 | 3 | 1.00 | 2.0 | 1 |"), "{table}");
        assert!(table.contains("| q02 | 1.000 | 1.000 (failed) |"), "{table}");
    }
}
