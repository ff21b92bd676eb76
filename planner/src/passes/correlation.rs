//! Refuses subqueries that refer to the row outside from where DataFusion's joins give another answer.
//!
//! It moves conditions on the row outside up and joins by them. Moved above a window, they would count rows of other outer rows;
//! above the side of a join that may be missing, or that only tells which rows of the other there are, they would take rows
//! away; above an aggregate without keys, its one row where there is nothing to aggregate, unless that is the subquery's own,
//! and stands for a value. It tells the columns in these conditions apart by their bare names, and leaves out limits in `EXISTS`.

use std::collections::BTreeMap;

use conun_types::Result;
use datafusion::{
    common::{
        Column, JoinType,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan, Subquery, utils::split_conjunction},
    sql::sqlparser::ast::Statement,
};

use super::{rows_of_none::gives_row_of_none, subquery_flags::is_one_row};
use crate::{plan_error, refusal::Refusal};

/// The first such subquery of a plan.
pub(crate) fn refusal(plan: &LogicalPlan, _: Option<&Statement>) -> Result<Option<Refusal>> {
    let mut found = super::find_expr(plan, |expr| match expr {
        Expr::ScalarSubquery(subquery) => misjoined(subquery, For::Value),
        Expr::Exists(exists) if is_one_row(&exists.subquery.subquery) => None,
        Expr::Exists(exists) => misjoined(&exists.subquery, For::Existence),
        Expr::InSubquery(membership) if is_one_row(&membership.subquery.subquery) => {
            misjoined(&membership.subquery, For::Value)
        }
        Expr::InSubquery(membership) => misjoined(&membership.subquery, For::Members),
        _ => None,
    })?;
    plan.apply_with_subqueries(|node| {
        for input in node.inputs() {
            if let LogicalPlan::Subquery(lateral) = input {
                found = found.or_else(|| misjoined(lateral, For::Rows));
            }
        }
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(|e| plan_error(&e))?;
    Ok(found.map(|below| Refusal {
        construct: format!("a subquery that refers to the row outside {below}"),
        place: None,
        reason: "would be joined with other rows",
        instead: "join the tables, and aggregate or number rows after that",
    }))
}

/// What a subquery stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Value,
    Existence,
    Members,
    /// After LATERAL.
    Rows,
}

/// Why `subquery` would be joined wrongly, if it would.
fn misjoined(subquery: &Subquery, stands: For) -> Option<&'static str> {
    let plan = subquery.subquery.as_ref();
    if subquery.outer_ref_columns.is_empty() {
        return None;
    }
    let value = matches!(stands, For::Value | For::Rows);
    moved_above(plan, value, stands == For::Rows)
        .or_else(|| (stands == For::Existence).then(|| limited(plan)).flatten())
        .or_else(|| of_one_name(plan, stands == For::Members).then_some("by two columns of one name"))
}

/// What a condition on the row outside would have to be moved above, and cannot be. `aggregate`: whether an aggregate without keys
/// is what the subquery is for. `rows`: whether no condition may be on that.
fn moved_above(plan: &LogicalPlan, aggregate: bool, rows: bool) -> Option<&'static str> {
    let inputs = plan.inputs();
    let outer = |input: &&LogicalPlan| refers(input);
    let without = match plan {
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => &inputs[1..],
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => &inputs[..1],
            JoinType::Full => &inputs[..],
            JoinType::Inner => &[],
        },
        _ => &[],
    };
    if without.iter().any(outer) {
        return Some("below an outer join or a set operation");
    }
    if matches!(plan, LogicalPlan::Window(_)) && inputs.iter().any(outer) {
        return Some("below a window");
    }
    if matches!(plan, LogicalPlan::Subquery(_)) {
        return None;
    }
    if rows && matches!(plan, LogicalPlan::Filter(filter) if is_one_row(&filter.input)) {
        return Some("below HAVING");
    }
    let mut aggregate = aggregate;
    if let LogicalPlan::Aggregate(node) = plan
        && gives_row_of_none(node)
        && inputs.iter().any(outer)
    {
        if !aggregate || !node.group_expr.is_empty() {
            return Some("below an aggregate");
        }
        aggregate = false;
    }
    inputs.into_iter().find_map(|input| moved_above(input, aggregate, rows))
}

/// Whether `plan` refers to the row outside. What stands after LATERAL in it refers to rows of its own.
fn refers(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = plan.apply(|node| {
        if matches!(node, LogicalPlan::Subquery(_)) {
            return Ok(TreeNodeRecursion::Jump);
        }
        found |= node.contains_outer_reference();
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found || walked.is_err()
}

/// A limit in `plan`, but for one at its top that leaves a row.
fn limited(plan: &LogicalPlan) -> Option<&'static str> {
    let rest = match plan {
        LogicalPlan::Limit(limit) if limit.skip.is_none() => &limit.input,
        _ => plan,
    };
    let limits = rest.exists(|node| Ok(matches!(node, LogicalPlan::Limit(_))));
    limits.unwrap_or(true).then_some("beside a limit")
}

/// Whether two columns in the conditions on the row outside have one name, among them the first of `plan` if it is compared, too.
fn of_one_name(plan: &LogicalPlan, compared: bool) -> bool {
    let mut columns: BTreeMap<String, Column> = BTreeMap::new();
    let mut twice = false;
    let mut add = |column: &Column| {
        let other = columns.entry(column.name.clone()).or_insert_with(|| column.clone());
        twice |= other.relation != column.relation;
    };
    if compared && let LogicalPlan::Projection(projection) = plan {
        projection.expr.first().into_iter().flat_map(Expr::column_refs).for_each(&mut add);
    }
    let walked = plan.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            let conditions =
                split_conjunction(&filter.predicate).into_iter().filter(|condition| condition.contains_outer());
            conditions.flat_map(Expr::column_refs).for_each(&mut add);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    twice || walked.is_err()
}
