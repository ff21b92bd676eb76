//! The generator, stock DataFusion and the golden answers agree: a test of the yardstick itself.

use conun_benches::{
    plain,
    tpch::{Error, TABLES, write_tables},
};
use conun_sql_examples::{NYCFLIGHTS13, TABLES as FLIGHTS, TEXT, TpchScale, nycflights13_dir, text_file, tpch};

async fn answer(tables: &str, sql: &str) -> Result<String, Error> {
    let mut out = Vec::new();
    plain::run_script(&(tables.to_owned() + sql), &mut out).await?;
    Ok(String::from_utf8(out)?)
}

fn external(name: &str, format: &str, path: &std::path::Path) -> String {
    format!("create external table {name} stored as {format} location '{}';\n", path.display())
}

#[tokio::test]
async fn tpch_at_a_hundredth_is_right_on_stock_datafusion() -> Result<(), Error> {
    let dir = tempfile::tempdir()?;
    write_tables(dir.path(), 0.01)?;
    let tables: String =
        TABLES.iter().map(|name| external(name, "parquet", &dir.path().join(format!("{name}.parquet")))).collect();
    for case in tpch(TpchScale::Hundredth) {
        case.check_csv(&answer(&tables, case.sql).await?).map_err(|e| format!("{}: {e}", case.name))?;
    }
    Ok(())
}

#[tokio::test]
async fn examples_are_right_on_stock_datafusion() -> Result<(), Error> {
    let dir = nycflights13_dir();
    let mut tables: String =
        FLIGHTS.iter().map(|(name, _)| external(name, "parquet", &dir.join(format!("{name}.parquet")))).collect();
    tables += &external("lines", "csv", &text_file());
    for case in NYCFLIGHTS13.iter().chain(TEXT) {
        case.check_csv(&answer(&tables, case.sql).await?).map_err(|e| format!("{}: {e}", case.name))?;
    }
    Ok(())
}
