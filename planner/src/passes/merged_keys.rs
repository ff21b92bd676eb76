//! Refuses names that DataFusion takes for another column than SQL does. Plans do not tell how a column was written, so that the
//! statement is asked, too.
//!
//! - `USING` and `NATURAL` make one column of two. DataFusion takes that of the left side for it, and for `*` that of the table whose name is the
//!   first in the alphabet: of an outer join that may be NULL where the other is not.
//! - A name that several tables of a subquery have is ambiguous, or such a column. DataFusion takes it for one of the row outside.

use std::{collections::BTreeMap, ops::ControlFlow};

use conun_types::Result;
use datafusion::{
    common::{
        JoinConstraint, JoinType,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result as PlanResult,
    logical_expr::{Expr, Join, LogicalPlan},
    sql::{
        planner::IdentNormalizer,
        sqlparser::ast::{
            Expr as Written, JoinConstraint as Constraint, JoinOperator, Query, Select, SelectItem, Statement,
            TableFactor, TableWithJoins, Visit, Visitor,
        },
    },
};

use super::correlated::outer_column;
use crate::{place::Place, refusal::Refusal};

/// Fails where a name of `statement`, which `plan` is of, is taken for another column.
///
/// # Errors
/// [`conun_types::ErrorKind::Data`] naming it and what to write instead.
pub fn refuse_names(plan: &LogicalPlan, statement: &Statement) -> Result<()> {
    let names = Names::of(statement);
    let outside = super::find_node(plan, |node| ambiguous(node, &names))?.map(|name| Refusal {
        place: names.inside.get(&name).copied().flatten(),
        construct: format!("'{name}' in a subquery"),
        reason: "is a column of several tables there, and would be taken for one of the row outside",
        instead: "write it with its table: s.k",
    });
    let merged = || -> Result<Option<Refusal>> {
        let found = super::find_node(plan, |node| Ok(merged(node, &names)))?;
        Ok(found.map(|name| Refusal {
            place: names.bare.get(&name).copied().flatten(),
            construct: format!("'{name}' of an outer join by USING or NATURAL"),
            reason: "would be NULL where it is that of the other side",
            instead: "join with ON, and write coalesce(t.k, s.k) for it",
        }))
    };
    match outside.map_or_else(merged, |refusal| Ok(Some(refusal)))? {
        Some(refusal) => Err(refusal.into()),
        None => Ok(()),
    }
}

/// How columns are written in a statement.
#[derive(Debug, Default)]
struct Names {
    /// Without a table, with the place of the first.
    bare: BTreeMap<String, Option<Place>>,
    /// Those of them in queries within another.
    inside: BTreeMap<String, Option<Place>>,
    /// Whether `*` is of an outer join by `USING` or `NATURAL`.
    all_of_outer: bool,
    /// How many queries it is within.
    depth: usize,
}

impl Names {
    fn of(statement: &Statement) -> Self {
        let mut names = Self::default();
        let _all = statement.visit(&mut names);
        names
    }
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let all = select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
        self.all_of_outer |= all && select.from.iter().any(is_outer_by_name);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Written) -> ControlFlow<()> {
        if let Written::Identifier(ident) = expr {
            let name = IdentNormalizer::new(true).normalize(ident.clone());
            if self.depth > 1 {
                self.inside.entry(name.clone()).or_insert_with(|| Place::of(ident.span.start));
            }
            self.bare.entry(name).or_insert_with(|| Place::of(ident.span.start));
        }
        ControlFlow::Continue(())
    }
}

/// Whether `from` has an outer join by `USING` or `NATURAL`.
fn is_outer_by_name(from: &TableWithJoins) -> bool {
    let nested = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, .. } => is_outer_by_name(table_with_joins),
        _ => false,
    };
    let by_name = |operator: &JoinOperator| match operator {
        JoinOperator::Left(by)
        | JoinOperator::LeftOuter(by)
        | JoinOperator::Right(by)
        | JoinOperator::RightOuter(by)
        | JoinOperator::FullOuter(by) => matches!(by, Constraint::Using(_) | Constraint::Natural),
        _ => false,
    };
    nested(&from.relation) || from.joins.iter().any(|join| by_name(&join.join_operator) || nested(&join.relation))
}

/// A key of `node`, an outer join, that is written so that the column of the wrong side is taken for it.
fn merged(node: &LogicalPlan, names: &Names) -> Option<String> {
    let LogicalPlan::Join(Join { on, join_type, join_constraint: JoinConstraint::Using, .. }) = node else {
        return None;
    };
    on.iter().find_map(|(left, right)| {
        let (Expr::Column(left), Expr::Column(right)) = (left, right) else { return None };
        let (all, bare) = match join_type {
            JoinType::Left => (right < left, false),
            JoinType::Right => (left < right, true),
            JoinType::Full => (true, true),
            _ => return None,
        };
        let taken = all && names.all_of_outer || bare && names.bare.contains_key(&left.name);
        taken.then(|| left.name.clone())
    })
}

/// A column of the row outside to which `node` refers by a name that several below it have, where a subquery has it without a table.
fn ambiguous(node: &LogicalPlan, names: &Names) -> PlanResult<Option<String>> {
    let mut found = None;
    node.apply_expressions(|expr| {
        expr.apply(|e| {
            let name = outer_column(e).map(|column| &column.name).filter(|name| names.inside.contains_key(*name));
            if let Some(name) = name
                && found.is_none()
                && have_several(node, name)?
            {
                found = Some(name.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// Whether a join below `node` has several columns of a `name`.
fn have_several(node: &LogicalPlan, name: &str) -> PlanResult<bool> {
    node.exists(|below| {
        let named = || below.schema().fields().iter().filter(|field| field.name() == name).count();
        Ok(matches!(below, LogicalPlan::Join(_)) && named() > 1)
    })
}
