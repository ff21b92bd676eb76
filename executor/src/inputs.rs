//! Where a task's bytes come from, and how its faults travel through DataFusion and back.
//!
//! It knows: that bytes are named by their hash. It must not know: who has them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use conun_types::{Cid, Failure};
use datafusion::{
    error::{DataFusionError, Result},
    execution::TaskContext,
};

/// Gives the inputs of a task. Implementations check the bytes against the id before they hand them out.
///
/// Calls block: in the runner the one thread of a task has nothing else to do.
pub trait TaskInputs: Send + Sync + 'static {
    /// The bytes of `cid`.
    ///
    /// # Errors
    /// [`Failure::InputMissing`] where they are not to be had, [`Failure::Node`] where this machine failed.
    fn load(&self, cid: &Cid) -> Result<Bytes, Failure>;
}

/// Inputs held in memory: for tests, and for tasks that a coordinator runs itself.
#[derive(Debug, Default)]
pub struct MemoryInputs(std::collections::HashMap<Cid, Bytes>);

impl MemoryInputs {
    /// Inputs with these bytes, under the ids that they hash to.
    #[must_use]
    pub fn new(blocks: impl IntoIterator<Item = Bytes>) -> Self {
        Self(blocks.into_iter().map(|bytes| (Cid::raw(&bytes), bytes)).collect())
    }
}

impl TaskInputs for MemoryInputs {
    fn load(&self, cid: &Cid) -> Result<Bytes, Failure> {
        self.0.get(cid).cloned().ok_or(Failure::InputMissing(*cid))
    }
}

/// Inputs that remember why one could not be had: readers of Parquet turn errors of the store into text.
pub(crate) struct Recorded {
    inputs: Arc<dyn TaskInputs>,
    failure: Mutex<Option<Failure>>,
}

impl Recorded {
    pub(crate) fn new(inputs: Arc<dyn TaskInputs>) -> Self {
        Self { inputs, failure: Mutex::default() }
    }

    /// The first failure.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TaskInputs for Recorded {
    fn load(&self, cid: &Cid) -> Result<Bytes, Failure> {
        self.inputs.load(cid).inspect_err(|failure| {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure.clone());
        })
    }
}

/// The session extension through which operators reach the inputs of the task that they run in.
pub(crate) struct InputsHandle(pub(crate) Arc<dyn TaskInputs>);

/// Loads `cid` for an operator.
pub(crate) fn load(context: &TaskContext, cid: &Cid) -> Result<Bytes> {
    let handle = context.session_config().get_extension::<InputsHandle>();
    let handle = handle.ok_or_else(|| fault(Failure::Node("no inputs in this session".into())))?;
    handle.0.load(cid).map_err(fault)
}

/// A failure on its way through DataFusion's errors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Fault(pub(crate) Failure);

/// `failure` as an operator's error; [`crate::failure::of`] finds it again.
pub(crate) fn fault(failure: Failure) -> DataFusionError {
    DataFusionError::External(Box::new(Fault(failure)))
}
