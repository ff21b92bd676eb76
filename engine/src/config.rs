//! Settings of a coordinator, apart from the parts it is made of.

use std::{path::PathBuf, time::Duration};

use conun_trust::Rules;

use crate::record::Verify;

/// Settings of [`crate::Engine`].
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Folder of the job journal; its owner holds the lock.
    pub dir: PathBuf,
    /// How jobs are verified that do not say it.
    pub verify: Verify,
    /// What is assumed of operators and demanded of their records.
    pub trust: Rules,
    /// Tasks of a job that are in flight at once.
    pub tasks_in_flight: usize,
    /// Once one replica has voted, the others of its task have this long, or 2.5 times as long as the fastest took, each from
    /// its own start, before a further one is started.
    pub patience: Duration,
    /// How long nobody may answer before a further replica is started; and how long that one then leaves places to others.
    pub slow_after: Duration,
    /// A replica that takes longer is given up.
    pub task_timeout: Duration,
    /// How long nodes keep a job's blocks without renewal.
    pub job_lease: Duration,
    /// How long a node that was unreachable gets no task while others are there, doubled with each further time. A slow one gets none
    /// for as many times as long as it took longer than others, if that is longer. 64 times at most.
    pub avoid_for: Duration,
    /// Jobs that the journal keeps.
    pub jobs_kept: usize,
    /// Bytes of answers that are kept to be given again; 0 for none.
    pub cache_bytes: u64,
    /// Bytes of shards up to which `EXPLAIN COST` reads all of them.
    pub pilot_bytes: u64,
    /// Partitions of every shuffle: the profile's number, unless a test shows that answers do not follow it.
    pub shuffle_partitions: Option<usize>,
}

impl EngineConfig {
    /// The defaults, with the journal in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            verify: Verify::Quorum,
            trust: Rules::default(),
            tasks_in_flight: 32,
            patience: Duration::from_secs(2),
            slow_after: Duration::from_secs(15),
            task_timeout: Duration::from_secs(300),
            job_lease: Duration::from_secs(600),
            avoid_for: Duration::from_secs(30),
            jobs_kept: 1000,
            cache_bytes: 256 << 20,
            pilot_bytes: 256 << 20,
            shuffle_partitions: None,
        }
    }
}
