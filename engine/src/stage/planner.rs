//! Where a plan is cut into stages: Ballista's planner, kept from decisions that DataFusion took already ([`super::disguise`]).

use std::sync::Arc;

use ballista_core::{
    JobId,
    error::{BallistaError, Result},
    execution_plans::{ShuffleWriter, ShuffleWriterExec, SortShuffleWriterExec},
};
use ballista_scheduler::planner::{DefaultDistributedPlanner, DistributedPlanner};
use conun_executor::plan_node::RECOMPUTE;
use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    physical_plan::{
        Distribution, ExecutionPlan, ExecutionPlanProperties,
        joins::{HashJoinExec, PartitionMode},
        repartition::RepartitionExec,
    },
};

use super::disguise;

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

/// `plan` without exchanges inside the stage. All that DataFusion planned are where stages end; Ballista plans another where an
/// operator relies on rows being together by a column that equals the one they were exchanged by, as DataFusion knew and readers
/// do not.
fn without_exchanges(plan: Arc<dyn ExecutionPlan>) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| match node.downcast_ref::<RepartitionExec>() {
        Some(exchange) => Ok(Transformed::yes(Arc::clone(exchange.input()))),
        None => Ok(Transformed::no(node)),
    })
    .data()
}

/// Fails where an operator would get a part of its rows: tasks would answer for their parts, and replicas agree.
fn check_gathered(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    plan.apply(|node| match gets_a_part(node.as_ref()) {
        true => Err(DataFusionError::Internal(format!("{} would get a part of its rows", node.name()))),
        false => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(())
}

/// Whether `node` asks for all rows and does not get them, or joins two sides that are parted otherwise.
fn gets_a_part(node: &dyn ExecutionPlan) -> bool {
    let asks = node.input_distribution_requirements().into_per_child();
    let parts: Vec<usize> =
        node.children().into_iter().map(|child| child.output_partitioning().partition_count()).collect();
    let misses =
        asks.iter().zip(&parts).any(|(asks, parts)| matches!(asks, Distribution::SinglePartition) && *parts > 1);
    let join = node.downcast_ref::<HashJoinExec>();
    let by_parts = join.is_some_and(|join| *join.partition_mode() == PartitionMode::Partitioned);
    misses || (by_parts && parts.first() != parts.last())
}
