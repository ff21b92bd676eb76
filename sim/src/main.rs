//! The command `conun-sim`.

use std::{error::Error, fs, io::Write, path::Path, process::ExitCode};

use clap::Parser;
use conun_sim::{
    args::{Cli, Command, Curve},
    plot,
    run::Report,
    table::{self, Row},
};

fn main() -> ExitCode {
    let Command::Curve(curve) = Cli::parse().command;
    let done = if curve.is_whole() { whole(&curve) } else { point(&curve) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conun-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn point(curve: &Curve) -> Result<(), Box<dyn Error>> {
    let report = curve.run();
    let text = if curve.json { serde_json::to_string(&report)? } else { sentence(&report) };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

fn sentence(r: &Report) -> String {
    format!(
        "{} against {:.0}% {} liars, {} tasks: {:.2e} of the released answers are wrong ({:.2e} at the end), {:.1}% extra \
         work after the warm-up ({:.1}% in it), {} honest nodes convicted",
        r.policy,
        r.liars * 100.0,
        r.kind,
        r.tasks,
        r.accepted_wrong,
        r.finally_wrong,
        r.extra_work * 100.0,
        r.warm_up_work * 100.0,
        r.honest_convicted
    )
}

/// Runs every point; the rows appear as they are done.
fn whole(curve: &Curve) -> Result<(), Box<dyn Error>> {
    let mut rows = Vec::new();
    writeln!(std::io::stdout(), "{}", table::HEAD)?;
    for (part, asked) in table::points(curve) {
        let row = Row { part, report: asked.run(), asked };
        writeln!(std::io::stdout(), "{}", row.csv())?;
        rows.push(row);
    }
    save(&curve.out, &rows)?;
    Ok(())
}

fn save(folder: &Path, rows: &[Row]) -> std::io::Result<()> {
    let lines = rows.iter().map(|row| row.csv() + "\n").collect::<String>();
    fs::write(folder.join("simulation.csv"), format!("{}\n{lines}", table::HEAD))?;
    fs::write(folder.join("simulation.svg"), plot::svg(rows))
}
