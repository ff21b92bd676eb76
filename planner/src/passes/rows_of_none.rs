//! Aggregates that give a row where there is none: those without keys, and of grouping sets.
//!
//! DataFusion moves conditions on keys below aggregates. One that contradicts itself is on nothing any more, and moved as well:
//! `select n from (select count(*) n from t) where n = 1 and n = 2` would count no rows, and give a row.

use std::sync::Arc;

use datafusion::{
    common::tree_node::Transformed,
    error::Result,
    logical_expr::{EmptyRelation, Expr, LogicalPlan, lit, utils::split_conjunction},
    optimizer::{
        ApplyOrder, OptimizerConfig, OptimizerRule, push_down_filter::PushDownFilter,
        simplify_expressions::simplify_predicates,
    },
};

/// DataFusion's rule that moves conditions, but for those.
#[derive(Debug, Default)]
pub(super) struct PushDown(PushDownFilter);

impl OptimizerRule for PushDown {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if contradicts(&plan)? {
            let schema = Arc::clone(plan.schema());
            let none = EmptyRelation { produce_one_row: false, schema };
            return Ok(Transformed::yes(LogicalPlan::EmptyRelation(none)));
        }
        self.0.rewrite(plan, config)
    }
}

/// Whether `plan` is of conditions on such an aggregate that no row satisfies.
fn contradicts(plan: &LogicalPlan) -> Result<bool> {
    let (mut conditions, mut input): (Vec<Expr>, _) = (Vec::new(), plan);
    while let LogicalPlan::Filter(filter) = input {
        conditions.extend(split_conjunction(&filter.predicate).into_iter().cloned());
        input = &filter.input;
    }
    let LogicalPlan::Aggregate(aggregate) = input else { return Ok(false) };
    let keyless = aggregate.group_expr.is_empty() || matches!(aggregate.group_expr[..], [Expr::GroupingSet(_)]);
    Ok(keyless && simplify_predicates(conditions)?.contains(&lit(false)))
}
