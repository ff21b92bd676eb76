//! Refuses `IGNORE NULLS` of window functions that are no aggregates (`lag`, `lead`, `first_value`, `nth_value`, ..): DataFusion's
//! encoding of plans leaves it out, so that every node would compute the same wrong answer.

use conun_types::Result;
use datafusion::{
    logical_expr::{Expr, LogicalPlan, WindowFunctionDefinition},
    sql::sqlparser::ast::{Function, NullTreatment, Statement},
};

use crate::{place, refusal::Refusal};

/// The first such function of a plan.
pub(crate) fn refusal(plan: &LogicalPlan, statement: Option<&Statement>) -> Result<Option<Refusal>> {
    let ignoring = |expr: &Expr| match expr {
        Expr::WindowFunction(call) => {
            let loses = matches!(call.fun, WindowFunctionDefinition::WindowUDF(_));
            let ignores =
                call.params.null_treatment == Some(datafusion::logical_expr::expr::NullTreatment::IgnoreNulls);
            (loses && ignores).then(|| call.fun.name().to_owned())
        }
        _ => None,
    };
    let Some(name) = super::find_expr(plan, ignoring)? else { return Ok(None) };
    let is_ignoring = |call: &Function| call.null_treatment == Some(NullTreatment::IgnoreNulls) && call.over.is_some();
    Ok(Some(Refusal {
        construct: format!("{name}(..) IGNORE NULLS OVER"),
        place: statement.and_then(|s| place::of_call(s, is_ignoring)),
        reason: "loses its IGNORE NULLS on the way to nodes",
        instead: "leave NULLs out in a subquery (WHERE x IS NOT NULL) and join it, or use max() over a frame",
    }))
}
