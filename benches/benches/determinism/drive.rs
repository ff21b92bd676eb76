//! One query, planned in some way and run stage by stage in tasks of one partition, as engine/ runs it.

use std::{sync::Arc, time::Duration};

use ballista_core::config::BallistaConfig;
use conun_benches::tpch::Error;
use conun_types::Cid;
use datafusion::{
    physical_plan::{ExecutionPlan, displayable},
    prelude::SessionConfig,
};

use crate::{
    cpu,
    graph::{Graph, Task},
    pinned::Pinned,
    shape::Shape,
    stages::run_stages,
    workload::{Setting, Workload, rows},
};

/// Whether Ballista plans again after each stage.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replan {
    Never,
    /// But by made up sizes of blocks: what differs then does not follow from those of finished stages.
    Blind,
    BySize,
}

/// How a query is planned.
pub(crate) struct Planning {
    pub(crate) replan: Replan,
    /// Beside the profile's, or in their place.
    pub(crate) settings: Vec<Setting>,
}

/// Which of several ready stages is run, and planned after, first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Oldest,
    Newest,
}

/// One run.
pub(crate) struct Run {
    pub(crate) tasks: Duration,
    pub(crate) planning: Duration,
    /// Bytes of the blocks of all stages.
    pub(crate) bytes: u64,
    pub(crate) addresses: Vec<Cid>,
    pub(crate) rows: Vec<String>,
    pub(crate) stages: Stages,
    pub(crate) shape: Shape,
}

/// Plans of stages as text: by their numbers, and sorted without.
#[derive(PartialEq, Eq)]
pub(crate) struct Stages {
    pub(crate) numbered: Vec<String>,
    pub(crate) unnumbered: Vec<String>,
}

impl Stages {
    fn new(plans: &[Arc<dyn ExecutionPlan>]) -> Self {
        let text = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(true).to_string();
        let numbered: Vec<String> = plans.iter().map(text).collect();
        let mut unnumbered: Vec<String> = numbered.iter().map(|plan| without_numbers(plan)).collect();
        unnumbered.sort();
        Self { numbered, unnumbered }
    }
}

/// A plan whose readers do not say of which stage they read.
fn without_numbers(plan: &str) -> String {
    let mut parts = plan.split("upstream_stage: ");
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit())).collect::<String>()
}

fn runtime(several: bool) -> Result<tokio::runtime::Runtime, Error> {
    let mut builder = if several {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    Ok(builder.enable_all().build()?)
}

/// The rows of the answer, each stage run as one task.
pub(crate) fn expected(workload: &Workload, sql: &str) -> Result<Vec<String>, Error> {
    runtime(false)?.block_on(async {
        let plan = workload.plan(sql, &[], true).await?;
        rows(&run_stages(plan, &mut Pinned::new(workload)).await?)
    })
}

/// Runs a query: on one thread, as runners do, or on `several`.
pub(crate) fn once(
    workload: &Workload,
    planning: &Planning,
    sql: &str,
    order: Order,
    several: bool,
) -> Result<Run, Error> {
    runtime(several)?.block_on(drive(workload, planning, sql, order))
}

fn config(planning: &Planning) -> Result<SessionConfig, Error> {
    let mut config = conun_planner::session_config()?.with_option_extension(BallistaConfig::default());
    let adaptive = planning.replan != Replan::Never;
    config.options_mut().set("ballista.planner.adaptive.enabled", &adaptive.to_string())?;
    for (key, value) in &planning.settings {
        config.options_mut().set(key, value)?;
    }
    Ok(config)
}

async fn drive(workload: &Workload, planning: &Planning, sql: &str, order: Order) -> Result<Run, Error> {
    let state = workload.session(config(planning)?)?;
    let plan = conun_planner::logical_plan(&state, sql).await?;
    let pinned = Pinned::new(workload);
    let start = cpu::used()?;
    let mut graph = Graph::new(state, &plan, planning.replan == Replan::Blind).await?;
    let (mut tasks, mut ran, mut bytes, mut ready) = (Duration::ZERO, 0, 0, Vec::new());
    while !graph.is_done() {
        ready.extend(graph.ready()?);
        for task in next_stage(&mut ready, order)? {
            let start = cpu::used()?;
            let made = pinned.task(&task.plan, task.blocks.clone()).await?;
            tasks += cpu::used()? - start;
            bytes += made.iter().map(|(block, _)| block.bytes).sum::<u64>();
            ran += 1;
            graph.complete(&task, &made)?;
        }
    }
    let planning = (cpu::used()? - start).saturating_sub(tasks);
    let answer = graph.answer()?.iter().map(|cid| pinned.block(cid)).collect::<Result<Vec<_>, _>>()?;
    let plans = graph.into_plans();
    let (stages, shape) = (Stages::new(&plans), Shape::new(&plans, ran)?);
    Ok(Run { tasks, planning, bytes, addresses: pinned.addresses(), rows: rows(&answer)?, stages, shape })
}

/// Takes the tasks of one stage.
fn next_stage(ready: &mut Vec<Task>, order: Order) -> Result<Vec<Task>, Error> {
    let stages = ready.iter().map(|task| task.stage);
    let stage = if order == Order::Oldest { stages.min() } else { stages.max() };
    let stage = stage.ok_or("no task is ready, and the query is not done")?;
    let (taken, left) = std::mem::take(ready).into_iter().partition(|task| task.stage == stage);
    *ready = left;
    Ok(taken)
}
