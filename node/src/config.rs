//! A node's settings.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use conun_types::{MemoryClass, NodeId};

use crate::twin::mode::LiarMode;

/// What a volunteer lends, and to whom.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The data folder. The caller holds its lock ([`conun_storage::DataDir`]) as long as the service lives.
    pub dir: PathBuf,
    /// Bytes lent for blocks.
    pub store_quota: u64,
    /// Bytes of them that one coordinator may use.
    pub per_coordinator_quota: u64,
    /// Tasks run at once.
    pub cores: usize,
    /// Largest memory class of a task.
    pub memory: MemoryClass,
    /// Coordinators that may use this node; empty means all.
    pub allow: Vec<NodeId>,
    /// How this node cheats, if it does (tests and demonstrations only).
    pub liar: Option<LiarMode>,
    /// How long, at most, an answer is held back at random (tests only).
    pub delay: Option<Duration>,
    /// The program that runs tasks, usually this one.
    pub runner: PathBuf,
    /// Its arguments.
    pub runner_args: Vec<OsString>,
    /// Time between two collections of expired leases.
    pub gc_interval: Duration,
    /// Time between two looks whether a voucher should be redeemed.
    pub redeem_interval: Duration,
}

impl NodeConfig {
    /// The defaults: 10 GiB, all of it for any coordinator, two tasks at once, run by `runner runner`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, runner: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            store_quota: 10 << 30,
            per_coordinator_quota: 10 << 30,
            cores: 2,
            memory: MemoryClass::Large,
            allow: Vec::new(),
            liar: None,
            delay: None,
            runner: runner.into(),
            runner_args: vec!["runner".into()],
            gc_interval: Duration::from_secs(5),
            redeem_interval: Duration::from_secs(30),
        }
    }
}
