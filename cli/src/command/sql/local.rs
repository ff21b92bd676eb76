//! Statements in this process: DataFusion with files as tables, kept from what it falsely believes of rows.

use conun_types::{Error, ErrorKind, Result};
use datafusion::{
    error::DataFusionError,
    execution::SessionStateBuilder,
    prelude::{DataFrame, SessionConfig, SessionContext},
};
use futures::{StreamExt, TryStreamExt};

use super::{Answer, files};

/// A DataFusion session. Its settings are DataFusion's own: it is as fast as that, and promises no more than right answers.
pub(super) struct Local {
    session: SessionContext,
}

impl Local {
    pub(super) fn new() -> Result<Self> {
        let config = SessionConfig::new().with_information_schema(true);
        let state = conun_planner::corrected(SessionStateBuilder::new().with_config(config).with_default_features())?;
        Ok(Self { session: SessionContext::new_with_state(state.build()).enable_url_table() })
    }

    async fn planned(&self, sql: &str) -> datafusion::error::Result<DataFrame> {
        let state = self.session.state();
        let statement = conun_planner::parsed(&state, sql)?;
        self.session.execute_logical_plan(conun_planner::planned(&state, statement).await?).await
    }

    pub(super) async fn start(&self, sql: &str) -> Result<Answer> {
        if conun_planner::foreseen(sql).is_some() {
            let error =
                Error::data("EXPLAIN COST and EXPLAIN VERIFY are about nodes, and this statement would run on none");
            return Err(error.with_hint("name a coordinator with --connect URL, or use EXPLAIN"));
        }
        let failed = |e: DataFusionError| explain(&e, sql);
        let frame = self.planned(sql).await.map_err(failed)?;
        let rows = frame.execute_stream().await.map_err(failed)?;
        let (schema, sql) = (rows.schema(), sql.to_owned());
        Ok(Answer { schema, rows: rows.map_err(move |e| explain(&e, &sql)).boxed() })
    }
}

/// The user's view of an error: a file that cannot be read is named before anything that follows from it.
fn explain(error: &DataFusionError, sql: &str) -> Error {
    if let Some(problem) = files::first_problem(sql) {
        return problem;
    }
    let mut plain = conun_planner::plan_error(error);
    if matches!(error.find_root(), DataFusionError::IoError(_) | DataFusionError::External(_)) {
        plain.kind = ErrorKind::Data;
    }
    if plain.hint.is_none() && plain.message.contains("table '") && plain.message.contains("not found") {
        plain.hint = Some("name a file in quotes, for example: select * from 'flights.parquet'".to_owned());
    }
    plain
}
