//! What DataFusion believes of the rows of an operator, and is false.
//!
//! It leaves out sorts of rows that come sorted and keys that are constant or follow from unique ones, and tells groups apart by
//! what comes sorted. It believes (DataFusion 55):
//! - of an outer join, that columns of the side that may be missing are constant, or equal, if they were: they may be NULL;
//! - of grouping sets, the same of keys that a set leaves out, that literals among the keys are constant, and that rows come in
//!   the input's order;
//! - of a hash join, that rows which are sorted by the right side's order are sorted by the left one's within it: each of
//!   several right rows of one key has its own run of left rows; of a sort-merge join, the same the other way round;
//! - of a filter, that a column has one value where a cast, a quotient or the file's statistics (which leave out NaN) seem to say so:
//!   `cast(t as date) = date '2013-01-01'` holds for every time of that day;
//! - of aggregates over windows, that they grow with their frame: NULLs before the first value do not, nor do frames that move;
//! - of what is unnested, that it comes in the order of another column of the same name;
//! - of a projection, that the columns in the places of a unique key are one;
//! - of a time of day, that it grows with the date, and of a negative, that it falls as an integer grows.
//!
//! A barrier hides it, before DataFusion decides where it sorts and exchanges rows.

use std::sync::Arc;

use conun_executor::{EquivalenceBarrierExec, equivalence_barrier::Known, plan_node::RECOMPUTE};
use conun_types::Result;
use datafusion::{
    arrow::datatypes::DataType,
    common::{
        Constraint, JoinType,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::Result as PlanResult,
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, CastExpr, Column, NegativeExpr},
        utils::{collect_columns, split_conjunction},
        window::{PlainAggregateWindowExpr, SlidingAggregateWindowExpr, WindowExpr},
    },
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties,
        aggregates::AggregateExec,
        filter::FilterExec,
        joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec},
        projection::ProjectionExec,
        unnest::UnnestExec,
        windows::{BoundedWindowAggExec, WindowAggExec},
    },
};

use super::PhysicalRule;

/// The rule of DataFusion's that decides where rows are sorted and exchanged.
const DECIDES: &str = "EnsureRequirements";

/// `rules` and this one before the one that relies on what is hidden.
///
/// # Errors
/// Kind `Internal` where that is not among them.
pub(super) fn hidden(mut rules: Vec<PhysicalRule>) -> Result<Vec<PhysicalRule>> {
    let place = super::place(DECIDES, rules.iter().map(|rule| rule.name()))?;
    rules.insert(place, Arc::new(Hide));
    Ok(rules)
}

/// The pass.
#[derive(Debug)]
struct Hide;

impl PhysicalOptimizerRule for Hide {
    fn name(&self) -> &'static str {
        "false_equivalences"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> PlanResult<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let corrected = below(Arc::clone(&node))?;
            let known = above(&corrected);
            let corrected = behind(corrected, known);
            let differs = !Arc::ptr_eq(&node, &corrected);
            Ok(Transformed::new_transformed(corrected, differs))
        })
        .data()
    }
}

/// `plan` behind a barrier, unless all may be known of it.
fn behind(plan: Arc<dyn ExecutionPlan>, known: Option<Known>) -> Arc<dyn ExecutionPlan> {
    match known {
        Some(known) => Arc::new(EquivalenceBarrierExec::new(plan, known)),
        None => plan,
    }
}

/// What may be known of the rows of `plan`, where that is not all that DataFusion would.
fn above(plan: &Arc<dyn ExecutionPlan>) -> Option<Known> {
    let aggregate = plan.downcast_ref::<AggregateExec>();
    if aggregate.is_some_and(|aggregate| aggregate.group_expr().has_grouping_set()) || plan.is::<UnnestExec>() {
        return Some(Known::NOTHING);
    }
    if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
        return Some(Known { orders_before: join.left().schema().fields().len(), ..Known::ALL });
    }
    let filter = plan.downcast_ref::<FilterExec>().filter(|filter| seems_constant(filter));
    // What is projected is known by what seems constant.
    filter.map(|filter| if filter.projection().is_some() { Known::NOTHING } else { Known::ORDERS })
}

/// The windows of `plan`, if it is an operator of windows.
fn windows(plan: &Arc<dyn ExecutionPlan>) -> Option<&[Arc<dyn WindowExpr>]> {
    let plain = plan.downcast_ref::<WindowAggExec>().map(WindowAggExec::window_expr);
    plain.or_else(|| plan.downcast_ref::<BoundedWindowAggExec>().map(BoundedWindowAggExec::window_expr))
}

/// What may be known of the rows of a run of windows. They are not on each other, so that one barrier for all is enough.
fn of_windows(last: &Arc<dyn ExecutionPlan>) -> Option<Known> {
    let (mut first, mut aggregate) = (last, false);
    while let (Some(windows), [input]) = (windows(first), first.children().as_slice()) {
        aggregate |= windows.iter().any(aggregates);
        first = input;
    }
    aggregate.then(|| Known { orders_before: first.schema().fields().len(), ..Known::ALL })
}

fn aggregates(window: &Arc<dyn WindowExpr>) -> bool {
    let window = window.as_any();
    window.is::<PlainAggregateWindowExpr>() || window.is::<SlidingAggregateWindowExpr>()
}

