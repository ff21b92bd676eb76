//! The leaf that reads blocks of earlier stages: partition by partition, block by block, strictly in order.
//!
//! Ballista's reader shuffles its sources at random; here the order is part of the plan, hence of the task's hash.

use std::{fmt, sync::Arc};

use conun_types::{Failure, InputBlock};
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, LexOrdering},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    canonical::{Batches, adapt},
    inputs::{fault, load},
};

/// Reads canonical blocks as the input of a stage.
#[derive(Debug, Clone)]
pub struct BlockReaderExec {
    schema: SchemaRef,
    partitions: Arc<Vec<Vec<InputBlock>>>,
    ordering: Option<LexOrdering>,
    properties: Arc<PlanProperties>,
}

impl BlockReaderExec {
    /// A reader whose partition `i` gives the rows of `partitions[i]`, in order, as `schema`.
    ///
    /// `partitioning` is what operators above may rely on (joins check that their sides are hashed alike).
    ///
    /// # Errors
    /// Where `partitioning` is of another number of partitions.
    pub fn try_new(schema: SchemaRef, partitions: Vec<Vec<InputBlock>>, partitioning: Partitioning) -> Result<Self> {
        if partitioning.partition_count() != partitions.len() {
            let (got, expected) = (partitions.len(), partitioning.partition_count());
            return Err(DataFusionError::Plan(format!("{got} partitions of blocks, its partitioning has {expected}")));
        }
        let properties = Self::properties_of(EquivalenceProperties::new(schema.clone()), partitioning);
        Ok(Self { schema, partitions: Arc::new(partitions), ordering: None, properties })
    }

    /// The same reader, each of whose partitions is known to be sorted by `ordering`.
    #[must_use]
    pub fn with_ordering(mut self, ordering: LexOrdering) -> Self {
        let equivalences = EquivalenceProperties::new_with_orderings(self.schema.clone(), [ordering.clone()]);
        self.properties = Self::properties_of(equivalences, self.properties.partitioning.clone());
        self.ordering = Some(ordering);
        self
    }

    fn properties_of(equivalences: EquivalenceProperties, partitioning: Partitioning) -> Arc<PlanProperties> {
        let properties =
            PlanProperties::new(equivalences, partitioning, EmissionType::Incremental, Boundedness::Bounded);
        Arc::new(properties)
    }

    /// The blocks of each partition.
    #[must_use]
    pub fn partitions(&self) -> &[Vec<InputBlock>] {
        &self.partitions
    }

    /// The order within each partition, where one is known.
    #[must_use]
    pub fn ordering(&self) -> Option<&LexOrdering> {
        self.ordering.as_ref()
    }
}

impl DisplayAs for BlockReaderExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks: usize = self.partitions.iter().map(Vec::len).sum();
        write!(f, "BlockReaderExec: partitions={}, blocks={blocks}", self.partitions.len())
    }
}

impl ExecutionPlan for BlockReaderExec {
    fn name(&self) -> &'static str {
        "BlockReaderExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    crate::leaf_plan!();

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let blocks = self.partitions.get(partition).cloned();
        let blocks = blocks.ok_or_else(|| DataFusionError::Internal(format!("no partition {partition}")))?;
        let schema = self.schema.clone();
        let batches = stream::iter(blocks)
            .map(move |block| read_block(&context, &block, schema.clone()).map(stream::iter))
            .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches)))
    }
}

/// The batches of one block as the plan's schema has them, decoded as they are asked for.
fn read_block(
    context: &TaskContext,
    block: &InputBlock,
    schema: SchemaRef,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let cid = block.cid;
    let refuse = move |e: conun_types::Error| fault(Failure::Refused(format!("input {cid}: {}", e.message)));
    let batches = Batches::open(load(context, &cid)?).map_err(refuse)?;
    Ok(batches.map(move |batch| batch.and_then(|batch| adapt(&batch, &schema)).map_err(refuse)))
}
