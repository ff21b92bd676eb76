//! `EXCEPT ALL` and `INTERSECT ALL`.
//!
//! DataFusion makes semi and anti joins of them, which say of each row whether the other side has one that is equal, where SQL counts these.
//! So equal rows are numbered on both sides, and joined by their numbers, too.

use std::sync::Arc;

use datafusion::{
    common::{
        Column, JoinType, NullEquality,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult},
    },
    error::Result,
    functions_window::expr_fn::row_number,
    logical_expr::{Distinct, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder},
    optimizer::AnalyzerRule,
};

/// The pass.
#[derive(Debug)]
pub(super) struct SetRows;

impl AnalyzerRule for SetRows {
    fn name(&self) -> &str {
        "set_rows"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(counted).data()
    }
}

fn counted(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(mut join) = node else { return Ok(Transformed::no(node)) };
    // No other join of a statement takes NULL for equal to NULL before it is optimized.
    let of_sets = matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull;
    // Of rows that are told apart there is nothing to count.
    if !of_sets || matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_))) {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let columns = join.left.schema().columns().into_iter().map(Expr::Column);
    let (left, right): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
    join.left = numbered(&join.left, left, "__nth_left")?;
    join.right = numbered(&join.right, right, "__nth_right")?;
    let nth = |name| Expr::Column(Column::new_unqualified(name));
    join.on.push((nth("__nth_left"), nth("__nth_right")));
    let joined = LogicalPlan::Join(join).recompute_schema()?;
    LogicalPlanBuilder::from(joined).project(columns)?.build().map(Transformed::yes)
}

/// `rows` with a column `name`: which of those that have its `values` a row is.
fn numbered(rows: &LogicalPlan, values: Vec<Expr>, name: &str) -> Result<Arc<LogicalPlan>> {
    let number = row_number().partition_by(values).build()?.alias(name);
    LogicalPlanBuilder::from(rows.clone()).window(vec![number])?.build().map(Arc::new)
}
