//! The passes that make plans reproducible, one file each: what is rewritten, what is refused.
//!
//! | pass | on | does |
//! |---|---|---|
//! | [`moment`] | sessions | `now()` and its kin become constants |
//! | [`distinct_order`] | logical plans | `array_agg(DISTINCT ..)` and `string_agg(DISTINCT ..)` are sorted |
//! | [`volatile`] | logical plans | refuses functions of more than their arguments |
//! | [`window_distinct`] | logical plans | the same over windows, by sorting afterwards; refuses what cannot be sorted so |
//! | [`window_words`] | logical plans | functions that plans do not lose say `FILTER` and `IGNORE NULLS` over windows |
//! | [`single_row`] | logical plans | subqueries that stand for a value fail where they give several; refuses those of each row without an aggregate |
//! | [`nullability`] | logical plans | what is made of such values may be NULL where they may |
//! | [`subquery_flags`] | logical plans | `EXISTS` and `IN (select ..)` that are no condition by themselves become counts |
//! | [`correlation`] | logical plans | refuses subqueries that refer to the row outside from where no join keeps rows apart |
//! | [`outer_columns`] | logical plans | what subqueries compare with the row outside is told apart by name |
//! | [`similar`] | logical plans | `SIMILAR TO` becomes the regular expression that it means |
//! | [`differences`] | statements | differences of numbers without a sign have one |
//! | [`set_rows`] | logical plans | `EXCEPT ALL` and `INTERSECT ALL` count equal rows |
//! | [`merged_keys`] | statements | refuses names that are taken for another column: keys of outer joins by `USING`, ambiguous ones in subqueries |
//! | [`subquery_places`] | logical plans | such subqueries in sorts, aggregates, windows, joins and `DISTINCT ON` are projected below |
//! | [`recursion`] | logical plans | refuses `WITH RECURSIVE` over tables of the network |
//! | [`oversized`] | logical plans | refuses constants of more than 16 MiB in statements, also where no table of the network is read |
//! | [`false_equivalences`] | physical plans | what DataFusion falsely believes of rows (of joins, grouping sets, filters, windows, ..) is hidden from it |
//! | [`join_filters`] | physical plans | conditions that are moved in physical plans stop above joins, and above projections of projections |
//! | [`limited_groups`] | physical plans | aggregates below windows are not limited by what is above |
//! | [`false_dependencies`] | statements and logical plans | what DataFusion believes columns to determine is forgotten |
//! | [`rows_of_none`] | logical plans | conditions on no column stay above aggregates that give a row of none, and those above projections that these would make too large |
//! | [`refused`] | statements and logical plans | what is refused, for every door |
//! | [`nesting`] | physical plans | refuses those that nest deeper than their encoding can |
//! | [`runnable`] | physical plans | refuses operators that are not in the execution profile |
//!
//! What is pinned rather than rewritten needs no pass here: settings are in the execution profile, and order within a
//! task is pinned by the executor. docs/DETERMINISM.md tells which construct is treated how.

mod correlated;
pub(crate) mod correlation;
mod differences;
pub(crate) mod distinct_order;
pub(crate) mod false_dependencies;
mod false_equivalences;
mod join_filters;
mod limited_groups;
pub(crate) mod merged_keys;
pub(crate) mod moment;
pub(crate) mod nesting;
mod nullability;
pub(crate) mod outer_columns;
pub(crate) mod oversized;
pub(crate) mod recursion;
mod refused;
mod rows_of_none;
pub(crate) mod runnable;
mod set_rows;
mod similar;
pub(crate) mod single_row;
pub(crate) mod subquery_flags;
pub(crate) mod subquery_places;
pub(crate) mod volatile;
pub(crate) mod window_distinct;
pub(crate) mod window_words;

use std::sync::Arc;

