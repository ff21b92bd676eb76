//! The demo's course: start, store, ask, kill, and add up.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use conun_api::{Client, message::PutRequest};
use conun_engine::{JobOptions, JobRecord, Verify};
use conun_sql_examples::{Case, NYCFLIGHTS13, TABLES};
use conun_storage::TableInfo;
use conun_types::{Error, JobId, NodeId, Result};
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{
    network::{LIAR, NODES, Network},
    report::{Earned, Query, Report, Storage},
    settlement,
    story::Story,
};
use crate::{human, output};

/// Small shards, so that little data makes many tasks.
const SHARD_SIZE: u64 = 512 << 10;
/// Node that is killed.
const VICTIM: usize = 1;
/// From this query on (counted from 0) the kill is tried, until it met a query that was still running.
const KILL_FROM: usize = 2;
/// How often a running job is looked at.
const LOOK: Duration = Duration::from_millis(3);

/// What the queries brought so far.
#[derive(Default)]
struct Course {
    queries: Vec<Query>,
    jobs: Vec<JobId>,
    liars: Vec<NodeId>,
    killed_during: Option<String>,
    problems: Vec<String>,
}

/// Plays the whole demo.
pub(super) async fn play(story: &Story) -> Result<Report> {
    let start = Instant::now();
    story.now(format!("starting {NODES} nodes and a coordinator"));
    let mut network = Network::start().await?;
    story.tell(format!(
        "{NODES} node processes and a coordinator are up in {}; node {LIAR} will lie about its answers",
        human::duration(start.elapsed())
    ));
    let storage = store(&network.client, story).await?;
    let mut course = Course::default();
    for (i, case) in NYCFLIGHTS13.iter().enumerate() {
        let kills = i >= KILL_FROM && course.killed_during.is_none();
        ask(&mut network, case, kills, &mut course, story).await?;
    }
    conclude(&network, course, storage, start.elapsed(), story).await
}

/// Stores the five tables.
async fn store(client: &Client, story: &Story) -> Result<Storage> {
    let mut tables = Vec::new();
    for (name, file) in TABLES {
        story.now(format!("storing {name}"));
        let table = put(client, name, file).await?;
        story.tell(format!(
            "stored {:<9} {:>8} rows, {:>9} as {} data and {} parity shards, code {}",
            table.name,
            human::count(table.rows),
            human::bytes(table.bytes),
            table.shards,
            table.parity,
            table.code
        ));
        tables.push(table);
    }
    Ok(add_up(&tables))
}

