//! Which columns determine others, as DataFusion has it, and is false.
//!
//! It drops keys of `GROUP BY` and `ORDER BY` that others determine, `DISTINCT` and joins by what is unique. It believes (DataFusion 55,
//! `aggregate_functional_dependencies`, `Unnest`) that what determines one side of a join determines all columns of an aggregate above the
//! join, and that what determines a row determines what is unnested of it. Tables have no keys, so all that it knows comes of grouped
//! and numbered subqueries, and little is lost with it: it is forgotten before each rule that goes by it, and of what is
//! joined already while a statement is planned.

use std::{ops::ControlFlow, sync::Arc};

use conun_types::Result;
use datafusion::{
    common::{
        DFSchemaRef, FunctionalDependencies,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result as PlanResult,
    logical_expr::{
        LogicalPlan,
        planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning},
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
    sql::{
        parser::Statement,
        sqlparser::ast::{Select, TableFactor, TableWithJoins, VisitMut, VisitorMut},
    },
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

/// Marks what is joined after FROM: sessions that are [`corrected`](super::corrected) forget of it what determines what. What stands
/// alone may be relied on: whoever groups numbered rows by their number may ask for their other columns.
pub fn mark_joined(statement: &mut Statement) {
    match statement {
        Statement::Statement(sql) => {
            let all = sql.to_string().to_lowercase().contains("unnest");
            let _all = sql.visit(&mut Mark { all });
        }
        Statement::Explain(explain) => mark_joined(&mut explain.statement),
        _ => (),
    }
}

struct Mark {
    /// Whether nothing is to be relied on.
    all: bool,
}

impl VisitorMut for Mark {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let alone = matches!(select.from.as_slice(), [from] if from.joins.is_empty());
        if self.all || !alone {
            for from in &mut select.from {
                mark(&mut from.relation);
                from.joins.iter_mut().for_each(|join| mark(&mut join.relation));
            }
        }
        ControlFlow::Continue(())
    }
}

/// The mark is a join with nothing: no statement that is parsed has one.
fn mark(relation: &mut TableFactor) {
    let (TableFactor::Derived { lateral: false, .. } | TableFactor::Table { args: None, .. }) = relation else {
        return;
    };
    let with_nothing = TableWithJoins { relation: relation.clone(), joins: Vec::new() };
    *relation = TableFactor::NestedJoin { table_with_joins: Box::new(with_nothing), alias: None };
}

impl RelationPlanner for Forget {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<RelationPlanning> {
        match relation {
            TableFactor::NestedJoin { table_with_joins, alias: None } if table_with_joins.joins.is_empty() => {
                let plan = context.plan(table_with_joins.relation)?.transform_down(forget).data()?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
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
