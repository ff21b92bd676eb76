//! Conditions above joins, in physical plans.
//!
//! DataFusion moves conditions through joins while the plan is logical, and again when it is physical. There it takes a column for one of the other
//! side of the same name, once it has swapped the sides: `from f right join a on a.k = f.k where f.k is null` would look for rows of `a` without a key.
//! So what the second rule moves stops above joins.
//! It stops above projections that compute from what another one computed, too: what may go below has done so before, and a condition that was
//! left above because it would outgrow one ([`rows_of_none`](super::rows_of_none)) would do so here.

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
    physical_expr::expressions::{Column, Literal},
    physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, projection::ProjectionExec},
};

use super::{Narrowed, PhysicalRule};

/// `rules`, of which those that move conditions stop above joins and projections.
pub(super) fn kept(mut rules: Vec<PhysicalRule>) -> Vec<PhysicalRule> {
    for rule in rules.iter_mut().filter(|rule| rule.name().starts_with("FilterPushdown")) {
        *rule = Arc::new(Narrowed { rule: Arc::clone(rule), run: in_parts });
    }
    rules
}

/// `plan` after `rule` was run on each of its parts between joins and such projections.
fn in_parts(
    rule: &PhysicalRule,
    plan: Arc<dyn ExecutionPlan>,
    config: &ConfigOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut barriers = Vec::new();
    let part = cut(plan, &mut barriers)?;
    let part = rule.optimize(part, config)?;
    let barriers = barriers.into_iter().map(|below| in_parts(rule, below, config)).collect::<Result<Vec<_>>>()?;
    part.transform_up(|node| match node.downcast_ref::<Aside>() {
        Some(aside) => Ok(Transformed::yes(Arc::clone(&barriers[aside.place]))),
        None => Ok(Transformed::no(node)),
    })
    .data()
}

/// `plan` with the first of these below it put aside among `barriers`.
fn cut(plan: Arc<dyn ExecutionPlan>, barriers: &mut Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    let before = barriers.len();
    let mut children = Vec::new();
    for child in plan.children() {
        children.push(match child.name().contains("Join") || computes_twice(child) {
            true => {
                barriers.push(Arc::clone(child));
                Arc::new(Aside { place: barriers.len() - 1, properties: Arc::clone(child.properties()) })
            }
            false => cut(Arc::clone(child), barriers)?,
        });
    }
    if barriers.len() == before { Ok(plan) } else { plan.replace_children(children, RECOMPUTE) }
}

/// Whether `plan` is a projection that computes from what another one has computed.
fn computes_twice(plan: &Arc<dyn ExecutionPlan>) -> bool {
    computes(plan) && std::iter::successors(only_child(plan), |below| only_child(below)).any(computes)
}

fn only_child(plan: &Arc<dyn ExecutionPlan>) -> Option<&Arc<dyn ExecutionPlan>> {
    match plan.children()[..] {
        [child] => Some(child),
        _ => None,
    }
}

fn computes(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let projection = plan.downcast_ref::<ProjectionExec>();
    projection.is_some_and(|p| p.expr().iter().any(|given| !given.expr.is::<Column>() && !given.expr.is::<Literal>()))
}

/// Where a join or a projection was put aside.
#[derive(Debug)]
struct Aside {
    place: usize,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for Aside {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "part {}", self.place)
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
        internal_err!("a part of the plan was put aside and is still there")
    }
}
