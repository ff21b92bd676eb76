//! Refuses subqueries that refer to the row outside from where DataFusion's joins give another answer.
//!
//! It moves conditions on the row outside up and joins by them. Moved above a window, they would count rows of other outer rows;
//! above the side of an outer join that may be missing, they would take rows away; above an aggregate without keys, its one row
//! where there is nothing to aggregate, unless that is the subquery's own, and stands for a value.

use conun_types::Result;
use datafusion::{
    common::JoinType,
    logical_expr::{Expr, LogicalPlan},
    sql::sqlparser::ast::Statement,
};

use super::subquery_flags::is_one_row;
use crate::refusal::Refusal;

/// The first such subquery of a plan.
pub(crate) fn refusal(plan: &LogicalPlan, _: Option<&Statement>) -> Result<Option<Refusal>> {
    let wrong = |expr: &Expr| match expr {
        Expr::ScalarSubquery(subquery) => moved_above(&subquery.subquery, true),
        // These become values, or nothing is left of them.
        Expr::InSubquery(membership) if is_one_row(&membership.subquery.subquery) => {
            moved_above(&membership.subquery.subquery, true)
        }
        Expr::Exists(exists) if is_one_row(&exists.subquery.subquery) => None,
        Expr::InSubquery(membership) => moved_above(&membership.subquery.subquery, false),
        Expr::Exists(exists) => moved_above(&exists.subquery.subquery, false),
        _ => None,
    };
    Ok(super::find_expr(plan, wrong)?.map(|above| Refusal {
        construct: format!("a subquery that refers to the row outside below {above}"),
        place: None,
        reason: "would be joined with other rows",
        instead: "join the tables, and aggregate or number rows after that",
    }))
}

/// What a condition on the row outside would have to be moved above, and cannot be. `aggregate`: whether an aggregate without keys
/// is what the subquery is for.
fn moved_above(plan: &LogicalPlan, aggregate: bool) -> Option<&'static str> {
    let inputs = plan.inputs();
    let outer = |input: &&LogicalPlan| !input.all_out_ref_exprs().is_empty();
    let missing = match plan {
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::Left => &inputs[1..],
            JoinType::Right => &inputs[..1],
            JoinType::Full => &inputs[..],
            _ => &[],
        },
        _ => &[],
    };
    if missing.iter().any(outer) {
        return Some("an outer join");
    }
    if matches!(plan, LogicalPlan::Window(_)) && inputs.iter().any(outer) {
        return Some("a window");
    }
    let mut aggregate = aggregate;
    if let LogicalPlan::Aggregate(node) = plan
        && matches!(node.group_expr[..], [] | [Expr::GroupingSet(_)])
        && inputs.iter().any(outer)
    {
        if !aggregate || !node.group_expr.is_empty() {
            return Some("an aggregate");
        }
        aggregate = false;
    }
    inputs.into_iter().find_map(|input| moved_above(input, aggregate))
}
