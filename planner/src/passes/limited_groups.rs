//! Limits below windows.
//!
//! DataFusion keeps as many groups of an aggregate as an order and a limit above leave, and takes a window between them for none that needs the
//! others: `select k, rank() over (order by k desc) from t group by k order by k limit 3` would rank three.

use std::sync::Arc;

use conun_types::Result;
use datafusion::{
    common::{config::ConfigOptions, tree_node::TreeNode},
    error::Result as PlanResult,
    physical_plan::ExecutionPlan,
};

use super::{Narrowed, PhysicalRule};

/// DataFusion's rule that limits aggregates by orders above.
const LIMITS: &str = "LimitAggregation";

/// `rules`, of which that one leaves plans with windows alone.
///
/// # Errors
/// Kind `Internal` where that is not among them.
pub(super) fn whole(mut rules: Vec<PhysicalRule>) -> Result<Vec<PhysicalRule>> {
    let place = super::place(LIMITS, rules.iter().map(|rule| rule.name()))?;
    rules[place] = Arc::new(Narrowed { rule: Arc::clone(&rules[place]), run: unless_windowed });
    Ok(rules)
}

fn unless_windowed(
    rule: &PhysicalRule,
    plan: Arc<dyn ExecutionPlan>,
    config: &ConfigOptions,
) -> PlanResult<Arc<dyn ExecutionPlan>> {
    match plan.exists(|node| Ok(node.name().contains("Window")))? {
        true => Ok(plan),
        false => rule.optimize(plan, config),
    }
}
