//! Refuses constants that take much memory while the statement is planned: the optimizer computes calls all of whose arguments
//! are constants, on the coordinator, whole, and nobody can cancel that.

use conun_types::Result;
use datafusion::{
    common::ScalarValue,
    logical_expr::{Cast, Expr, LogicalPlan, TryCast, expr::ScalarFunction},
    optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext},
    sql::sqlparser::ast::Statement,
};

use crate::{place, refusal::Refusal};

/// Most bytes of a constant.
const MOST: u64 = 16 << 20;

/// The first call of a plan that makes more than [`MOST`] bytes of constants.
pub(crate) fn refusal(plan: &LogicalPlan, statement: Option<&Statement>) -> Result<Option<Refusal>> {
    let too_large = |expr: &Expr| match expr {
        Expr::ScalarFunction(call) if made(call)? > MOST => {
            let innermost = call.args.iter().all(|arg| size(arg).is_some_and(|bytes| bytes <= MOST));
            innermost.then(|| call.func.as_ref().clone())
        }
        _ => None,
    };
    let Some(function) = super::find_expr(plan, too_large)? else { return Ok(None) };
    let named = |name: &String| name == function.name() || function.aliases().contains(name);
    Ok(Some(Refusal {
        construct: format!("{}()", function.name()),
        place: statement.and_then(|s| place::of_call(s, |call| named(&place::name_of(call)))),
        reason: "makes a constant of more than 16 MiB, which would be computed while the statement is planned",
        instead: "make less of it, or make rows: select value from generate_series(1, 1000000)",
    }))
}

/// About how many bytes the constant `expr` has, rather more than less; nothing where it follows from rows.
fn size(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Literal(value, _) => {
            let text = value.try_as_str().flatten().map(str::len);
            Some(text.unwrap_or_else(|| value.size()) as u64)
        }
        Expr::Alias(alias) => size(&alias.expr),
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) | Expr::Negative(expr) => size(expr),
        Expr::BinaryExpr(binary) => Some(size(&binary.left)?.saturating_add(size(&binary.right)?)),
        Expr::ScalarFunction(call) => made(call),
        _ => None,
    }
}

/// As [`size`], of what a call gives.
fn made(call: &ScalarFunction) -> Option<u64> {
    let sizes = call.args.iter().map(size).collect::<Option<Vec<u64>>>()?;
    let sum = sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size));
    // An argument that is too large is told, and not computed to tell how large the whole is.
    if sum > MOST {
        return Some(sum);
    }
    let (first, last) = (sizes.first().copied().unwrap_or(0), sizes.last().copied().unwrap_or(0));
    let number = |at: usize| call.args.get(at).and_then(integer);
    let count = |at: usize| number(at).map_or(0, |n| u64::try_from(n).unwrap_or(0));
    Some(match call.func.name() {
        "repeat" => first.saturating_mul(count(1)),
        // The element comes first.
        "array_repeat" => first.saturating_mul(count(1)),
        // Characters have four bytes at most, elements that are added are as large as the last argument.
        "lpad" | "rpad" => sum.saturating_add(count(1).saturating_mul(4)),
        "array_resize" => sum.saturating_add(count(1).saturating_mul(last.max(8))),
        "replace" | "regexp_replace" => first.saturating_mul(sizes.get(2).copied().unwrap_or(1)),
        "range" | "generate_series" => {
            let (start, stop) = if call.args.len() > 1 { (number(0), number(1)) } else { (Some(0), number(0)) };
            let step = number(2).unwrap_or(1).unsigned_abs().max(1);
            let steps = start.zip(stop).map_or(0, |(start, stop)| start.abs_diff(stop) / step);
            steps.saturating_mul(8)
        }
        _ => sum,
    })
}

/// The integer that `expr`, a small constant, comes to.
fn integer(expr: &Expr) -> Option<i64> {
    let simplified = ExprSimplifier::new(SimplifyContext::default()).simplify(expr.clone()).ok()?;
    let Expr::Literal(value, _) = simplified else { return None };
    match value.cast_to(&arrow::datatypes::DataType::Int64).ok()? {
        ScalarValue::Int64(number) => number,
        _ => None,
    }
}
