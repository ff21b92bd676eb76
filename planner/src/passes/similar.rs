//! `SIMILAR TO`.
//!
//! DataFusion takes its pattern for a regular expression that may match anywhere. SQL has `%` and `_` in it, as `LIKE` has, and the whole
//! value must match. So the pattern becomes such a regular expression.

use conun_functions::scalar::similar::similar_regex;
use datafusion::{
    common::{config::ConfigOptions, tree_node::Transformed},
    error::Result,
    logical_expr::{Expr, Like, LogicalPlan, Operator, binary_expr, lit},
    optimizer::AnalyzerRule,
};

/// The pass. It runs before types are fitted.
#[derive(Debug)]
pub(super) struct Similar;

impl AnalyzerRule for Similar {
    fn name(&self) -> &str {
        "similar"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_exprs(plan, |expr| {
            let Expr::SimilarTo(Like { negated, expr: value, pattern, escape_char, .. }) = expr else {
                return Ok(Transformed::no(expr));
            };
            let escape = lit(escape_char.unwrap_or('\\').to_string());
            let matches = if negated { Operator::RegexNotMatch } else { Operator::RegexMatch };
            Ok(Transformed::yes(binary_expr(*value, matches, similar_regex().call(vec![*pattern, escape]))))
        })
    }
}
