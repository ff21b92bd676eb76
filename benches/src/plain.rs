//! SQL scripts on a DataFusion session with its default settings: what `conun sql` is measured against.

use std::io::Write;

use arrow::csv::WriterBuilder;
use datafusion::common::Result;
use datafusion::prelude::{DataFrame, SessionContext};
use datafusion::sql::parser::DFParser;
use futures::StreamExt;

/// Runs the statements of `script` and writes the last one's result to `out` as CSV with a header.
///
/// # Errors
/// Where the script is no SQL or fails, or `out` cannot be written.
pub async fn run_script(script: &str, out: impl Write) -> Result<()> {
    let session = SessionContext::new();
    let mut last: Option<DataFrame> = None;
    for statement in DFParser::parse_sql(script)? {
        // A statement that defines something acts when it is planned, a query when it is read.
        let plan = session.state().statement_to_plan(statement).await?;
        last = Some(session.execute_logical_plan(plan).await?);
    }
    match last {
        Some(query) => write_csv(query, out).await,
        None => Ok(()),
    }
}

async fn write_csv(query: DataFrame, out: impl Write) -> Result<()> {
    let header = arrow::array::RecordBatch::new_empty(query.schema().inner().clone());
    let mut writer = WriterBuilder::new().with_header(true).build(out);
    writer.write(&header)?;
    let mut batches = query.execute_stream().await?;
    while let Some(batch) = batches.next().await {
        writer.write(&batch?)?;
    }
    Ok(())
}
