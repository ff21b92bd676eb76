//! Subqueries that stand for a value in sorts, aggregates, windows, conditions of joins and `DISTINCT ON`.
//!
//! Where the execution profile has them joined, DataFusion does so in filters and projections only. So such a value becomes a
//! column of a projection below.

use std::sync::Arc;

use datafusion::{
    common::{
        Column,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Distinct, Expr, LogicalPlan, Projection, Subquery, expr_rewriter::NamePreserver},
    optimizer::AnalyzerRule,
    sql::sqlparser::ast::Statement,
};

use super::correlated::{is_subquery, outer_column};
use crate::refusal::Refusal;

/// The pass.
#[derive(Debug)]
pub(crate) struct SubqueryPlaces;

impl AnalyzerRule for SubqueryPlaces {
    fn name(&self) -> &str {
        "subquery_places"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(lowered).data()
    }
}

/// The first subquery where no join can be made of it: one that refers to both sides of a join, or to what a sort does not see.
pub(crate) fn refusal(plan: &LogicalPlan, _: Option<&Statement>) -> conun_types::Result<Option<Refusal>> {
    let found = super::find_node(plan, |node| {
        let joined_later = matches!(node, LogicalPlan::Join(_) | LogicalPlan::Sort(_) | LogicalPlan::Window(_));
        let mut exprs = if joined_later { node.expressions() } else { Vec::new() }.into_iter();
        Ok(exprs.any(|expr| expr.exists(|e| Ok(is_subquery(e))).unwrap_or(true)).then_some(()))
    })?;
    Ok(found.map(|()| Refusal {
        construct: "a subquery in a condition of an outer join, an order or a window".to_owned(),
        place: None,
        reason: "refers to what is not known there before",
        instead: "work it out in a subquery after FROM, as a column of its own",
    }))
}

fn lowered(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match &node {
        LogicalPlan::Sort(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Distinct(Distinct::On(_)) => (),
        _ => return Ok(Transformed::no(node)),
    }
    let (schema, names) = (node.schema().clone(), NamePreserver::new(&node));
    let node = widened(node)?;
    let mut values = Values { inputs: node.inputs().into_iter().cloned().collect(), of: Vec::new() };
    let replaced = node.map_expressions(|expr| {
        // Sets of keys have no name that could be kept.
        if matches!(expr, Expr::GroupingSet(_)) {
            return Ok(Transformed::no(expr));
        }
        super::rewrite_expr(expr, &names, |e| Ok(values.column(e)))
    })?;
    if values.of.is_empty() {
        return Ok(replaced);
    }
    let mut inputs = values.inputs()?;
    let node = match replaced.data {
        // It can be made of other expressions only where it sorts by none.
        LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
            distinct.input = inputs.pop().map_or(distinct.input, Arc::new);
            LogicalPlan::Distinct(Distinct::On(distinct))
        }
        node => node.with_new_exprs(node.expressions(), inputs)?,
    };
    // Some hand the new columns on.
    let columns = schema.columns().into_iter().map(Expr::Column).collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(node))?)))
}

/// A sort whose subqueries refer to columns that the projection below leaves out, with these.
fn widened(node: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Sort(mut sort) = node else { return Ok(node) };
    let LogicalPlan::Projection(projection) = sort.input.as_ref() else { return Ok(LogicalPlan::Sort(sort)) };
    let mut exprs = projection.expr.clone();
    for key in &sort.expr {
        key.expr.apply(|e| {
            if let Expr::ScalarSubquery(subquery) = e {
                let left_out = subquery.outer_ref_columns.iter().filter_map(outer_column).filter(|column| {
                    !projection.schema.has_column(column) && projection.input.schema().has_column(column)
                });
                exprs.extend(
                    left_out.cloned().map(Expr::Column).filter(|column| !exprs.contains(column)).collect::<Vec<_>>(),
                );
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    if exprs.len() > projection.expr.len() {
        let wider = Projection::try_new(exprs, Arc::clone(&projection.input))?;
        sort.input = Arc::new(LogicalPlan::Projection(wider));
    }
    Ok(LogicalPlan::Sort(sort))
}

/// Values that are worked out below a node.
struct Values {
    inputs: Vec<LogicalPlan>,
    /// Each with the input that it joins.
    of: Vec<(usize, Expr)>,
}

impl Values {
    /// A column in the place of a subquery, if an input has all that it refers to.
    fn column(&mut self, expr: Expr) -> Transformed<Expr> {
        let Expr::ScalarSubquery(subquery) = &expr else { return Transformed::no(expr) };
        let Some(input) = self.inputs.iter().position(|input| has_what(subquery, input)) else {
            return Transformed::no(expr);
        };
        let i = self.of.iter().position(|(_, value)| *value == expr).unwrap_or_else(|| {
            self.of.push((input, expr));
            self.of.len() - 1
        });
        Transformed::yes(Expr::Column(Column::new_unqualified(name(i))))
    }

    /// The inputs with the values.
    fn inputs(self) -> Result<Vec<LogicalPlan>> {
        let Self { inputs, of } = self;
        let with_values = |(i, input): (usize, LogicalPlan)| {
            let columns = input.schema().columns().into_iter().map(Expr::Column);
            let own = of.iter().enumerate().filter(|(_, (of, _))| *of == i);
            let exprs = columns.chain(own.map(|(i, (_, value))| value.clone().alias(name(i)))).collect();
            Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
        };
        inputs.into_iter().enumerate().map(with_values).collect()
    }
}

/// Whether `input` has the columns of the row outside that `subquery` refers to.
fn has_what(subquery: &Subquery, input: &LogicalPlan) -> bool {
    subquery.outer_ref_columns.iter().all(|column| match column {
        Expr::OuterReferenceColumn(_, column) => input.schema().has_column(column),
        _ => false,
    })
}

fn name(i: usize) -> String {
    format!("__value_of_subquery_{i}")
}
