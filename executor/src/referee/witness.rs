//! What a party of a dispute tells a referee.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use conun_types::{Cid, Failure, TaskEnvelope};

use crate::{
    inputs::TaskInputs,
    run::run_rewritten,
    trace::{OperatorTrace, Recorder, Trace, record, tap_all},
};

/// What a party says: nothing where it has nothing to say, and has lost by that. An error where that is not to be known,
/// since a machine failed that is not the party's to answer for (memory, disk, a time limit, a way to it that broke), or the
/// task is one that cannot be traced: by that nobody loses. Who asks a stranger over a network decides which it was; what the
/// stranger itself says of its machine proves nothing.
pub type Words<T> = Result<Option<T>, Failure>;

/// A party that backs up the output that it signed. It may be a stranger: nothing that it says is believed for its own
/// sake, and a party that says nothing has lost.
#[async_trait]
pub trait Witness: Send {
    /// The root of every operator, told before the party can know where the other one differs.
    ///
    /// # Errors
    /// As [`Words`] says.
    async fn roots(&mut self) -> Words<Vec<[u8; 32]>>;

    /// What operator `number` gave.
    ///
    /// # Errors
    /// As [`Words`] says.
    async fn operator(&mut self, number: u32) -> Words<OperatorTrace>;

    /// A batch that operator `number` gave.
    ///
    /// # Errors
    /// As [`Words`] says.
    async fn batch(&mut self, number: u32, cid: Cid) -> Words<Bytes>;
}

/// A witness that runs the task: again for each operator whose batches are asked for, rather than keep them all.
pub struct Replay {
    envelope: TaskEnvelope,
    inputs: Arc<dyn TaskInputs>,
    trace: Option<Trace>,
    kept: HashMap<u32, HashMap<Cid, Bytes>>,
}

impl Replay {
    /// A witness of the task that `envelope` describes.
    #[must_use]
    pub fn new(envelope: TaskEnvelope, inputs: Arc<dyn TaskInputs>) -> Self {
        Self { envelope, inputs, trace: None, kept: HashMap::new() }
    }

    /// Runs the task, unless it has.
    ///
    /// # Errors
    /// As [`record`].
    pub async fn trace(&mut self) -> Result<&Trace, Failure> {
        if self.trace.is_none() {
            self.trace = Some(record(&self.envelope, self.inputs.clone()).await?.1);
        }
        self.trace.as_ref().ok_or_else(|| Failure::Node("no trace".into()))
    }

    async fn keep(&self, number: u32) -> Result<HashMap<Cid, Bytes>, Failure> {
        let recorder = Arc::new(Recorder::keeping(number));
        run_rewritten(&self.envelope, self.inputs.clone(), |plan| tap_all(plan, &recorder)).await?;
        Ok(recorder.kept())
    }
}

#[async_trait]
impl Witness for Replay {
    async fn roots(&mut self) -> Words<Vec<[u8; 32]>> {
        Ok(Some(self.trace().await?.roots()))
    }

    async fn operator(&mut self, number: u32) -> Words<OperatorTrace> {
        Ok(self.trace().await?.operator(number).cloned())
    }

    async fn batch(&mut self, number: u32, cid: Cid) -> Words<Bytes> {
        if !self.kept.contains_key(&number) {
            let kept = self.keep(number).await?;
            self.kept.insert(number, kept);
        }
        Ok(self.kept.get(&number).and_then(|kept| kept.get(&cid).cloned()))
    }
}

/// A witness that has told everything before: its trace, and its batches as inputs.
pub struct Told {
    trace: Option<Trace>,
    batches: Arc<dyn TaskInputs>,
}

impl Told {
    /// A witness that told `trace`, if it told any.
    #[must_use]
    pub fn new(trace: Option<Trace>, batches: Arc<dyn TaskInputs>) -> Self {
        Self { trace, batches }
    }
}

#[async_trait]
impl Witness for Told {
    async fn roots(&mut self) -> Words<Vec<[u8; 32]>> {
        Ok(self.trace.as_ref().map(Trace::roots))
    }

    async fn operator(&mut self, number: u32) -> Words<OperatorTrace> {
        Ok(self.trace.as_ref().and_then(|trace| trace.operator(number).cloned()))
    }

    async fn batch(&mut self, _: u32, cid: Cid) -> Words<Bytes> {
        match self.batches.load(&cid) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Failure::InputMissing(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}
