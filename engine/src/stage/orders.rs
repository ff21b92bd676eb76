//! What an exchange keeps inside one process, and loses between tasks: the order of rows, which columns are constant and which are
//! equal to each other.
//!
//! DataFusion relies on all of it. A window that is partitioned by what an earlier one is ordered by has no sort of its own, nor has
//! one that is partitioned by a column which a filter fixed. The reader of another stage knows nothing of that. So where an
//! operator could not rely on its input any longer, rows are sorted by all that it asks for.

use std::{fmt, sync::Arc};

use conun_executor::plan_node::RECOMPUTE;
use datafusion::{
    common::tree_node::{Transformed, TransformedResult, TreeNode},
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, LexOrdering, LexRequirement, OrderingRequirements},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
        coalesce_partitions::CoalescePartitionsExec,
        joins::{HashJoinExec, PartitionMode},
        repartition::RepartitionExec,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
    },
};

/// `plan` with sorts where its stages need them.
pub(super) fn restore_orders(plan: Arc<dyn ExecutionPlan>) -> conun_types::Result<Arc<dyn ExecutionPlan>> {
    let uncut = |node: Arc<dyn ExecutionPlan>| match node.downcast_ref::<Cut>() {
        Some(cut) => Ok(Transformed::yes(Arc::clone(&cut.input))),
        None => Ok(Transformed::no(node)),
    };
    restored(plan).and_then(|plan| plan.transform_up(uncut).data()).map_err(|e| conun_planner::plan_error(&e))
}

/// The same, with a [`Cut`] where stages end.
fn restored(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let ends_below = plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>();
    let broadcasts = is_broadcast(&plan);
    let children = plan.children().into_iter().cloned().zip(plan.required_input_ordering()).enumerate();
    let children = children.map(|(i, (child, requires))| {
        let child = restored(child)?;
        let child = match (ends_below, broadcasts && i == 0) {
            (true, _) => Cut::below(child, true),
            (_, true) => Cut::below(child, false),
            _ => child,
        };
        match requires {
            Some(OrderingRequirements::Hard(alternatives)) => ordered(child, alternatives),
            _ => Ok(child),
        }
    });
    let children = children.collect::<Result<Vec<_>>>()?;
    let unchanged = plan.children().into_iter().zip(&children).all(|(before, after)| Arc::ptr_eq(before, after));
    let plan = match unchanged {
        true => plan,
        false => plan.replace_children(children, RECOMPUTE)?,
    };
    // An exchange orders nothing, whatever it says of one process.
    Ok(if plan.is::<RepartitionExec>() { Cut::below(plan, false) } else { plan })
}

/// Whether the left side of a join is a stage of its own.
fn is_broadcast(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<HashJoinExec>().is_some_and(|join| *join.partition_mode() == PartitionMode::CollectLeft)
}

/// `child` by the first of the orders that an operator asks for, which is the whole one: a window asks for its keys and its
/// order, or else for its order.
fn ordered(child: Arc<dyn ExecutionPlan>, alternatives: Vec<LexRequirement>) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(whole) = alternatives.into_iter().next() else { return Ok(child) };
    if child.equivalence_properties().ordering_satisfy_requirement(whole.clone())? {
        return Ok(child);
    }
    // A sort by less is no use below another one.
    let sort = child.downcast_ref::<SortExec>().filter(|sort| sort.fetch().is_none());
    let input = sort.map_or(&child, |sort| sort.input());
    let order = LexOrdering::from(whole);
    let keeps = input.output_partitioning().partition_count() == child.output_partitioning().partition_count();
    Ok(Arc::new(SortExec::new(order, Arc::clone(input)).with_preserve_partitioning(keeps)))
}

/// Its input as another stage reads it.
#[derive(Debug)]
struct Cut {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Cut {
    /// `keeps`: whether blocks are read in the order in which their rows are.
    fn below(input: Arc<dyn ExecutionPlan>, keeps: bool) -> Arc<dyn ExecutionPlan> {
        let order = input.output_ordering().filter(|_| keeps).cloned();
        let known = EquivalenceProperties::new_with_orderings(input.schema(), order);
        let properties = input.properties().as_ref().clone().with_eq_properties(known);
        Arc::new(Self { input, properties: Arc::new(properties) })
    }
}

impl DisplayAs for Cut {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cut")
    }
}

impl ExecutionPlan for Cut {
    fn name(&self) -> &'static str {
        "Cut"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    conun_executor::one_input_plan!(|this, input| Self { input, properties: Arc::clone(&this.properties) });

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
