//! Answers that went out on the word of an operator that was caught since: their statements are run again under a quorum,
//! and a job whose answer changes says so from then on.
//!
//! A released job's blocks are gone, so that it is the statement that runs again, on the very shards and at the very `now()`
//! of the first time. What cannot be had any more (tables that changed, jobs of dataframes) is told as such.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use conun_types::{Error, JobId, Result};
use datafusion::execution::SessionState;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::{
    context::JobShards,
    credit::{Past, TaskRef},
    engine::Engine,
    record::{JobOptions, JobState, Verify},
};

/// What it takes to run a statement again as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replay {
    /// Its `now()`, in nanoseconds of Unix time.
    now: u64,
    /// Hash over the shards that it read.
    inputs: [u8; 32],
}

impl Replay {
    /// Of a statement that is planned in `state` and reads `shards`.
    pub(crate) fn of(state: &SessionState, shards: &JobShards) -> Option<Self> {
        let now = state.execution_props().query_execution_start_time?.timestamp_nanos_opt()?;
        Some(Self { now: now.try_into().ok()?, inputs: inputs_hash(shards) })
    }

    /// `state` at the moment of the first time.
    fn at_that_time(self, state: &SessionState) -> SessionState {
        conun_planner::at_moment(state, Duration::from_nanos(self.now))
    }
}

/// A hash over shards, whatever their order.
fn inputs_hash(shards: &JobShards) -> [u8; 32] {
    let cids: BTreeSet<String> = shards.keys().map(ToString::to_string).collect();
    let mut hasher = blake3::Hasher::new();
    for cid in cids {
        hasher.update(cid.as_bytes());
        hasher.update(b"\n");
    }
    *hasher.finalize().as_bytes()
}

/// Runs statements again, as operators are caught, until the coordinator stops.
pub(crate) async fn run(engine: Weak<Engine>) {
    let Some(credit) = engine.upgrade().map(|engine| Arc::clone(engine.credit())) else { return };
    loop {
        let past = credit.next_past().await;
        let Some(engine) = engine.upgrade() else { return };
        engine.look_back(&past).await;
    }
}

impl Engine {
    /// Runs a sample of what `past` names again, and where some of it was wrong all of it.
    async fn look_back(self: &Arc<Self>, past: &Past) {
        let in_probe = self.recheck(&past.probe).await;
        let further = self.credit().probed(past, in_probe);
        let in_further = self.recheck(&further).await;
        self.credit().leaked(in_probe + in_further);
    }

    /// Runs the jobs of `tasks` again; how many of them had a wrong answer.
    async fn recheck(self: &Arc<Self>, tasks: &[TaskRef]) -> usize {
        let jobs: BTreeSet<JobId> = tasks.iter().map(|task| task.job).collect();
        let mut wrong = 0;
        for job in jobs {
            let verdict = self.recheck_job(job).await;
            let said = match &verdict {
                Ok(None) => None,
                Ok(Some(digest)) => {
                    wrong += 1;
                    Some(format!(
                        "the answer was wrong: a node that was caught later took part in it; run again, its digest is {digest}"
                    ))
                }
                Err(error) => Some(format!(
                    "the answer rests on the word of a node that was caught later, and cannot be checked again: {error}"
                )),
            };
            if let Some(said) = said {
                tracing::warn!(%job, said, "recalled");
                self.recall(job, said);
            }
        }
        wrong
    }

    /// Runs a job again; the digest of its right answer where that is another one.
    async fn recheck_job(self: &Arc<Self>, job: JobId) -> Result<Option<String>> {
        // Its reader may take its time.
        while self.live(job).is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let (record, replay) = self.ended(job).ok_or_else(|| Error::data("the job is not remembered any more"))?;
        if record.state != JobState::Done {
            return Ok(None);
        }
        let replay = replay.ok_or_else(|| Error::data("it was no SQL statement"))?;
        let state = replay.at_that_time(&self.fresh_state());
        let options = JobOptions { verify: Some(Verify::Quorum), no_cache: true, ..JobOptions::default() };
        let again = self.submit_at(&state, &record.sql, &options).await?;
        if self.live(again.id)?.replay != Some(replay) {
            self.cancel(&again.id.to_string())?;
            return Err(Error::data("its tables have changed since"));
        }
        let mut rows = self.results(again.id)?;
        while rows.try_next().await.map_err(|e| conun_planner::plan_error(&e))?.is_some() {}
        let digest = self.ended(again.id).and_then(|(record, _)| record.digest);
        Ok(digest.filter(|digest| Some(digest) != record.digest.as_ref()))
    }
}
