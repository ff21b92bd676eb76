//! Real plans over real Parquet shards, planned from SQL and wrapped in an envelope.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use conun_executor::{encode_plan, object_store::shards_url, session_config};
use conun_types::{Cid, InputBlock, InputShard, JobId, OutputBlock, OutputSpec, TaskEnvelope, Volume};
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    catalog::{Session, TableProvider},
    datasource::{
        TableType,
        listing::PartitionedFile,
        memory::DataSourceExec,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
    },
    error::Result,
    logical_expr::Expr,
    parquet::arrow::ArrowWriter,
    physical_plan::ExecutionPlan,
    prelude::{SessionConfig, SessionContext},
};

/// A table whose partitions are one shard each.
#[derive(Debug)]
pub(crate) struct Shards {
    schema: SchemaRef,
    pub(crate) shards: Vec<(InputShard, Bytes)>,
}

impl Shards {
    pub(crate) fn new(batches: &[RecordBatch]) -> Self {
        Self { schema: batches[0].schema(), shards: batches.iter().map(shard).collect() }
    }

    pub(crate) fn inputs(&self) -> Vec<InputShard> {
        self.shards.iter().map(|(shard, _)| *shard).collect()
    }

    pub(crate) fn bytes(&self) -> Vec<Bytes> {
        self.shards.iter().map(|(_, bytes)| bytes.clone()).collect()
    }

    pub(crate) fn by_cid(&self) -> HashMap<Cid, Bytes> {
        self.shards.iter().map(|(shard, bytes)| (shard.cid, bytes.clone())).collect()
    }
}

fn shard(batch: &RecordBatch) -> (InputShard, Bytes) {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    let volume = Volume { rows: batch.num_rows() as u64, bytes: bytes.len() as u64 };
    (InputShard { cid: Cid::raw(&bytes), volume }, bytes.into())
}

#[async_trait]
impl TableProvider for Shards {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let source = Arc::new(ParquetSource::new(self.schema.clone()));
        let groups = self
            .shards
            .iter()
            .map(|(shard, _)| FileGroup::new(vec![PartitionedFile::new(shard.cid.to_string(), shard.volume.bytes)]));
        let config = FileScanConfigBuilder::new(shards_url()?, source)
            .with_file_groups(groups.collect())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Plans `sql` over `table` as `t`, on one partition where the query shuffles.
pub(crate) async fn plan(sql: &str, table: Shards) -> (Arc<dyn ExecutionPlan>, Arc<Shards>) {
    plan_under(session_config().with_target_partitions(1), sql, table).await
}

/// As [`plan`], by other settings.
pub(crate) async fn plan_under(
    config: SessionConfig,
    sql: &str,
    table: Shards,
) -> (Arc<dyn ExecutionPlan>, Arc<Shards>) {
    let mut state = SessionContext::new_with_config(config).state();
    conun_functions::register(&mut state).unwrap();
    let context = SessionContext::new_with_state(state);
    let table = Arc::new(table);
    context.register_table("t", table.clone()).unwrap();
    let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    (plan, table)
}

pub(crate) fn envelope(plan: &Arc<dyn ExecutionPlan>, output: OutputSpec, shards: Vec<InputShard>) -> TaskEnvelope {
    TaskEnvelope { output, shards, ..TaskEnvelope::new(JobId([1; 16]), 1, 0, encode_plan(plan).unwrap()) }
}

pub(crate) fn as_input(block: &OutputBlock) -> InputBlock {
    InputBlock { cid: block.cid, volume: Volume { rows: block.rows, bytes: block.bytes } }
}
