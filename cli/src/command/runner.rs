//! `conun runner`: the child process in which a node runs tasks.

use std::process::ExitCode;

/// Serves tasks on stdin and stdout until stdin ends.
pub(crate) fn run() -> ExitCode {
    conun_executor::runner::child_main()
}
