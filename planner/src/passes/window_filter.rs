//! `FILTER` over windows.
//!
//! DataFusion's encoding of plans leaves it out, so that every node would compute the same wrong answer. Where the aggregate
//! leaves NULLs out, a `CASE` around its first argument says the same; others are refused.

use conun_types::Result;
use datafusion::{
    common::{config::ConfigOptions, tree_node::Transformed},
    error::Result as PlanResult,
    logical_expr::{Expr, LogicalPlan, expr::WindowFunction, when},
    optimizer::AnalyzerRule,
    sql::sqlparser::ast::{Function, Statement},
};

use crate::{place, refusal::Refusal};

/// Aggregates in which a row whose first argument is NULL does not count.
const LEAVE_NULLS_OUT: &[&str] = &[
    "approx_distinct",
    "approx_median",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "max",
    "median",
    "min",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "string_agg",
    "sum",
    "var",
    "var_pop",
];

/// The rewriting half.
#[derive(Debug)]
pub(crate) struct WindowFilter;

impl AnalyzerRule for WindowFilter {
    fn name(&self) -> &str {
        "window_filter"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> PlanResult<LogicalPlan> {
        super::rewrite_exprs(plan, rewritten)
    }
}

fn rewritten(mut expr: Expr) -> PlanResult<Transformed<Expr>> {
    if let Expr::WindowFunction(call) = &mut expr
        && can_be_rewritten(call)
        && let Some(filter) = call.params.filter.take()
    {
        let value = std::mem::take(&mut call.params.args[0]);
        call.params.args[0] = when(*filter, value).end()?;
        return Ok(Transformed::yes(expr));
    }
    Ok(Transformed::no(expr))
}

fn can_be_rewritten(call: &WindowFunction) -> bool {
    LEAVE_NULLS_OUT.contains(&call.fun.name()) && !call.params.args.is_empty()
}

/// The first filter of a plan that cannot be said otherwise.
pub(crate) fn refusal(plan: &LogicalPlan, statement: Option<&Statement>) -> Result<Option<Refusal>> {
    let filtered = |expr: &Expr| match expr {
        Expr::WindowFunction(call) if call.params.filter.is_some() && !can_be_rewritten(call) => {
            Some(call.fun.name().to_owned())
        }
        _ => None,
    };
    let Some(name) = super::find_expr(plan, filtered)? else { return Ok(None) };
    let is_filtered = |call: &Function| call.over.is_some() && call.filter.is_some() && place::name_of(call) == name;
    Ok(Some(Refusal {
        construct: format!("{name}(..) FILTER OVER"),
        place: statement.and_then(|s| place::of_call(s, is_filtered)),
        reason: "loses its filter on the way to nodes",
        instead: "filter in a subquery, or aggregate with GROUP BY and join it",
    }))
}
