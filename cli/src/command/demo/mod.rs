//! `conun demo`: the whole of Conun on one machine, in a temporary folder that is gone afterwards.
//!
//! Six node processes and a coordinator over libp2p on loopback; five real tables, erasure-coded; queries whose answers
//! are known beforehand; one node that lies from the start, one that is killed in the middle of a query; pay, settled on
//! a chain that lies in the same folder. Everything that must hold is checked; only then is the exit code 0.

mod network;
mod report;
mod scenario;
mod settlement;
mod story;

use conun_types::{Error, Result};

use self::{report::Report, story::Story};
use crate::{args::Demo, print, service::Signals};

/// Runs the demo; on Ctrl-C everything is taken down on the way out.
pub(crate) async fn run(args: Demo) -> Result<()> {
    let mut signals = Signals::new()?;
    let story = Story::new(args.json);
    let report = tokio::select! {
        report = scenario::play(&story) => report?,
        () = signals.next() => {
            story.end();
            return Err(Error::unavailable("interrupted, everything was taken down"));
        }
    };
    story.end();
    let text = if args.json { print::json_text_line(&report)? } else { report::summary(&report) };
    print::found(&text, verdict(&report))
}

/// The demo fails by name of what did not hold.
fn verdict(report: &Report) -> Result<()> {
    match report.problems.as_slice() {
        [] => Ok(()),
        problems => Err(Error::verification(format!("the demo did not hold: {}", problems.join("; ")))),
    }
}
