//! A table as the planner sees it: a schema and a list of shards, each a standalone Parquet file named by its CID.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use conun_types::{Cid, Volume, profile};
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Statistics, stats::Precision},
    datasource::{
        TableType,
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
        source::DataSourceExec,
    },
    error::Result,
    execution::object_store::ObjectStoreUrl,
    logical_expr::{Expr, TableProviderFilterPushDown},
    physical_plan::{ExecutionPlan, empty::EmptyExec},
};

/// The store that shards are read from, in plans and on nodes.
pub const SHARD_STORE: &str = "conun://shards/";

/// One data shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Its address, which is also its path in a plan.
    pub cid: Cid,
    /// Rows and bytes, from the manifest.
    pub volume: Volume,
}

/// A table of shards.
#[derive(Debug)]
pub struct ShardTable {
    schema: SchemaRef,
    shards: Vec<Shard>,
}

impl ShardTable {
    /// A table with `shards` in the order of its rows.
    #[must_use]
    pub fn new(schema: SchemaRef, shards: Vec<Shard>) -> Self {
        Self { schema, shards }
    }

    /// Its shards, in the order of its rows.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Stored bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.volume.bytes).sum()
    }

    /// A partition a shard; beyond the profile's most, a partition is a run of consecutive shards: partitions follow from
    /// the shards alone.
    fn file_groups(&self) -> Vec<FileGroup> {
        let run = self.shards.len().div_ceil(profile::MAX_PARTITIONS).max(1);
        self.shards.chunks(run).map(|shards| FileGroup::new(shards.iter().map(partitioned_file).collect())).collect()
    }

    /// Row counts only, and marked inexact: they steer joins, but an answer is never read off a manifest.
    fn row_statistics(&self) -> Statistics {
        let rows = self.shards.iter().map(|s| s.volume.rows as usize).sum();
        Statistics::new_unknown(&self.schema).with_num_rows(Precision::Inexact(rows))
    }
}

/// `object_meta.last_modified` is the Unix epoch, so that equal scans have equal bytes.
fn partitioned_file(shard: &Shard) -> PartitionedFile {
    let mut file = PartitionedFile::new(shard.cid.to_string(), shard.volume.bytes);
    file.object_meta.last_modified = Default::default();
    file
}

#[async_trait]
impl TableProvider for ShardTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.row_statistics())
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // The Parquet source prunes row groups by them; the filter itself stays above the scan.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.shards.is_empty() {
            let schema = datafusion::physical_plan::project_schema(&self.schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let source = Arc::new(ParquetSource::new(Arc::clone(&self.schema)));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(SHARD_STORE)?, source)
            .with_file_groups(self.file_groups())
            .with_statistics(self.row_statistics())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
