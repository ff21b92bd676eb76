//! What the planner says of each query of a file.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use conun_planner::{Placement, Shard, ShardTable};
use conun_types::{Cid, Error, Result, Volume};
use datafusion::{
    catalog::{MemorySchemaProvider, SchemaProvider},
    common::TableReference,
    datasource::empty::EmptyTable,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::{DdlStatement, LogicalPlan},
    prelude::{SessionConfig, SessionContext},
};

use crate::{
    lost,
    slt::{self, Record},
};

/// Shards of every table: enough for plans to have several tasks a stage.
const SHARDS: usize = 3;
/// What to call a planning error that is no refusal: by a part of its message.
const OTHERS: &[(&str, &str)] = &[
    ("must be in GROUP BY", "columns that follow from a primary key"),
    ("logical expression ScalarSubquery", "subquery in ORDER BY"),
    ("not found", "tables of other schemas"),
    ("Plan: [", "plans that DataFusion's own check rejects"),
];
/// As DataFusion's own test driver sets it.
const TARGET_PARTITIONS: usize = 4;
/// When the queries are planned: some day.
const MOMENT: Duration = Duration::from_secs(1_700_000_000);

/// Counts over all files.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// Queries that plain DataFusion does not plan either: what they need is not in this build, or not in the files.
    pub(crate) excluded: u64,
    /// Queries of tables that are planned for the network.
    pub(crate) network: u64,
    /// Queries that read no table: the coordinator computes them.
    pub(crate) local: u64,
    /// Those of `network` of which nodes decode another plan.
    pub(crate) another: u64,
    /// Refused queries by construct, with the first of each.
    pub(crate) refused: BTreeMap<String, (u64, String)>,
}

/// Where a query ended up.
enum Outcome {
    Excluded,
    /// Where to, and whether nodes decode another plan.
    Planned(Placement, bool),
    Refused(Error),
}

impl Census {
    /// Runs the statements of a file and plans its queries.
    pub(crate) async fn file(&mut self, path: &Path) -> std::io::Result<()> {
        let plain = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(TARGET_PARTITIONS));
        let defaults = defaults(&plain);
        for record in slt::read(path)? {
            match record {
                Record::Statement(sql) => execute(&plain, &sql).await,
                Record::Query(sql) => {
                    let outcome = outcome(&plain, &defaults, &sql).await;
                    self.count(outcome, &sql);
                    if !asks(&sql) {
                        execute(&plain, &sql).await;
                    }
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, outcome: Outcome, sql: &str) {
        match outcome {
            Outcome::Excluded => self.excluded += 1,
            Outcome::Planned(Placement::Network, is_another) => {
                self.network += 1;
                if is_another {
                    self.another += 1;
                    eprintln!("nodes decode another plan of: {}", sql.replace('\n', " "));
                }
            }
            Outcome::Planned(Placement::Local, _) => self.local += 1,
            Outcome::Refused(error) => {
                let entry = self.refused.entry(construct(&error)).or_insert_with(|| (0, sql.to_owned()));
                entry.0 += 1;
            }
        }
    }

    /// Refused queries.
    pub(crate) fn refusals(&self) -> u64 {
        self.refused.values().map(|(count, _)| count).sum()
    }
}

/// What an error complains of: the words before the place of a refusal. Planning errors have their own names.
fn construct(error: &Error) -> String {
    if let Some((construct, _)) = error.message.split_once(" (line ") {
        return construct.to_owned();
    }
    let named = OTHERS.iter().find(|(part, _)| error.message.contains(part));
    named.map_or_else(|| error.message.chars().take(100).collect(), |(_, name)| (*name).to_owned())
}

/// Whether a query changes nothing, so that it need not be run for those after it.
fn asks(sql: &str) -> bool {
    let word = sql.split_whitespace().next().unwrap_or_default().to_uppercase();
    !["INSERT", "COPY", "CREATE", "DROP", "UPDATE", "DELETE", "SET"].contains(&word.as_str())
}

/// Runs a statement; one that fails leaves its table out, unless its file is all that it lacks.
async fn execute(plain: &SessionContext, sql: &str) {
    let ran = async { plain.sql(sql).await?.collect().await }.await;
    if ran.is_ok() {
        return;
    }
    // The data files are not in the package, but a schema is all that planning needs.
    if let Ok(LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table))) = plain.state().create_logical_plan(sql).await
        && !table.schema.fields().is_empty()
    {
        let schema = Arc::new(table.schema.as_arrow().clone());
        let _taken = plain.register_table(table.name, Arc::new(EmptyTable::new(schema)));
    }
}

/// A session over the same tables whose settings no `SET` changes: the network knows none, so what needs one says nothing
/// about it.
fn defaults(plain: &SessionContext) -> SessionState {
    // The catalog is there already: a new one would be without tables.
    let config =
        SessionConfig::new().with_target_partitions(TARGET_PARTITIONS).with_create_default_catalog_and_schema(false);
    SessionStateBuilder::new_from_existing(plain.state()).with_config(config).build()
}

async fn outcome(plain: &SessionContext, defaults: &SessionState, sql: &str) -> Outcome {
    let Ok(logical) = defaults.create_logical_plan(sql).await else { return Outcome::Excluded };
    if defaults.create_physical_plan(&logical).await.is_err() {
        return Outcome::Excluded;
    }
    match on_network(plain, sql).await {
        Ok((placement, is_another)) => Outcome::Planned(placement, is_another),
        Err(error) => Outcome::Refused(error),
    }
}

/// Plans `sql` as a coordinator does, over tables of the same schemas; and whether nodes would decode another plan.
async fn on_network(plain: &SessionContext, sql: &str) -> Result<(Placement, bool)> {
    let tables = network_tables(plain, sql).await;
    let state = conun_planner::session_state(conun_planner::session_config()?, tables)?;
    let state = conun_planner::at_moment(&state, MOMENT);
    let plan = conun_planner::logical_plan(&state, sql).await?;
    let placement = conun_planner::placement(&plan)?;
    let physical = conun_planner::physical_plan(&state, &plan).await?;
    Ok((placement, placement == Placement::Network && lost::is_another(&physical)))
}

/// The tables and views that `sql` names, each as a table of the network.
async fn network_tables(plain: &SessionContext, sql: &str) -> Arc<dyn SchemaProvider> {
    let tables = MemorySchemaProvider::new();
    for name in names(&plain.state(), sql) {
        if let Ok(provider) = plain.table_provider(name.clone()).await {
            let shard = |i| Shard {
                cid: Cid::raw(format!("{name}/{i}").as_bytes()),
                volume: Volume { rows: 1_000_000, bytes: 8 << 20 },
            };
            let table = ShardTable::new(provider.schema(), (0..SHARDS).map(shard).collect());
            let _replaced = tables.register_table(name.table().to_owned(), Arc::new(table));
        }
    }
    Arc::new(tables)
}

fn names(state: &SessionState, sql: &str) -> Vec<TableReference> {
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(sql, &dialect);
    statement.and_then(|s| state.resolve_table_references(&s)).unwrap_or_default()
}
