//! TPC-H as tables of shards in memory, and its queries as physical plans.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::SchemaRef,
    util::display::{ArrayFormatter, FormatOptions},
};
use bytes::Bytes;
use conun_benches::tpch::{self, Error};
use conun_executor::canonical;
use conun_planner::{SHARD_STORE, Shard, ShardTable};
use conun_sql_examples::TpchScale;
use conun_types::{Cid, Volume};
use datafusion::{
    catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider},
    execution::{SessionState, SessionStateBuilder, TaskContext, object_store::ObjectStoreUrl},
    physical_plan::ExecutionPlan,
    prelude::{SessionConfig, SessionContext},
};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};

/// Tables of fewer rows are not cut.
const LEAST_ROWS_CUT: usize = 1000;

/// The tables and where their bytes are.
pub(crate) struct Workload {
    tables: Vec<(&'static str, SchemaRef, Vec<Shard>)>,
    shards: Arc<HashMap<Cid, Bytes>>,
}

/// A setting and its value.
pub(crate) type Setting = (&'static str, String);

impl Workload {
    /// At scale factor `scale`; each table is at most `count` shards.
    pub(crate) fn new(scale: f64, count: usize) -> Result<Self, Error> {
        let dir = tempfile::tempdir()?;
        tpch::write_tables(dir.path(), scale)?;
        let (mut tables, mut shards) = (Vec::new(), HashMap::new());
        for table in tpch::TABLES {
            let bytes = Bytes::from(std::fs::read(dir.path().join(format!("{table}.parquet")))?);
            let schema = Arc::clone(ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?.schema());
            let mut listed = Vec::new();
            for bytes in cut(bytes, count)? {
                let cid = Cid::raw(&bytes);
                listed.push(Shard { cid, volume: Volume { rows: row_count(&bytes)?, bytes: bytes.len() as u64 } });
                shards.insert(cid, bytes);
            }
            tables.push((table, schema, listed));
        }
        Ok(Self { tables, shards: Arc::new(shards) })
    }

    /// The 22 queries.
    pub(crate) fn queries(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        conun_sql_examples::tpch(TpchScale::Tenth).iter().map(|case| (case.name, case.sql))
    }

    pub(crate) fn shards(&self) -> Arc<HashMap<Cid, Bytes>> {
        Arc::clone(&self.shards)
    }

    /// The same tables, each column read as `schema` says.
    pub(crate) fn with_schemas(&self, schema: impl Fn(&SchemaRef) -> SchemaRef) -> Self {
        let tables = self.tables.iter().map(|(name, old, shards)| (*name, schema(old), shards.clone())).collect();
        Self { tables, shards: self.shards() }
    }

    fn provider(&self) -> Result<Arc<dyn SchemaProvider>, Error> {
        let provider = MemorySchemaProvider::new();
        for (name, schema, shards) in &self.tables {
            let table = ShardTable::new(Arc::clone(schema), shards.clone());
            provider.register_table((*name).to_owned(), Arc::new(table))?;
        }
        Ok(Arc::new(provider))
    }

    /// The plan of `sql` under the profile, but for `settings`; with our functions where `exact`.
    pub(crate) async fn plan(
        &self,
        sql: &str,
        settings: &[Setting],
        exact: bool,
    ) -> Result<Arc<dyn ExecutionPlan>, Error> {
        let mut config = conun_planner::session_config()?;
        for (key, value) in settings {
            config.options_mut().set(key, value)?;
        }
        let state = if exact { self.session(config)? } else { self.stock_state(config)? };
        let plan = conun_planner::logical_plan(&state, sql).await?;
        Ok(state.create_physical_plan(&plan).await?)
    }

    /// The planner's session under `config`.
    pub(crate) fn session(&self, config: SessionConfig) -> Result<SessionState, Error> {
        Ok(conun_planner::session_state(config, self.provider()?)?)
    }

    /// As the planner's, with DataFusion's own functions.
    fn stock_state(&self, config: SessionConfig) -> Result<SessionState, Error> {
        let state = SessionStateBuilder::new().with_config(config).with_default_features().build();
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema("public", self.provider()?)?;
        state.catalog_list().register_catalog("conun".to_owned(), Arc::new(catalog));
        Ok(state)
    }

    /// DataFusion's own context, which finds the shards.
    pub(crate) fn stock_context(&self) -> Result<Arc<TaskContext>, Error> {
        let context = SessionContext::new_with_config(conun_planner::session_config()?);
        let store = InMemory::new();
        for (cid, bytes) in self.shards.iter() {
            futures::executor::block_on(store.put(&Path::from(cid.to_string()), bytes.clone().into()))?;
        }
        context.register_object_store(ObjectStoreUrl::parse(SHARD_STORE)?.as_ref(), Arc::new(store));
        Ok(context.task_ctx())
    }
}

fn row_count(shard: &Bytes) -> Result<u64, Error> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(shard.clone())?;
    Ok(reader.metadata().file_metadata().num_rows() as u64)
}

/// A table's file in `count` files of about as many rows each; a small one stays whole.
fn cut(table: Bytes, count: usize) -> Result<Vec<Bytes>, Error> {
    let rows = row_count(&table)? as usize;
    if count < 2 || rows < LEAST_ROWS_CUT {
        return Ok(vec![table]);
    }
    let batches = ParquetRecordBatchReaderBuilder::try_new(table)?.with_batch_size(rows.div_ceil(count)).build()?;
    batches.map(|batch| write(&batch?)).collect()
}

fn write(rows: &RecordBatch) -> Result<Bytes, Error> {
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None)?;
    writer.write(rows)?;
    Ok(writer.into_inner()?.into())
}

/// Rows of canonical blocks as text, sorted.
pub(crate) fn rows(blocks: &[Bytes]) -> Result<Vec<String>, Error> {
    let mut rows = Vec::new();
    for block in blocks {
        let (_, batches) = canonical::decode(block)?;
        for batch in &batches {
            let options = FormatOptions::default();
            let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let row = |at| columns.iter().map(|column| column.value(at).to_string()).collect::<Vec<_>>().join("|");
            rows.extend((0..batch.num_rows()).map(row));
        }
    }
    rows.sort();
    Ok(rows)
}
