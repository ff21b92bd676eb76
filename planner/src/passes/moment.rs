//! `now()` and its kin become constants.
//!
//! DataFusion folds `now()`, `current_date` and `current_time` to the moment at which a statement's execution starts, but
//! only where the session knows it; a node refuses them unfolded. The moment is an argument: nothing here reads a clock.

use std::time::{Duration, UNIX_EPOCH};

use datafusion::execution::{SessionState, SessionStateBuilder};

/// A copy of `state` in which it is `now` since the Unix epoch, for one statement.
#[must_use]
pub fn at_moment(state: &SessionState, now: Duration) -> SessionState {
    let props = state.execution_props().clone().with_query_execution_start_time((UNIX_EPOCH + now).into());
    SessionStateBuilder::new_from_existing(state.clone()).with_execution_props(props).build()
}