async fn put(client: &Client, name: &str, file: &'static [u8]) -> Result<TableInfo> {
    let broken = |e: &dyn std::fmt::Display| Error::internal(format!("the embedded table {name}: {e}"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from_static(file)).map_err(|e| broken(&e))?;
    let schema = builder.schema().clone();
    let rows: Vec<_> = builder.build().map_err(|e| broken(&e))?.collect::<Result<_, _>>().map_err(|e| broken(&e))?;
    let request = PutRequest { code: None, shard_size: Some(SHARD_SIZE) };
    client.put(name, &request, schema, stream::iter(rows.into_iter().map(Ok)), |_| {}).await
}

fn add_up(tables: &[TableInfo]) -> Storage {
    let bytes: u64 = tables.iter().map(|t| t.bytes).sum();
    let stored: u64 = tables.iter().map(|t| t.stored_bytes).sum();
    Storage {
        tables: tables.len(),
        shards: tables.iter().map(|t| (t.shards + t.parity) as u64).sum(),
        expansion: stored as f64 / bytes.max(1) as f64,
        rows: tables.iter().map(|t| t.rows).sum(),
        bytes,
    }
}

/// Runs one query, killing a node on the way if asked to, and compares the answer with the known one.
async fn ask(network: &mut Network, case: &Case, kills: bool, course: &mut Course, story: &Story) -> Result<()> {
    story.now(format!("{}: asking", case.name));
    let options = JobOptions { verify: Some(Verify::Quorum), ..JobOptions::default() };
    let client = network.client.clone();
    let job = client.submit(case.sql, &options).await?.job;
    let answer = rows(&client, job);
    let rows = match kills {
        false => answer.await,
        true => {
            let (rows, killed) = tokio::join!(answer, kill_once_running(network, &client, job));
            if killed {
                story.tell(format!("killed node {VICTIM} while {} was running", case.name));
                course.killed_during = Some(case.name.to_owned());
            }
            rows
        }
    };
    let record = client.job(&job.to_string()).await?;
    let checked = rows.and_then(|rows| case.check(&rows).map_err(|e| Error::data(e.to_string())));
    tell_answer(story, case, &record, &checked);
    let name_liars = record.liars.iter().filter(|id| !course.liars.contains(id)).copied().collect::<Vec<_>>();
    for liar in name_liars {
        let index = network.index(&liar).map_or_else(|| liar.short(), |i| format!("{i}"));
        story.tell(format!("caught node {index} lying: its replica was outvoted and is not paid"));
        course.liars.push(liar);
    }
    course.problems.extend(checked.as_ref().err().map(|e| format!("{}: {e}", case.name)));
    course.queries.push(Query::of(case.name, &record, checked.is_ok()));
    course.jobs.push(job);
    Ok(())
}

async fn rows(client: &Client, job: JobId) -> Result<Vec<Vec<String>>> {
    let (_, batches) = client.results(job).await?;
    let texts = batches.map(|batch| batch.and_then(|b| output::texts(&b)));
    Ok(texts.try_collect::<Vec<_>>().await?.concat())
}

/// Kills the victim as soon as some task of the job has its verdict and others have not: in the middle of the work.
/// Tells whether it came to that before the job ended.
async fn kill_once_running(network: &mut Network, client: &Client, job: JobId) -> bool {
    loop {
        let Ok(record) = client.job(&job.to_string()).await else { return false };
        let ended = !matches!(record.state, conun_engine::JobState::Planned | conun_engine::JobState::Running);
        if ended {
            return false;
        }
        if record.stages.iter().any(|stage| stage.tasks_done > 0 || stage.replicas > 0) {
            network.kill(VICTIM);
            return true;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn tell_answer(story: &Story, case: &Case, record: &JobRecord, checked: &Result<()>) {
    let mark = if checked.is_ok() { "right" } else { "WRONG" };
    let tasks: u64 = record.stages.iter().map(|s| s.tasks).sum();
    let replicas: u64 = record.stages.iter().map(|s| s.replicas).sum();
    story.tell(format!(
        "{mark}  {:<20} {:>4} rows in {:>7}, {} stages, {tasks} tasks, {replicas} replicas",
        case.name,
        record.rows,
        human::duration(Duration::from_secs_f64(record.seconds)),
        record.stages.len(),
    ));
}

/// Collects the receipts and checks what must hold.
async fn conclude(
    network: &Network,
    mut course: Course,
    storage: Storage,
    took: Duration,
    story: &Story,
) -> Result<Report> {
    story.now("collecting receipts");
    let (receipts, earned) = earnings(network, &course.jobs).await?;
    story.now("settling");
    let settlement = match settlement::settle(&network.client, &network.money, &course.jobs, &network.ids()).await {
        Ok(settlement) => Some(settlement),
        Err(error) => {
            course.problems.push(format!("settlement: {error}"));
            None
        }
    };
    if course.liars != [network.id(LIAR)] {
        course.problems.push(format!("exactly node {LIAR} should have been named a liar"));
    }
    if course.killed_during.is_none() {
        course.problems.push("no query ran long enough to kill a node in the middle of it".to_owned());
    }
    if receipts == 0 {
        course.problems.push("there are no receipts".to_owned());
    }
    Ok(Report {
        ok: course.problems.is_empty(),
        nodes: NODES,
        killed: course.killed_during.iter().map(|_| network.id(VICTIM)).collect(),
        killed_during: course.killed_during,
        liars_caught: course.liars,
        queries: course.queries,
        storage,
        receipts,
        earned,
        settlement,
        seconds: took.as_secs_f64(),
        problems: course.problems,
    })
}

/// Number of receipts, and what they add up to for each node, in the order of the nodes.
async fn earnings(network: &Network, jobs: &[JobId]) -> Result<(usize, Vec<Earned>)> {
    let (mut count, mut by_node) = (0, BTreeMap::new());
    for job in jobs {
        for record in network.client.receipts(&job.to_string()).await? {
            count += 1;
            let index = network.index(&record.node);
            let entry = by_node.entry((index, record.node)).or_insert_with(|| Earned {
                node: record.node,
                index,
                tasks: 0,
                outvoted: 0,
                units: 0,
            });
            match record.accepted {
                true => (entry.tasks, entry.units) = (entry.tasks + 1, entry.units + record.receipt.receipt.units.0),
                false => entry.outvoted += 1,
            }
        }
    }
    Ok((count, by_node.into_values().collect()))
}
