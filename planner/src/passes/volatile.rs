//! Refuses functions whose value depends on more than their arguments.

use conun_types::Result;
use datafusion::{
    logical_expr::{Expr, LogicalPlan, ScalarUDF, Volatility},
    sql::sqlparser::ast::Statement,
};

use crate::{place, refusal::Refusal};

/// The first volatile function of a plan. `now()` and its kin are none: [`super::moment`] makes them constants.
pub(crate) fn refusal(plan: &LogicalPlan, statement: Option<&Statement>) -> Result<Option<Refusal>> {
    let Some(function) = super::find_expr(plan, volatile_function)? else { return Ok(None) };
    let place = statement.and_then(|s| place::of_function(s, &function));
    let (reason, instead) = why(function.name());
    Ok(Some(Refusal { construct: format!("{}()", function.name()), place, reason, instead }))
}

fn volatile_function(expr: &Expr) -> Option<ScalarUDF> {
    match expr {
        Expr::ScalarFunction(call) if call.func.signature().volatility == Volatility::Volatile => {
            Some(call.func.as_ref().clone())
        }
        _ => None,
    }
}

/// Why a function is refused, and what to write instead.
fn why(function: &str) -> (&'static str, &'static str) {
    let differs = "gives another value on every node, so no replica can be checked";
    let files = "names files, and tables of the network have shards that nobody named";
    match function {
        "uuid" => (differs, "derive an id from the row, for example: md5(concat(a, b))"),
        "random" => (differs, "sample by a hash of a key, for example: where md5(cast(id as varchar)) < '1'"),
        "input_file_name" => (files, "store the name as a column of the table"),
        "file_row_index" => (files, "number the rows, for example: row_number() over (order by id)"),
        _ => (differs, "use a function of the row's columns"),
    }
}
