//! What the demo found: the JSON object that scripts read, and the summary that people do.

use conun_engine::{JobRecord, StageRow};
use conun_types::NodeId;
use serde::Serialize;

use super::settlement::{Balance, Settlement};
use crate::{human, print};

/// The result of a demo. Issue 2 fixes the names.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) ok: bool,
    pub(super) nodes: usize,
    pub(super) killed: Vec<NodeId>,
    /// During which query.
    pub(super) killed_during: Option<String>,
    pub(super) liars_caught: Vec<NodeId>,
    pub(super) queries: Vec<Query>,
    pub(super) storage: Storage,
    pub(super) receipts: usize,
    /// Work units of accepted tasks, by node.
    pub(super) earned: Vec<Earned>,
    /// What was paid for it on the chain.
    pub(super) settlement: Option<Settlement>,
    pub(super) seconds: f64,
    /// What did not hold.
    pub(super) problems: Vec<String>,
}

/// One query and how it was answered.
#[derive(Serialize)]
pub(super) struct Query {
    pub(super) name: String,
    pub(super) sql: String,
    pub(super) rows: u64,
    pub(super) seconds: f64,
    pub(super) digest: Option<String>,
    pub(super) verified: String,
    pub(super) right: bool,
    pub(super) stages: Vec<StageRow>,
}

impl Query {
    pub(super) fn of(name: &str, job: &JobRecord, right: bool) -> Self {
        Self {
            name: name.to_owned(),
            sql: job.sql.clone(),
            rows: job.rows,
            seconds: job.seconds,
            digest: job.digest.clone(),
            verified: job.verified.clone(),
            right,
            stages: job.stages.clone(),
        }
    }
}

/// What was stored.
#[derive(Default, Serialize)]
pub(super) struct Storage {
    pub(super) tables: usize,
    pub(super) shards: u64,
    /// Bytes on the nodes for each byte of data.
    pub(super) expansion: f64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// What a node's accepted work adds up to.
#[derive(Serialize)]
pub(super) struct Earned {
    pub(super) node: NodeId,
    pub(super) index: Option<usize>,
    pub(super) tasks: u64,
    pub(super) outvoted: u64,
    pub(super) units: u64,
}

/// The summary at the end.
pub(super) fn summary(report: &Report) -> String {
    let sections = [metering(report), earnings(report), settlement(report), conclusion(report)];
    sections.join("\n")
}

fn metering(report: &Report) -> String {
    let mut rows = Vec::new();
    for query in &report.queries {
        for stage in &query.stages {
            let name = if stage.stage == query.stages[0].stage { query.name.as_str() } else { "" };
            rows.push(vec![
                name.to_owned(),
                stage.stage.to_string(),
                stage.tasks.to_string(),
                stage.replicas.to_string(),
                human::count(stage.rows),
                human::bytes(stage.bytes),
                human::count(stage.units.0),
            ]);
        }
    }
    let headers = ["query", ">stage", ">tasks", ">replicas", ">rows", ">bytes", ">units"];
    format!(
        "\nWhat the work was, stage by stage (rows, bytes and units as the quorum agreed)\n\n{}",
        print::columns(&headers, &rows)
    )
}

fn earnings(report: &Report) -> String {
    let fate = |earned: &Earned| {
        if report.liars_caught.contains(&earned.node) {
            "lied, outvoted"
        } else if report.killed.contains(&earned.node) {
            "killed"
        } else {
            ""
        }
    };
    let row = |earned: &Earned| {
        let name = earned.index.map_or_else(|| earned.node.short(), |i| format!("node {i}  {}", earned.node.short()));
        let (tasks, outvoted) = (earned.tasks.to_string(), earned.outvoted.to_string());
        vec![name, tasks, outvoted, human::count(earned.units), fate(earned).to_owned()]
    };
    let rows: Vec<_> = report.earned.iter().map(row).collect();
    let headers = ["provider", ">accepted", ">outvoted", ">units earned", ""];
    format!("What each node has a signed receipt for\n\n{}", print::columns(&headers, &rows))
}

/// Who was paid, and how it was checked.
fn settlement(report: &Report) -> String {
    let Some(settlement) = &report.settlement else { return String::new() };
    let row = |balance: &Balance| {
        let name = balance.index.map_or_else(|| balance.node.short(), |i| format!("node {i}"));
        let got = balance.after.less(balance.before);
        vec![name, balance.payout.to_string(), balance.before.to_string(), got.to_string(), balance.after.to_string()]
    };
    let rows: Vec<_> = settlement.balances.iter().map(row).collect();
    let headers = ["provider", "paid to", ">tokens before", ">paid", ">after"];
    format!(
        "Who was paid: {} stage records settled on chain {} for {} gas\n\n{}\nMerkle-sum root {}: rebuilt from the \
         records in the event, which match the receipts\n",
        human::count(settlement.stages as u64),
        settlement.chain,
        human::count(settlement.gas),
        print::columns(&headers, &rows),
        settlement.root,
    )
}

fn conclusion(report: &Report) -> String {
    let right = report.queries.iter().filter(|q| q.right).count();
    let storage = &report.storage;
    let mut lines = vec![
        format!("{right} of {} answers right, every one checked by replicas that agreed", report.queries.len()),
        format!(
            "{} tables, {} in {} shards, {:.2} bytes kept for each byte",
            storage.tables,
            human::plural(storage.rows, "row"),
            storage.shards,
            storage.expansion
        ),
        format!(
            "{} killed mid-query, {} caught lying, {} receipts signed",
            report.killed.len(),
            report.liars_caught.len(),
            human::count(report.receipts as u64)
        ),
    ];
    lines.extend(report.problems.iter().map(|problem| format!("NOT HELD: {problem}")));
    lines.push(format!("{} in {:.1} s", if report.ok { "All held" } else { "Failed" }, report.seconds));
    lines.join("\n")
}
