//! Differences of numbers without a sign.
//!
//! DataFusion subtracts them as what they are, and what is below zero comes to nearly 2^64: `row_number() .. - rank() ..` may. So both sides
//! get a sign first.

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        DFSchema,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult},
    },
    error::Result,
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast, expr_rewriter::NamePreserver, utils::merge_schema,
    },
    optimizer::AnalyzerRule,
};

/// The pass. It runs before types are fitted: a side may get another type then.
#[derive(Debug)]
pub(super) struct Differences;

impl AnalyzerRule for Differences {
    fn name(&self) -> &str {
        "differences"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let (schema, names) = (merge_schema(&node.inputs()), NamePreserver::new(&node));
            // DataFusion finds the types of what is above when it fits them.
            node.map_expressions(|expr| super::rewrite_expr(expr, &names, |e| Ok(signed(e, &schema))))
        })
        .data()
    }
}

fn signed(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) = expr else { return Transformed::no(expr) };
    let holding = |e: &Expr| e.get_type(schema).ok().and_then(|of| holding(&of));
    let Some((one, other)) = holding(&left).zip(holding(&right)) else { return Transformed::no(*left - *right) };
    let both = if one.is_integer() { other } else { one };
    Transformed::yes(cast(*left, both.clone()) - cast(*right, both))
}

/// A type with a sign that has all values of the type `of` without one: that which DataFusion fits to both of `UInt64` and `Int64`.
fn holding(of: &DataType) -> Option<DataType> {
    match of {
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => Some(DataType::Int64),
        DataType::UInt64 => Some(DataType::Decimal128(20, 0)),
        _ => None,
    }
}
