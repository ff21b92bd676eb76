//! Refuses plans of which DataFusion's encoding loses a part without a word: every node would compute the same wrong answer. What
//! logical plans show is the business of [`super::window_filter`] and [`super::ignore_nulls`]; this is what only planning brings about.

use std::sync::Arc;

use conun_types::Result;
use datafusion::{
    physical_expr::window::{StandardWindowExpr, WindowExpr},
    physical_plan::{
        ExecutionPlan,
        aggregates::AggregateExec,
        limit::GlobalLimitExec,
        windows::{BoundedWindowAggExec, WindowAggExec, WindowUDFExpr},
    },
};

use crate::refusal::Refusal;

/// Window functions that count rows in the order of the window: run backwards they count the other way, and that they do is lost.
const COUNT_ROWS: &[&str] = &["lag", "lead", "nth_value"];

/// Fails on the first operator of `plan` that would be another one on a node.
pub(crate) fn check(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    super::find_operator(plan, lost)?.map_or(Ok(()), |refusal| Err(refusal.into()))
}

fn lost(operator: &dyn ExecutionPlan) -> Option<Refusal> {
    let refusal =
        |construct: &str, reason, instead| Refusal { construct: construct.to_owned(), place: None, reason, instead };
    let windows = operator
        .downcast_ref::<BoundedWindowAggExec>()
        .map(BoundedWindowAggExec::window_expr)
        .or_else(|| operator.downcast_ref::<WindowAggExec>().map(WindowAggExec::window_expr));
    if let Some(function) = windows.into_iter().flatten().find_map(backwards) {
        return Some(refusal(
            &format!("{function}(..) OVER"),
            "beside a window of the opposite order runs backwards, which is lost on the way to nodes",
            "order one of them by an expression, for example: over (order by -x)",
        ));
    }
    // Encoded in 32 bits.
    let skip = operator.downcast_ref::<GlobalLimitExec>().map_or(0, GlobalLimitExec::skip);
    if operator.fetch().unwrap_or(0).max(skip) > u32::MAX as usize {
        return Some(refusal(
            "LIMIT",
            "and OFFSET of more than 4294967295 rows are lost on the way to nodes",
            "leave it out",
        ));
    }
    let group = operator.downcast_ref::<AggregateExec>().map(AggregateExec::group_expr);
    if group.is_some_and(|group| group.expr().is_empty() && !group.is_true_no_grouping()) {
        return Some(refusal(
            "GROUPING SETS (())",
            "without any column is lost on the way to nodes",
            "leave GROUP BY out, or name a column in one of the sets",
        ));
    }
    None
}

/// The function of a window that runs backwards and counts rows.
fn backwards(window: &Arc<dyn WindowExpr>) -> Option<String> {
    let standard = window.as_any().downcast_ref::<StandardWindowExpr>()?;
    let function = standard.get_standard_func_expr().as_any().downcast_ref::<WindowUDFExpr>()?;
    let name = function.fun().name();
    // There is no other way to ask it.
    let is_backwards = COUNT_ROWS.contains(&name) && format!("{function:?}").contains("is_reversed: true");
    is_backwards.then(|| name.to_owned())
}
