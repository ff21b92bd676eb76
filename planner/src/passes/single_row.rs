//! Subqueries that stand for a value, and may give several rows.
//!
//! The execution profile has them joined, as one task shares no memory with another. DataFusion then joins every row that they
//! give, where SQL wants an error: an aggregate around them says so. Those that refer to the row outside cannot have one, as a row that
//! nobody refers to would fail: they need an aggregate of their own, and are refused without. One is given to those that take the first row or are
//! of one key, so that it is known of their value that it may be NULL, and `HAVING`, which would be left out where it is true of no rows, becomes
//! a case of their value.

use std::{borrow::Cow, sync::Arc};

use conun_functions::aggregate::single_value;
use conun_types::Result;
use datafusion::{
    common::{
        ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    error::Result as PlanResult,
    functions::core::expr_fn::nullif,
    functions_aggregate::expr_fn::first_value,
    logical_expr::{
        Expr, FetchType, Filter, LogicalPlan, LogicalPlanBuilder, SortExpr, Subquery, lit, simplify::SimplifyContext,
        when,
    },
    optimizer::{AnalyzerRule, simplify_expressions::ExprSimplifier},
    sql::sqlparser::ast::Statement,
};

use super::{
    correlated::{compared, on_row_outside, reaches_out},
    subquery_flags::is_one_row,
};
use crate::{
    place::{self, Stands},
    refusal::Refusal,
};

/// How often a value is simplified: as long as it gets simpler.
const MOST_CYCLES: u32 = 16;

/// How a value is called.
const VALUE: &str = "__value";

/// The rewriting half.
#[derive(Debug)]
pub(crate) struct SingleRow;

impl AnalyzerRule for SingleRow {
    fn name(&self) -> &str {
        "single_row"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> PlanResult<LogicalPlan> {
        super::rewrite_exprs(plan, |expr| {
            let Expr::ScalarSubquery(subquery) = &expr else { return Ok(Transformed::no(expr)) };
            let value = match is_correlated(subquery) {
                true => aggregated(subquery)?,
                false if gives_a_row(&subquery.subquery) => None,
                false => Some(Expr::ScalarSubquery(subquery.with_plan(checked(&subquery.subquery)?.into()))),
            };
            Ok(value.map_or_else(|| Transformed::no(expr), Transformed::yes))
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

/// Whether it is certain that `plan` gives one row.
fn gives_a_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Values(values) => values.values.len() == 1,
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) => {
            plan.inputs().into_iter().all(gives_a_row)
        }
        other => is_one_row(other),
    }
}

/// `value`, of columns of `rows`, as the optimizer will have it: what is then a constant must not be left beside an aggregate, where DataFusion
/// says NULL for it if there are no rows.
pub(super) fn simplified(value: Expr, rows: &LogicalPlan) -> PlanResult<Expr> {
    let context = SimplifyContext::builder().with_schema(Arc::clone(rows.schema())).build();
    ExprSimplifier::new(context).with_max_cycles(MOST_CYCLES).simplify(value)
}

/// Whether the rows of `input` that belong to one row outside have one `key`: a condition says that it equals something of that row.
fn is_fixed(key: &Expr, input: &LogicalPlan) -> bool {
    let LogicalPlan::Filter(filter) = input else { return false };
    on_row_outside(filter).any(|condition| compared(condition).is_some_and(|(inside, _)| inside == key))
}

/// `rows` with `value` of them all, under a name that none of their columns has: these may be handed on beside it.
fn one(rows: &LogicalPlan, value: Expr) -> PlanResult<LogicalPlan> {
    LogicalPlanBuilder::from(rows.clone()).aggregate(Vec::<Expr>::new(), vec![value.alias(VALUE)])?.build()
}

fn checked(rows: &LogicalPlan) -> PlanResult<LogicalPlan> {
    one(rows, single_value().call(vec![first_column(rows)]))
}

/// A subquery of each row, its value worked out by aggregates alone, under a name that no column has beside which it is joined; or the
/// value itself, where it is the same for all.
fn aggregated(subquery: &Subquery) -> PlanResult<Option<Expr>> {
    let plan = subquery.subquery.as_ref();
    let instead = |plan: LogicalPlan| Ok(Some(Expr::ScalarSubquery(subquery.with_plan(plan.into()))));
    if let Some(First { rows, value, order }) = first(plan) {
        return instead(one(rows, first_value(value, order))?);
    }
    let (rows, mut value) = if let Some((one, value)) = unlimited(plan) {
        (Cow::Borrowed(one), value)
    } else if let Some((having, value)) = having(plan) {
        let null = lit(ScalarValue::try_new_null(plan.schema().field(0).data_type())?);
        match having.predicate.contains_outer() {
            // It is left to the join: the value is only said to be NULL at times.
            true => (Cow::Owned(LogicalPlan::Filter(having.clone())), nullif(value, null)),
            false => (Cow::Borrowed(having.input.as_ref()), when(having.predicate.clone(), value).otherwise(null)?),
        }
    } else {
        match unprojected(plan, first_column(plan)) {
            Some((one, value)) if is_one_row(one) => (Cow::Borrowed(one), value),
            // There may be none.
            Some((rows, value)) if gives_one(plan) => return instead(one(rows, first_value(value, Vec::new()))?),
            _ => return Ok(None),
        }
    };
    if !reaches_out(&value) {
        value = simplified(value, &rows)?;
        if is_one_row(&rows) && !value.any_column_refs() {
            return Ok(Some(value));
        }
    }
    instead(LogicalPlanBuilder::from(rows.into_owned()).project(vec![value.alias(VALUE)])?.build()?)
}

/// What stands below the projections at the top of `plan`, and `value`, which is of its columns, in terms of that.
fn unprojected(mut plan: &LogicalPlan, mut value: Expr) -> Option<(&LogicalPlan, Expr)> {
    loop {
        let below: Vec<Expr> = match plan {
            LogicalPlan::Projection(projection) => projection.expr.iter().map(|e| e.clone().unalias()).collect(),
            LogicalPlan::SubqueryAlias(alias) => alias.input.schema().columns().into_iter().map(Expr::Column).collect(),
            LogicalPlan::Sort(sort) if is_one_row(&sort.input) => {
                plan = &sort.input;
                continue;
            }
            _ => return Some((plan, value)),
        };
        let schema = plan.schema();
        let replaced = value.transform_up(|e| match &e {
            Expr::Column(column) => Ok(Transformed::yes(below[schema.index_of_column(column)?].clone())),
            _ => Ok(Transformed::no(e)),
        });
        value = replaced.ok()?.data;
        plan = plan.inputs().into_iter().next()?;
    }
}

fn first_column(plan: &LogicalPlan) -> Expr {
    Expr::from(plan.schema().qualified_field(0))
}

/// The condition on the one row of `plan`, and the value of that row, where there are only projections above an aggregate's `HAVING`.
pub(super) fn having(plan: &LogicalPlan) -> Option<(&Filter, Expr)> {
    match unprojected(plan, first_column(plan))? {
        (LogicalPlan::Filter(having), value) => is_one_row(&having.input).then_some((having, value)),
        _ => None,
    }
}

/// What `plan` is limited to the first row of, and its value.
fn limited_to_one(plan: &LogicalPlan) -> Option<(&LogicalPlan, Expr)> {
    let (LogicalPlan::Limit(limit), value) = unprojected(plan, first_column(plan))? else { return None };
    let one = matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(1))));
    (limit.skip.is_none() && one).then_some((limit.input.as_ref(), value))
}

