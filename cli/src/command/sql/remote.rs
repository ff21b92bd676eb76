//! Statements on a network: submitted as jobs, watched while they run, and told about afterwards.

use std::sync::{Mutex, PoisonError};

use conun_api::Client;
use conun_engine::{JobOptions, JobRecord};
use conun_types::{JobId, Result};

use super::{Answer, progress};

/// A coordinator and the job that runs there now.
pub(super) struct Remote {
    client: Client,
    options: JobOptions,
    shows_progress: bool,
    current: Mutex<Option<JobId>>,
}

impl Remote {
    pub(super) fn new(client: Client, options: JobOptions, shows_progress: bool) -> Self {
        Self { client, options, shows_progress, current: Mutex::new(None) }
    }

    fn set_current(&self, job: Option<JobId>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = job;
    }

    fn current(&self) -> Option<JobId> {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first rows, showing how the job gets on.
    pub(super) async fn start(&self, sql: &str) -> Result<Answer> {
        let job = self.client.submit(sql, &self.options).await?.job;
        self.set_current(Some(job));
        let (schema, rows) = tokio::select! {
            results = self.client.results(job) => results?,
            never = progress::watch(&self.client, job, self.shows_progress) => match never {},
        };
        Ok(Answer { schema, rows })
    }

    pub(super) async fn footer(&self, summary: String) -> Result<Vec<String>> {
        let Some(job) = self.current() else { return Ok(vec![summary]) };
        self.set_current(None);
        Ok(describe(&self.client.job(&job.to_string()).await?, summary))
    }

    /// Stops the job that runs. Errors do not matter: it may have ended, and the user wants to go.
    pub(super) async fn cancel(&self) {
        if let Some(job) = self.current() {
            let _ = self.client.cancel(&job.to_string()).await;
        }
    }
}

/// What a person should know of a job that is done.
fn describe(job: &JobRecord, summary: String) -> Vec<String> {
    let bound = crate::command::job::bound(job);
    let known = job.cached.map(|earlier| format!(", known from job {earlier}")).unwrap_or_default();
    let mut lines = vec![format!("{summary}, verified: {}{bound}{known}", job.verified)];
    lines.extend(job.cost.filter(|_| job.verified != "local").map(|cost| format!("cost {cost} tokens")));
    // What the coordinator computed itself has no replicas to compare.
    let digest = job.digest.as_ref().filter(|_| job.verified != "local");
    lines.extend(digest.map(|digest| format!("digest {digest} ({})", job.digest_kind)));
    lines.extend(job.liars.iter().map(|node| format!("warning: node {node} lied and was caught")));
    lines.extend(job.late.iter().map(|node| format!("note: node {node} was late")));
    lines.extend(job.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines
}
