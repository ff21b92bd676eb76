//! The repository's own commands: `cargo xtask tidy | ci | refusals | bench | churn | matrix | fuzz`.
//!
//! What it knows: the rules of this repository, and how to start its programs. What it must not know: the crates
//! themselves (it builds in seconds, so that `tidy` is cheap to run), apart from the judge of golden answers.

use std::process::ExitCode;

mod bench;
mod churn;
mod ci;
mod devnet;
mod fuzz;
mod matrix;
mod refusals;
mod repo;
mod tidy;

/// Errors of a developer's tool go to a developer: text is enough.
type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const USAGE: &str = "usage: cargo xtask tidy                 check the repository's own rules
       cargo xtask ci                   every check and test, as .ci/run runs them
       cargo xtask refusals [--slt DIR] [--write]
                                        DataFusion's SQL tests that the planner refuses
       cargo xtask bench [--sf 0.1] [--nodes 4] [--runs 3] [--json FILE]
                                        TPC-H on Conun and its rivals
       cargo xtask churn [--sf 1] [--json FILE]
                                        long jobs while nodes die and slow down
       cargo xtask matrix [--scale 0.01] [--builds] [--joined]
                                        the same bits whatever the nodes, partitions, delays (and builds)
       cargo xtask fuzz [--seed 1] [--statements 200] [--print]
                                        random statements, on a network and on DuckDB";

/// What a shell would hand over.
#[cfg(test)]
fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(ToString::to_string).collect()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.split_first().map(|(command, rest)| (command.as_str(), rest)) {
        Some(("tidy", [])) => tidy::run(),
        Some(("ci", [])) => ci::run(),
        Some(("refusals", rest)) => refusals::run(rest),
        Some(("bench", rest)) => bench::run(rest),
        Some(("churn", rest)) => churn::run(rest),
        Some(("matrix", rest)) => matrix::run(rest),
        Some(("fuzz", rest)) => fuzz::run(rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
