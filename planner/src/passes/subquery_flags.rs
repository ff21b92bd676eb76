//! `EXISTS (..)` and `x IN (select ..)` as values: in lists of columns, in `CASE`, as keys.
//!
//! DataFusion makes joins of them in conditions of filters only. Elsewhere they become counts, each a subquery that stands for a
//! value, and those can be joined.

use datafusion::{
    common::{
        DFSchema,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result,
    functions_aggregate::expr_fn::count,
    logical_expr::{
        Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Subquery, expr::InSubquery, expr_rewriter::NamePreserver,
        lit, utils::merge_schema, when,
    },
    optimizer::AnalyzerRule,
    scalar::ScalarValue,
};

/// The pass.
#[derive(Debug)]
pub(crate) struct SubqueryFlags;

impl AnalyzerRule for SubqueryFlags {
    fn name(&self) -> &str {
        "subquery_flags"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let counted = plan.transform_up_with_subqueries(counted)?;
        if !counted.transformed {
            return Ok(counted.data);
        }
        // `IN` is NULL where DataFusion thinks that it cannot be.
        counted.data.transform_up_with_subqueries(|node| Ok(Transformed::yes(node.recompute_schema()?))).data()
    }
}

fn counted(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_) | LogicalPlan::TableScan(_)) {
        return Ok(Transformed::no(node));
    }
    let (names, input) = (NamePreserver::new(&node), merge_schema(&node.inputs()));
    node.map_expressions(|expr| {
        // Sets of keys have no name that could be kept.
        if matches!(expr, Expr::GroupingSet(_)) {
            return Ok(Transformed::no(expr));
        }
        super::rewrite_expr(expr, &names, |e| match e {
            Expr::Exists(exists) => {
                let some = rows(&exists.subquery, None)?.gt(lit(0i64)).is_true();
                Ok(Transformed::yes(if exists.negated { !some } else { some }))
            }
            Expr::InSubquery(membership) => match outer(&membership.expr, &input)? {
                Some(value) => Ok(Transformed::yes(is_in(membership, value)?)),
                None => Ok(Transformed::no(Expr::InSubquery(membership))),
            },
            other => Ok(Transformed::no(other)),
        })
    })
}

/// `membership` as SQL has it: NULL where the value is not among the rows, and one of both is NULL. `value` is its value as the
/// subquery sees it.
fn is_in(membership: InSubquery, value: Expr) -> Result<Expr> {
    let InSubquery { expr, subquery, negated } = membership;
    let column = Expr::from(subquery.subquery.schema().qualified_field(0));
    let null = || lit(ScalarValue::Boolean(None));
    let equal = rows(&subquery, Some(column.clone().eq(value)))?.gt(lit(0i64));
    let none = rows(&subquery, None)?.eq(lit(0i64));
    let nulls = rows(&subquery, Some(column.is_null()))?.gt(lit(0i64));
    let found =
        when(equal, lit(true)).when(none, lit(false)).when(expr.is_null().or(nulls), null()).otherwise(lit(false))?;
    Ok(if negated { !found } else { found })
}

/// How many rows of `subquery` satisfy `condition`.
fn rows(subquery: &Subquery, condition: Option<Expr>) -> Result<Expr> {
    let mut plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
    if let Some(condition) = condition {
        plan = plan.filter(condition)?;
    }
    let plan = plan.aggregate(Vec::<Expr>::new(), vec![count(lit(1i64))])?.build()?;
    let outer_ref_columns = plan.all_out_ref_exprs();
    Ok(Expr::ScalarSubquery(Subquery { subquery: plan.into(), outer_ref_columns, spans: subquery.spans.clone() }))
}

/// `value`, over columns of `input`, as a subquery refers to it; nothing where it refers further out itself.
fn outer(value: &Expr, input: &DFSchema) -> Result<Option<Expr>> {
    let further = value.exists(|e| {
        let subquery = matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_));
        Ok(subquery || matches!(e, Expr::OuterReferenceColumn(..)))
    })?;
    if further {
        return Ok(None);
    }
    let outer = value.clone().transform_up(|e| match e {
        Expr::Column(column) => {
            let (_, field) = Expr::Column(column.clone()).to_field(input)?;
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        other => Ok(Transformed::no(other)),
    });
    outer.data().map(Some)
}
