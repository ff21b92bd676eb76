//! Refusals for every door to a session: what planning by [`logical_plan`](crate::logical_plan) refuses with its place in the
//! statement is refused here without, for dataframes, views and whatever else brings a plan.

use std::fmt;

use conun_types::Result;
use datafusion::{
    common::config::ConfigOptions,
    error::Result as PlanResult,
    logical_expr::{
        LogicalPlan,
        planner::{RelationPlanner, RelationPlannerContext, RelationPlanning},
    },
    optimizer::AnalyzerRule,
    sql::sqlparser::ast::TableFactor,
};

use crate::external;

/// A rule that changes nothing, and fails where `check` does.
pub(super) struct Refused {
    pub(super) name: &'static str,
    pub(super) check: fn(&LogicalPlan) -> Result<()>,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl AnalyzerRule for Refused {
    fn name(&self) -> &str {
        self.name
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> PlanResult<LogicalPlan> {
        (self.check)(&plan).map_err(external)?;
        Ok(plan)
    }
}

/// Refuses `TABLESAMPLE`, of which DataFusion's plans tell nothing.
#[derive(Debug)]
pub(super) struct Samples;

impl RelationPlanner for Samples {
    fn plan_relation(&self, relation: TableFactor, _: &mut dyn RelationPlannerContext) -> PlanResult<RelationPlanning> {
        if matches!(relation, TableFactor::Table { sample: Some(_), .. }) {
            return Err(external(crate::statement::sample(None)));
        }
        Ok(RelationPlanning::Original(Box::new(relation)))
    }
}
