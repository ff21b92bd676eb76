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
    logical_expr::{
        Expr, LogicalPlan, Operator,
        utils::{conjunction, split_conjunction_owned},
    },
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
    let inputs = plan.inputs().len();
    let below: Vec<bool> = match &plan {
        LogicalPlan::Join(join) => {
            let (left, right) = may_be_missing(join.join_type);
            vec![nulled || left, nulled || right]
        }
        LogicalPlan::Aggregate(aggregate) => {
            vec![nulled || aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)))]
        }
        _ => vec![nulled; inputs],
    };
    let mut below = below.into_iter();
    let plan = plan.map_children(|input| rewritten(input, below.next().unwrap_or(nulled)))?;
    let hidden = |expr: Expr| {
        let mut changed = false;
        let parts = split_conjunction_owned(expr).into_iter().map(|part| match fixes(&part) {
            true => {
                changed = true;
                Expr::IsTrue(Box::new(part))
            }
            false => part,
        });
        let all = conjunction(parts.collect::<Vec<_>>());
        (all, changed)
    };
    match plan.data {
        LogicalPlan::Filter(mut filter) if nulled => {
            let (predicate, changed) = hidden(filter.predicate.clone());
            filter.predicate = predicate.unwrap_or(filter.predicate);
            Ok(Transformed::new_transformed(LogicalPlan::Filter(filter), plan.transformed || changed))
        }
        LogicalPlan::TableScan(mut scan) if nulled => {
            let mut any = plan.transformed;
            let filters = scan.filters.into_iter().filter_map(|filter| {
                let (filter, changed) = hidden(filter);
                any |= changed;
                filter
            });
            scan.filters = filters.collect();
            Ok(Transformed::new_transformed(LogicalPlan::TableScan(scan), any))
        }
        data => Ok(Transformed::new_transformed(data, plan.transformed)),
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

/// Whether a condition says that something equals a constant, or another column: grouping sets may leave one of them out.
fn fixes(condition: &Expr) -> bool {
    let Expr::BinaryExpr(binary) = condition else { return false };
    binary.op == Operator::Eq
}
