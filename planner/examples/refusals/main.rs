//! How many of DataFusion's own SQL tests the planner refuses, by construct: `cargo xtask refusals` runs it.
//!
//! Every statement of a sqllogictest file runs in plain DataFusion, so that its tables exist; every query that plain
//! DataFusion plans is planned for the network as well, over tables of the same schemas. Nothing is sent anywhere.

mod census;
mod lost;
mod slt;

use std::path::{Path, PathBuf};

use census::Census;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: refusals DIR")?);
    // Statements name files relative to it.
    std::env::set_current_dir(dir)?;
    let mut files = Vec::new();
    find(Path::new("test_files"), &mut files)?;
    files.sort();
    let mut census = Census::default();
    for file in &files {
        census.file(file).await?;
    }
    print(&census);
    Ok(())
}

fn find(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "slt") {
            files.push(path);
        }
    }
    Ok(())
}

/// Rows of a table, as `cargo xtask refusals` reads them, and the first query of each construct.
fn print(census: &Census) {
    let refused = census.refusals();
    let totals = [
        ("all", census.network + census.local + refused),
        ("on the network", census.network),
        ("decoded as another plan", census.another),
        ("on the coordinator", census.local),
        ("refused", refused),
    ];
    for (name, count) in totals {
        println!("| {name} | {count} |");
    }
    for (construct, (count, first)) in &census.refused {
        println!("| {construct} | {count} | {} |", first.replace(['\n', '|'], " "));
    }
    eprintln!("{} queries are not planned by plain DataFusion either", census.excluded);
}
