//! Limits below windows.
//!
//! DataFusion keeps as many groups of an aggregate as an order and a limit above leave, and takes a window between them for none that needs the
//! others: `select k, rank() over (order by k desc) from t group by k order by k limit 3` would rank three.

use std::sync::Arc;

use conun_types::Result;
use datafusion::{
    common::{config::ConfigOptions, tree_node::TreeNode},
    error::Result as PlanResult,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::ExecutionPlan,
};

/// Rules for physical plans.
type Rules = Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>;

/// DataFusion's rule that limits aggregates by orders above.
const LIMITS: &str = "LimitAggregation";

/// `rules`, of which that one leaves plans with windows alone.
///
/// # Errors
/// Kind `Internal` where that is not among them.
pub(super) fn whole(mut rules: Rules) -> Result<Rules> {
    let place = super::place(LIMITS, rules.iter().map(|rule| rule.name()))?;
    rules[place] = Arc::new(UnlessWindowed(Arc::clone(&rules[place])));
    Ok(rules)
}

#[derive(Debug)]
struct UnlessWindowed(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for UnlessWindowed {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> PlanResult<Arc<dyn ExecutionPlan>> {
        match plan.exists(|node| Ok(node.name().contains("Window")))? {
            true => Ok(plan),
            false => self.0.optimize(plan, config),
        }
    }
}
