//! The catalog as Flight SQL tells it: one catalog, one schema, the tables of this coordinator.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::Schema};
use arrow_flight::{
    error::FlightError,
    sql::{
        CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables, SqlInfo,
        metadata::{SqlInfoData, SqlInfoDataBuilder},
    },
};
use conun_engine::Engine;
use conun_types::{Error, Result};

use crate::status::into_flight;

/// Names as the planner's sessions have them.
const CATALOG: &str = "conun";
const SCHEMA: &str = "public";
const TABLE: &str = "TABLE";

/// What the server says of itself.
pub(super) fn sql_info() -> Result<SqlInfoData> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Conun");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, 0i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    info.build().map_err(|e| Error::internal(format!("describing the server: {e}")))
}

pub(super) fn catalogs(query: CommandGetCatalogs) -> Result<RecordBatch, FlightError> {
    let mut rows = query.into_builder();
    rows.append(CATALOG);
    rows.build()
}

pub(super) fn schemas(query: CommandGetDbSchemas) -> Result<RecordBatch, FlightError> {
    let mut rows = query.into_builder();
    rows.append(CATALOG, SCHEMA);
    rows.build()
}

pub(super) fn table_types(query: CommandGetTableTypes) -> Result<RecordBatch, FlightError> {
    let mut rows = query.into_builder();
    rows.append(TABLE);
    rows.build()
}

/// The tables, with their schemas where the client asked for them.
pub(super) fn tables(engine: &Engine, query: CommandGetTables) -> Result<RecordBatch, FlightError> {
    let with_schemas = query.include_schema;
    let mut rows = query.into_builder();
    for info in engine.tables().list() {
        let schema = match with_schemas {
            true => engine.tables().table(&info.name).map_err(|e| into_flight(&e))?.schema(),
            false => Arc::new(Schema::empty()),
        };
        rows.append(CATALOG, SCHEMA, &info.name, TABLE, &schema)?;
    }
    rows.build()
}
