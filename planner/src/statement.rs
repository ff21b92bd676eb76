//! Statements: which ones are queries, where they run, and whether they order their rows.

use std::sync::Arc;

use conun_types::{Error, Result, profile};
use datafusion::{
    common::{TableReference, tree_node::TreeNodeRecursion},
    datasource::source_as_provider,
    error::Result as PlanResult,
    execution::{SessionState, context::SQLOptions},
    logical_expr::LogicalPlan,
    physical_plan::ExecutionPlan,
    sql::{parser::Statement, sqlparser::ast::Statement as Sql},
};

use crate::{
    bounds, external,
    passes::{self, merged_keys::Names, nesting, runnable},
    place, plan_error,
    refusal::Refusal,
    table::ShardTable,
    written,
};

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
    let statement = bounds::parsed(state, sql).map_err(|e| plan_error(&e))?;
    // Before planning: it would complain of tables that the statement is about to make.
    if !is_query(&statement) {
        return Err(no_query(&statement, sql));
    }
    let ast = match &statement {
        Statement::Statement(sql) => Some(sql.as_ref()),
        _ => None,
    };
    if let Some(place) = ast.and_then(place::of_sample) {
        return Err(sample(Some(place)));
    }
    let plan = planned(state, statement.clone()).await.map_err(|e| plan_error(&e))?;
    let only_queries = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_queries.verify_plan(&plan).map_err(|_| no_query(&statement, sql))?;
    if let Some(refusal) = passes::oversized::refusal(&plan, ast)? {
        return Err(refusal.into());
    }
    let reads = Reads::of(&plan)?;
    if reads.network && !explains(&plan) {
        if matches!(plan, LogicalPlan::Analyze(_)) {
            return Err(analysis(sql));
        }
        passes::refuse(&plan, ast)?;
        reads.refuse_mixture(ast)?;
    }
    Ok(plan)
}

/// The plan of a `statement` of any kind as SQL means it, where the parser and DataFusion have it otherwise. `state` is one that is
/// [`corrected`](crate::corrected).
///
/// # Errors
/// DataFusion's, and ours within, for names that it takes for another column.
pub async fn planned(state: &SessionState, mut statement: Statement) -> PlanResult<LogicalPlan> {
    written::as_meant(&mut statement);
    let names = match &statement {
        Statement::Statement(sql) => Some(Names::of(sql)),
        _ => None,
    };
    passes::false_dependencies::mark_alone(&mut statement);
    let plan = state.statement_to_plan(statement).await?;
    names.map_or(Ok(()), |names| names.check(&plan)).map_err(external)?;
    Ok(plan)
}

/// `state` with as many partitions for every shuffle of `plan` as `fixed` says, or else the profile for the largest of the
/// network's tables that it reads.
///
/// # Errors
/// [`conun_types::ErrorKind::Internal`] where a table of the plan cannot be read.
pub fn sized(state: &SessionState, plan: &LogicalPlan, fixed: Option<usize>) -> Result<SessionState> {
    let partitions = match fixed {
        Some(partitions) => partitions,
        None => profile::shuffle_partitions(Reads::of(plan)?.largest),
    };
    let mut state = state.clone();
    state.config_mut().options_mut().execution.target_partitions = partitions;
    Ok(state)
}

/// The plan that tasks are cut from.
///
/// # Errors
/// [`conun_types::ErrorKind::Data`] where it cannot be planned, or not so that nodes can run it.
pub async fn physical_plan(state: &SessionState, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let physical = state.create_physical_plan(plan).await.map_err(|e| plan_error(&e))?;
    if placement(plan)? == Placement::Network {
        runnable::check(&physical)?;
        nesting::check(&physical)?;
    }
    Ok(physical)
}

/// Why a statement that changes something is refused.
fn no_query(statement: &Statement, sql: &str) -> Error {
    let construct = verb(statement);
    let instead = match construct.as_str() {
        "COPY" => "write an answer to a file with: conun sql -o FILE",
        "DROP" => "remove a table with: conun rm TABLE",
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" => {
            "leave it out: a statement reads one version of each table from first to last"
        }
        "USE" => "leave it out: there is one schema, whose tables are listed by: conun tables",
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => {
            "write the values into the statement; clients prepare statements through Flight SQL"
        }
        "SET" | "RESET" => "settings are the same on every node, so that answers are; see docs/DETERMINISM.md",
        "DELETE" | "UPDATE" | "MERGE" | "TRUNCATE" => "a table is replaced as a whole: conun put TABLE PATH",
        _ => "store data with: conun put TABLE PATH",
    };
    let reason = "is no query, and only queries run on the network";
    Refusal { construct, place: place::of_statement(sql), reason, instead }.into()
}

