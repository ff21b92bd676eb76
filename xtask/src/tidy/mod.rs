//! `cargo xtask tidy`: rules that neither the compiler nor clippy can know. One file a rule.

mod features;
mod links;
mod manifests;
mod modules;
mod text;

use crate::Result;
use crate::repo::{self, Finding};

/// Checks every tracked file and lists what breaks a rule.
pub(crate) fn run() -> Result<()> {
    let root = repo::root();
    let files = repo::text_files(&root)?;
    let mut findings: Vec<Finding> = Vec::new();
    findings.extend(manifests::check(&files));
    findings.extend(features::check(&files));
    findings.extend(modules::check(&files));
    findings.extend(text::check(&files));
    findings.extend(links::check(&files, &|path| root.join(path).exists()));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files, nothing to complain about", files.len());
            Ok(())
        }
        count => Err(format!("tidy: {count} findings").into()),
    }
}
