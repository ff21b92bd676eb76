//! `EXISTS (..)` and `x IN (select ..)` where they are no condition by themselves: in lists of columns, in `CASE`, as keys, under
//! `NOT` and `OR`.
//!
//! DataFusion makes joins of them in filters only, and there an `IN` that is not known is taken for one that is not so. So
//! `IN` becomes a case of what exists, and elsewhere what exists becomes a count: a subquery that stands for a value can be joined.
//! And it loses the one row that an aggregate without keys gives where there is nothing to aggregate: of such subqueries
//! `EXISTS` is true, and `IN`, `ANY` and `ALL` compare. `NOT IN` a subquery that refers to the row outside is `NOT EXISTS` one that is
//! equal or not known to differ: joins know NULL of one column only.

use datafusion::{
    common::{
        DFSchema, ExprSchema, JoinType,
        config::ConfigOptions,
        plan_err,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    functions_aggregate::expr_fn::count,
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, FetchType, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, binary_expr,
        expr::{Exists, InSubquery, SetComparison, SetQuantifier},
        expr_rewriter::NamePreserver,
        lit,
        utils::{conjunction, merge_schema, split_conjunction_owned},
        when,
    },
    optimizer::AnalyzerRule,
    scalar::ScalarValue,
};

use super::correlated::{is_outside, lateral_of, reaches_out};

/// Most operators of a subquery that is told apart: one in another is there three times.
const MOST_OPERATORS: usize = 1 << 10;

/// The pass.
#[derive(Debug)]
pub(crate) struct SubqueryFlags;

impl AnalyzerRule for SubqueryFlags {
    fn name(&self) -> &str {
        "subquery_flags"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(simplified).data()?;
        let plan = plan.transform_up_with_subqueries(filtered).data()?;
        plan.transform_up_with_subqueries(counted).data()
    }
}

/// `plan` without what does not change whether it has rows: how they are sorted, and how many are wanted of them.
pub(super) fn of_existence(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Limit(limit)
            if limit.skip.is_none() && matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(1..)))) =>
        {
            of_existence(&limit.input)
        }
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => of_existence(&sort.input),
        LogicalPlan::Projection(projection)
            if matches!(projection.input.as_ref(), LogicalPlan::Sort(_) | LogicalPlan::Limit(_)) =>
        {
            of_existence(&projection.input)
        }
        _ => plan,
    }
}

/// Whether `plan` is limited to no row.
pub(super) fn is_empty(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Limit(limit) if matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(0)))))
}

/// Whether `plan` is an aggregate without keys, and what is made of its row.
pub(super) fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) => {
            plan.inputs().into_iter().all(is_one_row)
        }
        _ => false,
    }
}

/// Whether `expr` of a node has no name that could be kept: keys that are sets, conditions that a scan has been told.
fn is_nameless(expr: &Expr, of_scan: bool) -> bool {
    of_scan || matches!(expr, Expr::GroupingSet(_))
}

fn simplified(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let (names, scans) = (NamePreserver::new(&node), matches!(node, LogicalPlan::TableScan(_)));
    node.map_expressions(|expr| {
        if is_nameless(&expr, scans) {
            return Ok(Transformed::no(expr));
        }
        super::rewrite_expr(expr, &names, |e| Ok(simpler(e)))
    })
}

fn counted(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let (names, input) = (NamePreserver::new(&node), merge_schema(&node.inputs()));
    let (filters, scans) = (matches!(node, LogicalPlan::Filter(_)), matches!(node, LogicalPlan::TableScan(_)));
    node.map_expressions(|expr| {
        if is_nameless(&expr, scans) {
            return Ok(Transformed::no(expr));
        }
        // DataFusion joins by conditions of filters; elsewhere a value must say it.
        if filters {
            return condition_of_rows(expr, &input);
        }
        let value = super::rewrite_expr(expr, &names, |e| compared_with_rows(e, &input, Told::ByCounts))?;
        value.transform_data(|value| super::rewrite_expr(value, &names, counted_existence))
    })
}

