//! Refuses physical plans that nest deeper than their encoding can: before a volunteer has run a stage of them.

use std::sync::Arc;

use conun_types::{Error, Result};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, CaseExpr},
    },
    physical_plan::{
        ExecutionPlan, coalesce_partitions::CoalescePartitionsExec,
        sorts::sort_preserving_merge::SortPreservingMergeExec,
    },
};

use super::runnable::is_exchange;
use crate::plan_error;

/// Most protobuf messages that nest in the plan of a stage: decoders stop at 100, and cutting stages may add some.
const MAX_NESTED: usize = 92;
/// Messages of an operator: what each is within, and it.
const OPERATOR: usize = 2;
/// Messages between an operator and its expressions, at most: those of an aggregate, or of an order.
const BETWEEN: usize = 2;

/// Fails where `plan` has a stage that nests too deeply.
pub(crate) fn check(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    of_operator(plan).map(drop)
}

/// Messages that nest in `plan` down to where its stage begins.
fn of_operator(plan: &Arc<dyn ExecutionPlan>) -> Result<usize> {
    let mut most = 0;
    plan.apply_expressions(&mut |expr| {
        most = most.max(BETWEEN + of_expr(expr));
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|e| plan_error(&e))?;
    if OPERATOR + most > MAX_NESTED {
        return Err(Error::data("an expression nests too deeply to be sent: it may have some 40 levels, of which a + b + c is one")
            .with_hint("write one CASE or IN for many conditions, or store a part of it: conun sql -o FILE, then conun put TABLE FILE"));
    }
    for child in plan.children() {
        let below = of_operator(child)?;
        most = if begins_stage(child) { most } else { most.max(below) };
    }
    if OPERATOR + most > MAX_NESTED { Err(conun_executor::plan_too_deep()) } else { Ok(OPERATOR + most) }
}

/// Whether what `plan` gives is what another stage reads.
fn begins_stage(plan: &Arc<dyn ExecutionPlan>) -> bool {
    is_exchange(plan.as_ref()) || plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>()
}

/// Messages that nest in `expr` as it is sent: `a + b + c` is one with three operands.
fn of_expr(expr: &Arc<dyn PhysicalExpr>) -> usize {
    let deepest = |parts: &[&Arc<dyn PhysicalExpr>]| parts.iter().map(|part| of_expr(part)).max().unwrap_or(0);
    let Some(binary) = expr.downcast_ref::<BinaryExpr>() else {
        // Its conditions and what follows from them are in messages of their own.
        let own = if expr.is::<CaseExpr>() { 3 } else { 2 };
        return own + deepest(&expr.children());
    };
    let (mut left, mut operands) = (binary.left(), vec![binary.right()]);
    while let Some(inner) = left.downcast_ref::<BinaryExpr>().filter(|inner| inner.op() == binary.op()) {
        operands.push(inner.right());
        left = inner.left();
    }
    operands.push(left);
    2 + deepest(&operands)
}
