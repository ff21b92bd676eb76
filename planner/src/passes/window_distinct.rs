//! Lists of distinct values over windows.
//!
//! Their order is a hash table's ([`super::distinct_order`]), and SQL has no place in them for another. Where the values
//! can be sorted afterwards, a projection right above the window does it; `string_agg` and lists of nested values are
//! refused.

use std::sync::Arc;

use conun_types::Result;
use datafusion::{
    arrow::datatypes::DataType,
    common::{
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult},
    },
    error::Result as PlanResult,
    functions_nested::expr_fn::array_sort,
    logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection, lit, logical_plan::Window},
    optimizer::AnalyzerRule,
    sql::sqlparser::ast::{DuplicateTreatment, Function, FunctionArguments, Statement},
};

use super::distinct_order::LISTS;
use crate::{place, plan_error, refusal::Refusal};

/// The rewriting half.
#[derive(Debug)]
pub(crate) struct WindowDistinct;

impl AnalyzerRule for WindowDistinct {
    fn name(&self) -> &str {
        "window_distinct"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> PlanResult<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match &node {
            LogicalPlan::Window(window) if window.window_expr.iter().any(|e| sorted_after(e, window)) => {
                Ok(Transformed::yes(sorted(&node, window)?))
            }
            _ => Ok(Transformed::no(node)),
        })
        .data()
    }
}

/// `node`, which is `window`, with its lists sorted under their names.
fn sorted(node: &LogicalPlan, window: &Window) -> PlanResult<LogicalPlan> {
    let input = window.input.schema().fields().len();
    let columns = window.schema.columns().into_iter().enumerate().map(|(i, column)| {
        let expr = i.checked_sub(input).map(|i| &window.window_expr[i]);
        let (relation, name, value) = (column.relation.clone(), column.name.clone(), Expr::Column(column));
        match expr.is_some_and(|e| sorted_after(e, window)) {
            true => array_sort(value, lit("ASC"), lit("NULLS LAST")).alias_qualified(relation, name),
            false => value,
        }
    });
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(node.clone()))?))
}

/// Whether an expression of `window` is a list that sorting makes reproducible.
fn sorted_after(expr: &Expr, window: &Window) -> bool {
    distinct_list(expr).is_some_and(|name| name == "array_agg")
        && expr.get_type(window.input.schema()).is_ok_and(|list| is_flat(&list))
}

/// Whether a list's values are sorted by what they are: neither lists nor structs.
fn is_flat(list: &DataType) -> bool {
    matches!(list, DataType::List(item) if !item.data_type().is_nested())
}

/// The first such list of a plan that nothing sorts.
pub(crate) fn refusal(plan: &LogicalPlan, statement: Option<&Statement>) -> Result<Option<Refusal>> {
    let mut name = None;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Window(window) = node {
            let unsorted = window.window_expr.iter().filter(|e| !sorted_after(e, window));
            name = name.take().or_else(|| unsorted.filter_map(distinct_list).next());
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })
    .map_err(|e| plan_error(&e))?;
    let Some(name) = name else { return Ok(None) };
    let place =
        statement.and_then(|s| place::of_call(s, |call| is_distinct_list(call) && place::name_of(call) == name));
    Ok(Some(Refusal {
        construct: format!("{name}(DISTINCT ..) OVER"),
        place,
        reason: "lists values in no fixed order",
        instead: "aggregate in a subquery with GROUP BY, where the list is sorted, and join it",
    }))
}

fn distinct_list(expr: &Expr) -> Option<String> {
    let Expr::WindowFunction(call) = expr.clone().unalias() else { return None };
    let name = call.fun.name();
    (call.params.distinct && LISTS.contains(&name)).then(|| name.to_owned())
}

fn is_distinct_list(call: &Function) -> bool {
    let FunctionArguments::List(list) = &call.args else { return false };
    call.over.is_some() && list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
}
