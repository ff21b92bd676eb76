//! Refuses recursion over tables of the network.
//!
//! How often a recursive query reads its table follows from the rows: there is no fixed number of stages, and no task can
//! be named before the one that it depends on has run. Without such a table the coordinator computes it.

use conun_types::Result;
use datafusion::{common::tree_node::TreeNodeRecursion, logical_expr::LogicalPlan, sql::sqlparser::ast::Statement};

use crate::{place, plan_error, refusal::Refusal};

/// The first recursion of a plan.
pub(crate) fn refusal(plan: &LogicalPlan, statement: Option<&Statement>) -> Result<Option<Refusal>> {
    let mut recursive = false;
    plan.apply_with_subqueries(|node| {
        recursive |= matches!(node, LogicalPlan::RecursiveQuery(_));
        Ok(if recursive { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(|e| plan_error(&e))?;
    Ok(recursive.then(|| Refusal {
        construct: "WITH RECURSIVE".to_owned(),
        place: statement.and_then(place::of_recursion),
        reason: "over tables of the network has no fixed number of stages",
        instead: "join the table with itself as often as the hierarchy is deep, or fetch it and recur without a network",
    }))
}
