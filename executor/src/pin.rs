//! Rewrites after decoding that leave no choice to timing.
//!
//! - `CoalescePartitionsExec` takes batches as they arrive: [`OrderedCoalesceExec`] reads partition 0 to its end,
//!   then 1, and so on.
//! - `SortPreservingMergeExec` breaks ties by how often an input was polled: here the lower partition always wins.
//!
//! What else interleaves (`RepartitionExec` inside a task, `InterleaveExec`, `SymmetricHashJoinExec`, `BufferExec`) is
//! not on the whitelist. Sorts and joins do their own work in input order when one thread drives them, as the runner's
//! does.

use std::{fmt, sync::Arc};

use conun_types::Failure;
use datafusion::{
    common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::PhysicalExpr,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
        ReplaceChildrenOptions, coalesce_partitions::CoalescePartitionsExec, execution_plan::ChildrenPropertiesMode,
        sorts::sort_preserving_merge::SortPreservingMergeExec, stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt, future, stream};

/// `plan` with every choice pinned.
///
/// # Errors
/// [`Failure::Refused`] where an operator cannot take its rewritten children.
pub fn pin(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, Failure> {
    plan.transform_up(pin_operator).data().map_err(|e| Failure::Refused(e.strip_backtrace()))
}

fn pin_operator(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    if let Some(coalesce) = plan.downcast_ref::<CoalescePartitionsExec>() {
        let ordered = OrderedCoalesceExec::new(coalesce.input().clone(), coalesce.fetch());
        return Ok(Transformed::yes(Arc::new(ordered)));
    }
    if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
        let pinned = SortPreservingMergeExec::new(merge.expr().clone(), merge.input().clone())
            .with_fetch(merge.fetch())
            .with_round_robin_repartition(false);
        return Ok(Transformed::yes(Arc::new(pinned)));
    }
    Ok(Transformed::no(plan))
}

/// Concatenates the partitions of its input, in order.
#[derive(Debug, Clone)]
pub struct OrderedCoalesceExec {
    input: Arc<dyn ExecutionPlan>,
    fetch: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl OrderedCoalesceExec {
    /// All rows of `input`, or the first `fetch`.
    #[must_use]
    pub fn new(input: Arc<dyn ExecutionPlan>, fetch: Option<usize>) -> Self {
        let mut equivalences = input.equivalence_properties().clone();
        if input.output_partitioning().partition_count() > 1 {
            equivalences.clear_orderings();
            equivalences.clear_per_partition_constants();
        }
        let properties = PlanProperties::new(
            equivalences,
            Partitioning::UnknownPartitioning(1),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, fetch, properties: Arc::new(properties) }
    }
}

impl DisplayAs for OrderedCoalesceExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fetch {
            Some(fetch) => write!(f, "OrderedCoalesceExec: fetch={fetch}"),
            None => write!(f, "OrderedCoalesceExec"),
        }
    }
}

impl ExecutionPlan for OrderedCoalesceExec {
    fn name(&self) -> &'static str {
        "OrderedCoalesceExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, recompute)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            Ok([input]) => Ok(Arc::new(Self::new(input, self.fetch))),
            Err(_) => Err(DataFusionError::Internal("OrderedCoalesceExec has one input".into())),
        }
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.clone();
        let partitions = 0..input.output_partitioning().partition_count();
        // A partition starts when the one before it has ended.
        let batches =
            stream::iter(partitions).map(move |partition| input.execute(partition, context.clone())).try_flatten();
        let mut left = self.fetch.unwrap_or(usize::MAX);
        let limited = batches
            .map_ok(move |batch| {
                let batch = batch.slice(0, batch.num_rows().min(left));
                left -= batch.num_rows();
                (batch, left)
            })
            .scan(false, |done, next| {
                if *done {
                    return future::ready(None);
                }
                *done = next.as_ref().map_or(true, |(_, left)| *left == 0);
                future::ready(Some(next.map(|(batch, _)| batch)))
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), limited)))
    }
}
