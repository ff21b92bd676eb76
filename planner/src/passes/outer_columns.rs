//! What a subquery compares with the row outside, where its name does not tell it: as a column of a name of its own.
//!
//! DataFusion moves conditions on the row outside up and joins by them. It hands the columns in them on by their bare names, so that
//! one is taken for another of this name, and for one of the row outside. And it takes a cast for its column: below an aggregate,
//! `cast(t as date) = ..` would give a row for each `t`; other expressions cannot be moved above one at all. So what is
//! compared becomes a column of a projection below the condition. A table's alias around it hands on no columns that it had not
//! before, and becomes a projection, too.

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{
    common::{
        Column,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{
        BinaryExpr, Expr, Filter, LogicalPlan, Operator, Projection, Subquery,
        utils::{conjunction, split_conjunction, split_conjunction_owned},
    },
    optimizer::AnalyzerRule,
};

/// How the columns are called that the pass makes; a number follows.
const PREFIX: &str = "__compared_";

/// The pass.
#[derive(Debug)]
pub(crate) struct OuterColumns;

impl AnalyzerRule for OuterColumns {
    fn name(&self) -> &str {
        "outer_columns"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut made = 0;
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Subquery(subquery) if !subquery.outer_ref_columns.is_empty() => {
                let renamed = subquery.subquery.as_ref().clone().transform_up(renamed)?;
                let subquery = subquery.with_plan(renamed.data.into());
                let all = is_ambiguous(&subquery)?;
                let plan = subquery.subquery.as_ref().clone().transform_up(|node| match node {
                    LogicalPlan::Filter(filter) => apart(filter, all, &mut made),
                    other => Ok(Transformed::no(other)),
                })?;
                let differs = renamed.transformed || plan.transformed;
                let subquery = LogicalPlan::Subquery(subquery.with_plan(plan.data.into()));
                Ok(Transformed::new_transformed(subquery, differs))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }
}

/// The conditions of `filter` on the row outside.
pub(super) fn on_row_outside(filter: &Filter) -> impl Iterator<Item = &Expr> {
    split_conjunction(&filter.predicate).into_iter().filter(|condition| condition.contains_outer())
}

/// The sides of an equality of what is worked out of a subquery's columns with what is worked out of the row outside: that, then this.
pub(super) fn compared(condition: &Expr) -> Option<(&Expr, &Expr)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
            (left, right) if is_inside(left) && is_outside(right) => Some((left, right)),
            (left, right) if is_inside(right) && is_outside(left) => Some((right, left)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether `plan` refers to the row outside. What stands after LATERAL in it refers to rows of its own.
pub(super) fn refers(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = plan.apply(|node| {
        if matches!(node, LogicalPlan::Subquery(_)) {
            return Ok(TreeNodeRecursion::Jump);
        }
        found |= node.contains_outer_reference();
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found || walked.is_err()
}

/// An alias around conditions on the row outside as a projection.
fn renamed(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::SubqueryAlias(alias) = &node else { return Ok(Transformed::no(node)) };
    if matches!(alias.input.as_ref(), LogicalPlan::Subquery(_)) || !refers(&alias.input) {
        return Ok(Transformed::no(node));
    }
    let columns = alias.input.schema().columns().into_iter().zip(alias.schema.columns());
    let exprs =
        columns.map(|(column, as_column)| Expr::Column(column).alias_qualified(as_column.relation, as_column.name));
    let projection = Projection::try_new(exprs.collect(), Arc::clone(&alias.input))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

/// Whether the bare name of a column that `subquery` compares with the row outside is also another's, of those that are compared or
/// that its operators give; or whether columns of the row outside have the full names of its own.
fn is_ambiguous(subquery: &Subquery) -> Result<bool> {
    let outside = |expr: &Expr| match expr {
        Expr::OuterReferenceColumn(_, column) => Some(column.clone()),
        _ => None,
    };
    let outside: Vec<Column> = subquery.outer_ref_columns.iter().filter_map(outside).collect();
    let (mut compared, mut given) = (BTreeSet::new(), BTreeSet::new());
    let mut of_one_name = false;
    subquery.subquery.apply(|node| {
        match node {
            LogicalPlan::Filter(filter) => {
                compared.extend(on_row_outside(filter).flat_map(Expr::column_refs).cloned());
            }
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) if refers(node) => {
                given.extend(node.schema().columns());
            }
            _ => (),
        }
        of_one_name |= outside.iter().any(|column| node.schema().has_column(column));
        Ok(TreeNodeRecursion::Continue)
    })?;
    let another = |one: &Column| given.union(&compared).any(|other| other.name == one.name && other != one);
    Ok(of_one_name || compared.iter().any(another))
}

/// `filter`, with what it compares with the row outside in columns of their own: `all` of it, or what is no column yet. A projection
/// above it takes them away, and DataFusion hands on through it what it joins by.
fn apart(filter: Filter, all: bool, made: &mut usize) -> Result<Transformed<LogicalPlan>> {
    let mut own = Own { made, exprs: Vec::new() };
    let conditions = split_conjunction_owned(filter.predicate.clone()).into_iter().map(|c| own.condition(c, all));
    let conditions = conditions.collect::<Result<Vec<_>>>()?;
    let exprs = own.exprs;
    let (Some(condition), false) = (conjunction(conditions), exprs.is_empty()) else {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    };
    let given = || filter.input.schema().columns().into_iter().map(Expr::Column);
    let below = Projection::try_new(given().chain(exprs).collect(), Arc::clone(&filter.input))?;
    let narrowed = Filter::try_new(condition, Arc::new(LogicalPlan::Projection(below)))?;
    let above = Projection::try_new(given().collect(), Arc::new(LogicalPlan::Filter(narrowed)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(above)))
}

/// Columns of their own for what is compared.
struct Own<'a> {
    /// How many there are in the statement.
    made: &'a mut usize,
    exprs: Vec<Expr>,
}

impl Own<'_> {
    fn condition(&mut self, condition: Expr, all: bool) -> Result<Expr> {
        if !condition.contains_outer() {
            return Ok(condition);
        }
        if let Some((inside, outside)) = compared(&condition) {
            return Ok(self.column(inside.clone(), all).eq(outside.clone()));
        }
        let column = |expr| match expr {
            Expr::Column(_) => Ok(Transformed::yes(self.column(expr, all))),
            other => Ok(Transformed::no(other)),
        };
        condition.transform_up(column).data()
    }

    /// The column for `compared`; columns stay what they are, but where `all` are to have a name of their own.
    fn column(&mut self, compared: Expr, all: bool) -> Expr {
        if let Expr::Column(column) = &compared
            && (!all || column.relation.is_none() && column.name.starts_with(PREFIX))
        {
            return compared;
        }
        let name = format!("{PREFIX}{}", self.made);
        *self.made += 1;
        self.exprs.push(compared.alias(&name));
        Expr::Column(Column::new_unqualified(name))
    }
}

/// Whether `expr` is worked out of the subquery's columns alone.
fn is_inside(expr: &Expr) -> bool {
    let other = expr.exists(|e| Ok(matches!(e, Expr::OuterReferenceColumn(..)) || is_subquery(e)));
    expr.any_column_refs() && !other.unwrap_or(true)
}

/// Whether `expr` is worked out of the row outside alone.
pub(super) fn is_outside(expr: &Expr) -> bool {
    expr.contains_outer() && !expr.any_column_refs() && !expr.exists(|e| Ok(is_subquery(e))).unwrap_or(true)
}

/// Whether `expr` is a subquery, or has one that is not among its parts.
pub(super) fn is_subquery(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_))
}
