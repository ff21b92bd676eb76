//! Refuses subqueries that refer to the row outside from where DataFusion's joins give another answer.
//!
//! It moves conditions on the row outside up and joins by them. Moved above a window, they would count rows of other outer rows;
//! above the side of a join that may be missing, or that only tells which rows of the other there are, they would take rows
//! away; above an aggregate without keys, its one row where there is nothing to aggregate, unless that is the subquery's own,
//! and stands for a value. Above other aggregates only equalities can be moved. And it leaves out limits in `EXISTS`.

use conun_types::Result;
use datafusion::{
    common::{
        Column, JoinType,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result as PlanResult,
    logical_expr::{Expr, LogicalPlan, Subquery, utils::merge_schema},
    sql::sqlparser::ast::Statement,
};

use super::{
    correlated::{compared, lateral_of, on_row_outside, outer_column, refers, subquery_of},
    rows_of_none::gives_row_of_none,
    single_row::{first, having, simplified, unlimited},
    subquery_flags::{is_empty, is_one_row, of_existence},
};
use crate::{
    place::{self, Stands},
    refusal::Refusal,
};

/// The first such subquery of a plan, before it is rewritten or after that.
pub(crate) fn refusal(plan: &LogicalPlan, statement: Option<&Statement>) -> Result<Option<Refusal>> {
    let mut found = super::find_expr(plan, |expr| {
        let subquery = subquery_of(expr)?;
        let (written, stands) = match expr {
            Expr::Exists(_) => (Stands::Existence, Stands::Existence),
            Expr::InSubquery(_) => (Stands::Members, Stands::Members),
            Expr::SetComparison(_) => (Stands::Value, Stands::Members),
            _ => (Stands::Value, Stands::Value),
        };
        let of_one = stands == Stands::Members && is_one_row(&subquery.subquery);
        let below = misjoined(subquery, if of_one { Stands::Value } else { stands })?;
        Some((below, written))
    })?;
    if found.is_none() {
        found = super::find_node(plan, |node| {
            let lateral = node.inputs().into_iter().find_map(|input| match input {
                LogicalPlan::Subquery(lateral) => misjoined(lateral, Stands::Rows),
                _ => None,
            });
            Ok(match lateral {
                Some(below) => Some((below, Stands::Rows)),
                None if is_taken_for_own(node)? => Some((OF_ONE_NAME, Stands::Rows)),
                None => beyond_next(node)?.map(|below| (below, Stands::Existence)),
            })
        })?;
    }
    Ok(found.map(|(below, written)| Refusal {
        construct: format!("a subquery that refers to the row outside {below}"),
        place: statement.and_then(|statement| place::of_subquery(statement, written)),
        reason: "would be joined with other rows",
        instead: match below {
            FURTHER => "join the tables of the two inner queries, so that one subquery refers to it",
            LATERAL => "join the tables in the place of LATERAL",
            LIMIT => "join rows that are numbered: row_number() over (partition by k order by x), where that is 1",
            _ => "join the tables, and aggregate or number rows after that",
        },
    }))
}

/// Whether a subquery among the expressions of `node` refers to columns that the inputs of `node` do not have: where it does.
fn beyond_next(node: &LogicalPlan) -> PlanResult<Option<&'static str>> {
    // A sort may see columns that its input leaves out.
    if !matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_)) {
        return Ok(None);
    }
    let (mut further, input) = (None, merge_schema(&node.inputs()));
    node.apply_expressions(|expr| {
        expr.apply(|e| {
            let Some(subquery) = subquery_of(e) else { return Ok(TreeNodeRecursion::Continue) };
            let mut outside = subquery.outer_ref_columns.iter().filter_map(outer_column);
            if let Some(column) = outside.find(|column| !input.has_column(column)) {
                further = further.or(Some(if is_of_lateral(column, &subquery.subquery)? { LATERAL } else { FURTHER }));
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(further)
}

/// Whether it is what stands after LATERAL in `plan` that refers to `column`.
fn is_of_lateral(column: &Column, plan: &LogicalPlan) -> PlanResult<bool> {
    let refers =
        |lateral: &Subquery| lateral.outer_ref_columns.iter().filter_map(outer_column).any(|outer| outer == column);
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Subquery(lateral) if refers(lateral))))
}

/// Where no join is with the row that is meant.
const FURTHER: &str = "beyond the next query";

/// Where the conditions of two rows outside are taken for those of one.
const LATERAL: &str = "and has LATERAL in it";

/// Where several rows may be wanted of each.
const LIMIT: &str = "below a limit";

/// Where DataFusion cannot join by it.
const BEYOND_CONDITIONS: &str = "in more than conditions of WHERE";

/// Why `subquery` would be joined wrongly, if it would.
fn misjoined(subquery: &Subquery, stands: Stands) -> Option<&'static str> {
    if subquery.outer_ref_columns.is_empty() {
        return None;
    }
    let plan = subquery.subquery.as_ref();
    match stands {
        Stands::Value if let Some((one, _)) = unlimited(plan) => moved_above(one, stands, true),
        Stands::Value => match (first(plan), having(plan)) {
            (Some(first), _) => first
                .refers()
                .then_some(BEYOND_CONDITIONS)
                .or_else(|| of_aggregated(first.rows))
                .or_else(|| moved_above(first.rows, stands, false)),
            (_, Some((having, _))) if !having.predicate.contains_outer() => moved_above(&having.input, stands, true),
            _ => moved_above(plan, stands, true),
        },
        Stands::Existence => {
            let plan = of_existence(plan);
            if is_one_row(plan) || is_empty(plan) {
                return None;
            }
            moved_above(plan, stands, true).or_else(|| beside_limit(plan))
        }
        Stands::Members => moved_above(plan, stands, true).or_else(|| beside_limit(plan)),
        Stands::Rows => {
            let beside = || beside_aggregate(plan).or_else(|| beside_constant(plan));
            moved_above(plan, stands, true).or_else(beside).or_else(|| of_one_name(subquery))
        }
    }
}

