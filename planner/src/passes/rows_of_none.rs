//! Aggregates that give a row where there is none: those without keys, and of grouping sets.
//!
//! DataFusion moves conditions below aggregates that are on keys alone. One that is on no column at all is moved as well, for example one that
//! contradicts itself, or that is on a constant: `select n from (select count(*) n, 1 k from t) where k = 2` would count no rows,
//! and give a row. Such conditions stay above. So do those that would outgrow a projection.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::Result,
    logical_expr::{
        Aggregate, EmptyRelation, Expr, Filter, LogicalPlan, lit,
        utils::{conjunction, split_conjunction},
    },
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
        if outgrows(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let Some((conditions, aggregate)) = of_aggregate(&plan) else { return self.0.rewrite(plan, config) };
        let conditions = simplify_predicates(conditions)?;
        if conditions.contains(&lit(false)) {
            let schema = Arc::clone(plan.schema());
            let none = EmptyRelation { produce_one_row: false, schema };
            return Ok(Transformed::yes(LogicalPlan::EmptyRelation(none)));
        }
        let on_keys = |condition: &Expr| !aggregate.group_expr.is_empty() && !condition.column_refs().is_empty();
        let (movable, kept): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(on_keys);
        let aggregate = LogicalPlan::Aggregate(aggregate);
        let moved = match conjunction(movable) {
            Some(condition) => self.0.rewrite(filter(condition, aggregate)?, config)?.data,
            None => aggregate,
        };
        let rewritten = match conjunction(kept) {
            Some(condition) => filter(condition, moved)?,
            None => moved,
        };
        let differs = rewritten != plan;
        Ok(Transformed::new_transformed(rewritten, differs))
    }
}

/// Most parts of a condition below a projection: each of its columns becomes what it is computed from, and where that is one of two others,
/// which are of two others each, every projection doubles the condition.
const MAX_PARTS: usize = 10_000;

/// Whether `plan` is a filter whose condition would be too large below the projection that it is of.
fn outgrows(plan: &LogicalPlan) -> Result<bool> {
    let LogicalPlan::Filter(Filter { predicate, input, .. }) = plan else { return Ok(false) };
    let LogicalPlan::Projection(projection) = input.as_ref() else { return Ok(false) };
    let mut sizes = HashMap::new();
    for ((_, field), expr) in projection.schema.iter().zip(&projection.expr) {
        sizes.insert(field.name().as_str(), parts(expr, |_| 1)?);
    }
    let size = parts(predicate, |expr| match expr {
        Expr::Column(column) => sizes.get(column.name.as_str()).copied().unwrap_or(1),
        _ => 1,
    })?;
    Ok(size > MAX_PARTS)
}

/// The sum of what the parts of `expr` count.
fn parts(expr: &Expr, count: impl Fn(&Expr) -> usize) -> Result<usize> {
    let mut sum: usize = 0;
    expr.apply(|part| {
        sum = sum.saturating_add(count(part));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(sum)
}

fn filter(condition: Expr, input: LogicalPlan) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(input))?))
}

/// Whether `aggregate` may give a row where there is none.
pub(super) fn gives_row_of_none(aggregate: &Aggregate) -> bool {
    matches!(aggregate.group_expr[..], [] | [Expr::GroupingSet(_)])
}

/// The conditions that `plan` is of, on such an aggregate, and this.
fn of_aggregate(plan: &LogicalPlan) -> Option<(Vec<Expr>, Aggregate)> {
    let (mut conditions, mut input): (Vec<Expr>, _) = (Vec::new(), plan);
    while let LogicalPlan::Filter(filter) = input {
        conditions.extend(split_conjunction(&filter.predicate).into_iter().cloned());
        input = &filter.input;
    }
    match input {
        LogicalPlan::Aggregate(aggregate) if gives_row_of_none(aggregate) => {
            (!conditions.is_empty()).then(|| (conditions, aggregate.clone()))
        }
        _ => None,
    }
}
