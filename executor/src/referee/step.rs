//! The last step of a dispute: one operator, or the writer, over agreed rows.

use std::sync::Arc;

use conun_types::{Cid, Failure, OutputBlock, TaskEnvelope};
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;

use super::Place;
use crate::{
    canonical, failure,
    inputs::TaskInputs,
    run::{Ready, run_rewritten},
    trace::isolate,
};

/// What is run, and over which inputs where it reads any.
pub(super) struct LastStep<'a> {
    pub(super) envelope: &'a TaskEnvelope,
    pub(super) inputs: Arc<dyn TaskInputs>,
    /// Where the parties part.
    pub(super) place: &'a Place,
}

impl LastStep<'_> {
    /// Runs it, with `source` in place of the operators that it reads. Whether what comes out is what each party says:
    /// of the writer its vote, of an operator its batch.
    pub(super) async fn fits(
        self,
        votes: [&[OutputBlock]; 2],
        batches: [Option<Cid>; 2],
        source: impl FnMut(u32, &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan>,
    ) -> Result<[bool; 2], Failure> {
        if self.place.operator == 0 {
            let made = self.write(source).await?;
            return Ok(votes.map(|vote| vote == made));
        }
        let made = self.rerun(source).await?;
        Ok(batches.map(|batch| batch == made))
    }

    /// The blocks that the writer makes of the first operator's rows.
    async fn write(
        self,
        mut source: impl FnMut(u32, &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan>,
    ) -> Result<Vec<OutputBlock>, Failure> {
        let output = run_rewritten(self.envelope, self.inputs, |plan| Ok(source(1, &plan))).await?;
        Ok(output.blocks.into_iter().map(|(block, _)| block).collect())
    }

    /// The batch at the place, made by its operator alone; none where its rows end before.
    async fn rerun(
        self,
        mut source: impl FnMut(u32, &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan>,
    ) -> Result<Option<Cid>, Failure> {
        let task = Ready::new(self.envelope, self.inputs)?;
        let operator = isolate(&task.plan, self.place.operator, &mut source)?;
        let batches = operator.execute(self.place.partition as usize, task.context.clone());
        let mut batches = batches.map_err(|e| failure::of(&e))?.skip(self.place.batch as usize);
        let batch = batches.next().await.transpose();
        task.check()?;
        let Some(batch) = batch.map_err(|e| failure::of(&e))? else { return Ok(None) };
        let bytes = canonical::encode(&operator.schema(), &[batch]).map_err(failure::of_encoding)?;
        Ok(Some(Cid::raw(&bytes)))
    }
}