use conun_types::{Error, Result};
use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::Result as PlanResult,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::{Expr, LogicalPlan, expr_rewriter::NamePreserver},
    optimizer::{Analyzer, AnalyzerRule, Optimizer},
    physical_optimizer::{PhysicalOptimizerRule, optimizer::PhysicalOptimizer},
    physical_plan::ExecutionPlan,
    sql::sqlparser::ast::Statement,
};

use self::refused::Refused;
use crate::{Placement, placement, plan_error, refusal::Refusal};

/// A pass that refuses: what is wrong with a plan, if anything, and where in its statement.
type Refuse = fn(&LogicalPlan, Option<&Statement>) -> Result<Option<Refusal>>;

/// A rule for physical plans.
type PhysicalRule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// How a rule is run on a plan.
type Run = fn(&PhysicalRule, Arc<dyn ExecutionPlan>, &ConfigOptions) -> PlanResult<Arc<dyn ExecutionPlan>>;

/// A rule of DataFusion's for physical plans that is run otherwise.
#[derive(Debug)]
struct Narrowed {
    rule: PhysicalRule,
    run: Run,
}

impl PhysicalOptimizerRule for Narrowed {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> PlanResult<Arc<dyn ExecutionPlan>> {
        (self.run)(&self.rule, plan, config)
    }
}

/// A rule of an analyzer.
type Analysis = Arc<dyn AnalyzerRule + Send + Sync>;

/// What would be answered wrongly.
const WRONG: &[Refuse] = &[single_row::refusal, correlation::refusal, false_dependencies::refusal];

/// What would be answered differently by the next node.
const UNREPRODUCIBLE: &[Refuse] = &[volatile::refusal, window_distinct::refusal, recursion::refusal];

/// `builder` with DataFusion's rules, kept from what is false, and refusals of what they get wrong.
///
/// # Errors
/// [`conun_types::ErrorKind::Internal`] where DataFusion has other rules than this build was made for.
pub fn corrected(mut builder: SessionStateBuilder) -> Result<SessionStateBuilder> {
    builder.expr_planners().get_or_insert_default().push(Arc::new(differences::Differences));
    let physical = false_equivalences::hidden(PhysicalOptimizer::new().rules)?;
    let mut logical = Optimizer::new().rules;
    let pushes = place("push_down_filter", logical.iter().map(|rule| rule.name()))?;
    logical[pushes] = Arc::new(rows_of_none::PushDown::default());
    let wrong = |plan: &LogicalPlan| first_of(WRONG, plan, None);
    let mut analyzer: Vec<Analysis> = vec![Arc::new(Refused { name: "wrong", check: wrong })];
    analyzer.push(Arc::new(similar::Similar));
    analyzer.extend(Analyzer::new().rules);
    // The flags go by whether values may be NULL, and are made of other values.
    analyzer.push(Arc::new(single_row::SingleRow));
    analyzer.push(Arc::new(nullability::Nullability));
    analyzer.push(Arc::new(subquery_flags::SubqueryFlags));
    analyzer.push(Arc::new(single_row::SingleRow));
    analyzer.push(Arc::new(nullability::Nullability));
    analyzer.push(Arc::new(outer_columns::OuterColumns));
    // What the passes make of subqueries must be joined rightly, too.
    analyzer.push(Arc::new(Refused { name: "misjoined", check: |plan| first_of(&[correlation::refusal], plan, None) }));
    analyzer.push(Arc::new(set_rows::SetRows));
    analyzer.push(Arc::new(subquery_places::SubqueryPlaces));
    analyzer
        .push(Arc::new(Refused { name: "misplaced", check: |plan| first_of(&[subquery_places::refusal], plan, None) }));
    Ok(builder
        .with_analyzer_rules(analyzer)
        .with_optimizer_rules(false_dependencies::forgotten(logical)?)
        .with_relation_planners(vec![false_dependencies::relations(), Arc::new(refused::Samples)])
        .with_physical_optimizer_rules(join_filters::kept(limited_groups::whole(physical)?)))
}

