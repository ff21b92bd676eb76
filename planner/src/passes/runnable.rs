//! Refuses physical plans with operators or functions that no node runs: better before anyone is asked than by a node.
//! The earlier passes name constructs; this one is the net below them.

use std::sync::Arc;

use conun_types::{Error, Result, profile};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    logical_expr::Volatility,
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{BinaryExpr, CaseExpr},
    },
    physical_plan::{ExecutionPlan, Partitioning, repartition::RepartitionExec},
};

use crate::plan_error;

/// Fails on the first operator of `plan` that is not in the execution profile.
pub(crate) fn check(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let wrong = |node: &dyn ExecutionPlan| {
        check_operator(node).and_then(|()| check_functions(node)).and_then(|()| check_levels(node)).err()
    };
    super::find_operator(plan, wrong)?.map_or(Ok(()), Err)
}

fn check_operator(operator: &dyn ExecutionPlan) -> Result<()> {
    // Where stages end: an exchange by the hash of a key, never by turns.
    let exchange = operator.downcast_ref::<RepartitionExec>();
    let cuts = exchange.is_some_and(|e| matches!(e.partitioning(), Partitioning::Hash(..)));
    if cuts || profile::OPERATORS.contains(&operator.name()) {
        return Ok(());
    }
    Err(Error::data(format!("the operator {} is not in the execution profile {}", operator.name(), profile::NAME))
        .with_hint("write the statement without it; EXPLAIN shows what needs it"))
}

/// Most protobuf messages that an expression may nest: decoders stop at 100, and operators take some.
const MAX_NESTED: usize = 80;

/// Refuses what no node could decode.
fn check_levels(operator: &dyn ExecutionPlan) -> Result<()> {
    let mut most = 0;
    operator
        .apply_expressions(&mut |expr| {
            most = most.max(messages(expr));
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(|e| plan_error(&e))?;
    if most <= MAX_NESTED {
        return Ok(());
    }
    Err(Error::data(
        "an expression nests too deeply to be sent: some 40 levels are the most, where a chain of one operator is one",
    )
    .with_hint(
        "write one CASE or IN for many conditions, or store a part of it: conun sql -o FILE, then conun put TABLE FILE",
    ))
}

/// Messages that nest in `expr` as it is sent: `a + b + c` is one with three operands.
fn messages(expr: &Arc<dyn PhysicalExpr>) -> usize {
    let deepest = |parts: &[&Arc<dyn PhysicalExpr>]| parts.iter().map(|part| messages(part)).max().unwrap_or(0);
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

/// What planning should have folded or refused.
fn check_functions(operator: &dyn ExecutionPlan) -> Result<()> {
    let mut unstable = None;
    operator
        .apply_expressions(&mut |expr| {
            expr.apply(|e| {
                let function = e.downcast_ref::<ScalarFunctionExpr>();
                if let Some(f) = function.filter(|f| f.fun().signature().volatility != Volatility::Immutable) {
                    unstable = Some(f.name().to_owned());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
        .map_err(|e| plan_error(&e))?;
    match unstable {
        Some(name) => Err(Error::internal(format!("{name}() was left in a plan"))),
        None => Ok(()),
    }
}
