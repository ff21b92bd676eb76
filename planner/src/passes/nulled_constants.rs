//! Columns that a filter fixes below an operator that makes NULLs of them: grouping sets, and the side of an outer join that may be
//! missing.
//!
//! DataFusion still takes them for constant above it: it leaves them out of sorts and groups as if rows came sorted by them. What it
//! does not read as an equality fixes nothing, so such a filter says `(x = 3) IS TRUE`. Pruning of row groups by it is given up.

use datafusion::{
    common::{
        JoinType,
        tree_node::{Transformed, TreeNode},
    },
    error::Result,
    logical_expr::{Expr, LogicalPlan, Operator},
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};

/// The pass: after all that would fold it again.
#[derive(Debug)]
pub(crate) struct NulledConstants;

impl OptimizerRule for NulledConstants {
    fn name(&self) -> &str {
        "nulled_constants"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        rewritten(plan, false)
    }
}

/// `nulled`: whether an operator above makes NULLs of columns of `plan`.
fn rewritten(plan: LogicalPlan, nulled: bool) -> Result<Transformed<LogicalPlan>> {
    let (first, others) = match &plan {
        LogicalPlan::Join(join) => may_be_missing(join.join_type),
        LogicalPlan::Aggregate(aggregate) => {
            (aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))), false)
        }
        _ => (false, false),
    };
    let mut nulls = std::iter::once(first).chain(std::iter::repeat(others));
    let plan = plan.map_children(|input| rewritten(input, nulled || nulls.next().unwrap_or(others)))?;
    if !nulled || !matches!(plan.data, LogicalPlan::Filter(_) | LogicalPlan::TableScan(_)) {
        return Ok(plan);
    }
    plan.transform_data(|node| node.map_expressions(hidden))
}

/// A condition of which no part says for DataFusion that something equals a constant, or another column, which grouping sets may leave out.
fn hidden(condition: Expr) -> Result<Transformed<Expr>> {
    match &condition {
        Expr::BinaryExpr(parts) if parts.op == Operator::And => condition.map_children(hidden),
        Expr::BinaryExpr(equality) if equality.op == Operator::Eq => {
            Ok(Transformed::yes(Expr::IsTrue(Box::new(condition))))
        }
        _ => Ok(Transformed::no(condition)),
    }
}

/// Which sides of a join may have no row where the other has one.
fn may_be_missing(join: JoinType) -> (bool, bool) {
    match join {
        JoinType::Left => (false, true),
        JoinType::Right => (true, false),
        JoinType::Full => (true, true),
        _ => (false, false),
    }
}
