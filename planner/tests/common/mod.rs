//! A planning session over made-up tables: `t(k, v, name, tags)` in three shards, `small(k, name)` in one.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, Schema};
use conun_planner::{Shard, ShardTable};
use conun_types::{Cid, Error, Volume};
use datafusion::{
    catalog::{MemorySchemaProvider, SchemaProvider},
    execution::SessionState,
    logical_expr::LogicalPlan,
    physical_plan::ExecutionPlan,
};

/// When statements are planned: 2023-11-14 22:13:20 UTC.
pub(crate) const MOMENT: Duration = Duration::from_secs(1_700_000_000);

pub(crate) fn session() -> SessionState {
    let tables = MemorySchemaProvider::new();
    let table = |name: &str, shards: usize, columns: &[(&str, DataType)]| {
        let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
        let volume = Volume { rows: 1000, bytes: 1 << 20 };
        let shard = |i| Shard { cid: Cid::raw(format!("{name}{i}").as_bytes()), volume };
        let table = ShardTable::new(Arc::new(Schema::new(fields)), (0..shards).map(shard).collect());
        tables.register_table(name.to_owned(), Arc::new(table)).unwrap();
    };
    let tags = DataType::new_list(DataType::Utf8, true);
    let columns =
        [("k", DataType::Int64), ("v", DataType::Float64), ("name", DataType::Utf8), ("at", AT), ("tags", tags)];
    table("t", 3, &columns);
    table("small", 1, &columns[..3]);
    let state = conun_planner::session_state(conun_planner::session_config().unwrap(), Arc::new(tables)).unwrap();
    conun_planner::at_moment(&state, MOMENT)
}

/// `sql` as it is planned, and what tasks are cut from.
pub(crate) async fn plan(state: &SessionState, sql: &str) -> Result<(LogicalPlan, Arc<dyn ExecutionPlan>), Error> {
    let logical = conun_planner::logical_plan(state, sql).await?;
    let physical = conun_planner::physical_plan(state, &logical).await?;
    Ok((logical, physical))
}

const AT: DataType = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None);
