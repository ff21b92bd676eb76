//! Refuses names that DataFusion takes for another column than SQL does. Plans do not tell how a column was written, so that the
//! statement is asked, too.
//!
//! - `USING` and `NATURAL` make one column of two. DataFusion takes that of the left side for it, and for `*` that of the table whose name is the
//!   first in the alphabet: of an outer join that may be NULL where the other is not.
//! - `OVER (w ..)` and `WINDOW v AS (w ..)` lose what `w` says.
//! - A name that several tables of a subquery have is ambiguous, or such a column. DataFusion takes it for one of the row outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use conun_types::Result;
use datafusion::{
    common::{
        Column, JoinConstraint, JoinType,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result as PlanResult,
    logical_expr::{Expr, Join, LogicalPlan},
    sql::{
        planner::IdentNormalizer,
        sqlparser::ast::{
            Expr as Written, Function, Ident, JoinConstraint as Constraint, JoinOperator, NamedWindowDefinition,
            NamedWindowExpr, Query, Select, SelectItem, Statement, TableFactor, TableWithJoins, Visit, Visitor,
            WindowType,
        },
    },
};

use super::{correlated::outer_column, false_dependencies::is_alone};
use crate::{place::Place, refusal::Refusal};

/// Columns that are written without a table, each with a place.
type Bare = BTreeMap<String, Option<Place>>;

/// How columns are written in a statement.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Without a table, where an outer join by `USING` or `NATURAL` is asked, or below that.
    of_outer: Bare,
    /// Without a table, where several tables are asked within another query, or below that.
    inside: Bare,
    /// Whether `*` is of an outer join by `USING` or `NATURAL`.
    all_of_outer: bool,
    /// A window that is made of another.
    remade_window: Option<Place>,
    /// The queries and their `SELECT`s that it is within.
    scopes: Vec<Scope>,
}

/// A query or a `SELECT`.
#[derive(Debug, Default)]
struct Scope {
    is_query: bool,
    /// What is written here. Of a query that is its `ORDER BY`.
    bare: Bare,
    /// What is written in the parts of a query.
    below: Bare,
    /// Names of columns that are given.
    given: BTreeSet<String>,
    /// Whether there are several tables.
    joined: bool,
    /// Whether some are joined by `USING` or `NATURAL`, outer.
    outer: bool,
}

impl Names {
    pub(crate) fn of(statement: &Statement) -> Self {
        let mut names = Self::default();
        let _all = statement.visit(&mut names);
        names
    }

    /// Fails where one of them is taken for another column in `plan`, which is of the statement.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] naming it and what to write instead.
    pub(crate) fn check(&self, plan: &LogicalPlan) -> Result<()> {
        let place = |of: &Bare, name: &String| of.get(name).copied().flatten();
        let refusal = if self.remade_window.is_some() {
            Refusal {
                construct: "a window that is made of another".to_owned(),
                place: self.remade_window,
                reason: "would be taken for one without it",
                instead: "write its PARTITION BY and ORDER BY out: over (partition by k order by x)",
            }
        } else if let Some(name) = super::find_node(plan, |node| ambiguous(node, self))? {
            Refusal {
                place: place(&self.inside, &name),
                construct: format!("'{name}' in a subquery"),
                reason: "is a column of several tables there, and would be taken for one of the row outside",
                instead: "write it with its table: s.k",
            }
        } else if let Some(name) = super::find_node(plan, |node| Ok(merged(node, self)))? {
            Refusal {
                place: place(&self.of_outer, &name),
                construct: format!("'{name}' of an outer join by USING or NATURAL"),
                reason: "would be NULL where it is that of the other side",
                instead: "join with ON, and write coalesce(t.k, s.k) for it",
            }
        } else {
            return Ok(());
        };
        Err(refusal.into())
    }