/// What is limited to the one row that it gives, and its value.
pub(super) fn unlimited(plan: &LogicalPlan) -> Option<(&LogicalPlan, Expr)> {
    limited_to_one(plan).filter(|(rows, _)| is_one_row(rows))
}

/// The first of some rows.
pub(super) struct First<'a> {
    pub(super) rows: &'a LogicalPlan,
    value: Expr,
    order: Vec<SortExpr>,
}

impl First<'_> {
    /// Whether its value or its order refer to the row outside.
    pub(super) fn refers(&self) -> bool {
        self.value.contains_outer() || self.order.iter().any(|key| key.expr.contains_outer())
    }
}

/// What a plan is the first row of, if it is of rows that may be several.
pub(super) fn first(plan: &LogicalPlan) -> Option<First<'_>> {
    let (rows, value) = limited_to_one(plan).filter(|(rows, _)| !is_one_row(rows))?;
    let (below, value) = unprojected(rows, value)?;
    Some(match below {
        LogicalPlan::Sort(sort) => First { rows: &sort.input, value, order: sort.expr.clone() },
        rows => First { rows, value, order: Vec::new() },
    })
}

/// The first subquery of a plan that refers to the row outside and may give it several rows.
pub(crate) fn refusal(plan: &LogicalPlan, statement: Option<&Statement>) -> Result<Option<Refusal>> {
    let several = |expr: &Expr| match expr {
        Expr::ScalarSubquery(subquery) if is_correlated(subquery) && !gives_one(&subquery.subquery) => Some(()),
        _ => None,
    };
    Ok(super::find_expr(plan, several)?.map(|()| Refusal {
        construct: "a subquery for each row".to_owned(),
        place: statement.and_then(|statement| place::of_subquery(statement, Stands::Value)),
        reason: "may give several values, which no join keeps apart",
        instead: "aggregate in it, for example: (select max(x) from u where u.k = t.k)",
    }))
}
