//! Sessions pinned to the execution profile.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use conun_types::{Error, Result, profile};
use datafusion::{
    catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider},
    config::ConfigOptions,
    execution::{
        SessionState, SessionStateBuilder,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::GreedyMemoryPool,
        runtime_env::RuntimeEnvBuilder,
    },
    prelude::SessionConfig,
};

/// Memory of what the coordinator computes itself: statements that read none of the network's tables, all together.
const LOCAL_MEMORY: usize = 1 << 30;

/// DataFusion's settings under the execution profile.
///
/// # Errors
/// [`conun_types::ErrorKind::Internal`] where this build of DataFusion does not know a setting.
pub fn session_config() -> Result<SessionConfig> {
    let mut options = ConfigOptions::new();
    for (key, value) in profile::SETTINGS {
        options.set(key, value).map_err(|e| Error::internal(format!("execution profile: {e}")))?;
    }
    Ok(SessionConfig::from(options).with_information_schema(true).with_default_catalog_and_schema("conun", "public"))
}

/// A planning session over `tables`, with DataFusion's own optimizers and functions, but those of floats that would
/// depend on order or platform from [`conun_functions`], and with the rewriting [passes](crate::passes).
///
/// # Errors
/// As [`session_config`].
pub fn session_state(config: SessionConfig, tables: Arc<dyn SchemaProvider>) -> Result<SessionState> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(LOCAL_MEMORY)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(|e| Error::internal(format!("the planner's session: {e}")))?;
    let builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    let mut state = crate::passes::corrected(builder)?.build();
    conun_functions::register(&mut state).map_err(|e| Error::internal(e.to_string()))?;
    crate::passes::register(&mut state);
    let functions = state.table_functions().keys().cloned().collect();
    let catalog = MemoryCatalogProvider::new();
    let tables = Arc::new(BesideFunctions { tables, functions });
    catalog.register_schema("public", tables).map_err(|e| Error::internal(e.to_string()))?;
    state.catalog_list().register_catalog("conun".to_owned(), Arc::new(catalog));
    Ok(state)
}

/// Tables beside functions that make tables: DataFusion asks for `generate_series(1, 9)` as for a table first, and an error
/// that names the tables there are would end the statement.
#[derive(Debug)]
struct BesideFunctions {
    tables: Arc<dyn SchemaProvider>,
    functions: HashSet<String>,
}

#[async_trait]
impl SchemaProvider for BesideFunctions {
    fn table_names(&self) -> Vec<String> {
        self.tables.table_names()
    }

    async fn table(&self, name: &str) -> datafusion::error::Result<Option<Arc<dyn TableProvider>>> {
        if self.functions.contains(name) && !self.tables.table_exist(name) {
            return Ok(None);
        }
        self.tables.table(name).await
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.table_exist(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_known_to_datafusion() -> Result<()> {
        let config = session_config()?;
        assert_eq!(config.batch_size(), profile::BATCH_ROWS);
        assert_eq!(config.target_partitions(), profile::LEAST_SHUFFLE_PARTITIONS);
        assert!(!config.options().optimizer.enable_round_robin_repartition);
        assert!(!config.options().optimizer.enable_dynamic_filter_pushdown);
        Ok(())
    }
}
