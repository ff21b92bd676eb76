//! Differences of numbers without a sign.
//!
//! DataFusion subtracts them as what they are, and what is below zero comes to nearly 2^64: `row_number() .. - rank() ..` may. So both sides
//! become `BIGINT` when SQL is planned. What is too large for one fails.

use arrow::datatypes::DataType;
use datafusion::{
    common::DFSchema,
    error::Result,
    logical_expr::{
        Expr, ExprSchemable, cast,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};

/// The planner of such differences.
#[derive(Debug)]
pub(super) struct Differences;

impl ExprPlanner for Differences {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        // What has no type yet is none of them.
        let unsigned = |e: &Expr| e.get_type(schema).is_ok_and(|of| of.is_unsigned_integer());
        if expr.op != BinaryOperator::Minus || !unsigned(&expr.left) || !unsigned(&expr.right) {
            return Ok(PlannerResult::Original(expr));
        }
        let RawBinaryExpr { op, left, right } = expr;
        let signed = |e| cast(e, DataType::Int64);
        Ok(PlannerResult::Original(RawBinaryExpr { op, left: signed(left), right: signed(right) }))
    }
}
