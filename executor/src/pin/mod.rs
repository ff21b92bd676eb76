//! Rewrites after decoding that leave no choice to timing, nor to what else runs.
//!
//! - `CoalescePartitionsExec` takes batches as they arrive: [`OrderedCoalesceExec`] reads partition 0 to its end,
//!   then 1, and so on.
//! - `SortPreservingMergeExec` breaks ties by how often an input was polled: here the lower partition always wins.
//! - The partitions of a `SortExec` with a limit tell each other what need not be looked at: in a [`LoneTopKExec`] each is
//!   by itself.
//! - The state of a partial DISTINCT aggregate is a list in the order of a hash set. DataFusion's seeds are constants, but
//!   the order follows the sequence in which values came and the set's capacity: [`SortedStatesExec`] sorts it.
//!
//! What else interleaves (`RepartitionExec` inside a task, `InterleaveExec`, `SymmetricHashJoinExec`, `BufferExec`) is
//! not on the whitelist. Sorts and joins do their own work in input order when one thread drives them, as the runner's
//! does.

mod lone_topk;
mod ordered_coalesce;
mod sorted_states;

use std::sync::Arc;

use conun_types::Failure;
use datafusion::{
    common::tree_node::{Transformed, TransformedResult, TreeNode},
    error::Result,
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties,
        aggregates::AggregateExec,
        coalesce_partitions::CoalescePartitionsExec,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
    },
};

use crate::plan_node::RECOMPUTE;

pub use self::lone_topk::LoneTopKExec;
pub use self::ordered_coalesce::OrderedCoalesceExec;
pub use self::sorted_states::SortedStatesExec;

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
        return Ok(Transformed::yes(pinned_merge(merge, merge.input().clone())));
    }
    if let Some(sort) = plan.downcast_ref::<SortExec>()
        && let Some(fetch) = sort.fetch()
        && plan.output_partitioning().partition_count() > 1
    {
        let lone = LoneTopKExec::new(sort.input().clone(), sort.expr().clone(), fetch);
        return Ok(Transformed::yes(Arc::new(lone)));
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let states = sorted_states::distinct_states(aggregate)?;
        if !states.is_empty() {
            return Ok(Transformed::yes(Arc::new(SortedStatesExec::new(plan.clone(), states))));
        }
    }
    Ok(Transformed::no(plan))
}

fn pinned_merge(merge: &SortPreservingMergeExec, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let pinned = SortPreservingMergeExec::new(merge.expr().clone(), input).with_fetch(merge.fetch());
    Arc::new(pinned.with_round_robin_repartition(false))
}

/// The pinned operator `plan` over other children: on its own, a merge would forget that it is pinned.
///
/// # Errors
/// Where it does not take them.
pub(crate) fn over(
    plan: &Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    match (plan.downcast_ref::<SortPreservingMergeExec>(), children.as_slice()) {
        (_, []) => Ok(plan.clone()),
        (Some(merge), [input]) => Ok(pinned_merge(merge, input.clone())),
        _ => plan.clone().replace_children(children, RECOMPUTE),
    }
}
