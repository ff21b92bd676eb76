//! What the bench programs share: TPC-H data as Parquet files, and SQL scripts on a stock DataFusion session.

pub mod plain;
pub mod tpch;
