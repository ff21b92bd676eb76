//! Conditions above joins, in physical plans.
//!
//! DataFusion moves conditions through joins while the plan is logical, and again when it is physical. There it takes a column for one of the other
//! side of the same name, once it has swapped the sides: `from f right join a on a.k = f.k where f.k is null` would look for rows of `a` without a key.
//! So what the second rule moves stops above joins.

use std::{fmt, sync::Arc};

use conun_executor::plan_node::RECOMPUTE;
use datafusion::{
    common::{
        config::ConfigOptions,
        internal_err,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties},
};

use super::{Narrowed, PhysicalRule};

/// `rules`, of which those that move conditions stop above joins.
pub(super) fn kept(mut rules: Vec<PhysicalRule>) -> Vec<PhysicalRule> {
    for rule in rules.iter_mut().filter(|rule| rule.name().starts_with("FilterPushdown")) {
        *rule = Arc::new(Narrowed { rule: Arc::clone(rule), run: between_joins });
    }
    rules
}

/// `plan` after `rule` was run on each of its parts between joins.
fn between_joins(
    rule: &PhysicalRule,
    plan: Arc<dyn ExecutionPlan>,
    config: &ConfigOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut joins = Vec::new();
    let part = without_joins(plan, &mut joins)?;
    let part = rule.optimize(part, config)?;
    let joins = joins.into_iter().map(|join| between_joins(rule, join, config)).collect::<Result<Vec<_>>>()?;
    part.transform_up(|node| match node.downcast_ref::<Aside>() {
        Some(aside) => Ok(Transformed::yes(Arc::clone(&joins[aside.join]))),
        None => Ok(Transformed::no(node)),
    })
    .data()
}

/// `plan` with the first joins below it put aside among `joins`.
fn without_joins(
    plan: Arc<dyn ExecutionPlan>,
    joins: &mut Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let before = joins.len();
    let mut children = Vec::new();
    for child in plan.children() {
        children.push(match child.name().contains("Join") {
            true => {
                joins.push(Arc::clone(child));
                Arc::new(Aside { join: joins.len() - 1, properties: Arc::clone(child.properties()) })
            }
            false => without_joins(Arc::clone(child), joins)?,
        });
    }
    if joins.len() == before { Ok(plan) } else { plan.replace_children(children, RECOMPUTE) }
}

/// Where a join was put aside.
#[derive(Debug)]
struct Aside {
    join: usize,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for Aside {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "join {}", self.join)
    }
}

impl ExecutionPlan for Aside {
    fn name(&self) -> &'static str {
        "Aside"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    conun_executor::leaf_plan!();

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        internal_err!("a join was put aside and is still there")
    }
}