/// An inner join whose conditions are on subqueries or on the row outside as a filter of it. Of what stands after LATERAL DataFusion knows
/// no keys, only conditions.
fn filtered(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(mut join) = node else { return Ok(Transformed::no(node)) };
    if !join.on.is_empty() && lateral_of(&join.right).is_some() {
        let keys = join.on.drain(..).map(|(left, right)| left.eq(right));
        join.filter = conjunction(keys.chain(join.filter.take()));
        return Ok(Transformed::yes(LogicalPlan::Join(join)));
    }
    let joins = |condition: &Expr| !reaches_out(condition);
    let Some(condition) = join.filter.as_ref().filter(|c| join.join_type == JoinType::Inner && !joins(c)) else {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    };
    let (kept, lifted): (Vec<Expr>, Vec<Expr>) =
        split_conjunction_owned(condition.clone()).into_iter().partition(joins);
    join.filter = conjunction(kept);
    let mut plan = LogicalPlanBuilder::from(LogicalPlan::Join(join));
    if let Some(condition) = conjunction(lifted) {
        plan = plan.filter(condition)?;
    }
    plan.build().map(Transformed::yes)
}

/// What says the same of one row, and `EXISTS` without what does not matter to it.
fn simpler(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::Exists(Exists { subquery, negated }) => {
            let plan = of_existence(&subquery.subquery);
            if is_one_row(plan) || is_empty(plan) {
                return Transformed::yes(lit(negated == is_empty(plan)));
            }
            let differs = !std::ptr::eq(plan, subquery.subquery.as_ref());
            let subquery = if differs { instead(&subquery, plan.clone()) } else { subquery };
            Transformed::new_transformed(Expr::Exists(Exists::new(subquery, negated)), differs)
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) if is_one_row(&subquery.subquery) => {
            let equal = (*expr).eq(Expr::ScalarSubquery(subquery));
            Transformed::yes(if negated { !equal } else { equal })
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, .. }) if is_one_row(&subquery.subquery) => {
            Transformed::yes(binary_expr(*expr, op, Expr::ScalarSubquery(subquery)))
        }
        Expr::SetComparison(SetComparison { expr, subquery, op: Operator::Eq, quantifier: SetQuantifier::Any }) => {
            Transformed::yes(Expr::InSubquery(InSubquery::new(expr, subquery, false)))
        }
        Expr::SetComparison(SetComparison { expr, subquery, op: Operator::NotEq, quantifier: SetQuantifier::All }) => {
            Transformed::yes(Expr::InSubquery(InSubquery::new(expr, subquery, true)))
        }
        other => Transformed::no(other),
    }
}

/// The condition of a filter. What DataFusion joins by itself is left: subqueries that are conditions of their own, and those that
/// need not tell what is not so from what is not known.
fn condition_of_rows(condition: Expr, input: &DFSchema) -> Result<Transformed<Expr>> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { op: Operator::And, .. }) => {
            condition.map_children(|part| condition_of_rows(part, input))
        }
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                membership_of_rows(InSubquery::new(expr, subquery, !negated), input)
            }
            other => alternative(!other, input),
        },
        Expr::InSubquery(membership) => membership_of_rows(membership, input),
        Expr::SetComparison(comparison) => match outer(&comparison.expr, input)? {
            Some(value) => comparison_of_rows(comparison, value).map(Transformed::yes),
            None => Ok(Transformed::no(Expr::SetComparison(comparison))),
        },
        other => alternative(other, input),
    }
}

/// A part of a condition that is as good as false where it is not known.
fn alternative(part: Expr, input: &DFSchema) -> Result<Transformed<Expr>> {
    match part {
        Expr::BinaryExpr(BinaryExpr { op: Operator::And | Operator::Or, .. }) => {
            part.map_children(|part| alternative(part, input))
        }
        Expr::InSubquery(ref membership) if !membership.negated => Ok(Transformed::no(part)),
        other => other.transform_up(|e| compared_with_rows(e, input, Told::ByExistence)),
    }
}

/// A membership that is a condition of its own.
fn membership_of_rows(membership: InSubquery, input: &DFSchema) -> Result<Transformed<Expr>> {
    if membership.negated
        && !is_null_aware(&membership, input)?
        && let Some(value) = outer(&membership.expr, input)?
    {
        return Ok(Transformed::yes(is_not_in(membership, value, input)?));
    }
    Ok(Transformed::no(Expr::InSubquery(membership)))
}

