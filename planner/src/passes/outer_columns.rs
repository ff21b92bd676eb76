//! What a subquery compares with the row outside, where its name does not tell it: as a column of a name of its own.
//!
//! DataFusion moves conditions on the row outside up and joins by them. It hands the columns in them on by their bare names, so that
//! one is taken for another of this name, and for one of the row outside. And it takes a cast for its column: below an aggregate,
//! `cast(t as date) = ..` would give a row for each `t`; other expressions cannot be moved above one at all. So what is
//! compared becomes a column of a projection below the condition. A table's alias around it hands on no columns that it had not
//! before, and becomes a projection, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use datafusion::{
    common::{
        Column,
        config::ConfigOptions,
        plan_err,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{
        Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection,
        utils::{conjunction, split_conjunction_owned},
    },
    optimizer::AnalyzerRule,
};

use super::correlated::{compared, is_subquery, on_row_outside, outer_column, refers};

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
                let outside: BTreeSet<Column> =
                    subquery.outer_ref_columns.iter().filter_map(outer_column).cloned().collect();
                let mut own = Own { all: is_ambiguous(&subquery.subquery)?, outside, made: &mut made };
                let plan = subquery.subquery.as_ref().clone().transform_up(|node| match node {
                    LogicalPlan::Filter(filter) => own.apart(filter),
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

/// Whether the bare name of a column that `plan` compares with the row outside is also another's, of those that are compared or that
/// operators above the conditions give.
fn is_ambiguous(plan: &LogicalPlan) -> Result<bool> {
    let (mut inside, mut given, mut made) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    plan.apply(|node| {
        match node {
            LogicalPlan::Filter(filter) => inside.extend(on_row_outside(filter).flat_map(Expr::column_refs).cloned()),
            LogicalPlan::Projection(projection) if refers(node) => {
                for (expr, column) in projection.expr.iter().zip(node.schema().columns()) {
                    // What is worked out may have a column's full name as its own.
                    if matches!(expr, Expr::Column(_)) {
                        given.insert(column)
                    } else {
                        made.insert(column.name)
                    };
                }
            }
            LogicalPlan::Aggregate(_) if refers(node) => given.extend(node.schema().columns()),
            _ => (),
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let another = |one: &Column| {
        made.contains(&one.name)
            || made.contains(&one.flat_name())
            || given.union(&inside).any(|other| other.name == one.name && other != one)
    };
    Ok(inside.iter().any(another))
}

/// Columns of their own for what a subquery compares.
struct Own<'a> {
    /// Whether all of it is to have one, or what is no column yet.
    all: bool,
    /// Columns of the row outside: a column of such a full name has one in any case.
    outside: BTreeSet<Column>,
    /// How many there are in the statement.
    made: &'a mut usize,
}

impl Own<'_> {
    /// `filter` over a projection that gives them, and below another that takes them away; DataFusion hands on through that what it
    /// joins by. What is not on the row outside stays below.
    fn apart(&mut self, filter: Filter) -> Result<Transformed<LogicalPlan>> {
        let (on_outside, within): (Vec<Expr>, Vec<Expr>) =
            split_conjunction_owned(filter.predicate.clone()).into_iter().partition(Expr::contains_outer);
        let columns = filter.input.schema().columns();
        let mut renamed = BTreeMap::new();
        for column in columns.iter().filter(|_| !on_outside.is_empty()) {
            if self.outside.contains(column) {
                renamed.insert(column.clone(), self.name());
            }
        }
        let mut given = Vec::new();
        let conditions = on_outside.into_iter().map(|condition| self.condition(condition, &renamed, &mut given));
        let conditions = conditions.collect::<Result<Vec<_>>>()?;
        if renamed.is_empty() && given.is_empty() {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        let mut plan = LogicalPlanBuilder::from(Arc::unwrap_or_clone(filter.input));
        if let Some(within) = conjunction(within) {
            plan = plan.filter(within)?;
        }
        let below = columns.iter().map(|column| match renamed.get(column) {
            Some(own) => Expr::Column(column.clone()).alias(&own.name),
            None => Expr::Column(column.clone()),
        });
        let above = columns.iter().map(|column| match renamed.get(column) {
            Some(own) => Expr::Column(own.clone()).alias_qualified(column.relation.clone(), &column.name),
            None => Expr::Column(column.clone()),
        });
        plan = plan.project(below.chain(given))?;
        if let Some(condition) = conjunction(conditions) {
            plan = plan.filter(condition)?;
        }
        plan.project(above)?.build().map(Transformed::yes)
    }

    fn condition(
        &mut self,
        condition: Expr,
        renamed: &BTreeMap<Column, Column>,
        given: &mut Vec<Expr>,
    ) -> Result<Expr> {
        if !renamed.is_empty() && condition.exists(|e| Ok(is_subquery(e)))? {
            return plan_err!("a table in a subquery is called as one outside: give it another name with AS");
        }
        if let Some((inside, outside)) = compared(&condition) {
            return Ok(self.column(inside.clone(), renamed, given).eq(outside.clone()));
        }
        let column = |expr| match expr {
            Expr::Column(_) => Ok(Transformed::yes(self.column(expr, renamed, given))),
            other => Ok(Transformed::no(other)),
        };
        condition.transform_up(column).data()
    }

    /// The column for `compared`, which is one of those `renamed` or `given` below the condition, or stays what it is.
    fn column(&mut self, compared: Expr, renamed: &BTreeMap<Column, Column>, given: &mut Vec<Expr>) -> Expr {
        if let Expr::Column(column) = &compared {
            if let Some(own) = renamed.get(column) {
                return Expr::Column(own.clone());
            }
            if !self.all || column.relation.is_none() && column.name.starts_with(PREFIX) {
                return compared;
            }
        }
        let own = self.name();
        given.push(compared.alias(&own.name));
        Expr::Column(own)
    }

    fn name(&mut self) -> Column {
        *self.made += 1;
        Column::new_unqualified(format!("{PREFIX}{}", self.made))
    }
}
