//! A line on stderr that follows a running job, where somebody looks at a terminal.

use std::{convert::Infallible, io::IsTerminal, time::Duration};

use conun_api::Client;
use conun_engine::JobRecord;
use conun_types::JobId;
use indicatif::{ProgressBar, ProgressStyle};

/// How often the coordinator is asked.
const EVERY: Duration = Duration::from_millis(150);

/// Follows `job` until it is dropped.
pub(super) async fn watch(client: &Client, job: JobId, shown: bool) -> Infallible {
    if !shown || !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let bar = Cleared(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.0.set_style(style);
    }
    loop {
        tokio::time::sleep(EVERY).await;
        if let Ok(record) = client.job(&job.to_string()).await {
            bar.0.set_message(describe(&record));
        }
        bar.0.tick();
    }
}

/// A bar that leaves nothing behind.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn describe(job: &JobRecord) -> String {
    let (done, all): (u64, u64) = job.stages.iter().fold((0, 0), |(d, a), s| (d + s.tasks_done, a + s.tasks));
    let stages = job.stages.len();
    let at = job.stages.iter().find(|s| s.tasks_done < s.tasks).map_or(stages, |s| s.stage as usize);
    format!("stage {at} of {stages}, {done} of {all} tasks checked")
}
