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

/// A party that backs up the output that it signed. It may be a stranger: nothing that it says is believed for its own
/// sake, and a party that says nothing has lost.
#[async_trait]
pub trait Witness: Send {
    /// The root of every operator, told before the party can know where the other one differs.
    async fn roots(&mut self) -> Option<Vec<[u8; 32]>>;

    /// What operator `number` gave.
    async fn operator(&mut self, number: u32) -> Option<OperatorTrace>;

    /// A batch that operator `number` gave.
    async fn batch(&mut self, number: u32, cid: Cid) -> Option<Bytes>;
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
    async fn roots(&mut self) -> Option<Vec<[u8; 32]>> {
        Some(self.trace().await.ok()?.roots())
    }

    async fn operator(&mut self, number: u32) -> Option<OperatorTrace> {
        self.trace().await.ok()?.operator(number).cloned()
    }

    async fn batch(&mut self, number: u32, cid: Cid) -> Option<Bytes> {
        if !self.kept.contains_key(&number) {
            let kept = self.keep(number).await.ok()?;
            self.kept.insert(number, kept);
        }
        self.kept.get(&number)?.get(&cid).cloned()
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
    async fn roots(&mut self) -> Option<Vec<[u8; 32]>> {
        Some(self.trace.as_ref()?.roots())
    }

    async fn operator(&mut self, number: u32) -> Option<OperatorTrace> {
        self.trace.as_ref()?.operator(number).cloned()
    }

    async fn batch(&mut self, _: u32, cid: Cid) -> Option<Bytes> {
        self.batches.load(&cid).ok()
    }
}
