//! `plain-datafusion SCRIPT`: runs a SQL script on a default DataFusion session, prints the last result as CSV.

use std::io::BufWriter;
use std::path::PathBuf;

use clap::Parser;
use conun_benches::{plain, tpch::Error};

/// Runs a SQL script on a default DataFusion session.
#[derive(Parser)]
struct Args {
    /// The script.
    script: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let script = std::fs::read_to_string(Args::parse().script)?;
    Ok(plain::run_script(&script, BufWriter::new(std::io::stdout().lock())).await?)
}
