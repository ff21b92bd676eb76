//! Orders that an exchange keeps inside one process, and loses between tasks.
//!
//! DataFusion relies on a hash `RepartitionExec` of one input partition (or one that merges) to hand rows on in the order in which they
//! came: a window that is partitioned by what an earlier one is ordered by needs no sort of its own then. Between tasks there
//! is no order, and Ballista's readers promise none. So where somebody above needs it, rows are sorted again.

use std::sync::Arc;

use conun_types::Result;
use datafusion::physical_expr_common::sort_expr::OrderingRequirements;
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions, execution_plan::ChildrenPropertiesMode,
    repartition::RepartitionExec, sorts::sort::SortExec,
};

/// `plan` with sorts above the exchanges whose order is needed.
pub(super) fn restore_orders(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    restore(plan, false).map_err(|e| conun_planner::plan_error(&e))
}

/// `needed`: whether an operator above relies on the order of `plan`'s rows.
fn restore(plan: Arc<dyn ExecutionPlan>, needed: bool) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    let exchange = plan.is::<RepartitionExec>();
    let order = plan.output_ordering().filter(|_| exchange && needed).cloned();
    let (keeps, requires) = (plan.maintains_input_order(), plan.required_input_ordering());
    let children = plan.children().into_iter().cloned().zip(keeps.into_iter().zip(requires));
    let children = children.map(|(child, (keeps, requires))| {
        let required = matches!(requires, Some(OrderingRequirements::Hard(_)));
        restore(child, required || (needed && keeps && !exchange))
    });
    let children = children.collect::<datafusion::error::Result<Vec<_>>>()?;
    let unchanged = plan.children().into_iter().zip(&children).all(|(before, after)| Arc::ptr_eq(before, after));
    let plan = match unchanged {
        true => plan,
        false => plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?,
    };
    Ok(match order {
        Some(order) => Arc::new(SortExec::new(order, plan).with_preserve_partitioning(true)),
        None => plan,
    })
}
