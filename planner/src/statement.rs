//! Statements: which ones are queries, where they run, and whether they order their rows.

use conun_types::{Error, Result};
use datafusion::{
    common::tree_node::TreeNodeRecursion, datasource::source_as_provider, execution::SessionState,
    execution::context::SQLOptions, logical_expr::LogicalPlan,
};

use crate::{determinism::refuse_unreproducible, plan_error, table::ShardTable};

/// Where a statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On volunteers: it reads tables.
    Network,
    /// On the coordinator itself: `EXPLAIN`, `SHOW TABLES`, `SELECT 1`.
    Local,
}

/// Parses and plans one statement, which must be a query.
///
/// # Errors
/// [`conun_types::ErrorKind::Data`]: a syntax error, an unknown table or column, a statement that is no query, or one
/// that cannot be reproduced.
pub async fn logical_plan(state: &SessionState, sql: &str) -> Result<LogicalPlan> {
    let plan = state.create_logical_plan(sql).await.map_err(|e| plan_error(&e))?;
    let only_queries = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_queries.verify_plan(&plan).map_err(|e| {
        plan_error(&e).context("only queries run on the network").with_hint("store data with: conun put TABLE PATH")
    })?;
    if placement(&plan)? == Placement::Network {
        refuse_unreproducible(&plan)?;
    }
    Ok(plan)
}

/// Where `plan` runs.
///
/// # Errors
/// [`conun_types::ErrorKind::Data`] where it joins tables of the network with others.
pub fn placement(plan: &LogicalPlan) -> Result<Placement> {
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::DescribeTable(_)) {
        return Ok(Placement::Local);
    }
    let (mut network, mut local) = (0usize, 0usize);
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            if provider.is::<ShardTable>() { network += 1 } else { local += 1 }
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|e| plan_error(&e))?;
    match (network, local) {
        (0, _) => Ok(Placement::Local),
        (_, 0) => Ok(Placement::Network),
        _ => Err(Error::data("a statement reads either tables of the network or information_schema, not both")),
    }
}

/// Whether the statement orders its rows, so that its digest is one of a sequence.
#[must_use]
pub fn orders_rows(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Limit(limit) => orders_rows(&limit.input),
        LogicalPlan::Projection(projection) => orders_rows(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => orders_rows(&alias.input),
        _ => false,
    }
}
