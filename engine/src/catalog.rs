//! The tables of the network as DataFusion's planner finds them.

use std::sync::Arc;

use async_trait::async_trait;
use conun_planner::{Shard, ShardTable};
use conun_storage::{Table, Tables};
use conun_types::{ErrorKind, Volume};
use datafusion::{
    catalog::{SchemaProvider, TableProvider},
    error::{DataFusionError, Result},
};

/// Looks names up in the coordinator's tables.
#[derive(Clone)]
pub(crate) struct NetworkTables(pub(crate) Tables);

impl std::fmt::Debug for NetworkTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NetworkTables")
    }
}

#[async_trait]
impl SchemaProvider for NetworkTables {
    fn table_names(&self) -> Vec<String> {
        self.0.list().into_iter().map(|t| t.name).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.0.table(name) {
            Ok(table) => Ok(Some(Arc::new(shard_table(&table)))),
            // The storage's own message lists names that are near.
            Err(error) if error.kind == ErrorKind::Data => Err(DataFusionError::Plan(match error.hint {
                Some(hint) => format!("{} ({hint})", error.message),
                None => error.message,
            })),
            Err(error) => Err(conun_planner::external(error)),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table(name).is_ok()
    }
}

fn shard_table(table: &Table) -> ShardTable {
    let shard =
        |s: &conun_storage::tables::ShardRef| Shard { cid: s.cid, volume: Volume { rows: s.rows, bytes: s.len } };
    ShardTable::new(table.schema(), table.shards().iter().map(shard).collect())
}
