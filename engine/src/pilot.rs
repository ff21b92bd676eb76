//! What a statement will cost, found out before any node is asked: a pilot run.
//!
//! The coordinator runs the very tasks of the job itself, once each, and adds up rows, bytes and work units as the quorum
//! would. Over tables of moderate size all tasks are run, and the quote is what the bill will be, if no node lies or is
//! slow. Beyond [`crate::EngineConfig::pilot_bytes`] only a share of the largest table's shards is read and the rest extrapolated: what stages
//! make of a sample grows with it, unless they reduce their input so much that they have seen nearly all groups.
//!
//! Cardinality estimates from statistics alone are off by orders of magnitude after a few joins (V. Leis and others, "How
//! good are query optimizers, really?", 2015); a bill must not be.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use conun_executor::{MemoryInputs, TaskOutput, run_task};
use conun_types::{Cid, Error, MemoryClass, OutputBlock, Result, TaskEnvelope, Volume, WorkUnits, task::output_volume};
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::{
    context::JobContext,
    job::{Plan, prepare},
    stage::{StageGraph, StageTask},
    task::Prepared,
};

/// Bytes that the tables other than the largest may have together: they are read whole.
const MOST_OTHERS: u64 = 2 << 30;
/// Bytes that all stages of a pilot run may make.
const MOST_MADE: u64 = 4 << 30;
/// How long a pilot run may take.
const MOST_TIME: Duration = Duration::from_secs(120);
/// Shards that are fetched at once.
const AT_ONCE: usize = 8;
/// A stage that keeps fewer than one row in so many has seen nearly all of its groups in a sample.
const REDUCES: u64 = 8;

/// One stage of a quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuotedStage {
    pub(crate) stage: u32,
    pub(crate) tasks: u64,
    pub(crate) output: Volume,
    pub(crate) units: WorkUnits,
}

/// What a statement would cost.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quote {
    pub(crate) stages: Vec<QuotedStage>,
    /// Share of the tables' bytes that was read for it.
    pub(crate) sampled: f64,
}

impl Quote {
    /// For what the coordinator computes itself.
    pub(crate) fn nothing() -> Self {
        Self { stages: Vec::new(), sampled: 1.0 }
    }
}

/// Quotes `plan` in `context`.
///
/// # Errors
/// Those of the plan and of its tasks; Unavailable where shards cannot be read.
pub(crate) async fn quote(context: &JobContext, plan: Plan) -> Result<Quote> {
    let run = run(context, plan);
    tokio::time::timeout(MOST_TIME, run).await.map_err(|_| too_large(format!("takes longer than {MOST_TIME:?}")))?
}

fn too_large(why: String) -> Error {
    Error::data(format!("the statement is too large to be quoted: it {why}"))
        .with_hint("quote a smaller statement, or bound the cost with --budget")
}

async fn run(context: &JobContext, plan: Plan) -> Result<Quote> {
    let mut pilot = Pilot::new(context)?;
    let mut graph = StageGraph::new(context.job, plan.physical, plan.config)?;
    loop {
        let tasks = graph.ready_tasks()?;
        if tasks.is_empty() {
            break;
        }
        let ran = pilot.run_all(tasks).await?;
        for (task, outputs) in ran {
            graph.complete(&task, &outputs)?;
        }
    }
    if !graph.is_done() {
        return Err(Error::internal("the pilot run did not come to its end"));
    }
    Ok(pilot.quote())
}

struct Pilot<'a> {
    context: &'a JobContext,
    /// The table of which only one task in so many is run.
    sample: Option<(String, usize)>,
    /// Share of the tables' bytes that is read.
    sampled: f64,
    made: u64,
    shards: HashMap<Cid, Bytes>,
    blocks: HashMap<Cid, Bytes>,
    stages: BTreeMap<u32, Tally>,
    /// By how much a block's volume is to be multiplied.
    scales: HashMap<Cid, f64>,
}

/// What one stage came to.
#[derive(Default)]
struct Tally {
    tasks: u64,
    ran: u64,
    /// Inputs of tasks that were left out.
    left_out: Vec<Volume>,
    output: (f64, f64),
    units: f64,
}

