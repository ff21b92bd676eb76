//! Refuses constants that take much memory while the statement is planned: the optimizer computes calls all of whose arguments
//! are constants, on the coordinator, whole, and nobody can cancel that.

use arrow::datatypes::DataType;
use conun_types::Result;
use datafusion::{
    common::{
        ScalarValue,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan, ScalarUDF, expr::ScalarFunction},
    optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext},
    sql::sqlparser::ast::Statement,
};

use crate::{place, refusal::Refusal};

/// Most bytes of a constant.
const MOST: u64 = 16 << 20;

/// The innermost call of a plan that makes more than [`MOST`] bytes of constants.
///
/// It is told from the statement as it was written, so that a constant which only optimizing brings about is not seen.
pub(crate) fn refusal(plan: &LogicalPlan, statement: Option<&Statement>) -> Result<Option<Refusal>> {
    let Some(function) = super::find_expr(plan, culprit)? else { return Ok(None) };
    Ok(Some(Refusal {
        construct: format!("{}()", function.name()),
        place: statement.and_then(|s| place::of_function(s, &function)),
        reason: "makes a constant of more than 16 MiB, which would be computed while the statement is planned",
        instead: "make less of it, or make rows: select value from generate_series(1, 1000000)",
    }))
}

/// The innermost call in `expr` that makes too much.
fn culprit(expr: &Expr) -> Option<ScalarUDF> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let sizes = call.args.iter().map(size).collect::<Option<Vec<u64>>>()?;
    if made(call, &sizes) <= MOST {
        return None;
    }
    call.args.iter().find_map(culprit).or_else(|| Some(call.func.as_ref().clone()))
}

/// About how many bytes the constant `expr` has; nothing where it follows from rows.
fn size(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Literal(value, _) => {
            let text = value.try_as_str().flatten().map(str::len);
            Some(text.unwrap_or_else(|| value.size()) as u64)
        }
        Expr::ScalarFunction(call) => Some(made(call, &call.args.iter().map(size).collect::<Option<Vec<u64>>>()?)),
        Expr::Alias(_) | Expr::Cast(_) | Expr::TryCast(_) | Expr::Negative(_) | Expr::BinaryExpr(_) | Expr::Case(_) => {
            let mut sum = Some(0_u64);
            let walked = expr.apply_children(|child| {
                sum = sum.zip(size(child)).map(|(sum, size)| sum.saturating_add(size));
                Ok(TreeNodeRecursion::Continue)
            });
            sum.filter(|_| walked.is_ok())
        }
        _ => None,
    }
}

/// As [`size`], of what a call gives whose arguments have `sizes`. What a number is that no small constant gives is not known, and
/// counts for nothing.
fn made(call: &ScalarFunction, sizes: &[u64]) -> u64 {
    let sum = sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size));
    let size = |at: usize| sizes.get(at).copied().unwrap_or(0).max(1);
    let number = |at: usize| call.args.get(at).and_then(integer);
    let count = |at: usize| number(at).map_or(0, |n| u64::try_from(n).unwrap_or(0));
    let made = match call.func.name() {
        // The text, or the element, comes first.
        "repeat" | "array_repeat" => size(0).saturating_mul(count(1)),
        // Characters have four bytes at most.
        "lpad" | "rpad" => count(1).saturating_mul(4),
        "array_resize" => count(1).saturating_mul(size(2).max(8)),
        "replace" | "regexp_replace" => size(0).saturating_mul(size(2)),
        "array_to_string" => size(0).saturating_mul(size(1)),
        "range" | "generate_series" => {
            let (start, stop) = if call.args.len() > 1 { (number(0), number(1)) } else { (Some(0), number(0)) };
            let step = if call.args.len() > 2 { number(2) } else { Some(1) };
            let steps = start.zip(stop).zip(step).map(|((a, b), step)| a.abs_diff(b) / step.unsigned_abs().max(1));
            steps.unwrap_or(0).saturating_mul(8)
        }
        _ => 0,
    };
    made.max(sum)
}

/// The integer that `expr`, numbers and what is reckoned with them, comes to.
fn integer(expr: &Expr) -> Option<i64> {
    let calls =
        expr.exists(|e| Ok(!matches!(e, Expr::Literal(..) | Expr::Cast(_) | Expr::Negative(_) | Expr::BinaryExpr(_))));
    if calls.ok()? {
        return None;
    }
    let simplified = ExprSimplifier::new(SimplifyContext::default()).simplify(expr.clone()).ok()?;
    let Expr::Literal(value, _) = simplified else { return None };
    if !value.data_type().is_integer() {
        return None;
    }
    match value.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(number) => number,
        _ => None,
    }
}
