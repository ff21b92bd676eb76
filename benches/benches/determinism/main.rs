//! What determinism costs: TPC-H in stages, each plan run by DataFusion as it comes with plain IPC files between stages,
//! and by the executor, with its pins, checks and canonical blocks. One thread, in turns; CPU time, not wall time.
//!
//! `cargo bench -p conun-benches --bench determinism -- [--scale 0.1] [--runs 5] [--switches]
//! [--adaptive]`. With `--switches`, each setting that the execution profile forbids is switched on alone, on the executor's
//! side: what it saves, and whether the bits stay. With `--adaptive`, Ballista plans again after each stage.

mod adaptive;
mod cpu;
mod drive;
mod graph;
mod pinned;
mod shape;
mod stages;
mod stock;
mod switches;
mod workload;

use std::time::Duration;

use clap::Parser;
use conun_benches::tpch::Error;

use crate::{pinned::Pinned, stages::run_stages, stock::Stock, workload::Workload};

#[derive(Parser)]
struct Args {
    /// Scale factor of TPC-H.
    #[arg(long, default_value_t = 0.1)]
    scale: f64,
    /// Runs of each query on each side; the least counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Measure the settings that the profile forbids.
    #[arg(long)]
    switches: bool,
    /// Measure adaptive re-planning.
    #[arg(long)]
    adaptive: bool,
    /// Cargo passes it to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Error> {
    let args = Args::parse();
    if args.switches {
        return switches::run(args.scale, args.runs);
    }
    if args.adaptive {
        return adaptive::run(args.scale, args.runs);
    }
    // As in a runner.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(cost(args.scale, args.runs))
}

/// Prints CPU time of both sides, query by query.
async fn cost(scale: f64, runs: usize) -> Result<(), Error> {
    let workload = Workload::new(scale, 1)?;
    println!("| query | stock ms | pinned, canonical ms | ratio |\n|---|---:|---:|---:|");
    let mut total = [Duration::ZERO; 2];
    for (name, sql) in workload.queries() {
        let mut least = [Duration::MAX; 2];
        for _ in 0..runs {
            least[0] = least[0].min(stock_time(&workload, sql).await?);
            least[1] = least[1].min(pinned_time(&workload, sql).await?);
        }
        print_row(name, least);
        total = [total[0] + least[0], total[1] + least[1]];
    }
    print_row("sum", total);
    Ok(())
}

async fn stock_time(workload: &Workload, sql: &str) -> Result<Duration, Error> {
    let plan = workload.plan(sql, &[], false).await?;
    let mut stock = Stock::new(workload)?;
    let start = cpu::used()?;
    run_stages(plan, &mut stock).await?;
    Ok(cpu::used()? - start)
}

async fn pinned_time(workload: &Workload, sql: &str) -> Result<Duration, Error> {
    let plan = workload.plan(sql, &[], true).await?;
    let mut pinned = Pinned::new(workload);
    let start = cpu::used()?;
    run_stages(plan, &mut pinned).await?;
    Ok(cpu::used()? - start)
}

fn print_row(name: &str, [stock, pinned]: [Duration; 2]) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("| {name} | {:.1} | {:.1} | {:.2} |", ms(stock), ms(pinned), ms(pinned) / ms(stock));
}
