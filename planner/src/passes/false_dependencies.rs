//! Which columns determine others, as DataFusion has it, and is false.
//!
//! It drops keys of `GROUP BY` and `ORDER BY` that others determine, `DISTINCT` and joins by what is unique. It believes (DataFusion 55,
//! `FunctionalDependencies::join`, `Unnest`) that what determines the rows of one side of a join, or of what is unnested, determines
//! all columns of the result. Tables have no keys, so all that it knows comes of grouped subqueries, and little is lost with it:
//! it is forgotten, while statements are planned and before each rule that goes by it.

use std::sync::Arc;

use conun_types::Result;
use datafusion::{
    common::{
        DFSchemaRef, FunctionalDependencies,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result as PlanResult,
    logical_expr::{
        Expr, LogicalPlan, Projection,
        builder::unique_field_aliases,
        planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning},
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
    sql::sqlparser::ast::{Ident, TableAlias, TableFactor},
};

/// Rules for logical plans.
type Rules = Vec<Arc<dyn OptimizerRule + Send + Sync>>;

/// DataFusion's rules that go by dependencies.
const DEPENDENT: &[&str] =
    &["replace_distinct_aggregate", "eliminate_join", "eliminate_duplicated_expr", "optimize_projections"];

/// `rules` and this one before each that goes by dependencies.
///
/// # Errors
/// Kind `Internal` where one of these is not among them.
pub(super) fn forgotten(mut rules: Rules) -> Result<Rules> {
    for name in DEPENDENT {
        let place = super::place(name, rules.iter().map(|rule| rule.name()))?;
        rules.insert(place, Arc::new(Forget));
    }
    Ok(rules)
}

/// Forgets dependencies of what stands after FROM.
pub(super) fn relations() -> Arc<dyn RelationPlanner> {
    Arc::new(Forget)
}

/// Forgets dependencies.
#[derive(Debug)]
struct Forget;

impl OptimizerRule for Forget {
    fn name(&self) -> &str {
        "false_dependencies"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> PlanResult<Transformed<LogicalPlan>> {
        plan.transform_down_with_subqueries(forget)
    }
}

/// The alias of a relation that was given to this planner before.
const SEEN: &str = "__conun_relation";

impl RelationPlanner for Forget {
    fn plan_relation(
        &self,
        mut relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<RelationPlanning> {
        let (TableFactor::Derived { alias, .. } | TableFactor::Table { alias, args: None, .. }) = &mut relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        if alias.as_ref().is_some_and(|alias| alias.name.value == SEEN) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let seen = TableAlias { explicit: true, name: Ident::new(SEEN), columns: Vec::new(), at: None };
        let alias = alias.replace(seen);
        let plan = match context.plan(relation)? {
            LogicalPlan::SubqueryAlias(seen) => Arc::unwrap_or_clone(seen.input),
            plan => plan,
        };
        // For the alias, columns of one name got others.
        let plan = match plan {
            LogicalPlan::Projection(renamed) if alias.is_none() && is_renaming(&renamed) => {
                Arc::unwrap_or_clone(renamed.input)
            }
            plan => plan,
        };
        let plan = plan.transform_down(forget).data()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// Whether `projection` does nothing but tell columns of one name apart.
fn is_renaming(projection: &Projection) -> bool {
    let aliases = unique_field_aliases(projection.input.schema().fields());
    let renames = projection.expr.len() == aliases.len() && aliases.iter().any(Option::is_some);
    renames
        && projection.expr.iter().zip(&aliases).all(|(expr, alias)| match (expr, alias) {
            (Expr::Alias(renamed), Some(alias)) => renamed.name == *alias && matches!(*renamed.expr, Expr::Column(_)),
            (expr, None) => matches!(expr, Expr::Column(_)),
            _ => false,
        })
}

/// `node` without what it says of its own columns.
fn forget(mut node: LogicalPlan) -> PlanResult<Transformed<LogicalPlan>> {
    let Some(schema) = schema(&mut node).filter(|schema| !schema.functional_dependencies().is_empty()) else {
        return Ok(Transformed::no(node));
    };
    *schema = Arc::new(schema.as_ref().clone().with_functional_dependencies(FunctionalDependencies::empty())?);
    Ok(Transformed::yes(node))
}

/// The schema of a node that has one beside its inputs'.
fn schema(node: &mut LogicalPlan) -> Option<&mut DFSchemaRef> {
    match node {
        LogicalPlan::Projection(node) => Some(&mut node.schema),
        LogicalPlan::SubqueryAlias(node) => Some(&mut node.schema),
        LogicalPlan::Window(node) => Some(&mut node.schema),
        LogicalPlan::TableScan(node) => Some(&mut node.projected_schema),
        LogicalPlan::Aggregate(node) => Some(&mut node.schema),
        LogicalPlan::Join(node) => Some(&mut node.schema),
        LogicalPlan::Unnest(node) => Some(&mut node.schema),
        _ => None,
    }
}
