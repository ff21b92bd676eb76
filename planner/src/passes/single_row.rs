//! Subqueries that stand for a value, and may give several rows.
//!
//! The execution profile has them joined, as one task shares no memory with another. DataFusion then joins every row that they
//! give, where SQL wants an error: an aggregate around them says so.

use conun_functions::aggregate::single_value;
use datafusion::{
    common::{config::ConfigOptions, tree_node::Transformed},
    error::Result,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery},
    optimizer::AnalyzerRule,
};

/// The pass.
#[derive(Debug)]
pub(crate) struct SingleRow;

impl AnalyzerRule for SingleRow {
    fn name(&self) -> &str {
        "single_row"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_exprs(plan, |expr| match expr {
            Expr::ScalarSubquery(subquery) if may_give_several(&subquery) => {
                Ok(Transformed::yes(Expr::ScalarSubquery(checked(subquery)?)))
            }
            _ => Ok(Transformed::no(expr)),
        })
    }
}

/// Those of each outer row have an aggregate, or DataFusion does not plan them.
fn may_give_several(subquery: &Subquery) -> bool {
    subquery.outer_ref_columns.is_empty() && subquery.subquery.max_rows().is_none_or(|rows| rows > 1)
}

fn checked(subquery: Subquery) -> Result<Subquery> {
    let schema = subquery.subquery.schema().clone();
    let (relation, field) = schema.qualified_field(0);
    let value = single_value().call(vec![Expr::from((relation, field))]);
    let name = value.schema_name().to_string();
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
        .aggregate(Vec::<Expr>::new(), vec![value])?
        .project(vec![Expr::Column(name.into()).alias_qualified(relation.cloned(), field.name())])?
        .build()?;
    Ok(subquery.with_plan(plan.into()))
}
