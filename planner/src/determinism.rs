//! Refuses what cannot give the same answer twice, and says what to write instead.

use conun_types::{Error, Result};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    logical_expr::{Expr, LogicalPlan, Volatility},
};

use crate::plan_error;

/// Fails on the first construct of `plan` whose value depends on more than the data: volatile functions. `now()` and
/// its kin are constants by now: the optimizer folds them to the moment at which the statement was planned.
///
/// # Errors
/// [`conun_types::ErrorKind::Data`] naming the function, with a hint on what to write instead.
pub fn refuse_unreproducible(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                refused = refused.take().or_else(|| volatile_function(e));
                Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })
    .map_err(|e| plan_error(&e))?;
    match refused {
        None => Ok(()),
        Some(name) => {
            Err(Error::data(format!("{name}() gives another value on every node, so no replica can be checked"))
                .with_hint(instead_of(&name)))
        }
    }
}

fn volatile_function(expr: &Expr) -> Option<String> {
    match expr {
        Expr::ScalarFunction(call) if call.func.signature().volatility == Volatility::Volatile => {
            Some(call.func.name().to_owned())
        }
        _ => None,
    }
}

fn instead_of(function: &str) -> &'static str {
    match function {
        "uuid" => "derive an id from the row, for example: md5(concat(a, b))",
        "random" => "sample by a hash of a key, for example: where md5(id) < '1'",
        _ => "use a function of the row's columns",
    }
}