/// A comparison with `ANY` or `ALL` that is a condition of its own: there is a row of which it is true, or none of which it is not.
fn comparison_of_rows(comparison: SetComparison, value: Expr) -> Result<Expr> {
    let (compared, SetComparison { subquery, quantifier, .. }) = (with_first(&comparison, value), comparison);
    bounded(&subquery)?;
    match quantifier {
        SetQuantifier::Any => Told::ByExistence.some(&subquery, Some(compared)),
        SetQuantifier::All => Ok(!Told::ByExistence.some(&subquery, Some(compared.is_not_true()))?),
    }
}

/// `value` compared with the first column of the rows of `comparison`.
fn with_first(comparison: &SetComparison, value: Expr) -> Expr {
    binary_expr(value, comparison.op, Expr::from(comparison.subquery.subquery.schema().qualified_field(0)))
}

/// Whether DataFusion makes a join of `NOT IN` that knows NULL: one by a single equality of which it sees in its columns that it may be NULL.
fn is_null_aware(membership: &InSubquery, input: &DFSchema) -> Result<bool> {
    let InSubquery { expr, subquery, .. } = membership;
    let nullable = subquery.subquery.schema().field(0).is_nullable()
        || expr.column_refs().into_iter().any(|column| input.field_from_column(column).is_ok_and(|f| f.is_nullable()));
    Ok(subquery.outer_ref_columns.is_empty() && expr.any_column_refs() && (nullable || !expr.nullable(input)?))
}

fn counted_existence(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::Exists(exists) = expr else { return Ok(Transformed::no(expr)) };
    let (subquery, reached) = without_outer_conditions(exists.subquery)?;
    bounded(&subquery)?;
    let some = Told::ByCounts.some(&subquery, None)?;
    let some = match reached {
        Some(reached) => some.and(when(reached, lit(true)).otherwise(lit(false))?),
        None => some,
    };
    Ok(Transformed::yes(if exists.negated { !some } else { some }))
}

/// `IN`, `ANY` and `ALL` by what exists.
fn compared_with_rows(expr: Expr, input: &DFSchema, told: Told) -> Result<Transformed<Expr>> {
    let value = match &expr {
        Expr::InSubquery(InSubquery { expr, .. }) | Expr::SetComparison(SetComparison { expr, .. }) => {
            outer(expr, input)?
        }
        _ => None,
    };
    match (expr, value) {
        (Expr::InSubquery(membership), Some(value)) => is_in(membership, value, told).map(Transformed::yes),
        (Expr::SetComparison(comparison), Some(value)) => is_so(comparison, value, told).map(Transformed::yes),
        (expr, _) => Ok(Transformed::no(expr)),
    }
}

/// `comparison` as SQL has it: decided by one row, or by all, or NULL where some are not known. `value` is its value as the subquery
/// sees it.
fn is_so(comparison: SetComparison, value: Expr, told: Told) -> Result<Expr> {
    let (compared, SetComparison { subquery, quantifier, .. }) = (with_first(&comparison, value), comparison);
    bounded(&subquery)?;
    let any = matches!(quantifier, SetQuantifier::Any);
    let deciding = if any { compared.clone().is_true() } else { compared.clone().is_false() };
    let (decided, unknown) = (told.some(&subquery, Some(deciding))?, told.some(&subquery, Some(compared.is_null()))?);
    when(decided, lit(any)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(!any))
}

/// `membership` as SQL has it: NULL where the value is not among the rows, and one of both is NULL. `value` is its value as the
/// subquery sees it.
fn is_in(membership: InSubquery, value: Expr, told: Told) -> Result<Expr> {
    let InSubquery { expr, subquery, negated } = membership;
    let (subquery, reached) = without_outer_conditions(subquery)?;
    bounded(&subquery)?;
    let column = Expr::from(subquery.subquery.schema().qualified_field(0));
    let null = lit(ScalarValue::Boolean(None));
    let equal = told.some(&subquery, Some(column.clone().eq(value)))?;
    let none = !told.some(&subquery, None)?;
    let nulls = told.some(&subquery, Some(column.is_null()))?;
    let unknown = expr.is_null().or(nulls);
    let found = when(equal, lit(true)).when(none, lit(false)).when(unknown, null).otherwise(lit(false))?;
    let found = match reached {
        Some(reached) => when(reached, found).otherwise(lit(false))?,
        None => found,
    };
    Ok(if negated { !found } else { found })
}

