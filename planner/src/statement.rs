//! Statements: which ones are queries, where they run, and whether they order their rows.

use conun_types::{Error, Result};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    datasource::source_as_provider,
    execution::SessionState,
    execution::context::SQLOptions,
    logical_expr::LogicalPlan,
    sql::{parser::Statement, sqlparser::ast::Statement as Sql},
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
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(sql, &dialect).map_err(|e| plan_error(&e))?;
    let (is_query, verb) = (is_query(&statement), verb(sql));
    let refused = || {
        Error::data(format!("only queries run on the network, not {verb}"))
            .with_hint("store data with: conun put TABLE PATH")
    };
    // Before planning: it would complain of tables that the statement is about to make.
    if !is_query {
        return Err(refused());
    }
    let plan = state.statement_to_plan(statement).await.map_err(|e| plan_error(&e))?;
    let only_queries = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_queries.verify_plan(&plan).map_err(|_| refused())?;
    if placement(&plan)? == Placement::Network {
        refuse_unreproducible(&plan)?;
    }
    Ok(plan)
}

/// What a requester may ask of a statement before it runs, beside its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foresight {
    /// `EXPLAIN COST`: what it would cost.
    Cost,
    /// `EXPLAIN VERIFY`: what its verification would take.
    Verify,
}

/// The statement behind `EXPLAIN COST` or `EXPLAIN VERIFY`, where `sql` is one.
#[must_use]
pub fn foreseen(sql: &str) -> Option<(Foresight, &str)> {
    let rest = keyword(sql.trim_start(), "EXPLAIN")?;
    let asked = |(foresight, word)| keyword(rest, word).map(|statement| (foresight, statement));
    let words = [(Foresight::Cost, "COST"), (Foresight::Verify, "VERIFY")];
    words.into_iter().find_map(asked).filter(|(_, statement)| !statement.is_empty())
}

/// What follows `word` and the space after it, if `text` begins so.
fn keyword<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    let begins = head.eq_ignore_ascii_case(word) && rest.starts_with(char::is_whitespace);
    begins.then(|| rest.trim_start())
}

/// Whether a statement asks and changes nothing.
fn is_query(statement: &Statement) -> bool {
    match statement {
        Statement::Explain(_) => true,
        Statement::Statement(sql) => matches!(
            **sql,
            Sql::Query(_)
                | Sql::Explain { .. }
                | Sql::ExplainTable { .. }
                | Sql::ShowTables { .. }
                | Sql::ShowColumns { .. }
                | Sql::ShowVariable { .. }
                | Sql::ShowFunctions { .. }
        ),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

/// The first word of a statement, in capitals.
fn verb(sql: &str) -> String {
    let word = sql.split_whitespace().find(|word| word.starts_with(char::is_alphabetic)).unwrap_or("this");
    word.trim_end_matches(';').to_uppercase()
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

#[cfg(test)]
mod tests {
    use super::{Foresight, foreseen};

    #[test]
    fn foresight_is_told_from_explain() {
        assert_eq!(foreseen("  explain\n cost  select 1"), Some((Foresight::Cost, "select 1")));
        assert_eq!(foreseen("EXPLAIN VERIFY select 1"), Some((Foresight::Verify, "select 1")));
        for other in ["explain select cost", "explain cost", "explain costs select 1", "select 1", "", "explain"] {
            assert_eq!(foreseen(other), None, "{other}");
        }
    }
}
