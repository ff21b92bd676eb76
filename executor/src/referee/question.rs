//! A dispute as a message: what both parties signed and told, for a referee that is asked once.

use std::sync::Arc;

use conun_types::{Error, Failure, OutputBlock, Result, TaskEnvelope, codec, task::MAX_BLOCKS};
use serde::{Deserialize, Serialize};

use super::{Ruling, Told, decide};
use crate::{inputs::TaskInputs, trace::Trace};

/// Two claims about one task, with the traces that their parties told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Question {
    /// The task.
    pub envelope: TaskEnvelope,
    /// The blocks that each party signed.
    pub votes: [Vec<OutputBlock>; 2],
    /// What each party told, if anything.
    pub traces: [Option<Trace>; 2],
}

impl Question {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let question: Self = codec::decode(bytes)?;
        if question.votes.iter().any(|vote| vote.len() > MAX_BLOCKS) {
            return Err(Error::data("a vote of absurd size"));
        }
        Ok(question)
    }

    /// Decides it. `inputs` are those of the task, and batches that the traces name.
    ///
    /// # Errors
    /// As [`decide`].
    pub async fn decide(self, inputs: Arc<dyn TaskInputs>) -> Result<Ruling, Failure> {
        let [mut first, mut second] = self.traces.map(|trace| Told::new(trace, inputs.clone()));
        decide(&self.envelope, [&self.votes[0], &self.votes[1]], [&mut first, &mut second], inputs).await
    }
}
