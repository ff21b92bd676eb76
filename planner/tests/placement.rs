//! Where the examples run: every query of TPC-H and of flights on the network as a whole, none refused.

#![allow(clippy::unwrap_used)]

use std::{fs::File, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use conun_planner::{Placement, Shard, ShardTable};
use conun_sql_examples::{Case, NYCFLIGHTS13, TABLES, TEXT, TEXT_TABLE, TpchScale, nycflights13_dir, tpch};
use conun_types::{Cid, Volume};
use datafusion::{
    catalog::{MemorySchemaProvider, SchemaProvider},
    execution::SessionState,
    parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
};
use tpchgen::generators as g;
use tpchgen_arrow::{self as rows, RecordBatchIterator};

/// Three shards a table: enough for plans to have exchanges.
fn session(tables: Vec<(&str, SchemaRef)>) -> SessionState {
    let schemas = MemorySchemaProvider::new();
    for (name, schema) in tables {
        let volume = Volume { rows: 100_000, bytes: 8 << 20 };
        let shard = |i| Shard { cid: Cid::raw(format!("{name}{i}").as_bytes()), volume };
        let table = ShardTable::new(schema, (0..3).map(shard).collect());
        schemas.register_table(name.to_owned(), Arc::new(table)).unwrap();
    }
    conun_planner::session_state(conun_planner::session_config().unwrap(), Arc::new(schemas)).unwrap()
}

fn flights() -> SessionState {
    let schema = |name: &str| {
        let file = File::open(nycflights13_dir().join(format!("{name}.parquet"))).unwrap();
        Arc::clone(ParquetRecordBatchReaderBuilder::try_new(file).unwrap().schema())
    };
    let lines = [("doc", DataType::Utf8), ("line", DataType::Int64), ("text", DataType::Utf8)];
    let lines = Schema::new(lines.map(|(name, kind)| Field::new(name, kind, true)).to_vec());
    let tables = TABLES.iter().map(|(name, _)| (*name, schema(name)));
    session(tables.chain([(TEXT_TABLE.0, Arc::new(lines))]).collect())
}

fn tpch_tables() -> SessionState {
    let schema = |rows: &dyn RecordBatchIterator| Arc::clone(rows.schema());
    session(vec![
        ("customer", schema(&rows::CustomerArrow::new(g::CustomerGenerator::new(0.1, 1, 1)))),
        ("lineitem", schema(&rows::LineItemArrow::new(g::LineItemGenerator::new(0.1, 1, 1)))),
        ("nation", schema(&rows::NationArrow::new(g::NationGenerator::new(0.1, 1, 1)))),
        ("orders", schema(&rows::OrderArrow::new(g::OrderGenerator::new(0.1, 1, 1)))),
        ("part", schema(&rows::PartArrow::new(g::PartGenerator::new(0.1, 1, 1)))),
        ("partsupp", schema(&rows::PartSuppArrow::new(g::PartSuppGenerator::new(0.1, 1, 1)))),
        ("region", schema(&rows::RegionArrow::new(g::RegionGenerator::new(0.1, 1, 1)))),
        ("supplier", schema(&rows::SupplierArrow::new(g::SupplierGenerator::new(0.1, 1, 1)))),
    ])
}

async fn runs_on_the_network(state: &SessionState, case: &Case) {
    let plan = conun_planner::logical_plan(state, case.sql).await.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    assert_eq!(conun_planner::placement(&plan).unwrap(), Placement::Network, "{}", case.name);
    conun_planner::physical_plan(state, &plan).await.unwrap_or_else(|e| panic!("{}: {e}", case.name));
}

#[tokio::test]
async fn no_query_of_flights_is_refused_or_the_coordinators() {
    for case in NYCFLIGHTS13.iter().chain(TEXT) {
        runs_on_the_network(&flights(), case).await;
    }
}

#[tokio::test]
async fn no_query_of_tpch_is_refused_or_the_coordinators() {
    let (state, cases) = (tpch_tables(), tpch(TpchScale::Tenth));
    assert_eq!(cases.len(), 22);
    for case in cases {
        runs_on_the_network(&state, case).await;
    }
}