/// The place of the rule that is called `name` among `rules`.
fn place<'a>(name: &str, mut rules: impl Iterator<Item = &'a str>) -> Result<usize> {
    rules.position(|rule| rule == name).ok_or_else(|| Error::internal(format!("DataFusion has no rule {name}")))
}

/// Adds the rewriting passes to a session.
pub(crate) fn register(state: &mut SessionState) {
    state.add_analyzer_rule(Arc::new(distinct_order::DistinctOrder));
    state.add_analyzer_rule(Arc::new(window_distinct::WindowDistinct));
    state.add_analyzer_rule(Arc::new(window_words::WindowWords));
}

/// `state`, refusing also what reaches it by other ways than [`logical_plan`](crate::logical_plan): SQL that is planned by itself, dataframes.
/// Its errors are of kind [`conun_types::ErrorKind::Data`], name the construct, and hint at what to write instead.
#[must_use]
pub fn refusing(state: SessionState) -> SessionState {
    let unreproducible = |plan: &LogicalPlan| {
        first_of(&[oversized::refusal], plan, None)?;
        match placement(plan)? {
            Placement::Local => Ok(()),
            Placement::Network => first_of(UNREPRODUCIBLE, plan, None),
        }
    };
    let mut rules: Vec<Analysis> = vec![Arc::new(Refused { name: "unreproducible", check: unreproducible })];
    rules.extend(state.analyzer().rules.iter().cloned());
    SessionStateBuilder::new_from_existing(state).with_analyzer_rules(rules).build()
}

/// Fails on the first construct of `plan` that is refused.
pub(crate) fn refuse(plan: &LogicalPlan, statement: Option<&Statement>) -> Result<()> {
    first_of(UNREPRODUCIBLE, plan, statement)?;
    first_of(WRONG, plan, statement)
}

/// Fails on the first construct of `plan` that one of `passes` refuses, with its place in `statement`.
fn first_of(passes: &[Refuse], plan: &LogicalPlan, statement: Option<&Statement>) -> Result<()> {
    for pass in passes {
        if let Some(refusal) = pass(plan, statement)? {
            return Err(refusal.into());
        }
    }
    Ok(())
}

/// `plan`, subqueries included, with `rewrite` done to each part of its expressions from the innermost. Columns keep their names: what
/// is above refers to them by these.
fn rewrite_exprs(
    plan: LogicalPlan,
    rewrite: impl Fn(Expr) -> PlanResult<Transformed<Expr>>,
) -> PlanResult<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| rewrite_expr(expr, &names, &rewrite))
    })
    .data()
}

/// `expr` under its name, with `rewrite` done to each part of it from the innermost.
fn rewrite_expr(
    expr: Expr,
    names: &NamePreserver,
    rewrite: impl FnMut(Expr) -> PlanResult<Transformed<Expr>>,
) -> PlanResult<Transformed<Expr>> {
    let name = names.save(&expr);
    Ok(expr.transform_up(rewrite)?.update_data(|e| name.restore(e)))
}

/// The first thing that `find` finds in the operators of `plan`.
fn find_operator<T>(
    plan: &Arc<dyn ExecutionPlan>,
    find: impl Fn(&dyn ExecutionPlan) -> Option<T>,
) -> Result<Option<T>> {
    let mut found = None;
    plan.apply(|node| {
        found = find(node.as_ref());
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(|e| plan_error(&e))?;
    Ok(found)
}

/// The first thing that `find` finds in the operators of `plan`, subqueries included.
fn find_node<T>(plan: &LogicalPlan, mut find: impl FnMut(&LogicalPlan) -> PlanResult<Option<T>>) -> Result<Option<T>> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        found = find(node)?;
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(|e| plan_error(&e))?;
    Ok(found)
}

/// The first thing that `find` finds in the expressions of `plan`, subqueries included.
fn find_expr<T>(plan: &LogicalPlan, find: impl Fn(&Expr) -> Option<T>) -> Result<Option<T>> {
    find_node(plan, |node| {
        let mut found = None;
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                found = found.take().or_else(|| find(e));
                Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })?;
        Ok(found)
    })
}
