//! `tpch-data --sf 0.1 DIR`: writes the eight tables of TPC-H as Parquet files.

use std::path::PathBuf;

use clap::Parser;
use conun_benches::tpch::{Error, write_tables};

/// Writes the eight tables of TPC-H as Parquet files.
#[derive(Parser)]
struct Args {
    /// Scale factor: 1 is about a gigabyte of text.
    #[arg(long = "sf", default_value_t = 0.1)]
    scale: f64,
    /// Folder to write into.
    dir: PathBuf,
}

fn main() -> Result<(), Error> {
    let args = Args::parse();
    write_tables(&args.dir, args.scale)
}
