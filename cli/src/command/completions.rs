//! `conun completions`: a completion script on stdout.

use clap::CommandFactory;
use conun_types::Result;

use crate::args::{Cli, Completions};

/// Prints the script for one shell.
pub(crate) fn run(args: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "conun", &mut script);
    crate::print::line(String::from_utf8_lossy(&script).trim_end())
}
