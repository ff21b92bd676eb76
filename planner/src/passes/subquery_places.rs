//! Subqueries that stand for a value in sorts, aggregates, windows and conditions of joins.
//!
//! Where the execution profile has them joined, DataFusion does so in filters and projections only. So such a value becomes a
//! column of a projection below.

use std::sync::Arc;

use datafusion::{
    common::{
        Column,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    logical_expr::{Expr, LogicalPlan, Projection, expr_rewriter::NamePreserver},
    optimizer::AnalyzerRule,
};

/// The pass.
#[derive(Debug)]
pub(crate) struct SubqueryPlaces;

impl AnalyzerRule for SubqueryPlaces {
    fn name(&self) -> &str {
        "subquery_places"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(lowered).data()
    }
}

fn lowered(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let has_place = match &node {
        LogicalPlan::Sort(_) | LogicalPlan::Window(_) | LogicalPlan::Join(_) => true,
        // Sets of keys have no names of their own to keep.
        LogicalPlan::Aggregate(aggregate) => !aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))),
        _ => false,
    };
    if !has_place {
        return Ok(Transformed::no(node));
    }
    let (schema, names, mut values) = (node.schema().clone(), NamePreserver::new(&node), Vec::new());
    let replaced = node.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(expr.transform_up(|e| Ok(as_column(e, &mut values)))?.update_data(|e| name.restore(e)))
    })?;
    if values.is_empty() {
        return Ok(replaced);
    }
    let (exprs, mut inputs) = (replaced.data.expressions(), owned(replaced.data.inputs()));
    let Some(first) = inputs.first_mut() else { return Ok(Transformed::no(replaced.data)) };
    let columns = first.schema().columns().into_iter().map(Expr::Column);
    let named = values.into_iter().enumerate().map(|(i, value)| value.alias(column(i)));
    *first = LogicalPlan::Projection(Projection::try_new(columns.chain(named).collect(), Arc::new(first.clone()))?);
    let node = replaced.data.with_new_exprs(exprs, inputs)?;
    // All but aggregates hand the new column on.
    let columns = schema.columns().into_iter().map(Expr::Column).collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(node))?)))
}

fn owned(plans: Vec<&LogicalPlan>) -> Vec<LogicalPlan> {
    plans.into_iter().cloned().collect()
}

/// The name of the i-th value below a node.
fn column(i: usize) -> String {
    format!("__value_of_subquery_{i}")
}

/// A column in the place of a subquery, which is one of `values` then.
fn as_column(expr: Expr, values: &mut Vec<Expr>) -> Transformed<Expr> {
    if !matches!(expr, Expr::ScalarSubquery(_)) {
        return Transformed::no(expr);
    }
    let i = values.iter().position(|value| *value == expr).unwrap_or_else(|| {
        values.push(expr);
        values.len() - 1
    });
    Transformed::yes(Expr::Column(Column::new_unqualified(column(i))))
}