/// What a condition on the row outside would have to be moved above, and cannot be. `top`: whether an aggregate here is all that
/// `stands` for.
fn moved_above(plan: &LogicalPlan, stands: Stands, top: bool) -> Option<&'static str> {
    let inputs = plan.inputs();
    let (rows, value) = (stands == Stands::Rows, matches!(stands, Stands::Value | Stands::Rows));
    let outer = inputs.iter().any(|input| refers(input));
    let why = match plan {
        LogicalPlan::Subquery(_) => return None,
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => None,
        _ if !matches!(plan, LogicalPlan::Filter(_)) && plan.contains_outer_reference() => Some(BEYOND_CONDITIONS),
        LogicalPlan::Join(join) => {
            let missing = match join.join_type {
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => &inputs[1..],
                JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => &inputs[..1],
                JoinType::Full | JoinType::Inner => &inputs[..],
            };
            missing.iter().any(|input| refers(input)).then_some("below an outer join or a set operation")
        }
        LogicalPlan::Window(_) => outer.then_some("below a window"),
        LogicalPlan::Limit(_) => (value && outer).then_some(LIMIT),
        LogicalPlan::Union(_) => outer.then_some("in a part of UNION"),
        LogicalPlan::Filter(having) if top && value && is_one_row(&having.input) => outer.then_some("below HAVING"),
        LogicalPlan::Distinct(_) if rows => of_aggregated(plan),
        LogicalPlan::Aggregate(aggregate) => {
            let stays = top && value && aggregate.group_expr.is_empty();
            let loses = gives_row_of_none(aggregate) && !stays && outer;
            let groups = rows || !aggregate.aggr_expr.is_empty();
            let none = loses.then_some("below an aggregate");
            none.or_else(|| groups.then(|| of_aggregated(&aggregate.input)).flatten())
        }
        _ => None,
    };
    let passes = matches!(
        plan,
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) | LogicalPlan::Filter(_)
    );
    why.or_else(|| inputs.into_iter().find_map(|input| moved_above(input, stands, top && passes)))
}