    /// Takes the last scope for what it is.
    fn settle(&mut self) {
        let Some(mut scope) = self.scopes.pop() else { return };
        if scope.is_query {
            scope.bare.retain(|name, _| !scope.given.contains(name));
        }
        let is_inside = self.scopes.iter().filter(|around| around.is_query).count() > usize::from(!scope.is_query);
        let add = |to: &mut Bare| to.extend(scope.bare.iter().map(|(name, place)| (name.clone(), *place)));
        if scope.outer {
            add(&mut self.of_outer);
        }
        if scope.joined && is_inside {
            add(&mut self.inside);
        }
        let Some(around) = self.scopes.last_mut() else { return };
        let written = if around.is_query { &mut around.below } else { &mut around.bare };
        written.extend(scope.bare);
        written.extend(scope.below);
        if around.is_query && !scope.is_query {
            around.joined |= scope.joined;
            around.outer |= scope.outer;
            around.given.extend(scope.given);
        }
    }
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.scopes.push(Scope { is_query: true, ..Scope::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.settle();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let outer = select.from.iter().any(is_outer_by_name);
        let all = select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
        self.all_of_outer |= all && outer;
        let given = |item: &SelectItem| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(normalized(alias)),
            _ => None,
        };
        let made_of_another = |window: &NamedWindowDefinition| match &window.1 {
            NamedWindowExpr::WindowSpec(spec) => spec.window_name.as_ref().and_then(|name| Place::of(name.span.start)),
            NamedWindowExpr::NamedWindow(_) => None,
        };
        self.remade_window = self.remade_window.or(select.named_window.iter().find_map(made_of_another));
        self.scopes.push(Scope {
            given: select.projection.iter().filter_map(given).collect(),
            joined: select.from.len() > 1 || select.from.iter().any(|from| !is_alone(from)),
            outer,
            ..Scope::default()
        });
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.settle();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Written) -> ControlFlow<()> {
        match expr {
            Written::Identifier(ident) => {
                if let Some(scope) = self.scopes.last_mut() {
                    scope.bare.entry(normalized(ident)).or_insert_with(|| Place::of(ident.span.start));
                }
            }
            Written::Function(Function { over: Some(WindowType::WindowSpec(spec)), .. }) => {
                let name = spec.window_name.as_ref();
                self.remade_window = self.remade_window.or(name.and_then(|name| Place::of(name.span.start)));
            }
            _ => (),
        }
        ControlFlow::Continue(())
    }
}

fn normalized(ident: &Ident) -> String {
    IdentNormalizer::new(true).normalize(ident.clone())
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

/// A key of `node`, a join by names, for which the column of the wrong side is taken: as it is written, or for that of an outer join
/// below.
fn merged(node: &LogicalPlan, names: &Names) -> Option<String> {
    let LogicalPlan::Join(Join { on, join_type, join_constraint: JoinConstraint::Using, left: below, .. }) = node
    else {
        return None;
    };
    on.iter().find_map(|(left, right)| {
        let (Expr::Column(left), Expr::Column(right)) = (left, right) else { return None };
        let (all, bare) = match join_type {
            JoinType::Left => (right < left, false),
            JoinType::Right => (left < right, true),
            JoinType::Full => (true, true),
            _ => (false, false),
        };
        let taken =
            all && names.all_of_outer || bare && names.of_outer.contains_key(&left.name) || may_be_missing(below, left);
        taken.then(|| left.name.clone())
    })
}

/// Whether `key`, which a join by names takes for that of all joined before, is of a side of `plan` that may be missing.
fn may_be_missing(plan: &LogicalPlan, key: &Column) -> bool {
    let LogicalPlan::Join(join) = plan else { return false };
    let of_left = join.left.schema().has_column(key);
    let missing = match join.join_type {
        JoinType::Left => !of_left,
        JoinType::Right => of_left,
        JoinType::Full => true,
        _ => false,
    };
    let is_key = |expr: &Expr| matches!(expr, Expr::Column(column) if column == key);
    let by_name = join.join_constraint == JoinConstraint::Using
        && join.on.iter().any(|(left, right)| is_key(left) || is_key(right));
    missing && by_name || may_be_missing(if of_left { &join.left } else { &join.right }, key)
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