impl<'a> Pilot<'a> {
    fn new(context: &'a JobContext) -> Result<Self> {
        let bytes = context.scanned_bytes();
        let (all, most): (u64, u64) = (bytes.values().sum(), context.config.pilot_bytes);
        let largest = bytes.into_iter().max_by(|a, b| (a.1, &b.0).cmp(&(b.1, &a.0)));
        let (mut sample, mut sampled) = (None, 1.0);
        if let Some((table, bytes)) = largest.filter(|_| all > most) {
            let rest = all - bytes;
            if rest > MOST_OTHERS {
                return Err(too_large(format!("reads {} MiB of tables beside its largest", rest >> 20)));
            }
            // At least one shard in sixty-four of it, however large the others are.
            let step = bytes.div_ceil(most.saturating_sub(rest).max(bytes / 64).max(1));
            sampled = (rest as f64 + bytes as f64 / step as f64) / all as f64;
            sample = Some((table, step as usize));
        }
        let (made, shards, blocks, stages, scales) = Default::default();
        Ok(Self { context, sample, sampled, made, shards, blocks, stages, scales })
    }

    /// Runs the tasks that are ready, but those that the sample leaves out.
    async fn run_all(&mut self, tasks: Vec<StageTask>) -> Result<Vec<(StageTask, Vec<OutputBlock>)>> {
        let mut done = Vec::with_capacity(tasks.len());
        for task in tasks {
            let prepared = prepare(self.context, task)?;
            let outputs = match self.leaves_out(&prepared) {
                true => self.skip(&prepared),
                false => self.run(&prepared).await?,
            };
            done.push((prepared.stage, outputs));
        }
        Ok(done)
    }

    /// Whether a task is left out: it scans nothing but the sampled table, and of those every so manieth of a stage is run,
    /// from the first on, since neighbouring shards are alike.
    fn leaves_out(&self, task: &Prepared) -> bool {
        self.step(task).is_some_and(|step| !(task.envelope.task as usize).is_multiple_of(step))
    }

    /// One in how many tasks like this one is run, where it scans nothing but the sampled table.
    fn step(&self, task: &Prepared) -> Option<usize> {
        let (table, step) = self.sample.as_ref()?;
        let of_table = |cid: &Cid| self.context.table_of(cid).is_ok_and(|name| name == table);
        let shards = &task.envelope.shards;
        (!shards.is_empty() && shards.iter().all(|s| of_table(&s.cid))).then_some(*step)
    }

    fn skip(&mut self, task: &Prepared) -> Vec<OutputBlock> {
        let tally = self.stages.entry(task.envelope.stage).or_default();
        tally.tasks += 1;
        tally.left_out.push(task.envelope.input_volume());
        let empty = |partition| OutputBlock { partition, cid: Cid::raw(b""), rows: 0, bytes: 0 };
        (0..task.stage.outputs() as u32).map(empty).collect()
    }

    async fn run(&mut self, task: &Prepared) -> Result<Vec<OutputBlock>> {
        self.fetch(task).await?;
        let of = |map: &HashMap<Cid, Bytes>, cid: &Cid| map.get(cid).cloned();
        let shards = task.envelope.shards.iter().filter_map(|s| of(&self.shards, &s.cid));
        let blocks = task.envelope.blocks.iter().filter_map(|b| of(&self.blocks, &b.cid));
        let inputs = MemoryInputs::new(shards.chain(blocks));
        let envelope = TaskEnvelope { memory: MemoryClass::Large, ..task.envelope.clone() };
        let output = in_a_thread(envelope, inputs).await?;
        let outputs: Vec<OutputBlock> = output.blocks.iter().map(|(block, _)| *block).collect();
        let volume = output_volume(&outputs);
        self.made = self.made.saturating_add(volume.bytes);
        if self.made > MOST_MADE {
            return Err(too_large(format!("makes more than {} MiB on its way", MOST_MADE >> 20)));
        }
        self.tally(task, volume, &outputs);
        self.blocks.extend(output.blocks.into_iter().map(|(block, bytes)| (block.cid, bytes)));
        for shard in &task.envelope.shards {
            self.shards.remove(&shard.cid);
        }
        Ok(outputs)
    }