/// DataFusion reads the whole table instead, and says nothing of it.
pub(crate) fn sample(place: Option<place::Place>) -> Error {
    Refusal {
        construct: "TABLESAMPLE".to_owned(),
        place,
        reason: "is not computed: rows are drawn at random, by every node anew",
        instead: "take those with a certain hash, say one in sixteen: where md5(cast(id as varchar)) like '0%'",
    }
    .into()
}

/// Times differ from run to run: no two replicas would agree.
fn analysis(sql: &str) -> Error {
    Refusal {
        construct: "EXPLAIN ANALYZE".to_owned(),
        place: place::of_statement(sql),
        reason: "measures time, which no replica repeats",
        instead: "run the statement, then see its stages with: conun job show",
    }
    .into()
}

/// The verb of a statement, in capitals.
fn verb(statement: &Statement) -> String {
    let text = match statement {
        Statement::Explain(explain) => return format!("EXPLAIN {}", verb(&explain.statement)),
        other => other.to_string(),
    };
    text.split_whitespace().next().unwrap_or_default().to_uppercase()
}

/// What a requester may ask of a statement before it runs, beside its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foresight {
    /// `EXPLAIN COST`: what it would cost.
    Cost,
    /// `EXPLAIN VERIFY`: what its verification would take.
    Verify,
}

/// The statement behind `EXPLAIN COST` or `EXPLAIN VERIFY`, where `sql` is one. It stands where it stood: blanks take the
/// place of the words before it.
#[must_use]
pub fn foreseen(sql: &str) -> Option<(Foresight, String)> {
    let rest = keyword(sql.trim_start(), "EXPLAIN")?;
    let asked = |(foresight, word)| keyword(rest, word).map(|statement| (foresight, statement));
    let words = [(Foresight::Cost, "COST"), (Foresight::Verify, "VERIFY")];
    let (foresight, statement) = words.into_iter().find_map(asked).filter(|(_, statement)| !statement.is_empty())?;
    let before = sql[..sql.len() - statement.len()].chars();
    let blanks = before.map(|c| if c == '\n' { c } else { ' ' });
    Some((foresight, blanks.chain(statement.chars()).collect()))
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

/// Where `plan` runs.
///
/// # Errors
/// [`conun_types::ErrorKind::Data`] where it joins tables of the network with others.
pub fn placement(plan: &LogicalPlan) -> Result<Placement> {
    if explains(plan) {
        return Ok(Placement::Local);
    }
    let reads = Reads::of(plan)?;
    reads.refuse_mixture(None)?;
    Ok(if reads.network { Placement::Network } else { Placement::Local })
}

fn explains(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::DescribeTable(_))
}

/// What a plan reads.
#[derive(Debug, Default)]
struct Reads {
    /// Tables of the network.
    network: bool,
    /// Stored bytes of the largest of them.
    largest: u64,
    /// The first table that only the coordinator has.
    local: Option<TableReference>,
}

impl Reads {
    fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut reads = Self::default();
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                match source_as_provider(&scan.source)?.downcast_ref::<ShardTable>() {
                    Some(table) => {
                        reads.network = true;
                        reads.largest = reads.largest.max(table.bytes());
                    }
                    None => reads.local = reads.local.take().or_else(|| Some(scan.table_name.clone())),
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(|e| plan_error(&e))?;
        Ok(reads)
    }

    /// Tasks of volunteers cannot read what only the coordinator has, and it does not run half a statement itself.
    fn refuse_mixture(&self, statement: Option<&Sql>) -> Result<()> {
        let Some(table) = self.local.as_ref().filter(|_| self.network) else { return Ok(()) };
        let name = table.table().trim_end_matches("()");
        let place = statement.and_then(|s| place::of_relation(s, name));
        Err(Refusal {
            construct: table.to_string(),
            place,
            reason: "is computed by the coordinator and cannot be joined with tables of the network",
            instead: "store it as a table with conun put, or write its rows as VALUES",
        }
        .into())
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
        let blanks = |text: &str| (Foresight::Cost, text.to_owned());
        assert_eq!(foreseen("  explain\n cost  select 1"), Some(blanks("         \n       select 1")));
        assert_eq!(
            foreseen("EXPLAIN VERIFY select 1"),
            Some((Foresight::Verify, "               select 1".to_owned()))
        );
        for other in ["explain select cost", "explain cost", "explain costs select 1", "select 1", "", "explain"] {
            assert_eq!(foreseen(other), None, "{other}");
        }
    }
}
