//! `FILTER` and `IGNORE NULLS` over windows.
//!
//! DataFusion's encoding of plans leaves them out, so that every node would compute the same wrong answer. Functions that are
//! told in their arguments or by their names take the places of those that are told apart. (What is no aggregate has no `FILTER`:
//! DataFusion says so.)

use conun_functions::{aggregate::filtered, window::ignoring_nulls};
use datafusion::{
    common::{config::ConfigOptions, tree_node::Transformed},
    error::Result,
    logical_expr::{
        Expr, LogicalPlan, WindowFunctionDefinition,
        expr::{NullTreatment, WindowFunction},
    },
    optimizer::AnalyzerRule,
};

/// The pass.
#[derive(Debug)]
pub(crate) struct WindowWords;

impl AnalyzerRule for WindowWords {
    fn name(&self) -> &str {
        "window_words"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_exprs(plan, |mut expr| {
            let changed = match &mut expr {
                Expr::WindowFunction(call) => told_otherwise(call),
                _ => false,
            };
            Ok(Transformed::new_transformed(expr, changed))
        })
    }
}

/// Whether another function takes the place of that of `call`.
fn told_otherwise(call: &mut WindowFunction) -> bool {
    let params = &mut call.params;
    let function = match &call.fun {
        WindowFunctionDefinition::AggregateUDF(function) => params.filter.take().map(|condition| {
            params.args.insert(0, *condition);
            WindowFunctionDefinition::AggregateUDF(filtered(function))
        }),
        WindowFunctionDefinition::WindowUDF(function) => {
            let ignores = params.null_treatment.take_if(|treatment| *treatment == NullTreatment::IgnoreNulls);
            ignores.and_then(|_| ignoring_nulls(function)).map(WindowFunctionDefinition::WindowUDF)
        }
    };
    function.map(|function| call.fun = function).is_some()
}
