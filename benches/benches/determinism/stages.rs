//! A plan cut at its exchanges, as Ballista cuts it: what is below one runs to its end, and its blocks are read above.
//!
//! A stage runs as one task here. What tasks of a stage share in memory they share on both sides.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use conun_benches::tpch::Error;
use conun_executor::plan_node::RECOMPUTE;
use datafusion::{
    physical_expr::LexOrdering,
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, Partitioning, coalesce_partitions::CoalescePartitionsExec,
        repartition::RepartitionExec, sorts::sort_preserving_merge::SortPreservingMergeExec,
    },
};
use futures::{FutureExt, future::LocalBoxFuture};

/// Who runs stages, and how blocks look between them.
#[async_trait(?Send)]
pub(crate) trait Side {
    /// Runs a stage. Where its root is a hash repartition, a block is one of its partitions, else one of the plan's.
    async fn run(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Bytes>, Error>;

    /// A leaf that gives one block a partition.
    fn reader(&self, blocks: Vec<Bytes>, seen: Seen) -> Result<Arc<dyn ExecutionPlan>, Error>;
}

/// What operators above may rely on.
pub(crate) struct Seen {
    pub(crate) schema: SchemaRef,
    pub(crate) partitioning: Partitioning,
    pub(crate) ordering: Option<LexOrdering>,
}

/// Runs every stage of `plan`; gives the blocks of its answer.
pub(crate) async fn run_stages(plan: Arc<dyn ExecutionPlan>, side: &mut dyn Side) -> Result<Vec<Bytes>, Error> {
    let last = replace_stages(plan, side).await?;
    side.run(&last).await
}

fn replace_stages(
    plan: Arc<dyn ExecutionPlan>,
    side: &mut dyn Side,
) -> LocalBoxFuture<'_, Result<Arc<dyn ExecutionPlan>, Error>> {
    async move {
        let mut children = Vec::new();
        for child in plan.children() {
            let child = replace_stages(Arc::clone(child), side).await?;
            children.push(if merges(plan.as_ref()) { stage(child, side).await? } else { child });
        }
        if children.is_empty() {
            return Ok(plan);
        }
        let plan = plan.replace_children(children, RECOMPUTE)?;
        if plan.is::<RepartitionExec>() { stage(plan, side).await } else { Ok(plan) }
    }
    .boxed_local()
}

fn merges(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>()
}

async fn stage(plan: Arc<dyn ExecutionPlan>, side: &mut dyn Side) -> Result<Arc<dyn ExecutionPlan>, Error> {
    let seen = Seen {
        schema: plan.schema(),
        partitioning: plan.output_partitioning().clone(),
        ordering: plan.output_ordering().cloned(),
    };
    let blocks = side.run(&plan).await?;
    side.reader(blocks, seen)
}
