//! Where a plan is cut into stages: Ballista's planner, kept from one of its choices.
//!
//! Ballista makes a broadcast of a partitioned join whose smaller side it takes for less than 128 MiB, but leaves both sides'
//! exchanges where they are: rows are partitioned all the same, gathered again by one more stage, and every task builds a
//! table of all of them. What is small enough for a broadcast DataFusion has found before, without exchanges; so partitioned
//! joins stay what they are. Ballista goes by the sizes of a join's sides, hence these are hidden while it cuts.

use std::{fmt, sync::Arc};

use ballista_core::{
    JobId,
    error::{BallistaError, Result},
    execution_plans::{ShuffleWriter, ShuffleWriterExec, SortShuffleWriterExec},
};
use ballista_scheduler::planner::{DefaultDistributedPlanner, DistributedPlanner};
use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        execution_plan::ChildrenPropertiesMode,
        joins::{HashJoinExec, PartitionMode},
    },
};

/// Ballista's planner, which does not know how large the sides of partitioned joins are.
pub(super) struct Planner(DefaultDistributedPlanner);

impl Planner {
    pub(super) fn new() -> Self {
        Self(DefaultDistributedPlanner::new())
    }
}

impl DistributedPlanner for Planner {
    fn plan_query_stages<'a>(
        &'a mut self,
        job_id: &'a JobId,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Vec<Arc<dyn ShuffleWriter>>> {
        let plan = plan.transform_up(hide_sizes).data()?;
        let stages = self.0.plan_query_stages(job_id, plan, config)?;
        stages.into_iter().map(shown).collect()
    }
}

const RECOMPUTE: ReplaceChildrenOptions = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);

fn hide_sizes(plan: Arc<dyn ExecutionPlan>) -> datafusion::error::Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let partitioned = |join: &HashJoinExec| *join.partition_mode() == PartitionMode::Partitioned && !join.null_aware;
    if !plan.downcast_ref::<HashJoinExec>().is_some_and(partitioned) {
        return Ok(Transformed::no(plan));
    }
    let hidden =
        plan.children().into_iter().map(|side| Arc::new(Unmeasured { input: Arc::clone(side) }) as _).collect();
    Ok(Transformed::yes(plan.replace_children(hidden, RECOMPUTE)?))
}

/// The same stage without what hid sizes.
fn shown(writer: Arc<dyn ShuffleWriter>) -> Result<Arc<dyn ShuffleWriter>> {
    let strip = |plan: Arc<dyn ExecutionPlan>| match plan.downcast_ref::<Unmeasured>() {
        Some(hidden) => Ok(Transformed::yes(Arc::clone(&hidden.input))),
        None => Ok(Transformed::no(plan)),
    };
    let inputs = writer.children().into_iter().map(|input| Arc::clone(input).transform_up(strip).data());
    let inputs = inputs.collect::<datafusion::error::Result<Vec<_>>>()?;
    let writer: Arc<dyn ExecutionPlan> = writer;
    let writer = writer.replace_children(inputs, RECOMPUTE)?;
    let plain = writer.downcast_ref::<ShuffleWriterExec>().map(ShuffleWriter::clone_box);
    let sorted = || writer.downcast_ref::<SortShuffleWriterExec>().map(ShuffleWriter::clone_box);
    plain.or_else(sorted).ok_or_else(|| BallistaError::Internal(format!("a stage ends in {}", writer.name())))
}

/// Its input, of a size that nobody knows.
#[derive(Debug)]
struct Unmeasured {
    input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for Unmeasured {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unmeasured")
    }
}

impl ExecutionPlan for Unmeasured {
    fn name(&self) -> &'static str {
        "Unmeasured"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    conun_executor::one_input_plan!(|_, input| Self { input });

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> datafusion::error::Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
