//! Where a plan is cut into stages: Ballista's planner, kept from decisions that DataFusion took already ([`super::disguise`]).

use std::sync::Arc;

use ballista_core::{
    JobId,
    error::{BallistaError, Result},
    execution_plans::{ShuffleWriter, ShuffleWriterExec, SortShuffleWriterExec},
};
use ballista_scheduler::planner::{DefaultDistributedPlanner, DistributedPlanner};
use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    physical_plan::{
        Distribution, ExecutionPlan, ExecutionPlanProperties,
        joins::{HashJoinExec, PartitionMode},
        repartition::RepartitionExec,
    },
};

use super::disguise::{self, RECOMPUTE};

/// Ballista's planner.
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
        let plan = disguise::for_cutting(plan)?;
        let stages = self.0.plan_query_stages(job_id, plan, config)?;
        stages.into_iter().map(stage).collect()
    }
}

/// A stage as it is run.
fn stage(writer: Arc<dyn ShuffleWriter>) -> Result<Arc<dyn ShuffleWriter>> {
    let input = |input: &Arc<dyn ExecutionPlan>| {
        let input = disguise::until_lowered(without_exchanges(Arc::clone(input))?)?;
        check_gathered(&input)?;
        Ok(input)
    };
    let inputs = writer.children().into_iter().map(input).collect::<Result<Vec<_>>>()?;
    let writer: Arc<dyn ExecutionPlan> = writer;
    let writer = writer.replace_children(inputs, RECOMPUTE)?;
    let plain = writer.downcast_ref::<ShuffleWriterExec>().map(ShuffleWriter::clone_box);
    let sorted = || writer.downcast_ref::<SortShuffleWriterExec>().map(ShuffleWriter::clone_box);
    plain.or_else(sorted).ok_or_else(|| BallistaError::Internal(format!("a stage ends in {}", writer.name())))
}

/// `plan` without exchanges inside the stage. All that DataFusion planned are where stages end; Ballista plans another where
/// an operator relies on rows being together by a column that equals the one they were exchanged by, as DataFusion knew and readers do not.
fn without_exchanges(plan: Arc<dyn ExecutionPlan>) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| match node.downcast_ref::<RepartitionExec>() {
        Some(exchange) => Ok(Transformed::yes(Arc::clone(exchange.input()))),
        None => Ok(Transformed::no(node)),
    })
    .data()
}

/// Fails where an operator asks for all rows and would get a part, or a join for two sides that are parted alike: tasks would answer for
/// their parts, and replicas agree.
fn check_gathered(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    plan.apply(|node| {
        let asked = node.input_distribution_requirements().into_per_child();
        let parts = node.children().into_iter().map(|child| child.output_partitioning().partition_count());
        let parts = parts.collect::<Vec<_>>();
        let join =
            node.downcast_ref::<HashJoinExec>().is_some_and(|j| *j.partition_mode() == PartitionMode::Partitioned);
        let unlike = join && parts.first() != parts.last();
        let single =
            |(asked, parts): (&Distribution, &usize)| matches!(asked, Distribution::SinglePartition) && *parts > 1;
        if unlike || asked.iter().zip(&parts).any(single) {
            let name = node.name();
            return Err(datafusion::error::DataFusionError::Internal(format!("{name} would get a part of its rows")));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}
