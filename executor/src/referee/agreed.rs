//! Rows that both parties agree on, in place of the operator that made them.

use std::{cmp::Ordering, fmt, sync::Arc};

use bytes::Bytes;
use conun_types::{Cid, Failure};
use datafusion::{
    arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, stream::RecordBatchStreamAdapter},
};
use futures::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};

use super::Party;
use crate::{canonical, inputs::fault, trace::Batches};

/// A batch of agreed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NamedBatch {
    pub(super) cid: Cid,
    /// Who alone names it, as the other one says that it read less; none where both do.
    pub(super) by: Option<Party>,
}

/// What one partition of an operator gave, as far as either party read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AgreedRows {
    batches: Vec<NamedBatch>,
    /// Whether somebody saw the end.
    ended: bool,
}

impl AgreedRows {
    /// The longer of two streams that agree as far as the shorter one goes.
    pub(super) fn of(first: Batches, second: Batches) -> Self {
        let common = first.batches.len().min(second.batches.len());
        let reach = |rows: &Batches| (rows.batches.len(), rows.ended);
        let (longer, party) = match reach(&first).cmp(&reach(&second)) {
            Ordering::Less => (second, Party::Second),
            _ => (first, Party::First),
        };
        let named = |(at, cid)| NamedBatch { cid, by: (at >= common).then_some(party) };
        Self { batches: longer.batches.into_iter().enumerate().map(named).collect(), ended: longer.ended }
    }
}

/// A batch that the last step wants.
#[derive(Debug)]
pub(super) struct Ask {
    /// The operator that gave it.
    pub(super) number: u32,
    pub(super) batch: NamedBatch,
    /// Where its bytes go.
    pub(super) answer: oneshot::Sender<Bytes>,
}

/// Gives the batches of an operator with their very boundaries: some operators (joins by nested loops) show in the order of
/// their rows where a batch of their input ended. Each is asked for when it is read.
#[derive(Debug, Clone)]
pub(super) struct AgreedExec {
    properties: Arc<PlanProperties>,
    number: u32,
    partitions: Arc<Vec<AgreedRows>>,
    asks: mpsc::UnboundedSender<Ask>,
}

impl AgreedExec {
    /// In place of `operator`, which has `number`: the rows of its `partitions`.
    pub(super) fn new(
        operator: &Arc<dyn ExecutionPlan>,
        number: u32,
        partitions: Arc<Vec<AgreedRows>>,
        asks: mpsc::UnboundedSender<Ask>,
    ) -> Self {
        Self { properties: operator.properties().clone(), number, partitions, asks }
    }
}

impl DisplayAs for AgreedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgreedExec: partitions={}", self.partitions.len())
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
        let agreed = self.partitions.get(partition).cloned();
        let agreed = agreed.ok_or_else(|| DataFusionError::Internal(format!("no partition {partition}")))?;
        let (number, asks, schema) = (self.number, self.asks.clone(), self.schema());
        let batches = stream::iter(agreed.batches).then(move |named| {
            let (asks, schema) = (asks.clone(), schema.clone());
            async move { batch(&ask(&asks, number, named).await?, &schema) }
        });
        // Who saw no end of these rows must not learn that they end here.
        let beyond = (!agreed.ended).then(|| Err(fault(Failure::Refused("it reads on where both stopped".into()))));
        let batches = batches.chain(stream::iter(beyond));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

async fn ask(asks: &mpsc::UnboundedSender<Ask>, number: u32, batch: NamedBatch) -> Result<Bytes> {
    let (answer, bytes) = oneshot::channel();
    let gone = || fault(Failure::InputMissing(batch.cid));
    asks.send(Ask { number, batch, answer }).map_err(|_| gone())?;
    bytes.await.map_err(|_| gone())
}

/// One batch as it was, of the type that `schema` says.
fn batch(bytes: &Bytes, schema: &SchemaRef) -> Result<RecordBatch> {
    let refuse = |e: conun_types::Error| fault(Failure::Refused(format!("an agreed batch: {}", e.message)));
    let (canonical, chunks) = canonical::decode(bytes).map_err(refuse)?;
    let whole = concat_batches(&canonical, &chunks)?;
    canonical::adapt(&whole, schema).map_err(refuse)
}
