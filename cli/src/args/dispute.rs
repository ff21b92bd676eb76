//! Arguments about disputes: evidence of a job, and what is done with it.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::Args;
use conun_types::{Address, Error, NodeId};

use super::{ChainOptions, Listing};

/// `conun job verify`
#[derive(Debug, Args)]
pub(crate) struct VerifyJob {
    /// Id of the job or a unique beginning of it, a file that `conun job receipts JOB --json` wrote, or a folder that
    /// `conun job evidence` wrote
    pub(crate) job: String,
    /// Check only what the receipts themselves show: ask no chain
    #[arg(long)]
    pub(crate) offline: bool,
    /// Folder with blocks of evidence: disputed tasks are run again from it [default: that of the job's folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) evidence: Option<PathBuf>,
    /// Who must have ordered the job: the coordinator's id (16Uiu2…) or address (0x…), from elsewhere than the transcript.
    /// Without it, a transcript that somebody made up with keys of their own holds, too
    #[arg(long, value_name = "ID")]
    pub(crate) coordinator: Option<Signer>,
    #[command(flatten)]
    pub(crate) chain: ChainOptions,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// `conun job evidence`
#[derive(Debug, Args)]
pub(crate) struct SaveEvidence {
    /// Id of the job, or a unique beginning of it
    pub(crate) job: String,
    /// Folder to write; it is created
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// `conun job trace`
#[derive(Debug, Args)]
pub(crate) struct TraceTask {
    /// Folder that `conun job evidence` wrote; batches are added to it
    pub(crate) dir: PathBuf,
    /// The disputed task, as STAGE.TASK [default: the only one]
    #[arg(long, value_name = "S.T")]
    pub(crate) task: Option<TaskName>,
    /// Print JSON: the trace, for `conun job dispute`
    #[arg(long)]
    pub(crate) json: bool,
}

/// `conun job dispute`
#[derive(Debug, Args)]
pub(crate) struct DecideDispute {
    /// Folder that `conun job evidence` wrote, with the batches of both parties
    pub(crate) dir: PathBuf,
    /// The disputed task, as STAGE.TASK [default: the only one]
    #[arg(long, value_name = "S.T")]
    pub(crate) task: Option<TaskName>,
    /// The traces of both parties, as `conun job trace --json` prints them
    #[arg(required = true, num_args = 2, value_name = "TRACE")]
    pub(crate) traces: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whose signature is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Signer {
    Id(NodeId),
    Address(Address),
}

impl Signer {
    /// Whether it is `id`.
    pub(crate) fn is(&self, id: &NodeId) -> Result<bool, Error> {
        match self {
            Signer::Id(expected) => Ok(expected == id),
            Signer::Address(expected) => Ok(*expected == id.address()?),
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signer::Id(id) => id.fmt(f),
            Signer::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for Signer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.starts_with("0x") {
            return text.parse().map(Self::Address);
        }
        text.parse().map(Self::Id)
    }
}

/// A task of a job: stage and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskName {
    pub(crate) stage: u32,
    pub(crate) task: u32,
}

impl FromStr for TaskName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.split_once('.').and_then(|(stage, task)| Some((stage.parse().ok()?, task.parse().ok()?)));
        let (stage, task) = parts.ok_or_else(|| {
            Error::usage(format!("'{text}' is not a task")).with_hint("write stage and task like 2.0")
        })?;
        Ok(Self { stage, task })
    }
}
