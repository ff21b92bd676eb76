//! From SQL or a dataframe to a physical plan that gives the same bits everywhere.
//!
//! What it knows: DataFusion's sessions and plans, the execution profile, which constructs cannot be made
//! deterministic. What it must not know: nodes, stages, replicas, sockets. Nothing here reads a clock or draws a
//! random number (planner/clippy.toml).

mod bounds;
mod passes;
mod place;
mod refusal;
mod session;
mod statement;
mod table;
mod written;

pub use bounds::parsed;
pub use passes::{corrected, moment::at_moment, refusing};
pub use place::Place;
pub use refusal::Refusal;
pub use session::{session_config, session_state};
pub use statement::{
    Foresight, Placement, foreseen, logical_plan, orders_rows, physical_plan, placement, planned, sized,
};
pub use table::{SHARD_STORE, Shard, ShardTable};

use datafusion::common::SchemaError;

/// An error of DataFusion as one of Conun's: SQL and data errors are the caller's, the rest ours.
#[must_use]
pub fn plan_error(error: &datafusion::error::DataFusionError) -> conun_types::Error {
    use datafusion::error::DataFusionError as E;
    let root = error.find_root();
    let text = match root {
        E::SQL(e, _) => e.to_string(),
        E::External(e) => match e.downcast_ref::<conun_types::Error>() {
            Some(ours) => return ours.clone(),
            None => e.to_string(),
        },
        other => other.message().into_owned(),
    };
    let line = text.lines().next().unwrap_or_default();
    // Of functions that do not fit, it tells what each of their forms misses: the first will do.
    let forms = line.strip_prefix("Internal error: ").and_then(|line| line.split_once(", errors: "));
    let first = forms.and_then(|(_, forms)| forms.split("Error during planning: ").nth(1));
    let line = first.map_or(line, |first| first.trim_end_matches(['.', ','])).to_owned();
    match root {
        E::Internal(_) | E::IoError(_) | E::External(_) | E::ExecutionJoin(_) => conun_types::Error::internal(line),
        E::ResourcesExhausted(_) => conun_types::Error::data(format!("out of memory: {line}"))
            .with_hint("ask for less at once: filter, aggregate or add a LIMIT"),
        E::SchemaError(schema, _) => with_columns(conun_types::Error::data(line), schema),
        _ => hinted(conun_types::Error::data(line)),
    }
}

/// One of Conun's errors as DataFusion's, of which [`plan_error`] makes it again.
#[must_use]
pub fn external(error: conun_types::Error) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::External(Box::new(error))
}

/// What to write instead of what SQL has and DataFusion has not, by its words.
const HINTS: [(&str, &str); 4] = [
    ("Invalid function ", "SHOW FUNCTIONS lists them; those of windows need OVER (..)"),
    ("Too many columns! The subquery", "compare each: exists (select 1 from u where u.x = t.x and u.y = t.y)"),
    ("Unary operator '-' only", "numbers without a sign, as row_number() gives: write 0 - x"),
    ("FETCH clause is not supported", "write LIMIT"),
];

fn hinted(error: conun_types::Error) -> conun_types::Error {
    match HINTS.iter().find(|(words, _)| error.message.starts_with(words)) {
        Some((_, hint)) => error.with_hint(*hint),
        None => error,
    }
}

/// Columns that a hint names at most.
const HINTED_COLUMNS: usize = 20;

/// An unknown column with no similar one: those that there are.
fn with_columns(error: conun_types::Error, schema: &SchemaError) -> conun_types::Error {
    let SchemaError::FieldNotFound { valid_fields, .. } = schema else { return error };
    if valid_fields.is_empty() || error.message.contains("Did you mean") {
        return error;
    }
    let mut names: Vec<String> = valid_fields.iter().take(HINTED_COLUMNS).map(|c| c.name.clone()).collect();
    if valid_fields.len() > HINTED_COLUMNS {
        names.push(format!("and {} more", valid_fields.len() - HINTED_COLUMNS));
    }
    error.with_hint(format!("the columns are {}", names.join(", ")))
}
