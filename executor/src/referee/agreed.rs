//! Rows that both parties agree on, in place of the operator that made them.

use std::{collections::HashMap, fmt, sync::Arc};

use bytes::Bytes;
use conun_types::{Cid, Failure};
use datafusion::{
    arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, stream::RecordBatchStreamAdapter},
};
use futures::{StreamExt, stream};

use crate::{canonical, inputs::fault, trace::OperatorTrace};

/// Gives the batches of an operator with their very boundaries: some operators (joins by nested loops) show in the order of
/// their rows where a batch of their input ended.
#[derive(Debug, Clone)]
pub(super) struct AgreedExec {
    properties: Arc<PlanProperties>,
    agreed: Arc<OperatorTrace>,
    blocks: Arc<HashMap<Cid, Bytes>>,
}

impl AgreedExec {
    /// In place of `operator`: what `agreed` names, whose bytes are among `blocks`.
    pub(super) fn new(
        operator: &Arc<dyn ExecutionPlan>,
        agreed: OperatorTrace,
        blocks: Arc<HashMap<Cid, Bytes>>,
    ) -> Self {
        Self { properties: operator.properties().clone(), agreed: Arc::new(agreed), blocks }
    }
}

impl DisplayAs for AgreedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgreedExec: partitions={}", self.agreed.partitions.len())
    }
}

impl ExecutionPlan for AgreedExec {
    fn name(&self) -> &'static str {
        "AgreedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    crate::leaf_plan!();

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let agreed = self.agreed.partitions.get(partition).cloned();
        let agreed = agreed.ok_or_else(|| DataFusionError::Internal(format!("no partition {partition}")))?;
        let (blocks, schema) = (self.blocks.clone(), self.schema());
        let batches = agreed.batches.into_iter().map(move |cid| {
            let bytes = blocks.get(&cid).ok_or_else(|| fault(Failure::InputMissing(cid)))?;
            batch(bytes, &schema)
        });
        // Who saw no end of these rows must not learn that they end here.
        let beyond = (!agreed.ended).then(|| Err(fault(Failure::Refused("it reads on where both stopped".into()))));
        let batches = stream::iter(batches).chain(stream::iter(beyond));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// One batch as it was, of the type that `schema` says.
fn batch(bytes: &Bytes, schema: &SchemaRef) -> Result<RecordBatch> {
    let refuse = |e: conun_types::Error| fault(Failure::Refused(format!("an agreed batch: {}", e.message)));
    let (canonical, chunks) = canonical::decode(bytes).map_err(refuse)?;
    let whole = concat_batches(&canonical, &chunks)?;
    canonical::adapt(&whole, schema).map_err(refuse)
}
