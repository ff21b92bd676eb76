//! Which columns determine others, as DataFusion has it, and is false.
//!
//! It drops keys of `GROUP BY` and `ORDER BY` that others determine, `DISTINCT` and joins by what is unique. It believes (DataFusion 55,
//! `aggregate_functional_dependencies`, `Unnest`) that what determines one side of a join determines all columns of an aggregate above the
//! join, and that what determines a row determines what is unnested of it. Tables have no keys, so all that it knows comes of grouped
//! and numbered subqueries, and little is lost with it: it is forgotten before each rule that goes by it, and of what is
//! joined already while a statement is planned. Dataframes are made without asking anybody: those that it may have misled are refused.

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
        sqlparser::ast::{
            Expr, Ident, Select, Statement as SqlStatement, TableFactor, TableWithJoins, VisitMut, VisitorMut,
        },
    },
};

use crate::refusal::Refusal;

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

/// Marks what stands alone after FROM: sessions that are [`corrected`](super::corrected) forget of all else there what determines
/// what. Whoever groups numbered rows by their number may ask for their other columns.
pub(crate) fn mark_alone(statement: &mut Statement) {
    match statement {
        Statement::Statement(sql) if !sql.to_string().to_lowercase().contains("unnest") => {
            let _all = sql.visit(&mut Mark);
        }
        Statement::Explain(explain) => mark_alone(&mut explain.statement),
        _ => (),
    }
}

struct Mark;

impl VisitorMut for Mark {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let [from] = select.from.as_mut_slice()
            && is_alone(from)
        {
            let nothing = TableFactor::TableFunction { expr: Expr::Identifier(Ident::new("")), alias: None };
            from.relation = marked(std::mem::replace(&mut from.relation, nothing));
        }
        ControlFlow::Continue(())
    }
}

/// Whether `from` is one table.
pub(super) fn is_alone(from: &TableWithJoins) -> bool {
    from.joins.is_empty() && !matches!(from.relation, TableFactor::NestedJoin { .. })
}

/// The mark is a join with nothing: no statement that is parsed has one, but around another join.
fn marked(relation: TableFactor) -> TableFactor {
    let with_nothing = TableWithJoins { relation, joins: Vec::new() };
    TableFactor::NestedJoin { table_with_joins: Box::new(with_nothing), alias: None }
}

impl RelationPlanner for Forget {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<RelationPlanning> {
        match relation {
            TableFactor::NestedJoin { table_with_joins, alias: None } if table_with_joins.joins.is_empty() => {
                Ok(RelationPlanning::Original(Box::new(table_with_joins.relation)))
            }
            // Its sides come here themselves.
            join @ TableFactor::NestedJoin { .. } => Ok(RelationPlanning::Original(Box::new(join))),
            relation => {
                let plan = context.plan(marked(relation))?.transform_down(forget).data()?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
            }
        }
    }
}

/// A dataframe's aggregate that may have keys which nobody asked for: DataFusion adds what the others determine while a dataframe is made, and
/// nothing can be forgotten of it before.
pub(crate) fn refusal(plan: &LogicalPlan, _: Option<&SqlStatement>) -> Result<Option<Refusal>> {
    let found = super::find_node(plan, |node| match node {
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.len() > 1 && determines(&aggregate.input) => {
            Ok(aggregate.input.exists(|below| Ok(is_misbelieved(below)))?.then_some(()))
        }
        _ => Ok(None),
    })?;
    Ok(found.map(|()| Refusal {
        construct: "an aggregate of a dataframe over an aggregate of joined or unnested rows".to_owned(),
        place: None,
        reason: "may be grouped by more columns than it was asked for",
        instead: "write it in SQL",
    }))
}

/// Whether columns of `plan` are believed to determine others.
fn determines(plan: &LogicalPlan) -> bool {
    !plan.schema().functional_dependencies().is_empty()
}

/// Whether what is believed of an aggregate may be false: what determines rows that are joined or unnested below it does not determine its own.
fn is_misbelieved(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Aggregate(aggregate) = plan else { return false };
    let joins =
        |node: &LogicalPlan| Ok(matches!(node, LogicalPlan::Join(_) | LogicalPlan::Unnest(_)) && determines(node));
    aggregate.input.exists(joins).unwrap_or(true)
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
