//! Refuses physical plans with operators or functions that no node runs: better before anyone is asked than by a node.
//! The earlier passes name constructs; this one is the net below them.

use std::sync::Arc;

use conun_types::{Error, Result, profile};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    logical_expr::Volatility,
    physical_expr::ScalarFunctionExpr,
    physical_plan::{ExecutionPlan, Partitioning, repartition::RepartitionExec},
};

use crate::plan_error;

/// Fails on the first operator of `plan` that is not in the execution profile.
pub(crate) fn check(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let wrong = |node: &dyn ExecutionPlan| check_operator(node).and_then(|()| check_functions(node)).err();
    super::find_operator(plan, wrong)?.map_or(Ok(()), Err)
}

/// Whether a stage ends at `operator`: an exchange by the hash of a key, never by turns.
pub(super) fn is_exchange(operator: &dyn ExecutionPlan) -> bool {
    let exchange = operator.downcast_ref::<RepartitionExec>();
    exchange.is_some_and(|exchange| matches!(exchange.partitioning(), Partitioning::Hash(..)))
}

fn check_operator(operator: &dyn ExecutionPlan) -> Result<()> {
    if is_exchange(operator) || profile::OPERATORS.contains(&operator.name()) {
        return Ok(());
    }
    Err(Error::data(format!("the operator {} is not in the execution profile {}", operator.name(), profile::NAME))
        .with_hint("write the statement without it; EXPLAIN shows what needs it"))
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
