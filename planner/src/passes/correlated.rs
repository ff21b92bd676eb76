//! What subqueries have to do with the row outside: which conditions are on it, and what they compare.

use datafusion::{
    common::{
        Column,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{BinaryExpr, Expr, Filter, LogicalPlan, Operator, Subquery, utils::split_conjunction},
};

/// The conditions of `filter` on the row outside.
pub(super) fn on_row_outside(filter: &Filter) -> impl Iterator<Item = &Expr> {
    split_conjunction(&filter.predicate).into_iter().filter(|condition| condition.contains_outer())
}

/// The sides of an equality of what is worked out of a subquery's columns with what is worked out of the row outside: that, then this.
pub(super) fn compared(condition: &Expr) -> Option<(&Expr, &Expr)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
            (left, right) if is_inside(left) && is_outside(right) => Some((left, right)),
            (left, right) if is_inside(right) && is_outside(left) => Some((right, left)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether `plan` refers to the row outside. What stands after LATERAL in it refers to rows of its own.
pub(super) fn refers(plan: &LogicalPlan) -> bool {
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

/// The column of the row outside that `expr` is.
pub(super) fn outer_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::OuterReferenceColumn(_, column) => Some(column),
        _ => None,
    }
}

/// Whether `expr` is worked out of the subquery's columns alone.
fn is_inside(expr: &Expr) -> bool {
    expr.any_column_refs() && !reaches_out(expr)
}

/// Whether `expr` is of more than the columns below it: of the row outside, or of a subquery.
pub(super) fn reaches_out(expr: &Expr) -> bool {
    expr.exists(|e| Ok(is_subquery(e) || matches!(e, Expr::OuterReferenceColumn(..)))).unwrap_or(true)
}

/// Whether `expr` is worked out of the row outside alone.
pub(super) fn is_outside(expr: &Expr) -> bool {
    expr.contains_outer() && !expr.any_column_refs() && !expr.exists(|e| Ok(is_subquery(e))).unwrap_or(true)
}

/// Whether `expr` is a subquery, or has one that is not among its parts.
pub(super) fn is_subquery(expr: &Expr) -> bool {
    subquery_of(expr).is_some()
}

/// What stands after LATERAL, if `side` of a join does.
pub(super) fn lateral_of(side: &LogicalPlan) -> Option<&Subquery> {
    match side {
        LogicalPlan::Subquery(lateral) => Some(lateral),
        LogicalPlan::SubqueryAlias(alias) => lateral_of(&alias.input),
        _ => None,
    }
}

/// The subquery that `expr` is, or has.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(membership) => Some(&membership.subquery),
        Expr::SetComparison(comparison) => Some(&comparison.subquery),
        _ => None,
    }
}