/// A condition that holds where it is known that `value` is not among the rows of `membership`.
fn is_not_in(membership: InSubquery, value: Expr, input: &DFSchema) -> Result<Expr> {
    let nullable = Expr::InSubquery(membership.clone()).nullable(input)?;
    let (subquery, reached) = without_outer_conditions(membership.subquery)?;
    let equal = Expr::from(subquery.subquery.schema().qualified_field(0)).eq(value);
    let equal = if nullable { equal.is_not_false() } else { equal };
    let none = !Told::ByExistence.some(&subquery, Some(equal))?;
    Ok(match reached {
        Some(reached) => reached.is_not_true().or(none),
        None => none,
    })
}

/// `subquery` without conditions that are on the row outside alone, and these, as the row outside has them: no join is by them.
fn without_outer_conditions(subquery: Subquery) -> Result<(Subquery, Option<Expr>)> {
    let LogicalPlan::Projection(projection) = subquery.subquery.as_ref() else { return Ok((subquery, None)) };
    let LogicalPlan::Filter(filter) = projection.input.as_ref() else { return Ok((subquery, None)) };
    let conditions = split_conjunction_owned(filter.predicate.clone()).into_iter();
    let (outside, inside): (Vec<Expr>, Vec<Expr>) = conditions.partition(is_outside);
    let Some(outside) = conjunction(outside) else { return Ok((subquery, None)) };
    let mut input = LogicalPlanBuilder::from(filter.input.as_ref().clone());
    if let Some(inside) = conjunction(inside) {
        input = input.filter(inside)?;
    }
    let plan = input.project(projection.expr.clone())?.build()?;
    let reached = outside.transform_up(|e| match e {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        other => Ok(Transformed::no(other)),
    });
    Ok((instead(&subquery, plan), Some(reached.data()?)))
}

/// How it is told whether a subquery has rows.
#[derive(Debug, Clone, Copy)]
enum Told {
    ByExistence,
    ByCounts,
}

impl Told {
    /// Whether `subquery` has rows that satisfy `condition`.
    fn some(self, subquery: &Subquery, condition: Option<Expr>) -> Result<Expr> {
        let mut rows = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
        if let Some(condition) = condition {
            rows = rows.filter(condition)?;
        }
        // What is the same for all rows is worked out once by a count, where a join would look through it for each.
        let told = if rows.plan().all_out_ref_exprs().is_empty() { Self::ByCounts } else { self };
        match told {
            Self::ByExistence => Ok(Expr::Exists(Exists::new(instead(subquery, rows.build()?), false))),
            Self::ByCounts => {
                // Under a name that no column has which is compared.
                let counted = rows.aggregate(Vec::<Expr>::new(), vec![count(lit(1i64)).alias("__rows")])?.build()?;
                Ok(Expr::ScalarSubquery(instead(subquery, counted)).gt(lit(0i64)))
            }
        }
    }
}

/// `plan` where `subquery` stood.
fn instead(subquery: &Subquery, plan: LogicalPlan) -> Subquery {
    let outer_ref_columns = plan.all_out_ref_exprs();
    Subquery { subquery: plan.into(), outer_ref_columns, spans: subquery.spans.clone() }
}

/// Fails where `subquery` has too many operators.
fn bounded(subquery: &Subquery) -> Result<()> {
    let mut operators = 0;
    subquery.subquery.apply_with_subqueries(|_| {
        operators += 1;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if operators > MOST_OPERATORS {
        return plan_err!("IN and EXISTS as values are nested too deeply: write them as joins");
    }
    Ok(())
}

/// `value`, over columns of `input`, as a subquery refers to it; nothing where it refers further out itself.
fn outer(value: &Expr, input: &DFSchema) -> Result<Option<Expr>> {
    if reaches_out(value) {
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