/// Whether DataFusion takes a column for constant that no condition says to equal a constant.
fn seems_constant(filter: &FilterExec) -> bool {
    let input = filter.input().equivalence_properties();
    let is_fixed =
        |expr: &Arc<dyn PhysicalExpr>| collect_columns(expr).is_empty() || input.is_expr_constant(expr).is_some();
    let is_equated = |column: &Column| {
        split_conjunction(filter.predicate()).into_iter().any(|condition| {
            let equality = condition.downcast_ref::<BinaryExpr>().filter(|condition| *condition.op() == Operator::Eq);
            equality.is_some_and(|equality| {
                let is = |side: &Arc<dyn PhysicalExpr>| side.downcast_ref::<Column>() == Some(column);
                let (left, right) = (equality.left(), equality.right());
                (is(left) && is_fixed(right)) || (is(right) && is_fixed(left))
            })
        })
    };
    let constants = filter.properties().equivalence_properties().constants();
    constants.iter().any(|constant| {
        let column = constant.expr.downcast_ref::<Column>();
        column.is_some_and(|column| !is_equated(column) && !is_fixed(&constant.expr))
    })
}

/// Whether DataFusion takes columns of `plan` for unique, that are others than those that are unique in its input.
fn seems_unique(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let keys = plan.downcast_ref::<AggregateExec>().map(|aggregate| aggregate.group_expr().expr().len());
    let unique = |columns: &[usize]| {
        let by_groups = keys.is_some_and(|keys| columns.iter().copied().eq(0..keys));
        by_groups || columns.iter().all(|column| source(plan, *column) == Some(*column))
    };
    plan.equivalence_properties().constraints().iter().any(|constraint| match constraint {
        Constraint::Unique(columns) | Constraint::PrimaryKey(columns) => !unique(columns),
    })
}

/// The column of its input that column `at` of `plan` is.
fn source(plan: &Arc<dyn ExecutionPlan>, at: usize) -> Option<usize> {
    let column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return projection.expr().get(at).and_then(|projected| column(&projected.expr));
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return aggregate.group_expr().expr().get(at).and_then(|(expr, _)| column(expr));
    }
    let projection = plan.downcast_ref::<FilterExec>().and_then(|filter| filter.projection().as_deref());
    projection.map_or(Some(at), |columns| columns.get(at).copied())
}

/// `plan` over inputs of which it knows only what is true of its own rows, too.
fn below(plan: Arc<dyn ExecutionPlan>) -> PlanResult<Arc<dyn ExecutionPlan>> {
    let mut known = match joined(&plan)? {
        Some(sides) => sides.to_vec(),
        None if reorders(&plan)? => vec![Some(Known::EQUALITIES); plan.children().len()],
        None if seems_unique(&plan) => vec![Some(Known::ALL)],
        None => vec![None; plan.children().len()],
    };
    if windows(&plan).is_none() {
        let inputs = known.iter_mut().zip(plan.children());
        inputs.for_each(|(known, input)| *known = narrower(*known, of_windows(input)));
    }
    if known.iter().all(Option::is_none) {
        return Ok(plan);
    }
    let inputs = plan.children().into_iter().cloned().zip(known);
    let inputs = inputs.map(|(input, known)| behind(input, known)).collect();
    plan.replace_children(inputs, RECOMPUTE)
}

/// What both say is known.
fn narrower(one: Option<Known>, other: Option<Known>) -> Option<Known> {
    match (one, other) {
        (Some(one), Some(other)) => Some(Known {
            equalities: one.equalities && other.equalities,
            orders_before: one.orders_before.min(other.orders_before),
        }),
        (one, other) => one.or(other),
    }
}

/// What may be known of the two inputs of a join.
fn joined(plan: &Arc<dyn ExecutionPlan>) -> PlanResult<Option<[Option<Known>; 2]>> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let mut known = nulled(*join.join_type());
        if known[0].is_none() && may_be_sorted(join.left())? && may_be_sorted(join.right())? {
            known[0] = Some(Known::EQUALITIES);
        }
        return Ok(Some(known));
    }
    let merges = plan.downcast_ref::<SortMergeJoinExec>().map(SortMergeJoinExec::join_type);
    let loops = plan.downcast_ref::<NestedLoopJoinExec>().map(NestedLoopJoinExec::join_type);
    Ok(merges.or_else(|| loops.copied()).map(nulled))
}

/// What may be known of the sides of a join of which one may be missing.
fn nulled(join: JoinType) -> [Option<Known>; 2] {
    match join {
        JoinType::Left => [None, Some(Known::NOTHING)],
        JoinType::Right => [Some(Known::NOTHING), None],
        JoinType::Full => [Some(Known::NOTHING); 2],
        _ => [None; 2],
    }
}

/// Whether rows of `plan` have an order, or will once they are sorted for the operators in it.
fn may_be_sorted(plan: &Arc<dyn ExecutionPlan>) -> PlanResult<bool> {
    plan.exists(|node| {
        let sorted = node.output_ordering().is_some() || node.required_input_ordering().iter().any(Option::is_some);
        Ok(sorted)
    })
}

/// Whether `plan` makes times of day of moments, or negates: the smallest integer stays itself.
fn reorders(plan: &Arc<dyn ExecutionPlan>) -> PlanResult<bool> {
    let mut found = false;
    plan.apply_expressions(&mut |expr| {
        found |= expr.exists(|e| {
            let cast = e.downcast_ref::<CastExpr>().map(CastExpr::cast_type);
            Ok(e.is::<NegativeExpr>() || cast.is_some_and(|to| matches!(to, DataType::Time32(_) | DataType::Time64(_))))
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