/// Rows that are aggregated are told apart by what they are compared with only where that is equal.
fn of_aggregated(rows: &LogicalPlan) -> Option<&'static str> {
    let mut others = false;
    let walked = rows.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            others |= on_row_outside(filter).any(|condition| compared(condition).is_none());
        }
        Ok(if matches!(node, LogicalPlan::Subquery(_)) { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
    });
    (others || walked.is_err()).then_some("below an aggregate by more than equality")
}

/// A limit in `plan`: DataFusion leaves it out where it looks for what exists, once it has met a condition on the row outside.
fn beside_limit(plan: &LogicalPlan) -> Option<&'static str> {
    let limit = |node: &LogicalPlan| matches!(node, LogicalPlan::Limit(_));
    met_later(plan, limit, &mut false).then_some("beside a limit")
}

/// An aggregate without keys among `rows` after LATERAL, that is not what they are: DataFusion takes it for that once it has met such a condition, and
/// gives a row where there is none.
fn beside_aggregate(rows: &LogicalPlan) -> Option<&'static str> {
    let mut below = projected(rows).last()?;
    if let LogicalPlan::Aggregate(top) = below {
        below = &top.input;
    }
    let keyless = |node: &LogicalPlan| matches!(node, LogicalPlan::Aggregate(a) if a.group_expr.is_empty());
    met_later(below, keyless, &mut false).then_some("beside an aggregate")
}

/// Whether, from the innermost and the first operator of `plan` on, what is `sought` comes after a condition on the row outside.
fn met_later(plan: &LogicalPlan, sought: fn(&LogicalPlan) -> bool, met: &mut bool) -> bool {
    if matches!(plan, LogicalPlan::Subquery(_)) {
        return false;
    }
    let found = plan.inputs().into_iter().any(|input| met_later(input, sought, met));
    *met |= matches!(plan, LogicalPlan::Filter(filter) if filter.predicate.contains_outer());
    found || *met && sought(plan)
}

/// A constant beside an aggregate without keys, after LATERAL: DataFusion gives NULL for it where there is nothing to aggregate.
fn beside_constant(rows: &LogicalPlan) -> Option<&'static str> {
    let gives_constant = |node: &LogicalPlan| match node {
        LogicalPlan::Projection(projection) => projection
            .expr
            .iter()
            .any(|expr| !simplified(expr.clone(), &projection.input).is_ok_and(|expr| expr.any_column_refs())),
        _ => false,
    };
    (is_one_row(rows) && projected(rows).any(gives_constant)).then_some("and gives a constant beside an aggregate")
}

/// `rows` and what they are of, as far as nothing but columns and the order is another.
fn projected(rows: &LogicalPlan) -> impl Iterator<Item = &LogicalPlan> {
    std::iter::successors(Some(rows), |node| match node {
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) => {
            node.inputs().into_iter().next()
        }
        _ => None,
    })
}

/// Rows that have a column of the full name of one of the row outside.
const OF_ONE_NAME: &str = "by a column of one name with its own";

/// Whether `node` joins what stands after LATERAL by columns of the row outside that tables in it have, too.
fn is_taken_for_own(node: &LogicalPlan) -> PlanResult<bool> {
    let LogicalPlan::Join(join) = node else { return Ok(false) };
    let Some(lateral) = lateral_of(&join.right) else { return Ok(false) };
    let conditions = join.filter.iter().chain(join.on.iter().map(|(outside, _)| outside));
    let outside: Vec<&Column> =
        conditions.flat_map(Expr::column_refs).filter(|column| join.left.schema().has_column(column)).collect();
    lateral.subquery.exists(|below| Ok(outside.iter().any(|column| below.schema().has_column(column))))
}

/// Whether rows after LATERAL have a column of the full name of one of the row outside.
fn of_one_name(rows: &Subquery) -> Option<&'static str> {
    let given = rows.subquery.schema();
    let both = |expr: &Expr| outer_column(expr).is_some_and(|column| given.has_column(column));
    rows.outer_ref_columns.iter().any(both).then_some(OF_ONE_NAME)
}
