//! Lists of distinct values are sorted.
//!
//! `array_agg(DISTINCT x)` and `string_agg(DISTINCT x, ..)` collect their values in a hash table and give them in its
//! order, which follows the width of a processor's vectors. Nobody can mean that order, so they get `ORDER BY x`, unless
//! the statement says another.

use datafusion::{
    common::{config::ConfigOptions, tree_node::Transformed},
    error::Result,
    logical_expr::{Expr, LogicalPlan, expr::Sort},
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
        super::rewrite_exprs(plan, |expr| Ok(ordered(expr)))
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
