//! Subqueries that stand for a value, and may give several rows.
//!
//! The execution profile has them joined, as one task shares no memory with another. DataFusion then joins every row that they
//! give, where SQL wants an error: an aggregate around them says so. Those that refer to the row outside cannot have one, as a row that
//! nobody refers to would fail: they need an aggregate of their own, and are refused without.

use conun_functions::aggregate::single_value;
use conun_types::Result;
use datafusion::{
    common::{Column, config::ConfigOptions, tree_node::Transformed},
    error::Result as PlanResult,
    logical_expr::{
        BinaryExpr, Expr, FetchType, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, utils::split_conjunction,
    },
    optimizer::AnalyzerRule,
    sql::sqlparser::ast::Statement,
};

use crate::refusal::Refusal;

/// The rewriting half.
#[derive(Debug)]
pub(crate) struct SingleRow;

impl AnalyzerRule for SingleRow {
    fn name(&self) -> &str {
        "single_row"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> PlanResult<LogicalPlan> {
        super::rewrite_exprs(plan, |expr| match expr {
            Expr::ScalarSubquery(subquery) if !is_correlated(&subquery) && !gives_one(&subquery.subquery) => {
                Ok(Transformed::yes(Expr::ScalarSubquery(checked(subquery)?)))
            }
            _ => Ok(Transformed::no(expr)),
        })
    }
}

fn is_correlated(subquery: &Subquery) -> bool {
    !subquery.outer_ref_columns.is_empty()
}

/// Whether it is certain that `plan` gives one row at most.
/// (DataFusion's `max_rows` is too low for unions of constants, full joins and grouping sets.)
fn gives_one(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() == 1,
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.iter().all(|key| is_fixed(key, &aggregate.input)),
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(0 | 1)))) || gives_one(&limit.input)
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Window(_) => plan.inputs().iter().all(|input| gives_one(input)),
        _ => false,
    }
}

/// Whether the rows of `input` that belong to one row outside have one `key`: a condition says that it equals something of that row.
fn is_fixed(key: &Expr, input: &LogicalPlan) -> bool {
    let LogicalPlan::Filter(filter) = input else { return false };
    let is_outer = |expr: &Expr| matches!(expr, Expr::OuterReferenceColumn(..));
    split_conjunction(&filter.predicate).into_iter().any(|condition| match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            (**left == *key && is_outer(right)) || (**right == *key && is_outer(left))
        }
        _ => false,
    })
}

fn checked(subquery: Subquery) -> PlanResult<Subquery> {
    let schema = subquery.subquery.schema().clone();
    let (relation, field) = schema.qualified_field(0);
    let value = single_value().call(vec![Expr::from((relation, field))]);
    let name = value.schema_name().to_string();
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
        .aggregate(Vec::<Expr>::new(), vec![value])?
        .project(vec![Expr::Column(Column::new_unqualified(name)).alias_qualified(relation.cloned(), field.name())])?
        .build()?;
    Ok(subquery.with_plan(plan.into()))
}

/// The first subquery of a plan that refers to the row outside and may give it several rows.
pub(crate) fn refusal(plan: &LogicalPlan, _: Option<&Statement>) -> Result<Option<Refusal>> {
    let several = |expr: &Expr| match expr {
        Expr::ScalarSubquery(subquery) if is_correlated(subquery) && !gives_one(&subquery.subquery) => Some(()),
        _ => None,
    };
    Ok(super::find_expr(plan, several)?.map(|()| Refusal {
        construct: "a subquery for each row".to_owned(),
        place: None,
        reason: "may give several values, which no join keeps apart",
        instead: "aggregate in it, for example: (select max(x) from u where u.k = t.k)",
    }))
}
