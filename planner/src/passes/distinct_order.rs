//! Lists of distinct values are sorted.
//!
//! `array_agg(DISTINCT x)` and `string_agg(DISTINCT x, ..)` collect their values in a hash table and give them in its
//! order, which follows the width of a processor's vectors. Nobody can mean that order, so they get `ORDER BY x`, unless
//! the statement says another.

use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    logical_expr::{Expr, LogicalPlan, expr::Sort, expr_rewriter::NamePreserver},
    optimizer::AnalyzerRule,
};

/// Aggregates that list their values.
pub(crate) const LISTS: [&str; 2] = ["array_agg", "string_agg"];

/// The pass.
#[derive(Debug)]
pub(crate) struct DistinctOrder;

impl AnalyzerRule for DistinctOrder {
    fn name(&self) -> &str {
        "distinct_order"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            // What is above refers to the column by its name.
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(|e| Ok(ordered(e)))?.update_data(|e| name.restore(e)))
            })
        })
        .data()
    }
}

fn ordered(mut expr: Expr) -> Transformed<Expr> {
    if let Expr::AggregateFunction(call) = &mut expr
        && LISTS.contains(&call.func.name())
        && call.params.distinct
        && call.params.order_by.is_empty()
        && let [value, ..] = call.params.args.as_slice()
    {
        call.params.order_by = vec![Sort::new(value.clone(), true, false)];
        return Transformed::yes(expr);
    }
    Transformed::no(expr)
}