    async fn fetch(&mut self, task: &Prepared) -> Result<()> {
        let missing = task.envelope.shards.iter().map(|s| s.cid).filter(|cid| !self.shards.contains_key(cid));
        let context = self.context;
        let fetched = stream::iter(missing.collect::<Vec<_>>())
            .map(|cid| async move { Ok::<_, Error>((cid, context.read_shard(&cid).await?)) })
            .buffer_unordered(AT_ONCE);
        self.shards.extend(fetched.try_collect::<Vec<_>>().await?);
        Ok(())
    }

    fn tally(&mut self, task: &Prepared, output: Volume, outputs: &[OutputBlock]) {
        let input_scale = self.input_scale(task);
        let step = self.step(task);
        let reduces = output.rows.saturating_mul(REDUCES) < task.envelope.input_volume().rows;
        // Blocks of the sample stand for those of its whole stage; a stage that reduces much has seen nearly all groups.
        let own = if step.is_some() || reduces { 1.0 } else { input_scale };
        let handed_on = step.map_or(own, |step| step as f64);
        for block in outputs {
            self.scales.insert(block.cid, handed_on);
        }
        let input = self.scaled_input(task);
        let (rows, bytes) = (output.rows as f64 * own, output.bytes as f64 * own);
        let units = WorkUnits::of(input, Volume { rows: rows as u64, bytes: bytes as u64 });
        let tally = self.stages.entry(task.envelope.stage).or_default();
        tally.tasks += 1;
        tally.ran += 1;
        tally.output.0 += rows;
        tally.output.1 += bytes;
        tally.units += units.0 as f64;
    }

    /// By how much what a task reads is to be multiplied: the most of any of its inputs.
    fn input_scale(&self, task: &Prepared) -> f64 {
        let scales = task.envelope.blocks.iter().map(|b| self.scales.get(&b.cid).copied().unwrap_or(1.0));
        scales.fold(1.0, f64::max)
    }

    fn scaled_input(&self, task: &Prepared) -> Volume {
        let shards: Volume = task.envelope.shards.iter().map(|s| s.volume).sum();
        let scaled = task.envelope.blocks.iter().map(|block| {
            let scale = self.scales.get(&block.cid).copied().unwrap_or(1.0);
            let times = |n: u64| (n as f64 * scale) as u64;
            Volume { rows: times(block.volume.rows), bytes: times(block.volume.bytes) }
        });
        scaled.fold(shards, |sum, volume| sum + volume)
    }

    fn quote(self) -> Quote {
        let stages = self.stages.into_iter().map(|(stage, tally)| tally.quoted(stage)).collect();
        Quote { stages, sampled: self.sampled }
    }
}

impl Tally {
    /// The stage with what was left out, which makes as much as the average of what ran.
    fn quoted(self, stage: u32) -> QuotedStage {
        let ran = self.ran.max(1) as f64;
        let average = Volume { rows: (self.output.0 / ran) as u64, bytes: (self.output.1 / ran) as u64 };
        let left_out: u64 = self.left_out.iter().map(|input| WorkUnits::of(*input, average).0).sum();
        let more = self.left_out.len() as u64;
        let output = Volume {
            rows: self.output.0 as u64 + average.rows * more,
            bytes: self.output.1 as u64 + average.bytes * more,
        };
        QuotedStage { stage, tasks: self.tasks, output, units: WorkUnits(self.units as u64 + left_out) }
    }
}

/// Runs a task as a runner does: driven by one thread, off those that serve. Dropping the future stops it at its next wait.
async fn in_a_thread(envelope: TaskEnvelope, inputs: MemoryInputs) -> Result<TaskOutput> {
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let task = run_task(&envelope, Arc::new(inputs));
        let ran = runtime.block_on(stop.run_until_cancelled(task));
        let ran = ran.ok_or_else(|| Error::unavailable("the pilot run was stopped"))?;
        ran.map_err(|failure| Error::data(format!("the pilot run failed: {failure}")))
    };
    tokio::task::spawn_blocking(run).await.map_err(|e| Error::internal(format!("the pilot run broke off: {e}")))?
}
